"""Figures of runs in tables: text for the terminal; Markdown, LaTeX and CSV for papers and programs."""

import csv
import io
import math

from fairdd.report.comparison import COMPARED, COVERAGE, RESAMPLES, change

NAMES, FIGURES = ["run", "tested with"], ["sets", "networks", *COMPARED]
CHANGES = ["pairs", *(f"change of {name}" for name in COMPARED)]
HEAD = NAMES + FIGURES + CHANGES
CSV_HEAD = ["comparison", "run", "tested_with", "figure", "mean", "std", "networks", "sets", "change", "low", "high",
            "pairs", "folders"]
FIGURES_NOTE = (
    "In percent: mean ± standard deviation over the networks of all synthetic sets. DEO_M and DEO_A are gaps between "
    "groups: 0 is fair."
)
VANILLA, NAMED = "the vanilla runs of the same flags", 'the row "{}"'
CHANGES_NOTE = (
    "Change: the difference from {}, over the pairs of synthetic sets that have the same seed and experiment (those of "
    "one start began from the same images) and, within a pair, over the networks of the same number (at the same "
    f"iteration they began from the same weights). In brackets its {COVERAGE} % bootstrap interval: {RESAMPLES:,} "
    "times, pairs of sets are drawn with replacement, as many as there are, and of each drawn pair as many pairs of "
    f"networks as it has; the interval holds the middle {COVERAGE} % of the means. With one pair of sets it covers "
    "networks only, and with few it is too narrow: it cannot know how much a set of another seed would differ."
)
HOW_MADE = "How the rows were made, and the command of each row's first seed"
WIDTH = 110         # of the terminal, in letters
NONE = "–"          # in a cell that has no number
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
         **{sign: f"\\{sign}" for sign in "&%$#_{}"}}


def cell(summary):
    """mean ± std of one figure, in percent."""
    if summary["mean"] is None or math.isnan(summary["mean"]):
        return "undefined"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.2f}"
    return f"{summary['mean']:.2f}{spread}"


def figures_line(summary):
    """accuracy 91.24 ± 0.31 | DEO_M ... | DEO_A ..."""
    return " | ".join(f"{name} {cell(summary[name])}" for name in COMPARED)


def cell_table(images):
    """Number of images in each (class, group), as text; many groups stand below each other. images: GroupedImages"""
    head = f"{len(images)} training images"
    wide = count_table(head, images.class_names, images.group_names, images.counts().t())
    if len(wide.partition("\n")[0]) <= WIDTH:
        return wide
    return count_table(head, images.group_names, images.class_names, images.counts())


def count_table(head, row_names, column_names, counts):
    """counts: (R, C) of the rows and columns of these names -> text"""
    rows = zip(row_names, counts.tolist(), strict=True)
    return text_table([[head, *column_names], *([name, *map(str, row)] for name, row in rows)])


def cell_range(part, images):
    """How many images the smallest and the largest (class, group) have, in a sentence."""
    counts = images.counts()
    return f"{len(images)} {part} images, {counts.min()} to {counts.max()} in each (class, group)"


def text_table(rows):
    """Rows of strings in aligned columns, the first to the left."""
    first, *rest = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = ([row[0].ljust(first), *map(str.rjust, row[1:], rest)] for row in rows)
    return "\n".join("  ".join(line) for line in lines)


def rows(comparison):
    """The cells under HEAD: a row for each setting and each kind of network it was tested with."""
    for setting in comparison.settings:
        baseline = comparison.baseline(setting)
        for model in setting.models:
            summaries = [setting.summary(name, model) for name in COMPARED]
            changes = [change(setting, baseline, name, model) for name in COMPARED]
            pairs = str(changes[0].pairs) if changes[0] else NONE
            yield [setting.name, model, str(setting.num_sets(model)), str(summaries[0]["n"]), *map(cell, summaries),
                   pairs, *map(change_cell, changes)]


