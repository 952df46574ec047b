"""Tables of comparisons: numbers at full precision for CSV; text for Markdown, LaTeX and the HTML page."""

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from fairdd.evaluation.metrics import covered_cells
from fairdd.report.comparison import COVERAGE, MIN_SETS, RESAMPLES, Comparison, RunGroup, paired_differences
from fairdd.run.formatting import format_metric

COLUMNS = ["comparison", "run", "tested_with", "metric", "mean", "std", "networks", "sets", "difference", "low", "high",
           "bounds", "pairs", "cells_covered", "cells", "folders"]
NAME_COLUMNS = ["run", "tested with"]
DIFFERENCE_PREFIX = "difference in "
METRICS_NOTE = (
    "In percent: mean ± standard deviation over the networks of all synthetic sets. DEO_M and DEO_A are gaps between "
    "groups: 0 is fair."
)
DIFFERENCES_NOTE = (
    "Difference from {}: the mean over pairs of synthetic sets with the same seed and experiment (sets with the same "
    "initialization started from the same images), and within a pair over networks with the same number (at the same "
    f"iteration they started from the same weights). In parentheses, for fewer than {MIN_SETS} pairs of sets: the "
    f"smallest and the largest difference of a pair. In brackets, for {MIN_SETS} or more: the {COVERAGE} % bootstrap "
    f"interval, from {RESAMPLES:,} resamples of the pairs of sets and, within each, of the pairs of networks."
)
PROVENANCE = "How the rows were made, and the command of each row's first seed"
NOT_AVAILABLE = "–"


