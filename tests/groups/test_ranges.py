"""Sets of ranges, beside Python's own sets."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.local.groups.ranges import Range, RangeSet, count_of, ranges_of

HIGHEST = 30
numbers = st.integers(1, HIGHEST)
ranges = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))
steps = st.lists(st.tuples(st.sampled_from(["add", "remove", "pop"]), ranges), max_size=25)


def numbers_in(some: Iterable[Range]) -> list[int]:
    return [number for first, last in some for number in range(first, last + 1)]


def applied(script: list[tuple[str, Range]]) -> tuple[RangeSet, set[int]]:
    """What the steps make of a set of ranges, and of a plain one."""
    found, wanted = RangeSet(), set[int]()
    for kind, (first, last) in script:
        if kind == "add":
            found.add(first, last)
            wanted |= set(range(first, last + 1))
        elif kind == "remove":
            found.remove(first, last)
            wanted -= set(range(first, last + 1))
        else:
            lowest = sorted(wanted)[:first]
            assert numbers_in(found.pop_lowest(first)) == lowest
            wanted -= set(lowest)
        check(found, wanted)
    return found, wanted


def check(found: RangeSet, wanted: set[int]) -> None:
    assert list(found.numbers()) == sorted(wanted)
    assert found.count == len(wanted)
    assert bool(found) is bool(wanted)
    assert found.lowest == min(wanted, default=None)
    pairs = list(found)
    assert all(first <= last for first, last in pairs)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(pairs))


@given(steps)
def test_it_is_a_set_with_gaps_between_its_ranges(script: list[tuple[str, Range]]) -> None:
    found, wanted = applied(script)
    for number in range(HIGHEST + 2):
        assert (number in found) is (number in wanted)


@given(steps, ranges)
def test_a_range_is_in_it_if_every_number_is(script: list[tuple[str, Range]], one: Range) -> None:
    found, wanted = applied(script)
    assert found.has_all(*one) is (set(range(one[0], one[1] + 1)) <= wanted)


@given(steps, st.integers(0, HIGHEST + 2), st.integers(0, HIGHEST + 2))
def test_the_next_gap_is_the_first_run_of_what_is_missing(
    script: list[tuple[str, Range]], start: int, limit: int
) -> None:
    found, wanted = applied(script)
    missing = [number for number in range(start, limit + 1) if number not in wanted]
    gap = found.gap_at(start, limit)
    if gap is None:
        assert missing == []
        return
    assert gap[0] == missing[0]
    run = numbers_in([gap])
    assert run == missing[: len(run)]
    assert gap[1] == limit or gap[1] + 1 in wanted


@given(st.lists(ranges, max_size=10))
def test_the_order_in_which_ranges_come_does_not_matter(some: list[Range]) -> None:
    there = RangeSet(some)
    assert there == RangeSet(reversed(some))
    assert there == RangeSet(there)
    assert count_of(there) == there.count


@given(st.lists(numbers, max_size=30))
def test_the_fewest_ranges_hold_the_numbers(some: list[int]) -> None:
    assert ranges_of(some) == list(RangeSet((number, number) for number in some))


def test_a_loop_over_it_is_not_disturbed_by_changes() -> None:
    found = RangeSet([(1, 2), (4, 5), (7, 8)])
    for first, last in found:
        found.remove(first, last)
    assert not found


def test_it_is_told_apart_from_others_and_has_no_hash() -> None:
    found = RangeSet([(1, 2)])
    assert found != RangeSet([(1, 3)])
    assert found != [(1, 2)]
    assert repr(found) == "RangeSet([(1, 2)])"
    with pytest.raises(TypeError):
        hash(found)


def test_a_range_the_wrong_way_round_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="no range"):
        RangeSet([(2, 1)])
