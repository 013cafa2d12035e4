"""What the log promises, held against a history: appends and reads.

=============  ================================================================================
entry          fields
=============  ================================================================================
`options`      `on_full`: with `error`, a batch whose refusal was lost comes after later ones
`append`       `batch`, `values` (no value is ever appended twice), of the producer who says it
`stored`       `batch`, `base`: the answer that the producer got
`refused`      `batch`, `error`: for good; a batch without an answer may be there or not
`opened`       `at`: a subscription begins with that event
`read`         `seq_no`, `value`
`caught_up`    `at`: the subscription was told that event `at` is not there yet
`truncated`    `first`: the subscription was told that it can go on there
`log`          `first`, `events` (value by number): what is stored at the end
=============  ================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.simulation.history import Checker

Value = str


class LogChecker(Checker):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[int, Sequence[Value]] = {}
        self._batch_of: dict[Value, int] = {}
        self._producer_of: dict[int, str] = {}
        self._floors: dict[int, int] = {}
        """The last number that was acknowledged before the append of that batch began."""
        self._bases: dict[int, int] = {}
        self._refused: set[int] = set()
        self._last_acknowledged = 0
        self._at: dict[int, Value] = {}
        self._number_of: dict[Value, int] = {}
        self._next: dict[str, int] = {}
        self._truncated_to = 0
        self._keeps_order = True

    def on_options(self, who: str, on_full: str) -> None:
        self._keeps_order = on_full == "wait"

    # --- appends -----------------------------------------------------------------------------

    def on_append(self, who: str, batch: int, values: Sequence[Value], **_: Any) -> None:
        self._values[batch] = values
        self._producer_of[batch] = who
        self._floors[batch] = self._last_acknowledged
        for value in values:
            assert value not in self._batch_of, "a simulation that appends a value twice"
            self._batch_of[value] = batch

    def on_stored(self, who: str, batch: int, base: int) -> None:
        if self._bases.setdefault(batch, base) != base:
            self.blame("duplicate", f"batch {batch} is at {self._bases[batch]} and at {base}")
        if base <= self._floors[batch]:
            self.blame(
                "not linearizable",
                f"{who}: batch {batch} got {base}, but {self._floors[batch]} had been given before"
                " it began",
            )
        for number, value in enumerate(self._values[batch], base):
            self._see(number, value)
        self._last_acknowledged = max(self._last_acknowledged, base + len(self._values[batch]) - 1)

    def on_refused(self, who: str, batch: int, error: str) -> None:
        self._refused.add(batch)
        for value in self._values[batch]:
            if value in self._number_of:
                self._blame_refused(value)

    def _blame_refused(self, value: Value) -> None:
        self.blame(
            "refused append", f"{value!r} is event {self._number_of[value]}, and was refused"
        )

    def _see(self, number: int, value: Value) -> None:
        """Somebody was told that this value has this number."""
        batch = self._batch_of.get(value)
        if batch is None:
            self.blame("phantom", f"event {number} is {value!r}, which nobody appended")
        elif batch in self._refused:
            self._number_of.setdefault(value, number)
            self._blame_refused(value)
        if self._at.setdefault(number, value) != value:
            self.blame(
                "two values", f"event {number} is {value!r} now, and was {self._at[number]!r}"
            )
        elif self._number_of.setdefault(value, number) != number:
            self.blame(
                "duplicate", f"{value!r} is event {self._number_of[value]} and event {number}"
            )

    # --- reads -------------------------------------------------------------------------------

    def on_opened(self, who: str, at: int) -> None:
        self._next[who] = at

    def on_read(self, who: str, seq_no: int, value: Value) -> None:
        wanted = self._next[who]
        if seq_no > wanted:
            self.blame("skipped read", f"{who} was given {seq_no} instead of {wanted}")
        elif seq_no < wanted:
            self.blame("read backwards", f"{who} was given {seq_no} instead of {wanted}")
        self._next[who] = seq_no + 1
        self._see(seq_no, value)

    def on_caught_up(self, who: str, at: int) -> None:
        if at != self._next[who]:
            self.blame("skipped read", f"{who} stands before {at} instead of {self._next[who]}")
        if at <= self._last_acknowledged:
            self.blame(
                "stale read",
                f"{who} was told that there is no event {at}; {self._last_acknowledged} had been"
                " acknowledged",
            )

    def on_truncated(self, who: str, first: int) -> None:
        self._truncated_to = max(self._truncated_to, first)
        if first <= self._next[who]:
            self.blame("read backwards", f"{who} was sent from {self._next[who]} to {first}")

    # --- at the end --------------------------------------------------------------------------

    def on_log(self, who: str, first: int, events: dict[int, Value]) -> None:
        if self._truncated_to > first:
            self.blame("skipped read", f"sent to {self._truncated_to}; the first is {first}")
        last = first + len(events) - 1
        if list(events) != list(range(first, last + 1)):
            self.blame("gap", f"the log holds {list(events)}")
        for number, value in events.items():
            self._see(number, value)
        for number, value in self._at.items():
            if number >= first and events.get(number) != value:
                self.blame("lost write", f"event {number}, {value!r}, is not there any more")
        self._check_batches(first, events)

    def _check_batches(self, first: int, events: dict[int, Value]) -> None:
        """Each batch is whole or not there, and those of one producer are in its order."""
        number_of = {value: number for number, value in events.items()}
        latest: dict[str, int] = {}
        for batch, values in self._values.items():
            numbers = [number_of.get(value) for value in values]
            found = [number for number in numbers if number is not None]
            if not found:
                continue
            is_whole = found == list(range(found[0], found[0] + len(values)))
            is_cut_by_retention = found[0] == first > 1
            if not is_whole and not is_cut_by_retention:
                self.blame("torn batch", f"batch {batch} is stored as {numbers}")
            producer = self._producer_of[batch]
            if self._keeps_order and found[0] < latest.get(producer, 0):
                self.blame("reordered", f"batch {batch} of {producer} is before an earlier one")
            latest[producer] = found[0]
