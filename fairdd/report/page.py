"""Render the report as one self-contained HTML page: no script, no request; pictures and plots are embedded."""

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import colormaps

from fairdd.report import plots, tables
from fairdd.report.comparison import Comparison, RunGroup
from fairdd.report.load_runs import FinishedRun

TEMPLATE = "page.html.jinja"
HEAT = colormaps["cividis"]         # reads the same with every kind of color vision, and in gray


def render_page(comparisons: list[Comparison]) -> str:
    """Return the page as HTML."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    functions = (start_and_end, picture_url, projections, cell_counts, heat_style, enumerate, len, zip)
    environment.globals |= {function.__name__: function for function in functions}
    return environment.get_template(TEMPLATE).render(comparisons=comparisons, plots=plots, tables=tables)


def start_and_end(groups: list[RunGroup], draw: Callable) -> list[tuple[str, str]]:
    """Return (caption, draw(run, at_end)) for the start and the end of each group's first run.

    Groups with the same content share one entry, as most do at their start; what draw returns as None is left out.
    """
    names = {}
    for at_end in (False, True):
        for group in groups:
            is_initial = group.flags["Iteration"] == 0
            content = None if is_initial and not at_end else draw(group.runs[0], at_end)
            if content:
                names.setdefault((at_end or is_initial, content), []).append(group.name)
    return [(("" if at_end else "start: ") + ", ".join(shared), content) for (at_end, content), shared in names.items()]


def picture_url(run: FinishedRun, at_end: bool) -> str | None:
    """Return the run's first or last picture as a data URL, or None if it has none."""
    content = run.picture(at_end)
    return content and f"data:image/png;base64,{base64.b64encode(content).decode()}"


def projections(groups: list[RunGroup]) -> list[tuple[str, Markup]]:
    """Return (caption, plot) of real and synthetic images in two dimensions, all on the same axes."""
    limits = plots.axis_limits([group.runs[0].projection for group in groups])

    def draw(run, at_end):
        return plots.projection(run.projection, at_end, run.group_names, limits)

    return start_and_end(groups, draw)


def cell_counts(run: FinishedRun, split: str) -> list[list]:
    """Return the number of images in each (class, group) of "train" or "test" as rows of a table, one per class."""
    return [[name, *counts.tolist(), counts.sum()]
            for name, counts in zip(run.class_names, run.counts[split].T, strict=True)]


def heat_style(value: float) -> str:
    """Return the CSS of a cell of a heat map from 0 to 100 %."""
    if np.isnan(value):
        return ""
    red, green, blue, _ = HEAT(value / 100, bytes=True)
    ink = "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 128 else "#ffffff"
    return f"background:rgb({red},{green},{blue});color:{ink}"
