"""Tables of runs, read from their folders and nothing else. `python -m fairdd.report RUN...` prints one."""

import argparse
from pathlib import Path

from fairdd.errors import UserError, exit_in_words
from fairdd.runs import FLAGS, RESULTS, read_json

FIGURES = {"accuracy": "accuracy", "DEO_M": "DEO_M", "DEO_A": "DEO_A"}


def cell(summary):
    """mean ± std of one figure, in percent."""
    if summary["mean"] is None or summary["mean"] != summary["mean"]:
        return "undefined"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.2f}"
    return f"{summary['mean']:.2f}{spread}"


def figures_line(summary):
    """accuracy 91.24 ± 0.31 | DEO_M ... | DEO_A ..."""
    return " | ".join(f"{name} {cell(summary[name])}" for name in FIGURES)


def cell_table(images):
    """Number of images in each (class, group), as text. images: GroupedImages"""
    rows = zip(images.class_names, images.counts().t().tolist(), strict=True)
    head = [f"{len(images)} training images", *images.group_names]
    return text_table([head, *([name, *map(str, counts)] for name, counts in rows)])


def cell_range(part, images):
    """How many images the smallest and the largest (class, group) have, in a sentence."""
    counts = images.counts()
    return f"{len(images)} {part} images, {counts.min()} to {counts.max()} in each (class, group)"


def text_table(rows):
    """Rows of strings in aligned columns, the first to the left."""
    first, *rest = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = ([row[0].ljust(first), *map(str.rjust, row[1:], rest)] for row in rows)
    return "\n".join("  ".join(line) for line in lines)


def run_name(flags):
    """What a run is, in a reader's words."""
    if "trained_on" in flags:           # an evaluation: python -m fairdd.evaluate
        return flags["trained_on"]
    if flags["Iteration"] == 0:
        return {"real": "random real images", "balanced": "group-balanced real images", "noise": "noise"}[flags["init"]]
    names = {"vanilla": flags["method"], "fairdd": f"{flags['method']} + FairDD"}
    return names.get(flags["align"], f"{flags['method']} + {flags['align']}")


def compare(folders):
    """A table of finished runs and the names of their pictures. -> text. Raises UserError if one is not finished."""
    rows, pictures = [["%", *FIGURES.values(), "networks"]], []
    for folder in map(Path, folders):
        if not (folder / RESULTS).exists():
            raise UserError(f"{folder} holds no finished run (no {RESULTS})")
        results, flags = read_json(folder / RESULTS), read_json(folder / FLAGS)["flags"]
        rows.append([run_name(flags), *(cell(results[name]) for name in FIGURES), str(results["accuracy"]["n"])])
        pictures += sorted(map(str, folder.glob("experiment*.png")))[-1:]
    return text_table(rows) + "\n\npictures:\n" + "\n".join(f"  {name}" for name in pictures)


@exit_in_words
def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m fairdd.report", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run")
    print(compare(parser.parse_args(argv).runs))


if __name__ == "__main__":
    main()