def metrics_table(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """Return one row per group of runs, model and metric, at full precision; NaN where undefined or not available."""
    tables = [model_table(comparison, group, model) for comparison in comparisons for group in comparison.groups
              for model in group.models]
    return pd.concat(tables, ignore_index=True).astype({"pairs": "Int64"})


def model_table(comparison: Comparison, group: RunGroup, model: str) -> pd.DataFrame:
    """Return the rows of metrics_table for a group of runs and a model."""
    networks, baseline = group.networks[model], comparison.baseline(group)
    values, (covered, cells) = networks.drop(columns="table"), covered_cells(group.table(model))
    table = pd.DataFrame({"mean": values.mean(skipna=False), "std": values.std(skipna=False)})
    if baseline is not None and model in baseline.models:
        table = table.join(paired_differences(group, baseline, model))
    sets = networks.index.droplevel(group.network_levels).nunique()
    folders = " ".join(str(run.folder) for run in group.runs)
    constants = {"comparison": comparison.title, "run": group.name, "tested_with": model, "networks": len(networks),
                 "sets": sets, "cells_covered": covered, "cells": cells, "folders": folders}
    return table.rename_axis("metric").reset_index().assign(**constants).reindex(columns=COLUMNS)


def text_tables(comparison: Comparison) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return three tables of text with one row per group and model, and NAME_COLUMNS first.

    They hold the main metrics, their differences from the baseline (only rows that have one), and the other metrics
    that are defined in some row.
    """
    records = metrics_table([comparison]).rename(columns={"tested_with": "tested with"})
    records["text"] = [format_cell(record) for record in records.to_dict("records")]
    records["difference text"] = [format_difference(record) for record in records.to_dict("records")]
    rows = records.groupby(NAME_COLUMNS, sort=False)[["sets", "networks", "pairs"]].first()
    wide = records.pivot(index=NAME_COLUMNS, columns="metric", values=["text", "difference text"]).reindex(rows.index)
    texts, differences = wide["text"].fillna(NOT_AVAILABLE), wide["difference text"][list(comparison.metrics)]
    other = [name for name in records["metric"].unique() if name not in comparison.metrics
             and set(texts[name]) - {"undefined", NOT_AVAILABLE}]
    main = rows[["sets", "networks"]].join(texts[list(comparison.metrics)])
    differences = rows[["pairs"]].join(differences.add_prefix(DIFFERENCE_PREFIX)).dropna(subset="pairs")
    tables = main, differences, texts[other]
    return tuple(table.astype(str).reset_index() for table in tables)


def main_table(comparison: Comparison) -> pd.DataFrame:
    """Return the main metrics and their differences from the baseline as one table of text."""
    main, differences, _ = text_tables(comparison)
    return main.merge(differences, how="left", on=NAME_COLUMNS).fillna(NOT_AVAILABLE)


def format_cell(record: Mapping) -> str:
    """Return "mean ± std" of a row of metrics_table, marked "*" if the metric does not cover all cells."""
    text = format_metric({"mean": record["mean"], "std": None if math.isnan(record["std"]) else record["std"]})
    return text + "*" * (record["cells_covered"] < record["cells"] and text != "undefined")


def format_difference(record: Mapping) -> str:
    """Return the difference of a row of metrics_table: "+56.20 [+50.10, +60.30]", a range in parentheses."""
    if math.isnan(record["difference"]):
        return "undefined"
    templates = {"interval": " [{:+.2f}, {:+.2f}]", "range": " ({:+.2f} to {:+.2f})"}
    bounds = templates.get(record["bounds"], "").format(record["low"], record["high"])
    return f"{record['difference']:+.2f}{bounds}" + "*" * (record["cells_covered"] < record["cells"])


def coverage_notes(table: pd.DataFrame) -> list[str]:
    """Return what the mark "*" means in the rows of a metrics_table, one note for each number of covered cells."""
    partial = table[table["cells_covered"] < table["cells"]].groupby(["cells_covered", "cells"])["run"].unique()
    return [f"* covers {covered} of {cells} (class, group) cells, because the test set has no image of the others: "
            f"{', '.join(names)}" for (covered, cells), names in partial.items()]


def notes(comparison: Comparison) -> list[str]:
    """Return the notes below a table: the meaning of marks, and the rows with --factor that lack a matched control."""
    controls = {group.flags.get("factor", 1) for group in comparison.groups
                if group.flags["Iteration"] == 0 and group.flags.get("init") == "balanced"}
    unmatched = [group for group in comparison.groups if group.flags["Iteration"] > 0
                 and group.flags.get("factor", 1) not in controls | {1}]
    return coverage_notes(metrics_table([comparison])) + [
        f"no matched control: {group.name}; add group-balanced real images stored the same way "
        f"(--init balanced --Iteration 0 --factor {group.flags['factor']})" for group in unmatched]


def differences_note(comparison: Comparison) -> str:
    """Return what the differences are from, and how their intervals are computed."""
    vanilla = comparison.against is None
    return DIFFERENCES_NOTE.format("the vanilla runs with the same flags" if vanilla else f'row "{comparison.against}"')


def to_csv(comparisons: list[Comparison]) -> str:
    """Return metrics_table as CSV; undefined and unavailable values are empty."""
    return metrics_table(comparisons).to_csv(index=False, lineterminator="\n")


def to_markdown(comparisons: list[Comparison]) -> str:
    """Return a section for each comparison: its table, notes and, in a collapsed block, how each row was made."""
    lines = ["# Report", "", METRICS_NOTE, "", escape_markdown(differences_note(comparisons[0])), ""]
    for comparison in comparisons:
        table = main_table(comparison)
        alignment = ["---:" if name not in NAME_COLUMNS else "---" for name in table]
        table[NAME_COLUMNS] = table[NAME_COLUMNS].map(escape_markdown)
        lines += [f"## {escape_markdown(comparison.title)}", ""]
        rows = [table.columns, alignment, *table.replace(r"\*", r"\\*", regex=True).values]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += [f"\n{escape_markdown(note)}" for note in notes(comparison)]
        lines += ["", f"<details><summary>{PROVENANCE}</summary>", "", "```bash"]
        lines += [line for group in comparison.groups for line in provenance(group)] + ["```", "", "</details>", ""]
    return "\n".join(lines)


def provenance(group: RunGroup) -> list[str]:
    """Return seeds, minutes and hardware of a group as a shell comment, and the command of its first run."""
    first = group.runs[0]
    seeds = ", ".join(str(run.flags["seed"]) for run in group.runs)
    minutes = ", ".join("?" if run.minutes is None else f"{run.minutes:.1f}" for run in group.runs)
    hardware, torch, python = (first.versions.get(name, "?") for name in ("hardware", "torch", "python"))
    comment = f"# {group.name} | seed {seeds} | minutes {minutes} | {hardware}, torch {torch}, python {python}"
    return [line.replace("```", "` ` `") for line in (" ".join(comment.split()), first.command())]


def escape_markdown(text: str) -> str:
    """Return text that neither ends its table cell nor is markup."""
    return " ".join("".join(f"\\{sign}" if sign in "\\|<>*`[]" else sign for sign in text).split())


def to_latex(comparisons: list[Comparison]) -> str:
    """Return a tabular for each comparison, to be read with \\input; it needs no package."""
    lines = [f"% {METRICS_NOTE}", f"% {' '.join(differences_note(comparisons[0]).split())}"]
    rules = [{"selector": f"{name}rule", "props": ":hline"} for name in ("top", "mid", "bottom")]
    for comparison in comparisons:
        table = main_table(comparison)
        table[NAME_COLUMNS] = table[NAME_COLUMNS].map(lambda text: " ".join(text.split()))
        numbers = list(table.columns.drop(NAME_COLUMNS))
        style = table.style.format(escape="latex", subset=NAME_COLUMNS).format(latex_number, subset=numbers)
        style.format_index(escape="latex", axis="columns").hide(axis="index").set_table_styles(rules)
        comments = [" ".join(text.split()) for text in (comparison.title, *notes(comparison))]
        lines += ["", *(f"% {comment}" for comment in comments)]
        lines += [style.to_latex(column_format="ll" + "r" * len(numbers))]
    return "\n".join(lines)


def latex_number(text: str) -> str:
    """Return a cell in math mode, so that its minus sign is typeset as one."""
    if not any(map(str.isdigit, text)):
        return "--" if text == NOT_AVAILABLE else text
    for plain, latex in {" ± ": r" \pm ", " [": r"\ [", " (": r"\ (", " to ": r"\mbox{ to }", "*": "^{*}"}.items():
        text = text.replace(plain, latex)
    return f"${text}$"
