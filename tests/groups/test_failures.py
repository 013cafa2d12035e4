"""Deliveries that fail, and members that die."""

from __future__ import annotations

import errno
from collections import Counter as Counts
from pathlib import Path

import pytest

from eventlog.errors import (
    LogFull,
    ProtocolError,
)
from eventlog.local.storage.members import DONE, STARTED
from eventlog.local.wire.group_messages import (
    Excuse,
    Lease,
    Leave,
)
from eventlog.local.wire.messages import (
    Done,
)
from eventlog.testing import (
    FailingFiles,
)
from tests.groups.world import (
    M1,
    M2,
    M3,
    POOL_A,
    SECOND,
    Member,
    World,
    accepted,
    numbers_in,
)


def test_a_failed_event_waits_for_its_backoff(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    one.lease(2)
    assert type(one.nack(1, delay_s=30)) is Done
    assert world.dues == 1
    assert world.actor.groups.next_due() == 30 * SECOND
    one.settle(2)
    while numbers := two.lease(100):
        two.settle(*numbers)
    assert world.state().position == 0, "two asks, and waits"
    world.advance(29)
    assert two.leased() == []
    world.advance(1)
    assert (two.leased(), two.failures) == ([1], {1: 1})
    assert world.actor.groups.next_due() is None
    two.settle(1)
    assert world.state().position == 20


def test_a_writer_counts_what_groups_are_handed(world: World) -> None:
    member = Member(world, M1)
    assert member.lease(3) == [1, 2, 3]
    counted = world.actor.statistics()
    assert (counted.leased, counted.redelivered, counted.in_flight) == (3, 0, 3)
    member.settle(1, 3)
    member.nack(2)
    world.actor.groups.resume_due()
    assert member.lease(1) == [2]
    counted = world.actor.statistics()
    assert (counted.leased, counted.redelivered, counted.in_flight) == (4, 1, 1)


def test_a_failure_that_is_said_twice_counts_once(world: World) -> None:
    member = Member(world, M1)
    member.lease(2)
    for _ in range(3):
        assert type(member.nack(1, 5)) is Done
    assert world.state().deliveries == {1: 1}


def test_a_waiting_event_is_handed_out_once_after_a_restart(world: World) -> None:
    member = Member(world, M1)
    assert member.lease(2) == [1, 2]
    member.nack(1, delay_s=30)
    world.restart()
    member = Member(world, M1)
    seen = Counts[int]()
    while numbers := member.lease(3):
        member.settle(*numbers)
        seen.update(numbers)
        world.advance(20)
    assert seen == Counts([1, *range(3, 21)])


def test_a_failure_that_is_said_first_after_a_restart_waits(world: World) -> None:
    # The first word to the new writer was that an event had failed: it was handed out at once, and
    # a second time when its wait was over.
    member = Member(world, M1)
    assert member.lease(2) == [1, 2]
    lease_id = member.lease_id
    world.restart()
    one, two = Member(world, M1), Member(world, M2)
    assert (one.joined.lease_id, numbers_in(one.joined.ranges)) == (lease_id, [1, 2])
    one.lease_id = lease_id
    one.nack(1, delay_s=30)
    while numbers := two.lease(100):
        assert 1 not in numbers
        two.settle(*numbers)
    world.advance(30)
    assert two.leased() == [1]
    assert one.lease() == []


def test_the_page_of_a_dead_member_says_what_it_had_begun(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(5) == [1, 2, 3, 4, 5]
    one.page.states[:4] = bytes([DONE, STARTED, DONE, STARTED])
    one.hang_up()
    assert one.said == []
    state = world.state()
    assert (state.position, list(state.done), state.deliveries) == (1, [(3, 3)], {2: 1, 4: 1})
    assert two.lease(3) == [2], "nobody knows whether 2 or 4 ended the worker"
    assert two.failures == {2: 1}
    two.settle(2)
    assert two.lease(3) == [4]
    assert two.failures == {4: 1}
    two.settle(4)
    assert two.lease(3) == [5, 6, 7]
    assert list(state.members) == [M2]


@pytest.mark.parametrize("ordering", ["", "key"])
@pytest.mark.parametrize("max_deliveries", [1, 3])
def test_only_a_death_alone_exhausts(tmp_path: Path, ordering: str, max_deliveries: int) -> None:
    # All that a worker had in its hands counted a delivery each time it died, and its neighbours
    # became dead letters with the one event that had killed it.
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(6, key=str)
    world.open_group(ordering=ordering, max_deliveries=max_deliveries)
    one = Member(world, M1)
    assert one.lease(4) == [1, 2, 3, 4]
    one.page.states[:3] = bytes([STARTED] * 3)
    one.hang_up()
    assert not world.state().exhausted
    two = Member(world, M2)
    for number in (1, 2):
        assert two.lease(6) == [number]
        assert two.failures == ({number: 1} if max_deliveries > 1 else {})
        two.settle(number)
    deaths = 0
    while not world.state().exhausted:
        assert two.lease(6) == [3]
        two.page.states[0] = STARTED
        two.hang_up()
        deaths += 1
        two = Member(world, M2 + deaths)
    assert deaths == max(max_deliveries - 1, 1), "the shared one is the first"
    assert two.lease(6) == [4, 5, 6]
    world.end()


def test_a_suspect_that_its_worker_outlives_is_none(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    one.lease(3)
    one.page.states[:2] = bytes([STARTED, STARTED])
    one.hang_up()
    assert two.lease(9) == [1]
    two.nack(1, delay_s=1)
    assert two.lease(9) == [2]
    two.settle(2)
    world.advance(1)
    assert two.lease(3) == [1, 3, 4]
    world.end_absent()


def test_what_dies_with_a_pool_that_is_left_has_not_failed(world: World) -> None:
    # A pool that is left kills its workers after a while: three times, and a slow event was a dead
    # letter, although nothing had failed.
    one, other = Member(world, M1), Member(world, M3)
    one.lease(2)
    other.lease(2)
    for member in (one, other):
        member.page.states[0] = STARTED
    accepted(world.peer().ask(Excuse, POOL_A))
    one.hang_up()
    other.hang_up()
    assert world.state().deliveries == {3: 1}, "the other pool is not left"


def test_a_page_of_an_earlier_lease_says_nothing(world: World) -> None:
    one = Member(world, M1)
    assert one.lease(2) == [1, 2]
    one.page.states[:2] = bytes([DONE, DONE])
    one.settle(1, 2)
    one.tell(Lease, 2)
    one.hang_up()
    assert (world.state().position, world.state().deliveries) == (2, {})
    assert Member(world, M2).lease(2) == [3, 4]


def test_a_member_that_leaves_gives_back_what_it_has(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    one.lease(3)
    one.page.states[0] = DONE
    assert type(one.ask(Leave)) is Done
    assert type(one.ask(Leave)) is Done
    with pytest.raises(ProtocolError):
        one.tell(Lease, 1)
    assert two.lease(2) == [2, 3]
    one.hang_up()
    assert list(world.state().members) == [M2]


@pytest.mark.parametrize("has_asked", [False, True], ids=["asks later", "waits"])
def test_a_member_that_died_with_the_writer_leaves_each_event_once(
    world: World, has_asked: bool
) -> None:
    # The event that it had begun was put before the fresh ones, and found among them once more.
    one = Member(world, M1)
    assert one.lease(5) == [1, 2, 3, 4, 5]
    one.page.states[:2] = bytes([DONE, STARTED])
    world.restart()
    two = Member(world, M2)
    seen = Counts(two.lease(1)) if has_asked else Counts[int]()
    assert world.absent() == [M1]
    world.end_absent()
    assert world.absent() == []
    while numbers := two.lease(1):
        seen.update(numbers)
    assert seen == Counts(range(2, 21))


def test_a_full_disk_does_not_keep_the_events_of_a_dead_member(tmp_path: Path) -> None:
    # `forget_peer` raised: in the server that ends the writer, and here the member stayed.
    files = FailingFiles(errno.ENOSPC, ["write"], 10**9)
    world = World(str(tmp_path / "log"), files)
    world.append(10)
    world.open_group()
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(2) == [1, 2]
    files.calls, files._at, files._for_ever = 0, 1, True
    try:
        one.hang_up()
    except LogFull:
        raised = True
    else:
        raised = False
    files.heal()
    assert not raised
    world.actor.groups.resume_due()
    seen = []
    while numbers := two.lease(100):
        two.settle(*numbers)
        seen += numbers
    world.end()
    assert sorted(seen) == list(range(1, 11))
