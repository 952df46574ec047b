"""The report as one HTML page that needs nothing else: no script, no request; pictures and plots stand inside it."""

import base64
from html import escape
from pathlib import Path

import numpy as np
from matplotlib import colormaps

from fairdd.report import plots, tables
from fairdd.report.comparison import COMPARED

STYLE = Path(__file__).with_suffix(".css")
HEAT = colormaps["cividis"]         # reads the same with every kind of color vision, and in gray


def page(comparisons):
    """The whole page. comparisons: list of Comparison -> str"""
    body = "\n".join(section for comparison in comparisons for section in sections(comparison))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FairDD report</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
<h1>FairDD report</h1>
{body}
</body>
</html>
"""


def sections(comparison):
    """The parts of a comparison, each with a sentence on how to read it. -> yields HTML"""
    settings = comparison.settings
    numbered = list(enumerate(settings))        # so that each keeps its sign in every plot
    yield f"<h2>{escape(comparison.title)}</h2>"
    yield from figures_and_changes(list(tables.rows(comparison)), comparison.against)
    yield other_figures(settings)
    yield part("Accuracy against fairness", "Every point is a run, its bars one standard deviation over its networks; "
               "the lower right corner is accurate and fair.", keys(numbered),
               row([plots.trade_off(numbered)], "plots"))
    yield pictures(settings)
    yield part("Accuracy of each (group, class)", "In percent, the mean over networks, from 0 (dark blue) to 100 "
               "(yellow): a fair set has columns of one color, since no group is served worse than another.",
               row(named(setting.name, heat_map(setting)) for setting in settings))
    yield courses([(number, setting) for number, setting in numbered if setting.num_evaluations > 1])
    yield planes(settings)
    yield cell_counts(settings)
    yield part("Runs", "How each was made, and the command that makes it again.",
               "\n".join(of_run(setting, run) for setting in settings for run in setting.runs))


def part(title, how_to_read, *content):
    return "\n".join([f"<h3>{title}</h3>", f"<p>{how_to_read}</p>", *content])


def figures_and_changes(rows, against):
    """The table of every run, and the one of those that have a baseline. rows: as under HEAD"""
    end = len(tables.NAMES + tables.FIGURES)
    yield f"<p>{escape(tables.FIGURES_NOTE)}</p>"
    yield table([tables.NAMES + tables.FIGURES, *(row[:end] for row in rows)])
    changed = [row[:2] + row[end:] for row in rows if row[end] != tables.NONE]
    if changed:
        head = tables.NAMES + tables.CHANGES
        yield part(f"Change against {escape(against or 'vanilla')}", escape(tables.changes_note(against)),
                   table([head, *changed]))


def other_figures(settings):
    """What networks were measured by beyond the columns of the first table."""
    names = list(dict.fromkeys(name for setting in settings for name in setting.figures(setting.models[0])))
    cells = {name: [figure_cell(setting, name, setting.models[0]) for setting in settings] for name in names}
    names = [name for name in names if name not in COMPARED and set(cells[name]) - {"undefined"}]
    lines = [[setting.name, model, *(figure_cell(setting, name, model) for name in names)]
             for setting in settings for model in setting.models]
    return part("Other figures", "In percent, mean ± standard deviation over networks. A worst cell or group is the "
                "lowest accuracy of any; the others are gaps between groups, and 0 is fair.",
                table([["run", "tested with", *names], *lines])) if names else ""


def figure_cell(setting, name, model):
    """A figure in words, if the setting's networks have it."""
    return tables.cell(setting.summary(name, model)) if name in setting.figures(model) else tables.NONE


def pictures(settings):
    """Synthetic images at the start and at the end, of the runs that have pictures."""
    drawn = before_and_after(settings, picture)
    return part("Synthetic images", "At most ten images of each class (a row) at the start and at the end of the first "
                "seed's run: look for colors or faces of the majority group taking over.",
                row(drawn, "pictures")) if drawn else ""


def courses(numbered):
    """Figures over iterations, of the settings that were evaluated on the way."""
    if not numbered:
        return ""
    drawn = [plots.course(numbered, name) for name in ("DEO_A", "accuracy")]
    return part("On the way", "Mean over networks at each evaluated iteration, its bars one standard deviation: "
                "a curve that is still moving at its end asks for more iterations.", keys(numbered),
                row(drawn, "plots"))


