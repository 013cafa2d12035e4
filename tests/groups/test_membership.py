"""Members of groups, and the pipes through which they are."""

from __future__ import annotations

import os
from typing import Any

import pytest

from eventlog.errors import (
    GroupMismatch,
    InvalidArgument,
    InvalidName,
    ProtocolError,
)
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    DropDead,
    Join,
    Lease,
    Leave,
    Nack,
    OpenGroup,
    Release,
    RetryDead,
    Settle,
)
from eventlog.local.wire.messages import (
    Done,
    Forget,
)
from tests.groups.world import (
    M1,
    M2,
    M3,
    POOL_A,
    Member,
    World,
    check_state,
    numbers_in,
)


def test_the_next_writer_does_not_give_a_page_away_that_was_just_left(world: World) -> None:
    """A member that lost its pipe and lives may still write there that a handler is done.

    In another member's page that said that an event was done which nobody had handled.
    """
    left = Member(world, M1)
    left.hang_up()
    world.restart()
    assert Member(world, M2).joined.slot != left.joined.slot


def test_a_group_has_to_be_opened_before_anybody_joins(world: World) -> None:
    for kind, fields in (
        (Join, (1, os.getpid(), 1)),
        (AwaitCondemned, (1,)),
        (AwaitDrained, (1,)),
        (RetryDead, ((),)),
    ):
        assert type(world.peer().refused(kind, "other", *fields)) is InvalidArgument
    assert type(world.peer().refused(OpenGroup, "a\0b", "", 1, 0)) is InvalidName


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (OpenGroup, ("g", "time", 1, 0)),
        (OpenGroup, ("g", "", 0, 0)),
        (OpenGroup, ("g", "", 1_000_001, 0)),
        (Join, ("g", 0, 1, 1)),
        (Join, ("g", 2**64, 1, 1)),
        (Join, ("g", 1, 0, 1)),
        (Join, ("g", 1, 2**31, 1)),
        (Lease, (1,)),
        (Settle, (1, ((1, 1),))),
        (Release, (1, ((1, 1),))),
        (Nack, (1, 1, 0)),
        (Bury, ("g", 1, 1, b"")),
        (RetryDead, ("g", ((0, 1),))),
        (RetryDead, ("g", ((2, 1),))),
        (DropDead, ("g", ((1, 2**64 - 1),))),
    ],
)
def test_what_makes_no_sense_ends_the_conversation(
    world: World, kind: Any, fields: tuple[Any, ...]
) -> None:
    with pytest.raises(ProtocolError):
        world.peer().tell(kind, *fields)


def test_a_pipe_joins_once_and_asks_once(world: World) -> None:
    world.open_group(name="late", position=20)
    member = Member(world, M1, "late")
    with pytest.raises(ProtocolError):
        member.tell(Join, "g", M2, os.getpid(), 1)
    member.tell(Lease, 1)
    with pytest.raises(ProtocolError):
        member.tell(Lease, 1)


def test_a_group_begins_where_it_is_told_or_where_its_consumer_was(world: World) -> None:
    world.open_group(name="late", position=7)
    world.open_group(name="later", position=99)
    world.log.ack("reader", 5)
    world.open_group(name="reader", position=1)
    assert [world.state(name).position for name in ("late", "later", "reader")] == [7, 20, 5]
    world.open_group(name="late", position=1)
    assert world.state("late").position == 7, "it was there already"
    offset = world.log.offsets.find("later")
    assert offset is not None
    assert offset.position == 20


def test_the_options_of_a_group_at_work_stay(world: World) -> None:
    member = Member(world, M1)
    for options in (("key", 3), ("", 4)):
        assert type(world.peer().refused(OpenGroup, "g", *options, 0)) is GroupMismatch
    world.open_group()
    member.ask(Leave)
    world.open_group(ordering="key", max_deliveries=4)
    assert (world.state().ordering, world.state().max_deliveries) == ("key", 4)
    world.restart()
    assert (world.state().ordering, world.state().max_deliveries) == ("key", 4)


def test_each_member_has_a_page_of_its_own(world: World) -> None:
    members = [Member(world, POOL_A << 32 | n) for n in range(1, 5)]
    assert len({member.joined.slot for member in members}) == 4
    members[0].hang_up()
    slots = {member.joined.slot for member in members}
    assert Member(world, M3).joined.slot not in slots, "what the last one left can still be read"


def test_pages_are_used_again_in_the_end(world: World) -> None:
    slots = []
    for number in range(1, 200):
        member = Member(world, number)
        slots.append(member.joined.slot)
        member.hang_up()
    assert max(slots) < 64


def test_a_group_with_members_is_not_forgotten(world: World) -> None:
    member = Member(world, M1)
    assert type(world.peer().refused(Forget, "g")) is InvalidArgument
    member.hang_up()
    assert type(world.peer().ask(Forget, "g")) is Done
    assert world.log.offsets.find("g") is None
    world.restart()
    assert world.store.groups == {}


def test_a_member_that_comes_back_before_its_old_pipe_is_closed_keeps_its_lease(
    world: World,
) -> None:
    # The end of the old pipe ended the member, whose new pipe then got events that nobody would
    # ever give back: not when it was closed, and not at the next start.
    old = Member(world, M1)
    assert old.lease(2) == [1, 2]
    new = Member(world, M1)
    assert numbers_in(new.joined.ranges) == [1, 2]
    new.lease_id = old.lease_id
    old.hang_up()
    assert type(new.settle(1)) is Done
    new.lease(2)
    check_state(world.state())
    new.hang_up()
    assert world.state().in_flight == 0
    assert world.state().leases == {}
