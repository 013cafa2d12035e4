"""All that a history is held against."""

from __future__ import annotations

from collections.abc import Iterable

from tests.simulation.expectation_checker import ExpectationChecker
from tests.simulation.group_checker import GroupChecker
from tests.simulation.history import Entry, Violation
from tests.simulation.log_checker import LogChecker
from tests.simulation.position_checker import PositionChecker


class HistoryChecker:
    """The promises of the log, of positions, of groups and of conditional appends."""

    def __init__(self) -> None:
        self._parts = (LogChecker(), PositionChecker(), GroupChecker(), ExpectationChecker())
        self._others: list[Violation] = []

    def note(self, entry: Entry) -> None:
        """Take the next entry."""
        for part in self._parts:
            part.note(entry)

    @property
    def violations(self) -> list[Violation]:
        """What was found until now."""
        return [*(found for part in self._parts for found in part.violations), *self._others]

    def blame(self, violation: Violation) -> None:
        """Add what only the simulation itself can see."""
        self._others.append(violation)


def violations_of(history: Iterable[Entry]) -> list[Violation]:
    """What a whole history breaks."""
    checker = HistoryChecker()
    for entry in history:
        checker.note(entry)
    return checker.violations
