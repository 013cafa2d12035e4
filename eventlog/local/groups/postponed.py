"""The events of a group that are not due yet (see `event.due`). Pure: the caller brings the time.

Nothing of this is in the journal: a start reads the times from the batches again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Final

LOOK_EVENTS: Final = 65_536
"""How many events are looked at in one step: a group that is far behind does not hold the writer up
with times that matter much later."""

TimesOf = Callable[[int, int], Iterable[tuple[int, int]]]
"""(not_before_ns, number) of those events from the first to the last number that have one."""


def no_times(_first: int, _last: int) -> list[tuple[int, int]]:
    """Where nothing is handed out, no time matters."""
    return []


class Postponed:
    """Numbers of events, each until its time has come."""

    def __init__(self, times: TimesOf) -> None:
        self._times = times
        self.looked_to = 0
        """The last event whose time was looked at."""
        self._waiting: list[tuple[int, int]] = []
        """A heap of (not_before_ns, number)."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._waiting)

    def look(self, first: int, last: int, now_ns: int) -> list[tuple[int, int]]:
        """(not_before_ns, number) of events that are not due, of the next not looked at before."""
        self.looked_to = max(self.looked_to, first - 1)
        first, last = self.looked_to + 1, min(last, self.looked_to + LOOK_EVENTS)
        if first > last:
            return []
        found = [one for one in self._times(first, last) if one[0] > now_ns]
        self.looked_to = last  # not before: after an error they are looked at again
        return found

    def add(self, not_before_ns: int, seq_no: int) -> None:
        """Keep an event until that time."""
        heapq.heappush(self._waiting, (not_before_ns, seq_no))

    def next_due_ns(self) -> int | None:
        """When the next one is due; `None` if there is none."""
        return self._waiting[0][0] if self._waiting else None

    def take_due(self, now_ns: int) -> list[int]:
        """Take out those whose time has come."""
        due = []
        while self._waiting and self._waiting[0][0] <= now_ns:
            due.append(heapq.heappop(self._waiting)[1])
        return due

    def numbers(self) -> list[int]:
        """All of them."""
        return [seq_no for _, seq_no in self._waiting]

    def keep(self, is_open: Callable[[int], bool]) -> None:
        """Forget those that need no handling any more."""
        self._waiting = sorted(one for one in self._waiting if is_open(one[1]))

    def begin_after(self, position: int) -> None:
        """Forget all, and look at the events after `position` again."""
        self._waiting, self.looked_to = [], position
