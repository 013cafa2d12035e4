"""The events of a lease, as the member's threads share them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from eventlog.local.groups.ranges import Range


class HeldEvents:
    """The events of a lease. `todo` has (row, number) of those that did not come out yet."""

    def __init__(self, lease_id: int, ranges: Iterable[Range], failures: Iterable[Range]) -> None:
        self.lease_id = lease_id
        self.numbers = [n for first, last in ranges for n in range(first, last + 1)]
        self.count = len(self.numbers)
        self.todo = deque(enumerate(self.numbers))
        self.failures = dict(failures)
        """How often an event's handler failed before, for those where it did."""
        self.gone: set[int] = set()
        """Events that were given back, or died, before they were begun."""
        self.is_stale = False
        """The events are somebody else's by now; what becomes of them here does not count."""

    def make_stale(self) -> None:
        """Begin nothing more of it."""
        self.is_stale = True
        self.todo.clear()
