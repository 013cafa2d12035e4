"""Which events of a group may be handed out next: any, or one at a time for each key. Pure.

An event that is not done is in one of these states; `GroupState` decides about moves, this module
about what may be taken:

::

    fresh --take--> leased --settle--> (done)
      ^               |  |---put_back--> waiting --take--> leased
      |               '------hold------> held ---resume--> waiting
      never handed out                    '------drop----> (done)

A fresh event that is not due is postponed before anything is taken, until `come_due`.

With `KeyOrder` the events of one key's hash form a line, and the line moves only while none of it
is held, none is leased to another member, and its first one is due: so they are handled in order,
whatever dies.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, Protocol

from eventlog.local.groups.ranges import Range, RangeSet, count_of, ranges_of

QUEUED_MAX: Final = 65_536
"""Events that may wait behind others of their key before no fresh ones are looked at: it bounds the
memory of a group whose keys are all busy."""
SCAN_EVENTS: Final = 1024

HashesOf = Callable[[int, int], list[int]]
"""The key hashes of the events from the first to the last number; 0 for an event without a key."""


class Order(Protocol):
    """What `FreeOrder` and `KeyOrder` have in common."""

    def take(self, member_id: int, count: int, high_water: int, done: RangeSet) -> list[Range]:
        """Up to `count` events for the member, ascending; they are leased from now on."""

    def skip_to(self, seq_no: int) -> None:
        """Everything before that number is done: it was the group's own result, perhaps."""

    def settle(self, ranges: Iterable[Range]) -> None:
        """Leased events are done."""

    def put_back(self, ranges: Iterable[Range]) -> None:
        """Leased events may be taken again."""

    def hold(self, seq_no: int) -> None:
        """A leased event may not be taken for now."""

    def resume(self, seq_no: int) -> None:
        """A held event may be taken again."""

    def postpone(self, seq_no: int) -> None:
        """An event that was not looked at may not be taken before it has come due."""

    def come_due(self, seq_no: int) -> None:
        """A postponed event may be taken."""

    def drop(self, seq_no: int) -> None:
        """A held event is done with."""

    def lose(self, ranges: Iterable[Range]) -> None:
        """Events that nobody has are done with, whatever they waited for."""

    def add(self, ranges: Iterable[Range]) -> None:
        """Events that were done may be taken again."""

    def available(self, high_water: int) -> int:
        """About how many events can be taken."""


class FreeOrder:
    """Any event to anybody."""

    def __init__(self, fresh: int, taken: RangeSet) -> None:
        self.fresh = fresh
        """Neither this event nor any later one was looked at."""
        self._taken = taken
        """Events from `fresh` on that were leased or held when this object was made; and those that
        are postponed."""
        self.waiting = RangeSet()

    def take(self, member_id: int, count: int, high_water: int, done: RangeSet) -> list[Range]:
        """See `Order`."""
        ranges = self.waiting.pop_lowest(count)
        count -= count_of(ranges)
        while count > 0:
            run = self.next_run(count, high_water, done)
            if run is None:
                break
            ranges.append(run)
            self.fresh = run[1] + 1
            count -= run[1] - run[0] + 1
        return list(RangeSet(ranges)) if len(ranges) > 1 else ranges

    def skip_to(self, seq_no: int) -> None:
        """See `Order`."""
        self.fresh = max(self.fresh, seq_no)

    def next_run(self, count: int, high_water: int, done: RangeSet) -> Range | None:
        """The next events that nobody has looked at, up to `count` in a row."""
        while True:
            run = done.gap_at(self.fresh, high_water)
            if run is None:
                return None
            self.fresh = run[0]
            run = self._taken.gap_at(run[0], run[1])
            if run is not None:
                return run[0], min(run[1], run[0] + count - 1)
            self.fresh = (done.gap_at(self.fresh, high_water) or (0, high_water))[1] + 1

    def settle(self, ranges: Iterable[Range]) -> None:
        """See `Order`."""

    def put_back(self, ranges: Iterable[Range]) -> None:
        """See `Order`. What was not come to yet is found in its turn."""
        for first, last in ranges:
            if first < self.fresh:
                self.waiting.add(first, min(last, self.fresh - 1))
            if last >= self.fresh:
                self._taken.remove(max(first, self.fresh), last)

    add = put_back

    def hold(self, seq_no: int) -> None:
        """See `Order`."""

    def resume(self, seq_no: int) -> None:
        """See `Order`."""
        self.put_back([(seq_no, seq_no)])

    def postpone(self, seq_no: int) -> None:
        """See `Order`."""
        self._taken.add(seq_no, seq_no)

    def come_due(self, seq_no: int) -> None:
        """See `Order`."""
        self._taken.remove(seq_no, seq_no)
        if seq_no < self.fresh:
            self.waiting.add(seq_no, seq_no)

    def drop(self, seq_no: int) -> None:
        """See `Order`."""

    def lose(self, ranges: Iterable[Range]) -> None:
        """See `Order`."""
        for first, last in ranges:
            self.waiting.remove(first, last)

    def available(self, high_water: int) -> int:
        """See `Order`."""
        return self.waiting.count + max(high_water + 1 - self.fresh, 0)


