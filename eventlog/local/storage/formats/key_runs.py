"""`KeyRuns`: which batches of one segment have a key of a hash; sorted in parts. Pure.

An entry is a hash and the position of a batch that has a key with it, in one number of 64 bits:

    hash << 32 | position

New entries wait by their hash until there are `RUN_ENTRIES` of them; then they become a sorted run.
A search looks into each run, for less than a microsecond; 8 bytes an entry bound the memory.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

RUN_ENTRIES: Final = 8192
"""Sorted in about 2 ms: nobody waits longer for it."""
POSITION_MASK: Final = 0xFFFF_FFFF


class KeyRuns:
    """The entries of one segment."""

    def __init__(self) -> None:
        self._recent: dict[int, list[int]] = {}
        self._recent_count = 0
        self._runs: list[array[int]] = []

    def __len__(self) -> int:
        """How many entries there are."""
        return self._recent_count + sum(map(len, self._runs))

    def add(self, hashes: Iterable[int], position: int) -> None:
        """A batch at that position has keys with these hashes, each named once."""
        recent = self._recent
        for one in hashes:
            if one in recent:
                recent[one].append(position)
            else:
                recent[one] = [position]
            self._recent_count += 1
        if self._recent_count >= RUN_ENTRIES:
            self._sort()

    def _sort(self) -> None:
        packed = [one << 32 | place for one, places in self._recent.items() for place in places]
        self._runs.append(array("Q", in_order(packed)))
        self._recent, self._recent_count = {}, 0

    def newest_first(self, key_hash: int) -> Iterator[int]:
        """Where batches with that hash are, the last one first."""
        yield from reversed(self._recent.get(key_hash, ()))
        for run in reversed(self._runs):
            found = positions_in(run, key_hash, bisect_left(run, key_hash << 32))
            yield from sorted(found, reverse=True)

    def merged(self, parts: int) -> Iterator[list[int]]:
        """All entries in order, in lists of about the same size, each made in a short time."""
        if self._recent_count:
            self._sort()
        starts = [0] * len(self._runs)
        for part in range(1, parts + 1):
            limit = (part << 64) // parts
            entries: list[int] = []
            for place, run in enumerate(self._runs):
                end = len(run) if part == parts else bisect_left(run, limit)
                entries += run[starts[place] : end]
                starts[place] = end
            yield in_order(entries)


def positions_in(run: Sequence[int], key_hash: int, place: int) -> list[int]:
    """The positions of a run's entries of that hash, which begin at `place`."""
    found = []
    while place < len(run) and run[place] >> 32 == key_hash:
        found.append(run[place] & POSITION_MASK)
        place += 1
    return found


def in_order(entries: list[int]) -> list[int]:
    """The entries, sorted.

    As floats, which are compared three times as fast as large integers. Entries of one hash may be
    equal then: they stand together, in any order.
    """
    return sorted(entries, key=float)
