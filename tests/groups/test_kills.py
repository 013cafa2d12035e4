"""A writer that is killed at every call to the operating system."""

from __future__ import annotations

import shutil
from collections import Counter as Counts
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from eventlog.local.groups.ranges import ranges_of
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.storage.members import STARTED
from eventlog.local.wire.group_messages import (
    Bury,
    Counted,
    Nack,
    Release,
    RetryDead,
    Settle,
)
from eventlog.local.wire.messages import (
    Done,
    Failed,
    Message,
)
from eventlog.testing import (
    Killed,
    KillingFiles,
    open_storage,
    stored_events,
)
from tests.groups.world import (
    LETTER,
    M1,
    M2,
    M3,
    Member,
    World,
    check_state,
    numbers_in,
)

EVENTS = 24


class Notes:
    """What was confirmed before a kill."""

    def __init__(self) -> None:
        self.done: set[int] = set()
        self.dead: set[int] = set()
        self.unanswered: tuple[int, Message] | None = None
        self.leases: dict[int, tuple[int, list[int]]] = {}


class Worker:
    """A member that notes what it was answered; it knows what it has when the writer is new."""

    def __init__(self, world: World, member_id: int, notes: Notes) -> None:
        self.member_id, self.notes = member_id, notes
        self.member = Member(world, member_id)
        self.mine: list[int] = []

    def ask(self, kind: Any, *fields: Any) -> Any:
        message = kind(self.member.requests + 1, *fields)
        self.notes.unanswered = self.member_id, message
        answer = self.member.ask(kind, *fields)
        assert not isinstance(answer, Failed), answer
        self.notes.unanswered = None
        return answer

    def lease(self, count: int) -> list[int]:
        self.mine = self.member.lease(count)
        again = set(self.mine) & (self.notes.done | self.notes.dead)
        assert not again, f"handed out although they are done: {again}"
        self.notes.leases[self.member_id] = self.member.lease_id, list(self.mine)
        return self.mine

    def forget(self, numbers: Iterable[int]) -> None:
        self.mine = [number for number in self.mine if number not in set(numbers)]
        self.notes.leases[self.member_id] = self.member.lease_id, list(self.mine)

    def settle(self, *numbers: int) -> None:
        self.forget(numbers)
        self.ask(Settle, self.member.lease_id, tuple(ranges_of(numbers)))
        self.notes.done |= set(numbers)

    def results(self, *numbers: int) -> None:
        self.forget(numbers)
        self.ask(self.member.results_message(*numbers))
        self.notes.done |= set(numbers)

    def give_back(self, kind: Any, *numbers: int) -> None:
        self.forget(numbers)
        if kind is Nack:
            self.ask(Nack, self.member.lease_id, numbers[0], 0)
        else:
            self.ask(Release, self.member.lease_id, tuple(ranges_of(numbers)))

    def reject(self, number: int) -> None:
        self.forget([number])
        self.ask(Bury, "g", self.member.lease_id, number, LETTER)
        self.notes.dead.add(number)


def some_work(world: World, notes: Notes) -> None:
    """Two members, of which one dies; failures, dead letters, results, and a rewritten journal."""
    world.append(EVENTS)
    world.open_group(max_deliveries=2)
    world.store._rewrite_at = 700
    one, two = Worker(world, M1, notes), Worker(world, M2, notes)
    assert (one.lease(5), two.lease(4)) == ([1, 2, 3, 4, 5], [6, 7, 8, 9])
    one.results(1, 2)
    one.settle(3)
    one.give_back(Nack, 4)
    world.advance(0)
    one.reject(5)
    two.give_back(Release, 8, 9)
    two.results(6)
    two.member.page.states[1] = STARTED
    two.member.hang_up()
    notes.leases.pop(M2, None)
    assert one.lease(5) == [4], "7 may have ended the other member, and goes out alone"
    one.give_back(Nack, 4)
    assert one.lease(4) == [7]
    one.results(7)
    assert one.lease(3) == [8, 9, 10]
    assert list(world.state().exhausted) == [4]
    assert type(world.peer().ask(Bury, "g", 0, 4, LETTER)) is Done
    notes.dead.add(4)
    notes.dead.discard(5)
    assert world.peer().ask(RetryDead, "g", ((5, 5),)) == Counted(1, 1)
    one.settle(*one.mine)
    assert one.lease(2) == [5, 11]
    one.results(5)
    world.end("close")


