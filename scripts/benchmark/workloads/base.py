"""What a workload says of itself, so that the runner can run it and the report can show it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Final, NamedTuple

from benchmark.results import Figures, Goal
from benchmark.settings import Settings


class Contender(NamedTuple):
    """Somebody who is measured: `run` is called once in each round."""

    name: str
    run: Callable[[], Figures]
    missing: str | None = None
    """Why it cannot be measured here."""


class Column(NamedTuple):
    """A figure in the workload's table."""

    figure: str
    header: str
    decimals: int = 0


FOREIGN_NOTE: Final = (
    "foreign %: of all processors, what processes that are no part of the run used meanwhile; a run"
    " with more than a tenth may be tried again."
)


class Workload(ABC):
    """Something that contenders do, with what is expected of it."""

    name: ClassVar[str]
    """As given to `--only`."""
    title: ClassVar[str]
    note: ClassVar[str] = ""
    """What a reader of the table has to know."""
    columns: ClassVar[Sequence[Column]]
    goals: ClassVar[Sequence[Goal]]
    compared: ClassVar[str] = ""
    """The figure by which the table compares each contender with the first one, if any."""
    is_charted: ClassVar[bool] = True
    """Whether a chart of the first column says something."""
    is_repeated: ClassVar[bool] = True
    """False if one run is already a mean over a long time, or says the same each time."""

    @abstractmethod
    def opened(self, settings: Settings) -> AbstractContextManager[Sequence[Contender]]:
        """Prepare what the runs share; the contenders, in the order of the table."""