def planes(settings):
    """Real and synthetic images in two dimensions, of the runs that recorded them."""
    settings = [setting for setting in settings if setting.runs[0].view]
    if not settings:
        return ""
    first = settings[0].runs[0]
    limits = plots.limits([setting.runs[0].view for setting in settings])
    colors = plots.group_colors(first.group_names)
    groups = "".join(swatch("●", color, name, "dot") for name, color in zip(first.group_names, colors, strict=True))

    def draw(run, last):
        return plots.plane(run.view, last, run.group_names, limits)

    return part("Real and synthetic images", "What one random network sees, in the plane that shows most "
                f"({100 * first.view['share']:.0f} % of the variance): dots are real images colored by group, "
                "diamonds the synthetic ones; fair ones of a class lie between all groups, not inside its majority.",
                f"<div>{groups}</div>", row(before_and_after(settings, draw), "plots"))


def cell_counts(settings):
    """How many images each (class, group) has, in training and in test."""
    run = next((run for setting in settings for run in setting.runs if run.counts), None)
    if not run:
        return ""
    drawn = []
    for which, words in (("train", "training"), ("test", "test")):
        counts = np.array(run.counts[which]).astype(int)        # (G, C)
        lines = [[name, *map(str, row), str(row.sum())] for name, row in zip(run.class_names, counts.T, strict=True)]
        drawn.append(named(f"{counts.sum():,} {words} images", table([["class", *run.group_names, "all"], *lines])))
    return part("The data", "Images in each (class, group): where one group holds most of a class in training, "
                "a network can learn the group instead of the class.", row(drawn))


def of_run(setting, run):
    """Flags and versions of a run, folded, and its command."""
    facts = [[name, str(value)] for name, value in {**run.flags, **run.versions}.items()]
    name = f"{setting.name}, seed {run.flags['seed']}: {run.folder}"
    return (f"<details><summary>{escape(name)}</summary><pre>{escape(run.command())}</pre>"
            f"{table([['flag or version', 'value'], *facts])}</details>")


def before_and_after(settings, draw):
    """What draw(run, last) makes of each setting's first run at its start and at its end; equal starts stand once."""
    found = {}
    for last in (False, True):
        for setting in settings:
            is_start = setting.flags["Iteration"] == 0
            content = draw(setting.runs[0], last) if last or not is_start else None
            if content:
                found.setdefault((last or is_start, content), []).append(setting.name)
    return [named(("" if last else "start: ") + ", ".join(names), content)
            for (last, content), names in found.items()]


def picture(run, last):
    """The run's first or last picture, inside the page. -> HTML, empty where it is missing"""
    content = run.picture(last)
    return content and f'<img alt="synthetic images" src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def heat_map(setting):
    """The (group, class) accuracies as a table of colored cells, 0 to 100 %."""
    run = setting.runs[0]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *run.class_names))
    lines = "".join(f'<tr><td class="name">{escape(name)}</td>{"".join(map(heat_cell, values))}</tr>'
                    for name, values in zip(run.group_names, setting.table(setting.models[0]), strict=True))
    return f'<div class="scroll"><table class="heat"><thead><tr>{head}</tr></thead>{lines}</table></div>'


def heat_cell(value):
    """A cell of a heat map; one that was not tested is empty."""
    if np.isnan(value):
        return '<td title="not tested">–</td>'
    red, green, blue, _ = HEAT(value / 100, bytes=True)
    ink = "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 128 else "#ffffff"
    return f'<td style="background:rgb({red},{green},{blue});color:{ink}">{value:.0f}</td>'


def table(lines):
    """Rows of text, the first the head, in a box that scrolls."""
    head, *body = ([escape(each) for each in line] for line in lines)
    rows = "\n".join(f"<tr><td>{'</td><td>'.join(line)}</td></tr>" for line in body)
    return f'<div class="scroll"><table><tr><th>{"</th><th>".join(head)}</th></tr>\n{rows}</table></div>'


def keys(numbered):
    """Which sign is which setting."""
    return "".join(swatch(*plots.key(number), setting.name) for number, setting in numbered)


def swatch(glyph, color, name, kind=""):
    return f'<span class="key"><b class="{kind}" style="color:{color}">{glyph}</b>{escape(name)}</span>'


def named(name, content):
    return f'<figure><figcaption>{escape(name)}</figcaption>{content}</figure>'


def row(content, kind="row"):
    """Things side by side, as far as the screen is wide enough."""
    return f'<div class="{kind}">{"".join(content)}</div>'