def finish(world: World, notes: Notes, *, has_survived: bool) -> None:
    """Go on after a kill: the members come back and repeat themselves, or are dead too."""
    state = world.state()
    check_state(state)
    check_confirmed(world, notes)
    if has_survived:
        for member_id in (M1, M2):
            if member_id in state.members:
                come_back(world, member_id, notes)
    world.end_absent()
    check_state(state)
    last = Worker(world, M3, notes)
    world.advance(100)
    while last.lease(7):
        last.results(*last.mine)
    while state.exhausted:
        number = next(iter(state.exhausted))
        assert number not in notes.done
        world.peer().ask(Bury, "g", 0, number, LETTER)
    check_state(state)
    assert state.is_drained(EVENTS)
    check_confirmed(world, notes)


def come_back(world: World, member_id: int, notes: Notes) -> None:
    """Repeat what was not answered, and handle what is left of the lease."""
    worker = Worker(world, member_id, notes)
    lease_id, mine = notes.leases.get(member_id, (0, []))
    joined = worker.member.joined
    if notes.unanswered is not None and notes.unanswered[0] == member_id:
        _, message = notes.unanswered
        world.actor.handle(worker.member, message)  # type: ignore[arg-type]  # from a client
        (answer,) = worker.member.heard()
        assert not isinstance(answer, Failed), f"{message} repeated: {answer}"
    worker.member.producer_seq = 50  # a smaller one would be a repeated batch
    if joined.lease_id and joined.lease_id == lease_id:
        worker.member.lease_id = lease_id
        if mine:
            worker.results(*mine)
    elif joined.lease_id:
        worker.member.lease_id = joined.lease_id  # its answer was lost with the writer
        worker.results(*numbers_in(joined.ranges))
    worker.member.hang_up()


def check_confirmed(world: World, notes: Notes) -> None:
    state = world.state()
    assert all(state.is_done(number) for number in notes.done | notes.dead)
    letters = {letter.seq_no for letter in read_dead_letters(world.directory, "g")}
    assert letters >= notes.dead
    results = Counts(
        event[1] for event in stored_events(world.directory).values() if isinstance(event, list)
    )
    assert all(times == 1 for times in results.values()), "a result was stored twice"
    assert all(state.is_done(number) for number in results), "a result without its acknowledgement"


EACH = pytest.mark.parametrize(
    "each", [3, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "each"]
)
"""Dies at every third call; with the slow tests, at every one."""


@EACH
@pytest.mark.parametrize("has_survived", [True, False], ids=["members live", "members die"])
@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn"])
def test_killed_at_every_call(fast: Path, torn: bool, has_survived: bool, each: int) -> None:
    made = KillingFiles()
    template = str(fast / "template")
    open_storage(template, made, segment_bytes=1 << 16).close()
    for at in count(1 + torn, each):
        directory = str(fast / str(at))
        shutil.copytree(template, directory)
        files = KillingFiles(at, torn=torn)
        notes = Notes()
        world = None
        try:
            world = World(directory, files)
            some_work(world, notes)
        except Killed:
            files.bury()
            if world is not None:
                for page in world.pages:
                    page.close()
            check_start(directory, notes, has_survived)
        else:
            break
        finally:
            shutil.rmtree(directory)
    assert at > 60


def check_start(directory: str, notes: Notes, has_survived: bool) -> None:
    """The next writer, and the one after it, find what was confirmed."""
    world = World(directory)
    if world.log.last_seq_no < EVENTS:
        world.append(EVENTS - world.log.last_seq_no)
    if "g" not in world.store.groups or not world.state().members:
        world.open_group(max_deliveries=2)
    try:
        finish(world, notes, has_survived=has_survived)
        snapshot = world.state().snapshot()
        world.restart()
        assert world.state().snapshot() == snapshot
        check_confirmed(world, notes)
    finally:
        world.end()
