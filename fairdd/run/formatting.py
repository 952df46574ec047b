"""Text for the terminal and the log: names of runs, metrics with their spread, aligned tables, wrapped lists."""

import math
import textwrap
from collections.abc import Mapping, Sequence

from torch import Tensor

from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.metrics import covered_cells

MAIN_METRICS = ("accuracy", "DEO_M", "DEO_A")
WIDTH = 110         # characters per line


def run_name(flags: Mapping) -> str:
    """Return what a run is, as a reader would say it: "DM + FairDD", "random real images"."""
    if "trained_on" in flags:       # an evaluation
        return flags["trained_on"]
    if flags["Iteration"] == 0:
        names = {"real": "random real images", "balanced": "group-balanced real images"}
        return names.get(flags["init"], flags["init"])
    names = {"vanilla": flags["method"], "fairdd": f"{flags['method']} + FairDD"}
    return names.get(flags["align"], f"{flags['method']} + {flags['align']}")


def format_metric(summary: Mapping) -> str:
    """Return "mean ± standard deviation" of a metric in percent. summary: {"mean", "std", ...}, as from summarize."""
    if summary["mean"] is None or math.isnan(summary["mean"]):
        return "undefined"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.2f}"
    return f"{summary['mean']:.2f}{spread}"


def format_metrics(summary: Mapping, names: Sequence[str] = MAIN_METRICS) -> str:
    """Return the metrics of these names in one line: "accuracy 91.24 ± 0.31 | DEO_M ... | DEO_A ..."."""
    return " | ".join(f"{name} {format_metric(summary[name])}" for name in names)


def format_coverage(table: Sequence[Sequence[float | None]]) -> str:
    """Return " | covers 18 of 20 cells" if some (group, class) cells have no test images, else nothing."""
    covered, cells = covered_cells(table)
    return f" | covers {covered} of {cells} cells" if covered < cells else ""


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of strings as aligned columns; the first column is left-aligned, the others right-aligned."""
    first, *rest = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = ([row[0].ljust(first), *map(str.rjust, row[1:], rest)] for row in rows)
    return "\n".join("  ".join(line) for line in lines)


def format_counts(images: GroupedImages) -> str:
    """Return the number of training images in each (class, group), transposed if there are many groups."""
    title = f"{len(images)} training images"
    wide = count_table(title, images.class_names, images.group_names, images.counts().t())
    if len(wide.partition("\n")[0]) <= WIDTH:
        return wide
    return count_table(title, images.group_names, images.class_names, images.counts())


def count_table(title: str, row_names: Sequence[str], column_names: Sequence[str], counts: Tensor) -> str:
    """Return counts (R, C) as a text table with these names."""
    rows = zip(row_names, counts.tolist(), strict=True)
    return text_table([[title, *column_names], *([name, *map(str, row)] for name, row in rows)])


def format_cell_range(split: str, images: GroupedImages) -> str:
    """Return how many images the smallest and the largest (class, group) of a split have, as a sentence."""
    counts = images.counts()
    return f"{len(images)} {split} images, {counts.min()} to {counts.max()} in each (class, group)"


def format_flags(flags: Mapping) -> str:
    """Return "name value, name value, ..." wrapped to the width of a terminal."""
    return textwrap.fill(", ".join(f"{name} {value}" for name, value in flags.items()), WIDTH)
