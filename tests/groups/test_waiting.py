"""Peers that wait for a group to be drained."""

from __future__ import annotations

from eventlog.local.wire.group_messages import (
    AwaitDrained,
    RetryDead,
)
from eventlog.local.wire.messages import (
    Ack,
    Done,
)
from tests.groups.world import (
    M1,
    Member,
    World,
)


def test_who_waits_for_the_end_is_told_when_it_has_come(world: World) -> None:
    waiting, gone = world.peer(), world.peer()
    waiting.tell(AwaitDrained, "g", 2)
    gone.tell(AwaitDrained, "g", 2)
    gone.hang_up()
    assert world.peer().ask(AwaitDrained, "g", 0) == Done(1)
    member = Member(world, M1)
    member.lease(3)
    member.settle(2)
    assert waiting.heard() == []
    member.reject(1)
    assert waiting.heard() == [Done(1)]
    world.peer().ask(RetryDead, "g", ((1, 1),))
    waiting.tell(AwaitDrained, "g", 2)
    assert waiting.heard() == [], "a retried letter is to be done again"
    member.settle(3)
    assert member.lease(1) == [1]
    member.settle(1)
    assert waiting.heard() == [Done(2)]
    assert gone.heard() == []


def test_an_acknowledgement_for_the_group_skips(world: World) -> None:
    member, waiting = Member(world, M1), world.peer()
    member.lease(3)
    waiting.tell(AwaitDrained, "g", 5)
    assert type(world.peer().ask(Ack, "g", 5)) is Done
    assert waiting.heard() == [Done(1)]
    assert type(member.settle(1, 2)) is Done, "they are done, whoever was"
    assert world.state().position == 5
    assert type(world.peer().ask(Ack, "g", 3)) is Done
    assert member.lease(1) == [6]
