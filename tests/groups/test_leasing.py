"""Leases: who gets which events, who shares them, and what becomes of the order of keys."""

from __future__ import annotations

from pathlib import Path

from eventlog.errors import (
    StaleLease,
)
from eventlog.event.many_events import pack_batches
from eventlog.local.storage.members import DONE, LEASE_EVENTS_MAX, STARTED
from eventlog.local.wire.group_messages import (
    Bury,
    Nack,
    Release,
    Revoke,
    Settle,
)
from eventlog.local.wire.messages import (
    Done,
    Seek,
    error_of,
)
from tests.groups.world import (
    LETTER,
    M1,
    M2,
    M3,
    Member,
    World,
    check_state,
)


def test_who_asks_gets_events_that_nobody_else_has(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(3) == [1, 2, 3]
    assert two.lease(3) == [4, 5, 6]
    assert one.failures == two.failures == {}
    assert world.state().in_flight == 6


def test_nobody_takes_so_much_that_others_have_nothing_at_the_end(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(100) == list(range(1, 11))
    assert two.lease(100) == list(range(11, 21))


def test_a_lease_is_no_larger_than_its_page(tmp_path: Path) -> None:
    world = World(str(tmp_path / "log"))
    events = 3 * LEASE_EVENTS_MAX
    (batch,) = pack_batches([0] * events, 1 << 20, 1 << 24)
    world.log.append(batch)
    world.open_group()
    assert len(Member(world, M1).lease(2**63)) == LEASE_EVENTS_MAX
    world.end()


def test_who_finds_nothing_is_told_when_there_is_something(world: World) -> None:
    world.open_group(name="late", position=20)
    one, two = Member(world, M1, "late"), Member(world, M2, "late")
    assert one.lease() == two.lease() == []
    world.append(1)
    assert (one.leased(), two.leased()) == ([21], [])
    world.append(1)
    assert two.leased() == [22]


def test_who_has_left_is_not_given_anything(world: World) -> None:
    world.open_group(name="late", position=20)
    one, two = Member(world, M1, "late"), Member(world, M2, "late")
    one.lease()
    two.lease()
    one.hang_up()
    world.append(1)
    assert (one.leased(), two.leased()) == ([], [21])


def test_settled_events_move_the_position(world: World) -> None:
    member = Member(world, M1)
    assert member.lease(4) == [1, 2, 3, 4]
    assert type(member.settle(2, 4)) is Done
    assert world.state().position == 0
    assert type(member.settle(1)) is Done
    offset = world.log.offsets.find("g")
    assert offset is not None
    assert (world.state().position, offset.position) == (2, 2)
    assert type(member.settle(1, 2)) is Done, "said again, after a lost pipe"
    assert type(member.settle()) is Done


def test_a_delivery_that_was_superseded_does_not_count(world: World) -> None:
    member, other = Member(world, M1), Member(world, M2)
    member.lease(2)
    lease_id = member.lease_id
    for kind, fields in (
        (Settle, (lease_id, ((1, 1),))),
        (Release, (lease_id, ((1, 1),))),
        (Nack, (lease_id, 1, 0)),
        (Bury, ("g", lease_id, 1, LETTER)),
    ):
        assert type(other.refused(kind, *fields)) is StaleLease
    assert type(world.peer().ask(Seek, "g", 0)) is Done
    error = member.refused(Settle, lease_id, ((1, 1),))
    assert (type(error), error.seq_no, error.consumer) == (StaleLease, 1, "g")
    answer = member.results(1)
    assert type(error_of(answer)) is StaleLease
    assert world.log.last_seq_no == 20, "its results were not stored"
    assert other.lease(2) == [1, 2]


def test_what_a_settlement_names_is_done_even_if_some_of_it_was_said_before(world: World) -> None:
    # All or nothing: since event 1 was done already, 2 and 3 were answered with `Done`, and stayed.
    member = Member(world, M1)
    member.lease(3)
    member.settle(1)
    assert type(member.settle(1, 2, 3)) is Done
    assert world.state().position == 3


def test_the_largest_lease_is_shared_with_who_is_idle(world: World) -> None:
    world.open_group(name="late", position=12)
    one, two, three = (Member(world, member_id, "late") for member_id in (M1, M2, M3))
    assert one.lease(9) == [13, 14, 15]
    for number in range(16, 21):
        assert two.lease(1) == [number]
    assert three.lease() == []
    assert one.heard() == [Revoke(0, one.lease_id)]
    assert two.heard() == []
    assert type(one.release(14, 15)) is Done
    assert three.leased() == [14, 15]
    assert one.heard() == []
    check_state(world.state("late"))


def test_a_lease_is_revoked_once_until_its_owner_has_answered(world: World) -> None:
    one, two, three = (Member(world, member_id) for member_id in (M1, M2, M3))
    one.lease(3)
    while numbers := two.lease(100):
        two.settle(*numbers)
    assert three.lease() == []
    assert one.heard() == [Revoke(0, one.lease_id)]
    assert type(one.release()) is Done, "it has begun all of them"
    assert one.heard() == []
    assert type(one.settle(1)) is Done
    assert one.heard() == [Revoke(0, one.lease_id)]
    assert type(one.settle(2, 3)) is Done
    assert world.state().position == 20


def test_what_is_given_back_goes_to_who_waits(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(4) == [1, 2, 3, 4]
    one.nack(1, delay_s=9)
    while numbers := two.lease(100):
        two.settle(*numbers)
    assert one.release(3, 4) is not None
    assert two.leased() == [3, 4]
    assert type(one.release(3, 4)) is Done, "said again"
    two.settle(3, 4)
    assert two.lease() == []


def test_a_key_is_with_one_member_at_a_time(tmp_path: Path) -> None:
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(20, key=lambda number: "ab"[number % 2])
    world.open_group(ordering="key")
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(3) == [1, 2, 3]
    assert two.lease() == []
    assert one.heard() == [Revoke(0, one.lease_id)]
    one.page.states[:2] = bytes([STARTED, DONE])
    one.hang_up()
    assert two.leased() == [1]
    assert two.failures == {1: 1}
    two.settle(1)
    assert two.lease() == [*range(3, 21)]
    world.end()


def test_keys_stay_with_their_members_over_a_restart(tmp_path: Path) -> None:
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(20, key=lambda number: "abcd"[number % 4])
    world.open_group(ordering="key")
    one = Member(world, M1)
    assert one.lease(2) == [1, 2]
    world.restart()
    two = Member(world, M2)
    numbers = two.lease(6)
    assert {number % 4 for number in numbers} == {3, 0}
    assert world.absent() == [M1]
    world.end_absent()
    assert two.lease(4)[:2] == [1, 2]
    world.end()
