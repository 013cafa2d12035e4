"""Sets of sequence numbers as ranges: what is leased, done, or given back. Pure.

Numbers are handed out and done in runs, so a set of a million of them is a few pairs. A `Range` is
(first, last), both inside.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator

Range = tuple[int, int]


class RangeSet:
    """A set of numbers. Invariant: `_firsts` and `_lasts` ascend, with a gap between any two."""

    __slots__ = ("_firsts", "_lasts", "count")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.count = 0
        """How many numbers are in it."""
        for first, last in ranges:
            self.add(first, last)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def __iter__(self) -> Iterator[Range]:
        return iter(list(zip(self._firsts, self._lasts, strict=True)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        """The ranges."""
        return f"RangeSet({list(self)})"

    def numbers(self) -> Iterator[int]:
        """All the numbers, ascending."""
        for first, last in self:
            yield from range(first, last + 1)

    @property
    def lowest(self) -> int | None:
        """The smallest number; `None` if there is none."""
        return self._firsts[0] if self._firsts else None

    def add(self, first: int, last: int) -> None:
        """Put the numbers in that are not in yet."""
        assert first <= last, f"{first}..{last} is no range"
        if not self._lasts or first > self._lasts[-1] + 1:  # as most are, which takes no look
            self._firsts.append(first)
            self._lasts.append(last)
            self.count += last - first + 1
            return
        left = bisect_left(self._lasts, first - 1)
        right = bisect_right(self._firsts, last + 1)
        new_first = min([first, *self._firsts[left : min(left + 1, right)]])
        new_last = max([last, *self._lasts[max(right - 1, left) : right]])
        replaced = sum(self._lasts[i] - self._firsts[i] + 1 for i in range(left, right))
        self._firsts[left:right] = [new_first]
        self._lasts[left:right] = [new_last]
        self.count += new_last - new_first + 1 - replaced

    def remove(self, first: int, last: int) -> None:
        """Take the numbers out that are in."""
        left = bisect_left(self._lasts, first)
        right = bisect_right(self._firsts, last)
        if left >= right:
            return
        kept = [
            (self._firsts[left], min(self._lasts[left], first - 1)),
            (max(self._firsts[right - 1], last + 1), self._lasts[right - 1]),
        ]
        kept = [one for one in kept if one[0] <= one[1]]
        removed = sum(self._lasts[i] - self._firsts[i] + 1 for i in range(left, right))
        self._firsts[left:right] = [one for one, _ in kept]
        self._lasts[left:right] = [one for _, one in kept]
        self.count += sum(b - a + 1 for a, b in kept) - removed

    def has_all(self, first: int, last: int) -> bool:
        """Whether every number of the range is in."""
        place = bisect_right(self._firsts, first) - 1
        return place >= 0 and last <= self._lasts[place]

    def gap_at(self, number: int, limit: int) -> Range | None:
        """The first run of numbers that are not in, from `number` on and up to `limit`."""
        place = bisect_right(self._firsts, number) - 1
        if place >= 0 and number <= self._lasts[place]:
            number = self._lasts[place] + 1
        place += 1
        if number > limit:
            return None
        last = self._firsts[place] - 1 if place < len(self._firsts) else limit
        return number, min(last, limit)

    def pop_lowest(self, count: int) -> list[Range]:
        """Take out, and return, up to `count` of the smallest numbers."""
        taken: list[Range] = []
        while count > 0 and self._firsts:
            first = self._firsts[0]
            last = min(self._lasts[0], first + count - 1)
            self.remove(first, last)
            taken.append((first, last))
            count -= last - first + 1
        return taken


def count_of(ranges: Iterable[Range]) -> int:
    """How many numbers the ranges hold."""
    return sum(last - first + 1 for first, last in ranges)


def ranges_of(numbers: Iterable[int]) -> list[Range]:
    """The fewest ranges that hold these numbers, whatever their order."""
    ascending = sorted(set(numbers))
    if ascending and ascending[-1] - ascending[0] + 1 == len(ascending):
        return [(ascending[0], ascending[-1])]  # as nearly always
    return list(RangeSet((number, number) for number in ascending))


def numbers_between(numbers: Collection[int], first: int, last: int) -> list[int]:
    """Those of the numbers that are in the range, however long that is."""
    if len(numbers) < last - first:
        return [number for number in numbers if first <= number <= last]
    return [number for number in range(first, last + 1) if number in numbers]