@dataclass(slots=True)
class _Line:
    """The events of one key hash that are not done and were looked at."""

    waiting: list[int] = field(default_factory=list)
    leased: int = 0
    member_id: int = 0
    held: int = 0

    @property
    def is_ready(self) -> bool:
        return bool(self.waiting) and not self.leased and not self.held

    def may_take(self, member_id: int) -> bool:
        """Whether an event behind all of the line's others may go to the member now."""
        if self.waiting or self.held:
            return False
        return not self.leased or self.member_id == member_id


class KeyOrder:
    """Events of one key hash to one member at a time, in order; those without a key to anybody."""

    def __init__(
        self, fresh: int, leased: Iterable[tuple[int, RangeSet]], held: RangeSet, hashes: HashesOf
    ) -> None:
        self._hashes = hashes
        self._hash_of: dict[int, int] = {}
        """Hash of every event in a line."""
        self._lines: dict[int, _Line] = {}
        self._ready: list[tuple[int, int]] = []
        """A heap of (first waiting number, hash); an entry may be out of date."""
        self._queued = 0
        """Events in lines that wait for others, and not for their time."""
        self._undue: set[int] = set()
        """Events that are postponed."""
        taken = RangeSet(held)
        for _, ranges in leased:
            for first, last in ranges:
                taken.add(first, last)
        self._free = FreeOrder(fresh, taken)
        self._restore(leased, held)

    def _restore(self, leased: Iterable[tuple[int, RangeSet]], held: RangeSet) -> None:
        for member_id, ranges in leased:
            for seq_no in ranges.numbers():
                line = self._line_of(seq_no)
                if line is not None:
                    line.leased += 1
                    line.member_id = member_id
        for seq_no in held.numbers():
            line = self._line_of(seq_no)
            if line is not None:
                line.held += 1

    def _line_of(self, seq_no: int) -> _Line | None:
        """The line of an event that is put into one; `None` if it has no key."""
        key_hash = self._hashes(seq_no, seq_no)[0]
        return self._join(seq_no, key_hash) if key_hash else None

    def _join(self, seq_no: int, key_hash: int) -> _Line:
        self._hash_of[seq_no] = key_hash
        line = self._lines.get(key_hash)
        if line is None:
            line = self._lines[key_hash] = _Line()
        return line

    # --- taking ------------------------------------------------------------------------------

    def take(self, member_id: int, count: int, high_water: int, done: RangeSet) -> list[Range]:
        """See `Order`."""
        numbers = self._take_lines(member_id, count)
        waiting = self._free.waiting.pop_lowest(count - len(numbers))
        numbers += [n for first, last in waiting for n in range(first, last + 1)]
        while len(numbers) < count and self._queued < QUEUED_MAX:
            run = self._free.next_run(SCAN_EVENTS, high_water, done)
            if run is None:
                break
            self._scan(run, member_id, count, numbers)
        return ranges_of(numbers)

    def skip_to(self, seq_no: int) -> None:
        """See `Order`."""
        self._free.skip_to(seq_no)

    def _take_lines(self, member_id: int, count: int) -> list[int]:
        """Waiting events of lines that nobody works on."""
        numbers: list[int] = []
        while self._ready and len(numbers) < count:
            head, key_hash = heapq.heappop(self._ready)
            line = self._lines.get(key_hash)
            if line is None or not self._may_go(line) or line.waiting[0] != head:
                continue
            taken = line.waiting[: count - len(numbers)]
            if self._undue:
                taken = list(takewhile(lambda n: n not in self._undue, taken))
            del line.waiting[: len(taken)]
            self._queued -= len(taken)
            line.leased, line.member_id = len(taken), member_id
            numbers += taken
        return numbers

    def _scan(self, run: Range, member_id: int, count: int, numbers: list[int]) -> None:
        """Take fresh events, and queue those whose line is busy."""
        for seq_no, key_hash in enumerate(self._hashes(*run), start=run[0]):
            if len(numbers) >= count or self._queued >= QUEUED_MAX:
                return
            self._free.fresh = seq_no + 1
            is_due = seq_no not in self._undue
            if not key_hash:
                if is_due:
                    numbers.append(seq_no)
                continue
            line = self._join(seq_no, key_hash)
            if is_due and line.may_take(member_id):
                line.leased += 1
                line.member_id = member_id
                numbers.append(seq_no)
            else:
                line.waiting.append(seq_no)
                self._queued += is_due

    # --- what becomes of them ----------------------------------------------------------------

    def settle(self, ranges: Iterable[Range]) -> None:
        """See `Order`."""
        for seq_no in _numbers(ranges):
            key_hash = self._hash_of.pop(seq_no, 0)
            if key_hash:
                self._lines[key_hash].leased -= 1
                self._moved(key_hash)

    def put_back(self, ranges: Iterable[Range]) -> None:
        """See `Order`."""
        for seq_no in _numbers(ranges):
            key_hash = self._hash_of.get(seq_no, 0)
            if key_hash:
                self._lines[key_hash].leased -= 1
                self._queue(seq_no, key_hash)
            else:
                self._free.put_back([(seq_no, seq_no)])

    def hold(self, seq_no: int) -> None:
        """See `Order`."""
        key_hash = self._hash_of.get(seq_no, 0)
        if key_hash:
            self._lines[key_hash].leased -= 1
            self._lines[key_hash].held += 1

    def resume(self, seq_no: int) -> None:
        """See `Order`."""
        key_hash = self._hash_of.get(seq_no, 0)
        if key_hash:
            self._lines[key_hash].held -= 1
            self._queue(seq_no, key_hash)
        else:
            self._free.resume(seq_no)

    def postpone(self, seq_no: int) -> None:
        """See `Order`."""
        self._undue.add(seq_no)

    def come_due(self, seq_no: int) -> None:
        """See `Order`."""
        self._undue.discard(seq_no)
        key_hash = self._hash_of.get(seq_no, 0)
        if key_hash:
            self._queued += 1
            self._moved(key_hash)
        elif seq_no < self._free.fresh:
            self._free.put_back([(seq_no, seq_no)])

    def drop(self, seq_no: int) -> None:
        """See `Order`."""
        key_hash = self._hash_of.pop(seq_no, 0)
        if key_hash:
            self._lines[key_hash].held -= 1
            self._moved(key_hash)

    def lose(self, ranges: Iterable[Range]) -> None:
        """See `Order`."""
        lost = RangeSet(ranges)
        self._free.lose(lost)
        gone: dict[int, set[int]] = {}
        for seq_no in [n for n in self._hash_of if n in lost]:
            gone.setdefault(self._hash_of.pop(seq_no), set()).add(seq_no)
        for key_hash, numbers in gone.items():
            line = self._lines[key_hash]
            waiting = [n for n in line.waiting if n not in numbers]
            removed = len(line.waiting) - len(waiting)
            self._queued -= removed - len(numbers & self._undue)
            line.held -= len(numbers) - removed
            line.waiting = waiting
            self._moved(key_hash)
        self._undue = {seq_no for seq_no in self._undue if seq_no not in lost}

    def add(self, ranges: Iterable[Range]) -> None:
        """See `Order`."""
        for seq_no in _numbers(ranges):
            line = self._line_of(seq_no)
            if line is None:
                self._free.add([(seq_no, seq_no)])
            else:
                self._queue(seq_no, self._hash_of[seq_no])

    def _queue(self, seq_no: int, key_hash: int) -> None:
        if seq_no >= self._free.fresh:
            # Earlier ones of its key may not have been looked at: it is found after them.
            del self._hash_of[seq_no]
            self._free.put_back([(seq_no, seq_no)])
        else:
            insort(self._lines[key_hash].waiting, seq_no)
            self._queued += 1
        self._moved(key_hash)

    def _moved(self, key_hash: int) -> None:
        """A line changed: perhaps it can go on, perhaps it is empty."""
        line = self._lines[key_hash]
        if self._may_go(line):
            heapq.heappush(self._ready, (line.waiting[0], key_hash))
        elif not (line.waiting or line.leased or line.held):
            del self._lines[key_hash]

    def _may_go(self, line: _Line) -> bool:
        """Whether its first event may be taken by anybody."""
        return line.is_ready and line.waiting[0] not in self._undue

    def available(self, high_water: int) -> int:
        """See `Order`."""
        return self._queued + self._free.available(high_water)


def _numbers(ranges: Iterable[Range]) -> Iterable[int]:
    return (seq_no for first, last in ranges for seq_no in range(first, last + 1))
