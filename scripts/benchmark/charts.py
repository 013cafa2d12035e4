"""Charts of results, as PNG and SVG: one for each workload, a bar for each contender.

A bar is the median of the first column, the line on it reaches from the least to the most of the
rounds, and its colour says who it is: the log, a peer, or a limit. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmark.results import Result, Series
from benchmark.workloads.base import Column, Workload

COLOURS: Final = {"log": "#1f77b4", "peer": "#b0b0b0", "limit": "#e8c26a"}
FORMATS: Final = ("png", "svg")
DOTS_PER_INCH: Final = 120
WIDTH_INCHES: Final = 8.0
BAR_INCHES: Final = 0.24
PANEL_INCHES: Final = 0.5
AROUND_INCHES: Final = 0.6
LIMIT: Final = "limit"
OURS: Final = ("log", "a log", "a new log", "workers.Pool")


def write(directory: Path, workload: Workload, result: Result) -> list[Path]:
    """The files of one workload's chart; none if there is nothing to draw.

    The directory is made if there is none.

    Raises:
        ImportError: matplotlib is not installed.
    """
    column = workload.columns[0]
    bars = [one for one in result.series if one.values(column.figure)]
    if not workload.is_charted or not bars:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = panels_of(bars)
    sizes = [PANEL_INCHES + BAR_INCHES * len(panel) for panel in panels.values()]
    figure = Figure(figsize=(WIDTH_INCHES, sum(sizes) + AROUND_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(result.title, fontsize=11)
    plots = figure.subplots(len(panels), squeeze=False, height_ratios=sizes)[:, 0]
    for axes, (place, panel) in zip(plots, panels.items(), strict=True):
        _draw(axes, panel, place, column)
    plots[-1].set_xlabel(column.header)
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{result.name}.{kind}" for kind in FORMATS]
    for path in paths:
        # Without a date, so that a chart changes only with its figures.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)
    return paths


def panels_of(bars: Sequence[Series]) -> dict[str, dict[str, Series]]:
    """The bars by what stands before their names ("to 4: log" and "1 MiB: log" are not one scale).

    Each of these gets a scale of its own; those with no such thing share one.
    """
    panels: dict[str, dict[str, Series]] = {}
    for bar in bars:
        place, separator, name = bar.name.partition(": ")
        if not separator or place == LIMIT:
            place, name = "", bar.name
        panels.setdefault(place, {})[name] = bar
    return panels


def _draw(axes: Any, bars: Mapping[str, Series], place: str, column: Column) -> None:
    values = [one.values(column.figure) for one in bars.values()]
    middles = [median(found) for found in values]
    below = [middle - min(found) for middle, found in zip(middles, values, strict=True)]
    above = [max(found) - middle for middle, found in zip(middles, values, strict=True)]
    axes.barh(
        list(bars),
        middles,
        xerr=[below, above],
        color=[COLOURS[kind_of(name)] for name in bars],
        error_kw={"ecolor": "#404040", "elinewidth": 1},
    )
    for index, (middle, most) in enumerate(zip(middles, above, strict=True)):
        text = f" {middle:,.{column.decimals}f}"
        axes.annotate(text, (middle + most, index), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.14, y=0.02)
    axes.set_xlim(left=0)
    axes.set_title(place, fontsize=9, loc="left")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def kind_of(name: str) -> str:
    """Whether a contender is the log, a limit or a peer, by its name without what precedes it."""
    if name.startswith(LIMIT):
        return LIMIT
    return "log" if name.startswith(OURS) else "peer"
