"""Charts of results, as PNG and SVG: one for each workload, a bar for each contender.

A bar is the median of the first column, the line on it reaches from the least to the most of the
rounds, and its colour says who it is: the log, a peer, or a limit. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
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
AROUND_INCHES: Final = 1.1
OURS: Final = ("log", "a log", "a new log", "workers.Pool")


def write(directory: Path, workload: Workload, result: Result) -> list[Path]:
    """The files of one workload's chart; none if there is nothing to draw.

    Raises:
        ImportError: matplotlib is not installed.
    """
    column = workload.columns[0]
    bars = [one for one in result.series if one.values(column.figure)]
    if not workload.is_charted or not bars:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, AROUND_INCHES + BAR_INCHES * len(bars)))
    FigureCanvasAgg(figure)
    _draw(figure.add_subplot(), bars, column, result.title)
    figure.tight_layout()
    paths = [directory / f"{result.name}.{kind}" for kind in FORMATS]
    for path in paths:
        # Without a date, so that a chart changes only with its figures.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)
    return paths


def _draw(axes: Any, bars: Sequence[Series], column: Column, title: str) -> None:
    values = [one.values(column.figure) for one in bars]
    middles = [median(found) for found in values]
    below = [middle - min(found) for middle, found in zip(middles, values, strict=True)]
    above = [max(found) - middle for middle, found in zip(middles, values, strict=True)]
    axes.barh(
        [one.name for one in bars],
        middles,
        xerr=[below, above],
        color=[COLOURS[kind_of(one.name)] for one in bars],
        error_kw={"ecolor": "#404040", "elinewidth": 1},
    )
    for index, middle in enumerate(middles):
        axes.annotate(f" {middle:,.{column.decimals}f}", (middle, index), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.14, y=0.01)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(column.header)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def kind_of(name: str) -> str:
    """Whether a contender is the log, a limit or a peer, by its name without a prefix of its place.

    "to 4: log, trio, batches" is the log; "1 MiB: limit: raw pipe" is a limit.
    """
    parts = name.split(": ")
    if "limit" in parts:
        return "limit"
    return "log" if parts[-1].startswith(OURS) else "peer"
