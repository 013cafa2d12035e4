"""One group: every record, what a replay makes of them, and all together against a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventlog.local.groups.endings import settlement
from eventlog.local.groups.holders import RECENT_MAX
from eventlog.local.groups.postponed import no_times
from eventlog.local.groups.ranges import Range, RangeSet, ranges_of
from eventlog.local.groups.records import Failed, GroupRecord, Ordering, group_record
from eventlog.local.groups.state import GroupState
from eventlog.local.storage.members import DONE, FAILED, RETURNED, STARTED

A, B = 11, 22
MEMBERS = (1, 2, 3)
Records = list[tuple[Any, ...]]


def no_keys(first: int, last: int) -> list[int]:
    return [0] * (last - first + 1)


def numbers_in(ranges: Iterable[Range]) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]


def record(kind: str, *fields: Any) -> GroupRecord:
    """A record of the group `g`, from what the journal gives back: tuples are lists there."""
    return group_record(msgpack.unpackb(msgpack.packb((kind, "g", *fields))))


def apply(state: GroupState, kind: str, *fields: Any) -> None:
    state.apply(record(kind, *fields))


def snapshot_of(state: GroupState) -> tuple[Any, ...]:
    """The record that stands for all those before it, as it is stored."""
    kind, _, *fields = msgpack.unpackb(msgspec.msgpack.encode(state.snapshot()))
    return (kind, *fields)


def replayed(records: Records, hashes: Any = no_keys, times: Any = no_times) -> GroupState:
    """The state that the next writer has."""
    state = GroupState("g", hashes, times)
    for kind, *fields in records:
        apply(state, kind, *fields)
    return state


def group(*records: tuple[Any, ...]) -> GroupState:
    """A group of members 1, 2 and 3 with three deliveries, and the records."""
    members = [("member", member_id, 100, 5, member_id) for member_id in MEMBERS]
    return replayed([("options", "", 3), *members, *records])


def taken(state: GroupState, high_water: int, member_id: int = 1) -> list[int]:
    """Everything that can be had, one lease for each event."""
    seen: list[int] = []
    while some := state.take(member_id, 1, high_water):
        lease_id = 1000 + len(seen) + state.position
        apply(state, "lease", lease_id, member_id, some)
        seen += numbers_in(some)
    return seen


# --- records ---------------------------------------------------------------------------------


def test_a_new_group_hands_out_what_follows_its_position() -> None:
    state = group(("seek", 4))
    assert state.take(1, 3, 9) == [(5, 7)]
    assert (state.position, state.in_flight) == (4, 0)


def test_a_lease_is_open_until_all_of_it_is_done_or_given_back() -> None:
    state = group(("lease", 9, 1, [(1, 3), (5, 6)]))
    assert state.in_flight == 5
    apply(state, "done", 9, [(2, 3), (5, 5)])
    assert (state.position, list(state.done)) == (0, [(2, 3), (5, 5)])
    apply(state, "back", 9, [(6, 6)])
    assert (state.in_flight, list(state.leases)) == (1, [9])
    apply(state, "done", 9, [(1, 1)])
    assert (state.position, list(state.done)) == (3, [(5, 5)])
    assert state.leases == {}
    assert list(state.members[1].recent) == [9]
    assert taken(state, 7) == [4, 6, 7]


def test_what_is_given_back_is_handed_out_again() -> None:
    state = group()
    assert state.take(1, 3, 9) == [(1, 3)]
    apply(state, "lease", 9, 1, [(1, 3)])
    apply(state, "back", 9, [(2, 3)])
    assert state.take(2, 3, 9) == [(2, 4)]


def test_what_was_not_handed_out_after_all_is_there_still() -> None:
    state = group()
    ranges = state.take(1, 3, 9)
    state.untake(ranges)
    assert state.take(2, 9, 9) == [(1, 9)]


def test_a_failed_event_is_held_until_its_wait_is_over() -> None:
    state = group()
    ranges = state.take(1, 2, 9)
    apply(state, "lease", 9, 1, ranges)
    apply(state, "failed", 9, 1)
    state.delay(1, 50)
    assert (state.deliveries, state.exhausted) == ({1: 1}, {})
    assert state.next_due() == 50
    assert state.take(2, 1, 2) == []
    assert not state.resume_due(49, 0)
    assert state.resume_due(50, 0)
    assert state.next_due() is None
    assert state.take(2, 1, 2) == [(1, 1)]
    apply(state, "lease", 10, 2, [(1, 1)])
    apply(state, "done", 10, [(1, 1)])
    assert state.deliveries == {}


def test_the_last_delivery_condemns_an_event_until_it_is_buried() -> None:
    state = group()
    for lease_id, member_id in ((9, 1), (10, 2), (11, 3)):
        assert state.exhausted == {}
        assert state.take(member_id, 1, 2) == [(1, 1)]
        apply(state, "lease", lease_id, member_id, [(1, 1)])
        apply(state, "failed", lease_id, 1)
        if not state.exhausted:
            state.delay(1, 0)
            state.resume_due(0, 0)
    assert state.exhausted == {1: 3}
    assert taken(state, 2) == [2]
    assert not state.is_done(1)
    apply(state, "buried", 0, 1)
    assert (state.exhausted, state.deliveries, state.position) == ({}, {}, 1)
    assert taken(state, 2) == []


def test_an_event_may_be_buried_by_who_has_it() -> None:
    state = group(("lease", 9, 1, [(1, 2)]), ("failed", 9, 1))
    apply(state, "buried", 9, 2)
    assert (state.is_done(2), state.leases, list(state.done)) == (True, {}, [(2, 2)])


def test_dead_letters_are_tried_again_as_if_for_the_first_time() -> None:
    state = group(("lease", 9, 1, [(1, 5)]), ("buried", 9, 1), ("buried", 9, 4))
    apply(state, "again", [1, 4])
    assert list(state.again) == [(1, 1)], "1 is behind the position"
    assert (state.is_done(1), state.is_done(4), state.is_drained(1)) == (False, False, False)
    apply(state, "done", 9, [(2, 3), (5, 5)])
    assert state.position == 3
    assert taken(state, 5) == [1, 4]
    assert state.deliveries == {}
    apply(state, "done", next(iter(state.leases)), [(1, 1)])
    assert state.is_drained(1)


def test_results_are_done_in_the_step_in_which_they_are_stored() -> None:
    state = group(("lease", 9, 1, [(1, 2)]))
    apply(state, "results", 9, [(1, 1)], 3, 4)
    assert (state.position, list(state.done), state.replayed_to) == (1, [(3, 4)], 4)
    apply(state, "results", 9, [(2, 2)], 3, 4)
    assert state.position == 1, "the second time it is known already"
    apply(state, "results", 9, [(2, 2)], 5, 5)
    assert (state.position, state.replayed_to, state.leases) == (5, 5, {})


def test_a_seek_begins_anew() -> None:
    state = group(("lease", 9, 1, [(1, 5)]), ("done", 9, [(3, 3)]), ("failed", 9, 4))
    state.delay(4, 10)
    apply(state, "seek", 2)
    assert (state.position, state.leases, state.deliveries) == (2, {}, {})
    assert (list(state.done), state.next_due()) == ([], None)
    assert len(state.members) == 3
    assert taken(state, 5) == [3, 4, 5]
    with pytest.raises(KeyError):
        state.holds(9, 1, [(1, 1)])


def test_a_skip_is_done_with_everything_before() -> None:
    state = group(("lease", 9, 1, [(1, 5)]), ("lease", 10, 2, [(6, 7)]), ("failed", 9, 4))
    apply(state, "done", 10, [(6, 6)])
    apply(state, "skip", 5)
    assert (state.position, state.leases[10].open.count, list(state.leases)) == (6, 1, [10])
    assert list(state.members[1].recent) == [9]
    assert state.holds(9, 1, [(1, 2)]) is False, "who had them is not told that they are lost"
    apply(state, "skip", 3)
    assert state.position == 6
    assert taken(state, 8) == [8]


def test_members_come_and_go() -> None:
    state = group(("gone", 2), ("gone", 77))
    assert list(state.members) == [1, 3]
    assert (state.members[3].pid, state.members[3].start, state.members[3].slot) == (100, 5, 3)


# --- decisions -------------------------------------------------------------------------------


def test_whether_a_member_has_events() -> None:
    state = group(("lease", 9, 1, [(1, 4)]), ("done", 9, [(1, 2)]))
    assert state.holds(9, 1, [(3, 3), (4, 4)]) is True
    assert state.holds(9, 1, [(1, 2)]) is False, "said before"
    for lease_id, member_id, ranges in ((9, 2, [(3, 3)]), (8, 1, [(3, 3)]), (9, 1, [(4, 5)])):
        with pytest.raises(KeyError):
            state.holds(lease_id, member_id, ranges)
    apply(state, "done", 9, [(3, 4)])
    assert state.holds(9, 1, [(4, 4)]) is False, "the lease is through, and known"


def test_as_many_leases_are_remembered_as_can_be_repeated() -> None:
    state = group()
    for lease_id in range(1, RECENT_MAX + 3):
        apply(state, "lease", lease_id, 1, [(lease_id, lease_id)])
        apply(state, "done", lease_id, [(lease_id, lease_id)])
    assert not state.holds(3, 1, [(3, 3)])
    with pytest.raises(KeyError):
        state.holds(2, 1, [(2, 2)])


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        (b"", [("back", 9, [(1, 2), (5, 6)])]),
        (bytes([DONE, STARTED]), [("failed", 9, 2), ("done", 9, [(1, 1)]), ("back", 9, [(5, 6)])]),
        (bytes([DONE] * 5), [("done", 9, [(1, 2), (5, 6)])]),
        (bytes([STARTED] * 3), [*(("failed", 9, n) for n in (1, 2, 5)), ("back", 9, [(6, 6)])]),
        (
            bytes([FAILED, STARTED, STARTED]),
            [("failed", 9, 1), ("failed", 9, 2), ("failed", 9, 5), ("back", 9, [(6, 6)])],
        ),
        (bytes([99, RETURNED, DONE]), [("done", 9, [(5, 5)]), ("back", 9, [(1, 2), (6, 6)])]),
    ],
    ids=["not its page", "half done", "done", "all begun", "failed", "nonsense"],
)
def test_a_lease_ends_as_the_page_says(page: bytes, wanted: Records) -> None:
    state = group(("lease", 9, 1, [(1, 2), (5, 6)]))
    assert settlement(state, state.leases[9], page) == [record(*one) for one in wanted]
    for kind, *fields in wanted:
        apply(state, kind, *fields)
    assert state.leases == {}


def test_a_failure_that_nobody_heard_of_counts_beside_a_shared_death() -> None:
    # Writer and member died at once, when the next event had begun: both were given back, and the
    # one that had failed for the last time was handed out once more as if it had not.
    leased = [("options", "", 1), ("lease", 9, 1, [(1, 2)])]
    state = group(*leased)
    page = bytes([FAILED, STARTED])
    assert settlement(state, state.leases[9], page) == [record("failed", 9, n) for n in (1, 2)]
    page = bytes([FAILED, STARTED, STARTED])
    state = group(("options", "", 1), ("lease", 9, 1, [(1, 3)]))
    assert settlement(state, state.leases[9], page, is_excused=True) == [
        record("failed", 9, 1),
        record("back", 9, [(2, 3)]),
    ]


def test_a_page_says_nothing_of_what_is_settled_already() -> None:
    state = group(("lease", 9, 1, [(1, 4)]), ("done", 9, [(1, 1)]), ("failed", 9, 2))
    page = bytes([STARTED, STARTED, DONE, STARTED])
    assert settlement(state, state.leases[9], page) == [
        record("failed", 9, 4),
        record("done", 9, [(3, 3)]),
    ]


def test_the_largest_lease_is_the_one_to_share() -> None:
    state = group(("lease", 7, 1, [(1, 2)]), ("lease", 8, 2, [(3, 5)]), ("lease", 9, 3, [(6, 6)]))
    lease = state.largest_lease(not_of=1)
    assert lease is not None
    assert lease.lease_id == 8
    apply(state, "done", 8, [(3, 4)])
    assert state.largest_lease(not_of=1) is None, "of one event there is nothing to share"


def test_results_of_a_lease_that_was_lost_take_their_events_from_an_earlier_one() -> None:
    # A loss of power took the end of the journal and left a batch of results: its event stayed in
    # the lease before, was handed out again when that member was gone, and had two results.
    state = group(("lease", 7, 1, [(1, 2)]), ("results", 9, [(1, 1)], 11, 11))
    assert list(state.leases[7].open) == [(2, 2)]
    apply(state, "results", 9, [(2, 2)], 12, 12)
    assert state.leases == {}


def test_events_are_shared_among_the_idle() -> None:
    state = group()
    assert state.fair_share(600) == 200
    assert state.fair_share(4) == 2
    assert state.fair_share(0) == 1
    state.take(1, 100, 600)
    apply(state, "lease", 7, 1, [(1, 100)])
    assert state.fair_share(600) == 250


def test_a_repr_tells_the_state() -> None:
    assert repr(group(("seek", 7))) == "<GroupState 'g' position=7 leases=0 members=3>"


# --- bugs ------------------------------------------------------------------------------------


def test_an_event_that_fails_after_a_restart_waits_and_comes_back_once() -> None:
    # After a writer's start nothing was worked out yet when a member's first word was that an event
    # had failed. It was handed out without its wait, and once more when the wait was over.
    state = group(("lease", 9, 1, [(1, 2)]))
    apply(state, "failed", 9, 1)
    state.delay(1, 50)
    assert taken(state, 5, member_id=2) == [3, 4, 5]
    assert state.resume_due(50, 0)
    assert taken(state, 5, member_id=3) == [1]


def test_a_member_that_died_with_its_writer_leaves_its_event_to_one_member() -> None:
    # The same at once: the event that it had begun was put before the fresh ones, and found among
    # them a second time.
    for keys in (no_keys, lambda first, last: [A] * (last - first + 1)):
        ordering = "" if keys is no_keys else "key"
        member = ("member", 1, 100, 5, 1)
        state = replayed([("options", ordering, 3), member, ("lease", 9, 1, [(1, 2)])], keys)
        for ending in settlement(state, state.leases[9], bytes([STARTED])):
            state.apply(ending)
        state.delay(1, 0)
        assert state.resume_due(0, 0)
        assert sorted(taken(state, 4)) == [1, 2, 3, 4]


def test_a_group_that_changes_its_order_forgets_no_wait() -> None:
    # An event waited for its backoff while a pool came that wanted another order: it was handed out
    # at once, and again when the wait was over.
    state = group()
    apply(state, "lease", 9, 1, state.take(1, 1, 3))
    apply(state, "failed", 9, 1)
    state.delay(1, 50)
    apply(state, "options", "key", 3)
    seen = taken(state, 3)
    state.resume_due(50, 0)
    seen += taken(state, 3)
    assert sorted(seen) == [1, 2, 3]


def test_a_skip_is_done_with_retried_events_too() -> None:
    # They stayed "to be done again": the group was never drained any more, and events that a member
    # had in its hands were given to another one.
    state = group(("lease", 9, 1, [(1, 2)]), ("buried", 9, 1), ("done", 9, [(2, 2)]))
    apply(state, "again", [1])
    apply(state, "lease", 10, 2, state.take(2, 1, 5))
    apply(state, "skip", 4)
    assert state.is_done(1)
    assert state.is_drained(4)
    assert taken(state, 5) == [5]


def test_a_skip_forgets_how_often_events_failed() -> None:
    # What failed and was then skipped counted as a redelivery for ever.
    state = group(("lease", 9, 1, [(1, 2)]), ("failed", 9, 1), ("failed", 9, 2))
    apply(state, "skip", 1)
    assert state.deliveries == {2: 1}


def test_results_that_stand_before_the_position_do_not_stop_it() -> None:
    # The writer could not say so in its journal (a full disk), the group was moved to the end, and
    # the next writer found the acknowledgements: the position never moved again.
    state = group(("lease", 9, 1, [(1, 2)]), ("seek", 4))
    apply(state, "results", 9, [(1, 2)], 3, 4)
    apply(state, "lease", 10, 1, [(5, 6)])
    apply(state, "done", 10, [(5, 6)])
    assert state.position == 6
    assert list(state.done) == []


# --- against a model -------------------------------------------------------------------------


class AgainstModel(RuleBasedStateMachine):
    """The model: of each event "idle", "delayed", "exhausted", "done", "dead", or whose it is.

    An idle event may be handed out if it is due; a wait that is forgotten makes an event idle.
    Members have one lease at a time, are done with a key's events in order, and give back the later
    ones of a key whose event failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[int] = []
        self.where: dict[int, str | int] = {}
        self.failures: dict[int, int] = {}
        self.leases: dict[int, int] = {}
        """The lease of each member that has one."""
        self.due: dict[int, int] = {}
        self.now = 0
        self.lease_id = 0
        self.records: Records = []
        self.snapshot: tuple[tuple[Any, ...], int] | None = None
        self.not_before: dict[int, int] = {}
        self.state = GroupState("g", self.hashes, self.times)

    def times(self, first: int, last: int) -> list[tuple[int, int]]:
        assert 1 <= first <= last <= len(self.keys)
        return [(due, n) for n, due in self.not_before.items() if first <= n <= last]

    def hashes(self, first: int, last: int) -> list[int]:
        assert 1 <= first <= last <= len(self.keys)
        return self.keys[first - 1 : last]

    def commit(self, kind: str, *fields: Any) -> None:
        self.records.append((kind, *fields))
        apply(self.state, kind, *fields)

    def events_of(self, *places: str | int) -> list[int]:
        return [n for n, where in self.where.items() if where in places]

    def move(self, numbers: Iterable[int], where: str | int) -> None:
        for seq_no in numbers:
            self.where[seq_no] = where
            self.due.pop(seq_no, None)
            if where in ("done", "dead"):
                self.failures.pop(seq_no, None)

    def forget_waits(self) -> None:
        self.move(self.events_of("delayed"), "idle")

    def key_of(self, seq_no: int) -> int:
        return self.keys[seq_no - 1] if self.state.ordering == "key" else 0

    def drop_leases(self) -> None:
        self.leases = {m: one for m, one in self.leases.items() if self.events_of(m)}

    # --- rules ---

    @initialize(ordering=st.sampled_from(["", "key"]), max_deliveries=st.integers(1, 3))
    def make(self, ordering: Ordering, max_deliveries: int) -> None:
        self.commit("seek", 0)
        self.commit("options", ordering, max_deliveries)
        for member_id in MEMBERS:
            self.join(member_id)

    def join(self, member_id: int) -> None:
        if member_id not in self.state.members:
            self.commit("member", member_id, 100, 5, member_id)

    @rule(
        keys=st.lists(st.sampled_from([0, A, A, B]), min_size=1, max_size=8),
        later=st.sampled_from([0, 0, 2, 4]),
    )
    def append(self, keys: list[int], later: int = 0) -> None:
        """Events, the first of which is due later."""
        if later:
            self.not_before[len(self.keys) + 1] = self.now + later
        for key in keys:
            self.keys.append(key)
            self.where[len(self.keys)] = "idle"

    @rule(member_id=st.sampled_from(MEMBERS), count=st.integers(1, 5), is_stored=st.booleans())
    def take(self, member_id: int, count: int, is_stored: bool) -> None:
        if member_id in self.leases:
            return
        self.join(member_id)
        self.state.postpone(len(self.keys), self.now)
        ranges = self.state.take(member_id, count, len(self.keys))
        numbers = numbers_in(ranges)
        assert ranges == ranges_of(numbers)
        assert all(self.not_before.get(n, 0) <= self.now for n in numbers), "none is early"
        assert len(numbers) <= count
        for seq_no in numbers:
            assert self.where[seq_no] == "idle", f"event {seq_no} is {self.where[seq_no]}"
            self.check_turn(seq_no, member_id)
            self.where[seq_no] = member_id
        if numbers and is_stored:
            self.lease_id += 1
            self.commit("lease", self.lease_id, member_id, ranges)
            self.leases[member_id] = self.lease_id
        elif numbers:
            self.state.untake(ranges)
            self.move(numbers, "idle")

    def check_turn(self, seq_no: int, member_id: int) -> None:
        key = self.key_of(seq_no)
        for other, where in self.where.items():
            if key and self.key_of(other) == key and where not in ("done", "dead"):
                assert where == member_id or (where == "idle" and other >= seq_no), (
                    f"event {seq_no} to {member_id}, and {other} is {where}"
                )

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), with_results=st.integers(0, 2))
    def settle(self, data: st.DataObject, with_results: int) -> None:
        member_id = data.draw(st.sampled_from(sorted(self.leases)))
        mine = self.events_of(member_id)
        done = mine[: data.draw(st.integers(1, len(mine)))]
        lease_id, ranges = self.leases[member_id], ranges_of(done)
        assert self.state.holds(lease_id, member_id, ranges)
        if with_results:
            first = len(self.keys) + 1
            self.append([0] * with_results)
            self.commit("results", lease_id, ranges, first, len(self.keys))
            self.move(range(first, len(self.keys) + 1), "done")
        else:
            self.commit("done", lease_id, ranges)
        self.move(done, "done")
        self.drop_leases()
        assert not self.state.holds(lease_id, member_id, ranges)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        member_id = data.draw(st.sampled_from(sorted(self.leases)))
        mine = self.events_of(member_id)
        back = mine[data.draw(st.integers(0, len(mine) - 1)) :]
        self.commit("back", self.leases[member_id], ranges_of(back))
        self.move(back, "idle")
        self.drop_leases()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), delay=st.integers(0, 9), is_buried=st.booleans())
    def fail(self, data: st.DataObject, delay: int, is_buried: bool) -> None:
        member_id = data.draw(st.sampled_from(sorted(self.leases)))
        mine = self.events_of(member_id)
        seq_no = data.draw(st.sampled_from(mine))
        key, lease_id = self.key_of(seq_no), self.leases[member_id]
        before = [n for n in mine if n < seq_no and key == self.key_of(n) != 0]
        behind = [n for n in mine if n > seq_no and key == self.key_of(n) != 0]
        if before:
            self.commit("done", lease_id, ranges_of(before))
            self.move(before, "done")
        if is_buried:
            self.commit("buried", lease_id, seq_no)
            self.move([seq_no], "dead")
        else:
            self.commit("failed", lease_id, seq_no)
            self.note_failure(seq_no, self.now + delay)
            if behind:
                self.commit("back", lease_id, ranges_of(behind))
                self.move(behind, "idle")
        self.drop_leases()

    def note_failure(self, seq_no: int, due: int) -> None:
        failures = self.failures[seq_no] = self.failures.get(seq_no, 0) + 1
        is_last = failures >= self.state.max_deliveries
        self.where[seq_no] = "exhausted" if is_last else "delayed"
        if not is_last:
            self.due[seq_no] = due
            self.state.delay(seq_no, due)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), is_its_page=st.booleans(), has_begun=st.booleans())
    def die(self, data: st.DataObject, is_its_page: bool, has_begun: bool) -> None:
        member_id = data.draw(st.sampled_from(sorted(self.leases)))
        lease = self.state.leases[self.leases.pop(member_id)]
        mine = self.events_of(member_id)
        begun = data.draw(st.sampled_from(mine))
        done = [n for n in mine if n < begun] if is_its_page else []
        failed = [begun] if is_its_page and has_begun else []
        rows = [n for first, last in lease.given for n in range(first, last + 1)]
        page = bytearray(rows.index(mine[-1]) + 1)
        for seq_no in done:
            page[rows.index(seq_no)] = DONE
        for seq_no in failed:
            page[rows.index(seq_no)] = STARTED
        endings = settlement(self.state, lease, bytes(page) if is_its_page else b"")
        self.move(mine, "idle")
        self.move(done, "done")
        for ending in endings:
            kind, _, *fields = msgpack.unpackb(msgspec.msgpack.encode(ending))
            self.commit(kind, *fields)
            if isinstance(ending, Failed):
                self.note_failure(ending.seq_no, self.now)
        self.commit("gone", member_id)
        self.wait(0)

    @rule(steps=st.integers(0, 5))
    def wait(self, steps: int) -> None:
        self.now += steps
        self.state.resume_due(self.now, self.now)
        self.move([n for n, due in list(self.due.items()) if due <= self.now], "idle")

    @precondition(lambda self: self.events_of("exhausted"))
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        seq_no = data.draw(st.sampled_from(self.events_of("exhausted")))
        self.commit("buried", 0, seq_no)
        self.move([seq_no], "dead")

    @precondition(lambda self: self.events_of("dead"))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        dead = self.events_of("dead")
        numbers = sorted(data.draw(st.sets(st.sampled_from(dead), min_size=1)))
        self.commit("again", numbers)
        self.move(numbers, "idle")

    @rule(data=st.data())
    def skip(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.keys)))
        if position > self.state.position:
            self.commit("skip", position)
            self.move([n for n in self.where if n <= position and self.where[n] != "dead"], "done")
            self.forget_waits()
            self.drop_leases()

    @rule(data=st.data())
    def seek(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.keys)))
        self.commit("seek", position)
        self.failures.clear()
        for seq_no in self.where:
            self.move([seq_no], "done" if seq_no <= position else "idle")
        self.leases.clear()

    @precondition(lambda self: not self.leases)
    @rule(ordering=st.sampled_from(["", "key"]))
    def change_order(self, ordering: Ordering) -> None:
        for member_id in list(self.state.members):
            self.commit("gone", member_id)
        self.commit("options", ordering, self.state.max_deliveries)
        self.forget_waits()

    @rule()
    def start_anew(self) -> None:
        """As the next writer has it: what waited for a backoff need not any more."""
        self.state = replayed(self.records, self.hashes, self.times)
        self.forget_waits()

    @rule()
    def rewrite(self) -> None:
        """The journal becomes one record."""
        self.records = [snapshot_of(self.state)]
        self.snapshot = None

    @rule()
    def take_snapshot(self) -> None:
        self.snapshot = snapshot_of(self.state), len(self.records)

    # --- at any time, and at the end ---

    @invariant()
    def everything_is_where_the_model_says(self) -> None:
        state = self.state
        for seq_no, where in self.where.items():
            assert state.is_done(seq_no) is (where in ("done", "dead")), f"event {seq_no}: {where}"
        open_events = {n for lease in state.leases.values() for n in lease.open.numbers()}
        assert open_events == set(self.events_of(*MEMBERS))
        assert state.in_flight == len(open_events), "no event is in two leases"
        assert set(state.exhausted) == set(self.events_of("exhausted"))
        assert state.deliveries == self.failures
        drained = [n for n in self.where if state.is_drained(n)]
        busy = [n for n, where in self.where.items() if where not in ("done", "dead")]
        if min(busy, default=len(self.keys) + 1) > state.position:
            assert drained == [n for n in self.where if n < min(busy, default=n + 1)]
        else:
            assert drained == [], "some are to be done again"

    @invariant()
    def position_and_sets_are_apart(self) -> None:
        state = self.state
        assert (state.done.lowest or state.position + 2) > state.position + 1
        assert all(last <= state.position for _, last in state.again)
        assert state.position <= len(self.keys)

    @invariant()
    def a_replay_gives_the_same(self) -> None:
        wanted = snapshot_of(self.state)
        assert snapshot_of(replayed(self.records, self.hashes)) == wanted
        assert snapshot_of(replayed([wanted])) == wanted
        if self.snapshot is not None:
            snapshot, at = self.snapshot
            back = replayed([snapshot, *self.records[at:]], self.hashes)
            assert snapshot_of(back) == wanted

    def teardown(self) -> None:
        """Nothing is lost: whatever happened, the group comes to its end."""
        if not self.records:
            return
        self.wait(100)
        for seq_no in self.events_of("exhausted"):
            self.commit("buried", 0, seq_no)
            self.move([seq_no], "dead")
        for turn in range(10 * len(self.keys) + 10):
            member_id = MEMBERS[turn % len(MEMBERS)]
            if member_id in self.leases:
                mine = self.events_of(member_id)
                self.commit("done", self.leases.pop(member_id), ranges_of(mine))
                self.move(mine, "done")
            self.take(member_id, 5, is_stored=True)
        assert self.state.is_drained(len(self.keys))
        assert self.state.leases == {}
        assert RangeSet() == self.state.done == self.state.again


TestGroupStateAgainstModel = AgainstModel.TestCase
TestGroupStateAgainstModel.settings = settings(stateful_step_count=30)
