"""Runs workloads: rounds, in each of which every contender has its turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmark import interrupts
from benchmark.processes import RunFailed
from benchmark.results import FOREIGN_PERCENT, Figures, Result, Series
from benchmark.settings import Settings
from benchmark.workloads.base import Contender, Workload
from eventlog import EventLogError

DISTURBED_PERCENT: Final = 10.0
"""Percent of all processors: a run during which others used more is worth another try."""
RETRIES_PER_CONTENDER: Final = 1
"""On a machine that is busy all the time, more of them would only take longer."""

Announce = Callable[[str, int, int], None]
"""Told what runs now, how many runs are done, and how many there will be."""


def run(workload: Workload, settings: Settings, announce: Announce) -> Result:
    """All rounds of one workload."""
    announce(f"{workload.name}: preparing", 0, 1)
    with workload.opened(settings) as contenders:
        series = {one.name: Series(one.name, missing=one.missing) for one in contenders}
        turns = _turns(contenders, settings.repeat if workload.is_repeated else 1)
        # A quick look takes what it gets.
        retries = Retries(0 if settings.is_quick else len(contenders) * RETRIES_PER_CONTENDER)
        for done, contender in enumerate(turns):
            announce(f"{workload.name}: {contender.name}", done, len(turns))
            _take_turn(contender, series[contender.name], retries)
            interrupts.check()
    return Result(
        name=workload.name,
        title=workload.title,
        series=list(series.values()),
        verdicts=[goal.judge(series) for goal in workload.goals],
    )


def _turns(contenders: Sequence[Contender], rounds: int) -> list[Contender]:
    """Every contender once in each round.

    Every other round goes backward, so that nobody always follows the same neighbour.
    """
    there_and_back = [list(contenders), list(reversed(contenders))]
    return [one for number in range(rounds) for one in there_and_back[number % 2]]


@dataclass(slots=True)
class Retries:
    """How often a disturbed run may still be tried again, in this workload."""

    left: int


def _take_turn(contender: Contender, series: Series, retries: Retries) -> None:
    if series.missing is not None or series.failed is not None:
        return
    try:
        series.samples.append(_less_disturbed(contender, retries))
    except (RunFailed, EventLogError) as error:
        series.failed = str(error)


def _less_disturbed(contender: Contender, retries: Retries) -> Figures:
    """A run without others at work on the machine, or the better one of two."""
    first = contender.run()
    if first.get(FOREIGN_PERCENT, 0.0) <= DISTURBED_PERCENT or not retries.left:
        return first
    retries.left -= 1
    return min(first, contender.run(), key=lambda figures: figures[FOREIGN_PERCENT])
