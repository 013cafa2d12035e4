"""A process as a member, by hand: what its conversation makes of what the writer says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eventlog.local.client.conversations import (
    OPEN_PIPE,
    RECEIVE,
    Channel,
    PipeBroken,
    Send,
    Steps,
)
from eventlog.local.client.membership import Membership
from eventlog.local.storage.members import MemberPage, MemberPages
from eventlog.local.wire.connection import frame
from eventlog.local.wire.group_messages import Join, Joined, Lease, Leased, Release, Revoke
from eventlog.local.wire.messages import MEMBER_VERSION, Done, Request, Welcome

ID = bytes(16)
MEMBER_ID = 5
WELCOME = frame(Welcome(MEMBER_VERSION, 1, 1, ID))
NewMembership = Callable[[list[Request]], Membership]


@pytest.fixture
def new_membership(tmp_path: Path) -> NewMembership:
    """A membership of an empty page; what it sends is put into the list."""
    pages = MemberPages(str(tmp_path), writable=True)
    pages.make(0)
    pages.close()

    def made(said: list[Request]) -> Membership:
        return Membership(
            Channel("log", ID, 1 << 20, 1),
            "g",
            MEMBER_ID,
            said.append,
            lambda slot: MemberPage(str(tmp_path), slot, MEMBER_ID),
        )

    return made


def greeted(member: Membership, number: int) -> Steps[None]:
    """The member's conversation, up to where it waits for the answer to `Join`."""
    steps = member.converse(pid=2, start=3)
    assert steps.send(None) is OPEN_PIPE
    assert isinstance(steps.send(None), Send)
    assert steps.send(None) is RECEIVE
    assert steps.send(WELCOME) == Send([frame(Join(number, "g", MEMBER_ID, 2, 3))])
    assert steps.send(None) is RECEIVE
    return steps


def test_what_comes_in_the_same_bytes_as_the_answer_to_a_join_is_heard(
    new_membership: NewMembership,
) -> None:
    said: list[Request] = []
    member = new_membership(said)
    member.ask(3, 1)
    steps = greeted(member, number=2)
    assert said == [], "nothing is said of events before the writer knows the member"
    joined = frame(Joined(2, 0, 0, (), ()))
    leased = frame(Leased(1, 9, ((1, 3),), ()))
    assert steps.send(joined + leased + frame(Revoke(0, 9))) is RECEIVE
    assert said == [Lease(1, 3, 1), Release(3, 9, ((2, 3),))]
    held = member.take_fresh()
    assert held is not None
    assert [number for _, number in held.todo] == [1]
    member.close()


def test_a_writer_that_answers_a_join_with_something_else_has_lost_the_pipe(
    new_membership: NewMembership,
) -> None:
    member = new_membership([])
    steps = greeted(member, number=1)
    with pytest.raises(PipeBroken, match="answered Join with Done"):
        steps.send(frame(Done(1)))
    assert not member.has_joined
