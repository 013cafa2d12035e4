"""Dead letters: made, told to pools, tried again, kept and dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventlog.errors import (
    InvalidArgument,
)
from eventlog.local.groups import records
from eventlog.local.groups.ranges import RangeSet
from eventlog.local.groups.stored import StoredLetters, read_dead_letters
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    Bury,
    Condemned,
    Counted,
    DropDead,
    RetryDead,
)
from eventlog.local.wire.messages import (
    Ack,
    Done,
    Forget,
    Seek,
)
from tests.groups.world import (
    LETTER,
    M1,
    M3,
    POOL_A,
    POOL_B,
    POOL_C,
    Member,
    World,
    accepted,
    check_state,
    exhaust,
    pack_letter,
    truncate,
    truncating,
)


def test_a_retry_that_a_kill_met_half_way_is_not_made_twice(tmp_path: Path) -> None:
    # The writer was killed between handing the event out again and dropping its letter; the pool
    # asked once more, as after any lost pipe, and an event that was done by then came back.
    world = World(str(tmp_path / "log"))
    world.append(3)
    world.open_group()
    number = exhaust(world, Member(world, M1))
    world.peer().ask(Bury, "g", 0, number, b"letter")
    store = world.actor.groups.store
    store.commit(records.HandedOutAgain("g", [number]))
    assert list(store.letters.numbers.listed["g"].numbers()) == [number]
    world.restart()
    assert list(world.actor.groups.store.letters.numbers.listed["g"].numbers()) == []
    answer = world.peer().ask(RetryDead, "g", ((number, number),))
    assert answer.number == 0
    world.end()


def test_an_exhausted_event_is_rejected_by_the_pool_of_its_member(world: World) -> None:
    a, b = world.peer(), world.peer()
    a.tell(AwaitCondemned, "g", POOL_A)
    b.tell(AwaitCondemned, "g", POOL_B)
    one, three = Member(world, M1), Member(world, M3)
    assert exhaust(world, one) == 1
    assert (a.heard(), b.heard()) == ([Condemned(1, ((1, 3, M1),))], [])
    assert exhaust(world, three) == 2
    assert b.heard() == [Condemned(1, ((2, 3, M3),))]
    assert type(a.ask(Bury, "g", 0, 1, LETTER)) is Done
    assert type(a.ask(Bury, "g", 0, 1, LETTER)) is Done, "said again"
    assert type(a.ask(Bury, "g", 0, 9, LETTER)) is Done, "not exhausted: nothing happens"
    a.tell(AwaitCondemned, "g", POOL_A)
    assert a.heard() == []
    assert (world.state().position, list(world.state().exhausted)) == (1, [2])
    (letter,) = read_dead_letters(world.directory, "g")
    assert (letter.seq_no, letter.deliveries, letter.error) == (1, 3, "ValueError: no")


def test_what_a_pool_that_is_gone_had_to_reject_is_anybodys(world: World) -> None:
    a, b = world.peer(), world.peer()
    a.tell(AwaitCondemned, "g", POOL_A)
    one = Member(world, M1)
    assert exhaust(world, one) == 1
    b.tell(AwaitCondemned, "g", POOL_B)
    assert b.heard() == []
    a.hang_up()
    assert b.heard() == [Condemned(1, ((1, 3, M1),))]
    assert exhaust(world, one) == 2
    b.tell(AwaitCondemned, "g", POOL_C)
    assert b.heard() == [Condemned(2, ((1, 3, M1), (2, 3, M1)))]


def test_what_was_exhausted_before_a_restart_is_told_after_it(world: World) -> None:
    assert exhaust(world, Member(world, M1)) == 1
    world.restart()
    a = world.peer()
    assert a.ask(AwaitCondemned, "g", POOL_A) == Condemned(1, ((1, 3, M1),))


def test_a_member_rejects_what_it_gives_up(world: World) -> None:
    member = Member(world, M1)
    member.lease(2)
    assert type(member.reject(1)) is Done
    assert type(member.reject(1)) is Done, "said again"
    assert [letter.deliveries for letter in read_dead_letters(world.directory)] == [1]
    assert (world.state().position, world.state().in_flight) == (1, 1)


def test_dead_letters_are_retried_and_dropped_once(world: World) -> None:
    member, asking = Member(world, M1), world.peer()
    member.lease(4)
    for number in (1, 2, 3):
        member.reject(number)
    member.settle(4)
    assert asking.ask(RetryDead, "g", ((2, 3), (9, 9))) == Counted(1, 2)
    assert asking.ask(RetryDead, "g", ((2, 3),)) == Counted(2, 0)
    assert asking.ask(DropDead, "g", ((1, 9),)) == Counted(3, 1)
    assert asking.ask(DropDead, "g", ((1, 9),)) == Counted(4, 0)
    assert asking.ask(DropDead, "no such group", ((1, 9),)) == Counted(5, 0)
    assert read_dead_letters(world.directory) == []
    assert (member.lease(2), member.failures) == ([2, 3], {})
    world.restart()
    assert world.state().in_flight == 2
    assert world.store.letters.numbers.listed["g"] == RangeSet()


def test_a_retried_letter_goes_to_who_waits(world: World) -> None:
    member = Member(world, M1)
    (number,) = member.lease(1)
    member.reject(number)
    while numbers := member.lease(100):
        member.settle(*numbers)
    assert world.peer().ask(RetryDead, "g", ((1, 1),)) == Counted(1, 1)
    assert member.leased() == [1]


def test_letters_of_groups_are_apart_and_outlive_a_restart(world: World) -> None:
    world.open_group(name="h")
    for name in ("g", "h"):
        member = Member(world, M1, name)
        member.lease(2)
        member.reject(1)
        member.hang_up()
    world.restart()
    assert [one.group for one in read_dead_letters(world.directory)] == ["g", "h"]
    assert world.peer().ask(DropDead, "g", ((1, 1),)) == Counted(1, 1)
    assert [one.group for one in read_dead_letters(world.directory)] == ["h"]


@pytest.mark.parametrize("end", ["done", "results", "dead", "ack", "seek", "forget"])
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_letter_is_kept_until_its_retry_has_succeeded(
    tmp_path: Path, end: str, restarts: bool, is_deleted: bool
) -> None:
    # It was dropped when it was handed out: what retention, `ack` or `seek` did before it was
    # handled cost the letter.
    world = truncating(tmp_path, "")
    member = Member(world, M1)
    numbers = member.lease(20)
    member.reject(1)
    member.settle(*numbers[1:])
    if is_deleted:
        truncate(world)
    assert world.peer().ask(RetryDead, "g", ((1, 1),)) == Counted(1, 1)
    assert read_dead_letters(world.directory) == []
    assert StoredLetters(world.directory, "g").find(1) == LETTER
    if restarts:
        member.hang_up()
        world.restart()
        member = Member(world, M1)
    if end in {"done", "results", "dead"}:
        assert member.lease(1) == [1]
        acts: dict[str, Callable[[int], Any]] = {"done": member.settle, "results": member.results}
        accepted(acts.get(end, member.reject)(1))
    elif end == "forget":
        member.hang_up()
        accepted(world.peer().ask(Forget, "g"))
    else:
        accepted(world.peer().ask(Ack if end == "ack" else Seek, "g", 20))
    for _ in range(2):
        listed = [letter.seq_no for letter in read_dead_letters(world.directory)]
        assert listed == ([] if end in {"done", "results"} else [1])
        found = StoredLetters(world.directory, "g").find(1)
        assert found == (None if end in {"done", "results"} else LETTER)
        world.restart()
    world.end()


def test_a_letter_without_a_copy_of_its_deleted_event_stays_and_says_so(tmp_path: Path) -> None:
    # "retried 1", and nobody was ever handed it.
    world = truncating(tmp_path, "")
    member = Member(world, M1)
    member.lease(1)
    letter = pack_letter(event=None, key=None, headers=None, error="ValueError: no")
    accepted(member.ask(Bury, "g", member.lease_id, 1, letter))
    truncate(world)
    error = world.peer().refused(RetryDead, "g", ((1, 1),))
    assert (type(error), error.seq_no) == (InvalidArgument, 1)
    assert [one.seq_no for one in read_dead_letters(world.directory)] == [1]
    world.end()


@pytest.mark.parametrize("how", ["forgotten", "seek"])
def test_an_event_that_is_to_be_done_again_is_no_dead_letter_after_a_restart(
    world: World, how: str
) -> None:
    # A group that was made anew, or set back, had its old dead letters among its events: handed out
    # until the next start, and dead from then on, although nobody had tried them again.
    member = Member(world, M1)
    member.lease(3)
    member.reject(2)
    member.hang_up()
    if how == "seek":
        world.peer().ask(Seek, "g", 0)
    else:
        world.peer().ask(Forget, "g")
        world.open_group()
    before = world.state().is_done(2)
    world.restart()
    assert world.state().is_done(2) is before
    check_state(world.state())


def test_an_event_set_back_is_not_leased_and_dead_after_a_restart(world: World) -> None:
    member = Member(world, M1)
    member.lease(3)
    member.reject(2)
    world.peer().ask(Seek, "g", 0)
    assert member.lease(3) == [1, 2, 3]
    world.restart()
    check_state(world.state())
