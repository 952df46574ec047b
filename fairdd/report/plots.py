"""Plots of a report as SVG text, to stand in a page: no background, ink in the page's own color, names as text."""

import io
import re

from matplotlib import rc_context
from matplotlib.colors import XKCD_COLORS
from matplotlib.figure import Figure

SIZE, DOTS = (4.6, 3.4), 150        # inches; per inch, of what is drawn as pixels
INK = "#010203"                     # stands for the color of the page's text
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888")     # Okabe and Ito's; gray
MARKERS, GLYPHS = "os^Dv<>", "●■▲◆▼◀▶"
STYLE = {
    "font.size": 10, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.grid": True, "grid.color": "#888888", "grid.alpha": 0.3, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False, "svg.fonttype": "none",
    "svg.hashsalt": "fairdd",       # the same plot, the same bytes
}


def trade_off(numbered):
    """Accuracy against DEO_A, every run a point with its networks' spread. numbered: (number, setting) pairs. -> SVG"""
    figure, axes = panel("accuracy, %", "DEO_A, % (0 is fair)")
    for number, setting in numbered:
        for summary in setting.of_each_run():
            x, y = summary["accuracy"], summary["DEO_A"]
            axes.errorbar(x["mean"], y["mean"], y["std"] or 0, x["std"] or 0, ms=7, capsize=3, **line(number))
    return svg(figure, "accuracy against DEO_A of every run")


def course(numbered, name):
    """A figure over iterations, with the spread over networks. -> SVG"""
    figure, axes = panel("iteration", f"{name}, %")
    for number, setting in numbered:
        iterations, means, stds = setting.course(name, setting.models[0])
        axes.errorbar(iterations, means, stds, lw=1.5, ms=5, capsize=3, **line(number))
    return svg(figure, f"{name} over iterations")


def plane(view, end, group_names, limits):
    """Real images colored by group, the synthetic ones on top, at the end or the start. limits: of x and y. -> SVG"""
    figure, axes = panel("first principal component", "second principal component")
    x, y = zip(*view["real"]["points"], strict=True)
    colors = group_colors(group_names)
    axes.scatter(x, y, 16, [colors[group] for group in view["real"]["groups"]], edgecolors="#888888", linewidths=0.3,
                 rasterized=True)
    x, y = zip(*view["end" if end else "start"]["points"], strict=True)
    axes.scatter(x, y, 34, "none", marker="D", edgecolors=INK, linewidths=1.3)
    axes.set(xlim=limits[0], ylim=limits[1], xticks=[], yticks=[])
    return svg(figure, "real images in two dimensions, synthetic ones among them")


def limits(views):
    """The ranges of x and y that hold every point of every view, with a margin."""
    points = [point for view in views for part in ("real", "start", "end") for point in view[part]["points"]]
    ranges = [(min(values), max(values)) for values in zip(*points, strict=True)]
    return [(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9) for low, high in ranges]


def group_colors(names):
    """A color for each group; its own where every group is named after one, as in the colored sets."""
    if all(f"xkcd:{name}" in XKCD_COLORS for name in names):
        return [XKCD_COLORS[f"xkcd:{name}"] for name in names]
    return [COLORS[number % len(COLORS)] for number in range(len(names))]


def line(number):
    """How the points and lines of a setting look."""
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}


def key(number):
    """The sign that stands for a setting outside a plot. -> glyph, color"""
    return GLYPHS[number % len(GLYPHS)], COLORS[number % len(COLORS)]


def panel(x_label, y_label):
    with rc_context(STYLE):
        figure = Figure(SIZE, layout="constrained")
        axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    return figure, axes


def svg(figure, label):
    """A figure as SVG text without ids that two plots of a page would share. label: for those who do not see it"""
    content = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(content, format="svg", transparent=True, dpi=DOTS,
                       metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = content.getvalue()
    text = re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg"):]).replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
