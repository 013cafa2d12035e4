"""Sets of sequence numbers as ascending ranges, each its first and its last number. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

Range = tuple[int, int]


def add(ranges: list[Range], first: int, last: int) -> None:
    """Add these numbers; ranges that touch become one."""
    if last < first:
        return
    begin = bisect_right(ranges, (first, 0))
    if begin and ranges[begin - 1][1] >= first - 1:
        begin -= 1
    end = begin
    while end < len(ranges) and ranges[end][0] <= last + 1:
        first, last = min(first, ranges[end][0]), max(last, ranges[end][1])
        end += 1
    ranges[begin:end] = [(first, last)]


def remove(ranges: list[Range], number: int) -> None:
    """Remove one number, if it is there."""
    place = bisect_right(ranges, (number + 1, 0)) - 1
    if place < 0 or ranges[place][1] < number:
        return
    first, last = ranges[place]
    parts = [(first, number - 1), (number + 1, last)]
    ranges[place : place + 1] = [one for one in parts if one[0] <= one[1]]


def others(ranges: Sequence[Range], first: int, last: int) -> Iterator[int]:
    """The numbers from `first` to `last` that are in none of the ranges."""
    for begin, end in ranges:
        yield from range(first, min(begin, last + 1))
        first = max(first, end + 1)
    yield from range(first, last + 1)


def count(ranges: Sequence[Range]) -> int:
    """How many numbers there are."""
    return sum(last - first + 1 for first, last in ranges)
