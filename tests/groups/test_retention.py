"""Groups whose events retention deletes."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventlog.config import Retention
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.storage.members import STARTED
from eventlog.local.wire.group_messages import (
    AwaitDrained,
    Lease,
    Passed,
    RetryDead,
)
from eventlog.local.wire.messages import (
    Ack,
    Done,
    Failed,
)
from tests.groups.world import (
    M1,
    M2,
    Member,
    World,
    accepted,
    check_state,
    truncate,
    truncating,
)


def test_events_that_retention_took_need_no_handling(tmp_path: Path) -> None:
    retention = Retention(max_bytes=2 * 4096, keep_unacked=False)
    world = World(str(tmp_path / "log"), segment_bytes=4096, retention=retention)
    world.append(1)
    world.open_group()
    world.append(200)
    first = world.log.control.first_available
    assert first > 1
    assert Member(world, M1).lease(1) == [first]
    assert world.state().position == first - 1
    world.end()


@pytest.mark.parametrize("ordering", ["", "key"])
def test_retention_lets_a_group_go_on_and_says_what_it_took(tmp_path: Path, ordering: str) -> None:
    # The group was moved on without a word when somebody asked for events, and whoever waited for
    # it to be drained was not told.
    world = truncating(tmp_path, ordering)
    member, waiting = Member(world, M1), world.peer()
    assert member.lease(2) == [1, 2]
    waiting.tell(AwaitDrained, "g", 20)
    truncate(world)
    first = world.log.control.first_available
    assert waiting.heard() == [], "the member has two of them"
    member.settle(1, 2)
    assert waiting.heard() == [Done(1)]
    member.tell(Lease, 1)
    passed = member.said.pop(0)
    assert passed == Passed(0, first - 3, 3, first - 1)
    assert member.leased() == [first]
    member.settle(first)
    assert member.lease(1) == [first + 1]
    assert member.heard() == [], "once"
    world.end()


@pytest.mark.parametrize("ordering", ["", "key"])
def test_an_event_that_retention_takes_from_its_handler_can_still_be_a_dead_letter(
    tmp_path: Path, ordering: str
) -> None:
    world = truncating(tmp_path, ordering)
    member = Member(world, M1)
    member.lease(2)
    truncate(world)
    accepted(member.reject(1))
    accepted(member.nack(2, delay_s=1))
    world.advance(1)
    assert [letter.seq_no for letter in read_dead_letters(world.directory)] == [1]
    assert member.lease(1)[0] in {2, world.log.control.first_available}
    check_state(world.state())
    world.end()


@pytest.mark.parametrize("how", ["ack", "retention"])
@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_backoff_that_has_begun_goes_on(tmp_path: Path, ordering: str, how: str) -> None:
    # Whatever moved the group on made it forget all backoffs, also of later events: those were
    # tried again at once, and after five times a second was a dead letter.
    world = truncating(tmp_path, ordering)
    member = Member(world, M1)
    if how == "retention":
        truncate(world)
    numbers = member.lease(100)
    member.settle(*numbers[1:-1])
    member.nack(numbers[-1], delay_s=30)
    if how == "retention":
        member.settle(numbers[0])
        while numbers[0] >= world.log.control.first_available:
            world.append(1)
    else:
        accepted(world.peer().ask(Ack, "g", numbers[0]))
    while given := member.lease(1000):
        assert numbers[-1] not in given
        member.settle(*given)
    world.advance(30)
    assert member.leased() == [numbers[-1]]
    world.end()


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("when", ["before", "after", "after it was settled"])
@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_dead_letter_whose_event_is_gone_is_handed_out_all_the_same(
    tmp_path: Path, ordering: str, when: str, restarts: bool
) -> None:
    # With keys in order, asking for its key failed: from then on whoever asked for events was
    # answered with that error, also after a restart. Without, a member got what nobody can read,
    # and later the retry was passed over, with the letter. But the letter has a copy.
    world = truncating(tmp_path, ordering)
    member = Member(world, M1)
    numbers = member.lease(20)
    member.reject(1)
    member.settle(*numbers[1:])
    if when == "after it was settled":
        while numbers := member.lease(20):
            member.settle(*numbers)
    member.hang_up()
    if when != "after":
        world.peer().tell(RetryDead, "g", ((1, 1),))
    truncate(world)
    if when == "after":
        world.peer().tell(RetryDead, "g", ((1, 1),))
    if restarts:
        world.restart()
    member = Member(world, M1)
    first = world.log.control.first_available
    seen: list[int] = []
    while numbers := member.lease(50):
        member.settle(*numbers)
        seen += numbers
    refused = [one for one in member.heard() if isinstance(one, Failed)]
    drained = world.state().is_drained(world.log.last_seq_no)
    world.end()
    assert refused == []
    assert sorted(seen) == [1, *range(first, 221)]
    assert drained


@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_lease_of_events_that_are_gone_does_not_end_the_next_writer(
    tmp_path: Path, ordering: str
) -> None:
    # Both members had events that retention then deleted, and one died with the writer: the next
    # one asked for the other one's keys while it put an end to that member, and ended too.
    world = truncating(tmp_path, ordering)
    one, two = Member(world, M1), Member(world, M2)
    one.lease(3)
    two.lease(3)
    one.page.states[0] = STARTED
    truncate(world)
    world.restart()
    two = Member(world, M2)
    assert world.absent() == [M1]
    try:
        world.end_absent()
        first = world.log.control.first_available
        assert two.lease(1) == [first]
        check_state(world.state())
    finally:
        world.end()
