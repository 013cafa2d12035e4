"""What a group may still say after a loss of power took events that it knows of. Pure.

The journal of groups and the segments get to the disk each on its own, so after a loss of power the
journal may know more than the log: leases of events that are not there, and events that are done
because of a batch of results that is not there. Both have to go, before other events get those
numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eventlog.local.groups.ranges import Range, RangeSet
from eventlog.local.groups.state import GroupState


class LostResults:
    """The events whose results were stored in batches that the log does not have.

    It is told of each record of the journal, in order.
    """

    def __init__(self, last_seq_no: int) -> None:
        self._last_seq_no = last_seq_no
        self._lost: dict[str, RangeSet] = {}

    def note(self, kind: str, name: str, fields: list[Any]) -> None:
        """Look at a record before it is applied."""
        if kind == "results":
            _, ranges, _, last_result = fields
            if last_result > self._last_seq_no:
                numbers = self._lost.setdefault(name, RangeSet())
                for first, last in ranges:
                    numbers.add(first, last)
        elif kind in {"state", "seek", "forget"}:
            self._lost.pop(name, None)  # what a snapshot says of results is on the disk

    def of(self, state: GroupState) -> list[int]:
        """Those of a group that are to be handed out again."""
        numbers = self._lost.get(state.name, RangeSet()).numbers()
        return [n for n in numbers if n <= self._last_seq_no and state.is_done(n)]


def snapshot_to(state: GroupState, last_seq_no: int) -> tuple[Any, ...] | None:
    """The snapshot without events after that number; `None` if the state knows of none."""

    def cut(ranges: Iterable[Range]) -> list[Range]:
        kept = RangeSet(ranges)
        kept.remove(last_seq_no + 1, 2**64)
        return list(kept)

    whole = state.snapshot()
    ordering, deliveries_max, position, done, again, failed, dead, members, leases, replayed = whole
    fields = (
        ordering,
        deliveries_max,
        min(position, last_seq_no),
        cut(done),
        cut(again),
        [(number, times) for number, times in failed if number <= last_seq_no],
        [(number, member) for number, member in dead if number <= last_seq_no],
        members,
        [(one, who, cut(given), cut(still)) for one, who, given, still in leases if cut(still)],
        min(replayed, last_seq_no),
    )
    is_cut = any(fields[i] != whole[i] for i in (2, 3, 4, 5, 6, 9))
    given_to = [last for _, _, given, _ in leases for _, last in given]
    return fields if is_cut or max(given_to, default=0) > last_seq_no else None
