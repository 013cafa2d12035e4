"""What may be handed out next, beside a dict that says of each event where it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from eventlog.local.groups import order as order_module
from eventlog.local.groups.order import FreeOrder, KeyOrder
from eventlog.local.groups.ranges import Range, RangeSet, ranges_of

A, B, C = 11, 22, 33
MEMBERS = (1, 2, 3)


def numbers_in(ranges: Iterable[Range]) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]


# --- by hand ---------------------------------------------------------------------------------


def key_order(keys: list[int], fresh: int = 1, **leased_and_held: Any) -> KeyOrder:
    def hashes(first: int, last: int) -> list[int]:
        return keys[first - 1 : last]

    leased = [(m, RangeSet(some)) for m, some in leased_and_held.get("leased", {}).items()]
    return KeyOrder(fresh, leased, RangeSet(leased_and_held.get("held", ())), hashes)


def taken(order: FreeOrder | KeyOrder, member_id: int, count: int, high_water: int) -> list[int]:
    return numbers_in(order.take(member_id, count, high_water, RangeSet()))


def test_events_go_out_once_and_in_order() -> None:
    order = FreeOrder(3, RangeSet())
    assert order.take(1, 4, 9, RangeSet([(4, 5)])) == [(3, 3), (6, 8)]
    assert order.take(2, 4, 9, RangeSet()) == [(9, 9)]
    assert order.take(1, 4, 9, RangeSet()) == []
    assert order.take(1, 4, 10, RangeSet()) == [(10, 10)]


def test_what_was_given_back_goes_out_first() -> None:
    order = FreeOrder(1, RangeSet())
    assert taken(order, 1, 5, 10) == [1, 2, 3, 4, 5]
    order.put_back([(4, 5), (2, 2)])
    assert order.available(10) == 8
    assert order.take(2, 4, 10, RangeSet()) == [(2, 2), (4, 6)]


def test_a_new_order_passes_over_what_is_leased() -> None:
    order = FreeOrder(1, RangeSet([(1, 2), (5, 6), (8, 8)]))
    assert order.take(1, 9, 8, RangeSet([(4, 4)])) == [(3, 3), (7, 7)]


def test_one_key_goes_to_one_member_at_a_time() -> None:
    order = key_order([A, A, B, 0, A, B])
    assert taken(order, 1, 1, 6) == [1]
    assert taken(order, 2, 9, 6) == [3, 4, 6]
    assert taken(order, 3, 9, 6) == []
    order.settle([(1, 1)])
    assert taken(order, 3, 9, 6) == [2, 5]


def test_a_member_that_has_a_key_gets_more_of_it() -> None:
    order = key_order([A, B, A, A])
    assert taken(order, 1, 1, 4) == [1]
    assert taken(order, 1, 9, 4) == [2, 3, 4]


def test_a_line_waits_for_its_held_event() -> None:
    order = key_order([A, A, A, B])
    assert taken(order, 1, 2, 4) == [1, 2]
    order.hold(1)
    order.put_back([(2, 2)])
    assert taken(order, 2, 9, 4) == [4]
    order.resume(1)
    assert taken(order, 2, 2, 4) == [1, 2]
    order.hold(1)
    order.put_back([(2, 2)])
    order.drop(1)
    assert taken(order, 3, 9, 4) == [2, 3]


def test_a_new_order_knows_whose_the_keys_are() -> None:
    order = key_order([A, B, A, B, C], leased={1: [(1, 1)]}, held=[(2, 2)])
    assert taken(order, 2, 9, 5) == [5]
    assert taken(order, 1, 9, 5) == []
    order.settle([(1, 1)])
    order.drop(2)
    assert taken(order, 1, 9, 5) == [3, 4]


def test_keys_that_are_all_busy_bound_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "QUEUED_MAX", 3)
    looked_at: list[int] = []

    def hashes(first: int, last: int) -> list[int]:
        looked_at.append(last)
        return [A] * (last - first + 1)

    monkeypatch.setattr(order_module, "SCAN_EVENTS", 5)
    order = KeyOrder(1, [], RangeSet(), hashes)
    assert taken(order, 1, 1, 1000) == [1]
    for _ in range(3):
        assert taken(order, 2, 9, 1000) == []
    assert max(looked_at) <= 10
    order.settle([(1, 1)])
    assert taken(order, 2, 9, 1000) == [2, 3, 4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    "order",
    [FreeOrder(1, RangeSet()), key_order([A, B, A, B, C, A, B, A, B])],
    ids=["free", "key"],
)
def test_an_event_that_a_new_order_has_not_passed_yet_is_retried_once(
    order: FreeOrder | KeyOrder,
) -> None:
    # The order was made anew (at a writer's start) while event 5 was a dead letter. Retried, it was
    # put before the fresh ones, and found once more among them: two members had it.
    done = RangeSet([(5, 5)])
    assert numbers_in(order.take(1, 2, 9, done)) == [1, 2]
    done.remove(5, 5)
    order.add([(5, 5)])
    order.settle([(1, 2)])
    seen: list[int] = []
    while some := numbers_in(order.take(1, 1, 9, done)):
        seen += some
    assert sorted(seen) == [3, 4, 5, 6, 7, 8, 9]


def test_an_event_that_was_leased_when_the_order_was_made_is_retried() -> None:
    order = FreeOrder(1, RangeSet([(5, 5)]))
    done = RangeSet([(5, 5)])
    done.remove(5, 5)
    order.add([(5, 5)])
    seen: list[int] = []
    while some := numbers_in(order.take(1, 1, 9, done)):
        seen += some
    assert sorted(seen) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


# --- against a model -------------------------------------------------------------------------


class AgainstModel(RuleBasedStateMachine):
    """The model: of each event, "idle", "held", "done", or whose it is.

    Members behave as ours do: they are done with the events of a key in order, and give back the
    later ones of a key whose event failed.
    """

    is_keyed = False

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[int] = []
        self.where: dict[int, str | int] = {}
        self.position = 0
        self.done = RangeSet()
        self.again: set[int] = set()
        """Events at or below the position that are to be done once more."""
        self.order = self.new_order()

    def new_order(self) -> FreeOrder | KeyOrder:
        """As a group makes it from the rest of its state."""
        leased = [(m, RangeSet(ranges_of(self.events_of(m)))) for m in MEMBERS]
        held = RangeSet(ranges_of(self.events_of("held")))
        order: FreeOrder | KeyOrder
        if self.is_keyed:
            order = KeyOrder(self.position + 1, leased, held, self.hashes)
        else:
            taken = RangeSet(held)
            for _, ranges in leased:
                for first, last in ranges:
                    taken.add(first, last)
            order = FreeOrder(self.position + 1, taken)
        order.skip_to(self.position + 1)
        order.add((n, n) for n in sorted(self.again) if self.where[n] == "idle")
        return order

    def hashes(self, first: int, last: int) -> list[int]:
        assert 1 <= first <= last <= len(self.keys)
        return self.keys[first - 1 : last]

    def events_of(self, place: str | int) -> list[int]:
        return [n for n, where in self.where.items() if where == place]

    def key_of(self, seq_no: int) -> int:
        """0 also where keys do not matter."""
        return self.keys[seq_no - 1] if self.is_keyed else 0

    # --- events and members ---

    @initialize(small=st.booleans())
    def limit(self, small: bool) -> None:
        self.limits = order_module.QUEUED_MAX, order_module.SCAN_EVENTS
        if small:
            order_module.QUEUED_MAX, order_module.SCAN_EVENTS = 2, 3  # type: ignore[misc]

    @rule(keys=st.lists(st.sampled_from([0, A, A, B, C]), min_size=1, max_size=8))
    def append(self, keys: list[int]) -> None:
        for key in keys:
            self.keys.append(key)
            self.where[len(self.keys)] = "idle"

    @rule(member_id=st.sampled_from(MEMBERS), count=st.integers(1, 6))
    def take(self, member_id: int, count: int) -> None:
        high_water = len(self.keys)
        self.order.skip_to(self.position + 1)
        available = self.order.available(high_water)
        ranges = self.order.take(member_id, count, high_water, self.done)
        numbers = numbers_in(ranges)
        assert ranges == ranges_of(numbers), "ascending, and as few ranges as can be"
        assert len(numbers) <= min(count, available)
        for seq_no in numbers:
            assert self.where[seq_no] == "idle", f"event {seq_no} is {self.where[seq_no]}"
            self.check_turn(seq_no, member_id)
            self.where[seq_no] = member_id

    def check_turn(self, seq_no: int, member_id: int) -> None:
        """Nobody else has anything of the key, and nothing before the event waits."""
        key = self.key_of(seq_no)
        for other, where in self.where.items():
            if key and self.key_of(other) == key and where != "done":
                assert where == member_id or (where == "idle" and other >= seq_no), (
                    f"event {seq_no} to {member_id}, and {other} is {where}"
                )

    @precondition(lambda self: any(self.events_of(m) for m in MEMBERS))
    @rule(data=st.data(), fails=st.booleans(), gives_back=st.booleans(), first=st.booleans())
    def work(self, data: st.DataObject, fails: bool, gives_back: bool, first: bool) -> None:
        """Done with all before one event; this one fails, perhaps, and the rest goes back."""
        self.order.skip_to(self.position + 1)
        member_id = data.draw(st.sampled_from([m for m in MEMBERS if self.events_of(m)]))
        mine = self.events_of(member_id)
        here = data.draw(st.sampled_from(mine))
        self.settle([n for n in mine if n < here])
        key = self.key_of(here)
        back = [n for n in mine if n > here and (gives_back or key == self.key_of(n) != 0)]
        if not fails:
            back = [here, *back] if gives_back else []
        elif first:
            self.hold(here)
        self.order.put_back(ranges_of(back))
        for seq_no in back:
            self.where[seq_no] = "idle"
        if fails and not first:
            self.hold(here)

    def settle(self, numbers: list[int]) -> None:
        self.order.settle(ranges_of(numbers))
        for seq_no in numbers:
            self.finish(seq_no)
        self.order.skip_to(self.position + 1)

    def finish(self, seq_no: int) -> None:
        self.where[seq_no] = "done"
        self.again.discard(seq_no)
        if seq_no > self.position:
            self.done.add(seq_no, seq_no)
        while self.done.lowest == self.position + 1:
            self.position += 1
            self.done.remove(self.position, self.position)

    def hold(self, seq_no: int) -> None:
        self.order.hold(seq_no)
        self.where[seq_no] = "held"

    @precondition(lambda self: self.events_of("held"))
    @rule(data=st.data(), is_dead=st.booleans())
    def end_hold(self, data: st.DataObject, is_dead: bool) -> None:
        self.order.skip_to(self.position + 1)
        seq_no = data.draw(st.sampled_from(self.events_of("held")))
        if is_dead:
            self.order.drop(seq_no)
            self.finish(seq_no)
        else:
            self.order.resume(seq_no)
            self.where[seq_no] = "idle"

    @precondition(lambda self: self.events_of("done"))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        self.order.skip_to(self.position + 1)
        seq_no = data.draw(st.sampled_from(self.events_of("done")))
        self.where[seq_no] = "idle"
        if seq_no <= self.position:
            self.again.add(seq_no)
        else:
            self.done.remove(seq_no, seq_no)
        self.order.add([(seq_no, seq_no)])

    @rule()
    def make_anew(self) -> None:
        """A writer's start, or whatever else makes a group work it out again."""
        self.order = self.new_order()

    # --- at any time, and at the end ---

    @invariant()
    def what_is_available_is_not_more_than_there_is(self) -> None:
        idle = len(self.events_of("idle"))
        if not idle:
            return
        self.order.skip_to(self.position + 1)
        assert self.order.available(len(self.keys)) >= idle

    def teardown(self) -> None:
        """Nothing is lost: whatever happened, all events come out at last."""
        try:
            for seq_no in self.events_of("held"):
                self.order.resume(seq_no)
                self.where[seq_no] = "idle"
            for turn in range(10 * len(self.keys) + 10):
                member_id = MEMBERS[turn % len(MEMBERS)]
                self.settle(self.events_of(member_id))
                self.take(member_id, 5)
            assert self.position == len(self.keys)
            assert not self.again
        finally:
            order_module.QUEUED_MAX, order_module.SCAN_EVENTS = self.limits  # type: ignore[misc]


class KeyedAgainstModel(AgainstModel):
    is_keyed = True


TestFreeOrderAgainstModel = AgainstModel.TestCase
TestKeyOrderAgainstModel = KeyedAgainstModel.TestCase
_steps = settings(stateful_step_count=30)
TestFreeOrderAgainstModel.settings = _steps
TestKeyOrderAgainstModel.settings = _steps


@pytest.fixture(autouse=True)
def limits_are_as_before() -> Iterator[None]:
    """A machine changes two constants of the module, and changes them back."""
    before = order_module.QUEUED_MAX, order_module.SCAN_EVENTS
    yield
    assert before == (order_module.QUEUED_MAX, order_module.SCAN_EVENTS)
