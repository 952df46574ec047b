"""Plots of a report as inline SVG: no background, lines in the text color of the page, labels as text."""

import io
import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import XKCD_COLORS
from matplotlib.figure import Figure

from fairdd.report.comparison import RunGroup

SIZE, DPI = (4.6, 3.4), 150     # inches; dots per inch of the rasterized points
INK = "#010203"                 # replaced by the text color of the page
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888")     # Okabe and Ito's; gray
MARKERS, GLYPHS = "os^Dv<", "●■▲◆▼◀"      # one fewer than colors, so that the pairs repeat late
STYLE = {
    "font.size": 10, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.grid": True, "grid.color": "#888888", "grid.alpha": 0.3, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False, "svg.fonttype": "none",
    "svg.hashsalt": "fairdd",   # the same plot gives the same bytes
}
Numbered = Sequence[tuple[int, RunGroup]]       # the number selects color and marker, the same in every plot


def trade_off(numbered: Numbered) -> Markup:
    """Return accuracy against DEO_A as SVG: every run a point, with the standard deviation over its networks."""
    fig, axes = new_plot("accuracy, %", "DEO_A, % (0 is fair)")
    for number, group in numbered:
        for run in group.runs:
            final = run.final(group.models[0])[["accuracy", "DEO_A"]]
            (x, y), (x_std, y_std) = final.mean(), final.std().fillna(0)
            axes.errorbar(x, y, y_std, x_std, ms=7, capsize=3, **line_style(number))
    return to_svg(fig, "accuracy against DEO_A of every run")


def learning_curves(numbered: Numbered, metric: str) -> Markup:
    """Return a metric over iterations as SVG, with the standard deviation over networks."""
    fig, axes = new_plot("iteration", f"{metric}, %")
    for number, group in numbered:
        curve = group.learning_curve(metric)
        axes.errorbar(curve.index, curve["mean"], curve["std"], lw=1.5, ms=5, capsize=3, **line_style(number))
    return to_svg(fig, f"{metric} over iterations")


def projection(content: dict, at_end: bool, group_names: Sequence[str], limits: np.ndarray) -> Markup:
    """Return real images colored by group, and synthetic ones on top, as SVG. content: of projection.json."""
    fig, axes = new_plot("first principal component", "second principal component")
    colors = group_colors(group_names)
    axes.scatter(*np.transpose(content["real"]["points"]), 16, [colors[group] for group in content["real"]["groups"]],
                 edgecolors="#888888", linewidths=0.3, rasterized=True)
    axes.scatter(*np.transpose(content["end" if at_end else "start"]["points"]), 34, "none", marker="D", edgecolors=INK,
                 linewidths=1.3)
    axes.set(xlim=limits[:, 0], ylim=limits[:, 1], xticks=[], yticks=[])
    return to_svg(fig, "real and synthetic images in two dimensions")


def axis_limits(contents: Sequence[dict]) -> np.ndarray:
    """Return limits [[x low, y low], [x high, y high]] that hold every point of these projections, with a margin."""
    points = np.concatenate([content[name]["points"] for content in contents for name in ("real", "start", "end")])
    low, high = points.min(0), points.max(0)
    margin = 0.05 * (high - low) + 1e-9
    return np.stack([low - margin, high + margin])


def group_colors(names: Sequence[str]) -> list[str]:
    """Return a color for each group: the color it is named after if all are, as in the colored sets."""
    if all(f"xkcd:{name}" in XKCD_COLORS for name in names):
        return [XKCD_COLORS[f"xkcd:{name}"] for name in names]
    return [COLORS[number % len(COLORS)] for number in range(len(names))]


def line_style(number: int) -> dict:
    """Return color and marker of a group in plots."""
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}


def glyph_and_color(number: int) -> tuple[str, str]:
    """Return the character and color that stand for a group outside plots."""
    return GLYPHS[number % len(GLYPHS)], COLORS[number % len(COLORS)]


def new_plot(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    with rc_context(STYLE):
        fig = Figure(SIZE, layout="constrained")
        axes = fig.add_subplot(xlabel=x_label, ylabel=y_label)
    return fig, axes


def to_svg(fig: Figure, description: str) -> Markup:
    """Return a figure as SVG text without element ids, which would clash with those of other plots on the page."""
    content = io.StringIO()
    with rc_context(STYLE):
        fig.savefig(content, format="svg", transparent=True, dpi=DPI,
                    metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = content.getvalue()
    text = re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg"):]).replace(INK, "currentColor")
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1))
