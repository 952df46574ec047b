"""Tables of comparisons: numbers at full precision for CSV; text for Markdown, LaTeX and the HTML page."""

import math
from collections.abc import Iterable
from dataclasses import asdict

import pandas as pd

from fairdd.report.comparison import COVERAGE, RESAMPLES, Comparison, PairedDifference, RunGroup
from fairdd.run.formatting import MAIN_METRICS, format_metric

NAME_COLUMNS = ["run", "tested with"]
METRIC_COLUMNS = ["sets", "networks", *MAIN_METRICS]
DIFFERENCE_COLUMNS = ["pairs", *(f"difference in {name}" for name in MAIN_METRICS)]
METRICS_NOTE = (
    "In percent: mean ± standard deviation over the networks of all synthetic sets. DEO_M and DEO_A are gaps between "
    "groups: 0 is fair."
)
DIFFERENCES_NOTE = (
    "Difference from {}: the mean over the pairs of synthetic sets with the same seed and experiment (sets with the "
    "same initialization started from the same images) and, within a pair, over the networks with the same number (at "
    f"the same iteration they started from the same weights). In brackets is its {COVERAGE} % bootstrap interval: "
    f"{RESAMPLES:,} times, pairs of sets are drawn with replacement, as many as there are, and from each drawn pair as "
    f"many pairs of networks as it has; the interval holds the central {COVERAGE} % of the means. With one pair of "
    "sets it covers the networks only. With few pairs it is too narrow: few sets cannot show how much sets differ."
)
PROVENANCE = "How the rows were made, and the command of each row's first seed"
NOT_AVAILABLE = "–"


def metrics_table(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """Return one row per group of runs, model and metric, at full precision; NaN where undefined or not available."""
    records = []
    for comparison in comparisons:
        for group, model in comparison.rows():
            for metric in group.metrics(model):
                difference = comparison.difference(group, metric, model) or PairedDifference()
                records.append({
                    "comparison": comparison.title, "run": group.name, "tested_with": model, "metric": metric,
                    **group.summary(metric, model), "sets": group.num_sets(model), **asdict(difference),
                    "folders": " ".join(str(run.folder) for run in group.runs),
                })
    return pd.DataFrame(records).rename(columns={"n": "networks"}).astype({"pairs": "Int64"})


def main_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row of text per group of runs and model: the main metrics, and their differences from the baseline."""
    rows = []
    for group, model in comparison.rows():
        summaries = [group.summary(metric, model) for metric in MAIN_METRICS]
        differences = [comparison.difference(group, metric, model) for metric in MAIN_METRICS]
        pairs = str(differences[0].pairs) if differences[0] else NOT_AVAILABLE
        rows.append([group.name, model, str(group.num_sets(model)), str(summaries[0]["n"]),
                     *map(format_metric, summaries), pairs, *map(format_difference, differences)])
    return pd.DataFrame(rows, columns=NAME_COLUMNS + METRIC_COLUMNS + DIFFERENCE_COLUMNS)


def other_metrics_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row of text per group and model: every metric beyond the main ones that is defined in some row."""
    rows = [{"run": group.name, "tested with": model}
            | {metric: format_metric(group.summary(metric, model)) for metric in group.metrics(model)
               if metric not in MAIN_METRICS} for group, model in comparison.rows()]
    table = pd.DataFrame(rows).fillna(NOT_AVAILABLE)
    return table.loc[:, [not set(table[name]) <= {"undefined", NOT_AVAILABLE} for name in table]]


def format_difference(difference: PairedDifference | None) -> str:
    """Return a difference as text: "+56.20 [+50.10, +60.30]"."""
    if difference is None:
        return NOT_AVAILABLE
    if math.isnan(difference.difference):
        return "undefined"
    interval = "" if difference.low is None else f" [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{difference.difference:+.2f}{interval}"


def differences_note(comparison: Comparison) -> str:
    """Return what the differences are from, and how their intervals are computed."""
    vanilla = comparison.against is None
    return DIFFERENCES_NOTE.format("the vanilla runs with the same flags" if vanilla else f'row "{comparison.against}"')


def to_csv(comparisons: list[Comparison]) -> str:
    """Return metrics_table as CSV; undefined and unavailable values are empty."""
    return metrics_table(comparisons).to_csv(index=False, lineterminator="\n")


def to_markdown(comparisons: list[Comparison]) -> str:
    """Return a section for each comparison: its table and, in a collapsed block, how each row was made."""
    lines = ["# Report", "", METRICS_NOTE, "", escape_markdown(differences_note(comparisons[0])), ""]
    for comparison in comparisons:
        table = main_table(comparison)
        alignment = ["---"] * len(NAME_COLUMNS) + ["---:"] * (len(table.columns) - len(NAME_COLUMNS))
        table[NAME_COLUMNS] = table[NAME_COLUMNS].map(escape_markdown)
        lines += [f"## {escape_markdown(comparison.title)}", ""]
        lines += [f"| {' | '.join(row)} |" for row in [table.columns, alignment, *table.to_numpy()]]
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
        numbers = list(table.columns[len(NAME_COLUMNS):])
        style = table.style.format(escape="latex", subset=NAME_COLUMNS).format(latex_number, subset=numbers)
        style.format_index(escape="latex", axis="columns").hide(axis="index").set_table_styles(rules)
        latex = style.to_latex(column_format="ll" + "r" * len(numbers))
        lines += ["", f"% {' '.join(comparison.title.split())}", latex]
    return "\n".join(lines)


def latex_number(text: str) -> str:
    """Return a cell in math mode, so that its minus sign is typeset as one."""
    if not any(map(str.isdigit, text)):
        return "--" if text == NOT_AVAILABLE else text
    return "$" + text.replace(" ± ", r" \pm ").replace(" [", r"\ [") + "$"