def change_cell(change):
    """+56.20 [+50.10, +60.30]"""
    if change is None:
        return NONE
    if math.isnan(change.mean):
        return "undefined"
    between = "" if change.low is None else f" [{change.low:+.2f}, {change.high:+.2f}]"
    return f"{change.mean:+.2f}{between}"


def markdown(comparisons):
    """A section for each comparison: its table, and folded below it how each row was made."""
    lines = ["# Report", "", FIGURES_NOTE, "", markdown_text(changes_note(comparisons[0].against)), ""]
    for comparison in comparisons:
        table = [HEAD, ["---", "---"] + ["---:"] * (len(HEAD) - 2), *rows(comparison)]
        lines += [f"## {markdown_text(comparison.title)}", ""]
        lines += [f"| {' | '.join([*map(markdown_text, row[:2]), *row[2:]])} |" for row in table] + [""]
        lines += [f"<details><summary>{HOW_MADE}</summary>", "", "```bash"]
        lines += [line for setting in comparison.settings for line in made(setting)] + ["```", "", "</details>", ""]
    return "\n".join(lines)


def made(setting):
    """Seeds, minutes and hardware of a row in a comment, and the command of its first run. -> two lines"""
    seeds = ", ".join(str(run.flags["seed"]) for run in setting.runs)
    minutes = ", ".join("?" if run.minutes is None else f"{run.minutes:.1f}" for run in setting.runs)
    first = setting.runs[0]
    hardware, torch, python = (first.versions.get(name, "?") for name in ("hardware", "torch", "python"))
    line = f"# {setting.name} | seed {seeds} | minutes {minutes} | {hardware}, torch {torch}, python {python}"
    line = " ".join(line.split())
    return [text.replace("```", "` ` `") for text in (line, first.command())]       # what would end the block


def changes_note(against):
    """What the changes are from, and how their intervals were made. against: as of a Comparison -> text"""
    return CHANGES_NOTE.format(VANILLA if against is None else NAMED.format(against))


def markdown_text(text):
    """Text that keeps its cell and is no markup."""
    for sign in "\\|<>*`[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def latex(comparisons):
    """A tabular for each comparison: \\input the file; it needs no package."""
    lines = ["% " + FIGURES_NOTE, "% " + latex_text(changes_note(comparisons[0].against))]
    for comparison in comparisons:
        lines += ["", "% " + latex_text(comparison.title), r"\begin{tabular}{ll" + "r" * (len(HEAD) - 2) + "}"]
        lines += [r"\hline", latex_row(HEAD, latex_text), r"\hline"]
        lines += [latex_row(row, latex_number) for row in rows(comparison)]
        lines += [r"\hline", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def latex_row(cells, rest):
    """One line; the first two cells are text, rest makes the others."""
    return " & ".join([*map(latex_text, cells[:2]), *map(rest, cells[2:])]) + r" \\"


def latex_text(text):
    return " ".join("".join(LATEX.get(sign, sign) for sign in text).split())


def latex_number(text):
    """A cell with numbers in maths, so that a minus is one."""
    if not any(map(str.isdigit, text)):
        return "--" if text == NONE else text
    return "$" + text.replace(" ± ", r" \pm ").replace(" [", r"\ [") + "$"


def csv_table(comparisons):
    """Every figure of every setting in a row of its own, at full precision; what is undefined is left empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for comparison in comparisons:
        for setting in comparison.settings:
            for model in setting.models:
                for figure in setting.figures(model):
                    writer.writerow(csv_row(comparison, setting, figure, model))
    return content.getvalue()


def csv_row(comparison, setting, figure, model):
    """The cells under CSV_HEAD."""
    summary = setting.summary(figure, model)
    moved = change(setting, comparison.baseline(setting), figure, model)
    changes = [moved.mean, moved.low, moved.high, moved.pairs] if moved else [None] * 4
    numbers = [summary["mean"], summary["std"], summary["n"], setting.num_sets(model), *changes]
    kept = ["" if value is None or math.isnan(value) else repr(value) for value in numbers]
    return [comparison.title, setting.name, model, figure, *kept, " ".join(str(run.folder) for run in setting.runs)]
