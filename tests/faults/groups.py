"""Groups: what is done to one, step by step, and the check of what a crash leaves of it.

Steps are taken by members with real pages, through the actor that the writer runs. After every
record of the journal the state is noted, so that a killed writer's successor can be held to the
very state before or after the record that it was at.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from eventlog.errors import EventLogError
from eventlog.groups.ranges import RangeSet
from eventlog.groups.state import STARTED, GroupState
from eventlog.groups.stored import read_dead_letters
from eventlog.storage.members import FILE_NAME as MEMBERS
from eventlog.storage.members import PAGE_BYTES
from eventlog.testing import stored_events
from eventlog.wire.group_messages import Bury, DropDead, RetryDead
from eventlog.wire.messages import Ack, Seek
from tests.faults.crashes import Crash
from tests.faults.disk import Call, Disk
from tests.faults.histories import Known, Step, Trace, booted
from tests.faults.recorder import RecordingFiles, materialise
from tests.test_group_desk import LETTER, M1, Member
from tests.test_group_desk import World as DeskWorld

GROUP: Final = "g"
EVERYTHING: Final = ((1, 1000),)


class Moment(NamedTuple):
    """What the group was after a record."""

    calls: int
    """Made until then."""
    snapshot: tuple[Any, ...] | None
    """`None`: there was no group."""
    done: frozenset[int]
    dead: frozenset[int]
    is_synced: bool = False
    """All up to here was on the disk."""


class GroupTrace(NamedTuple):
    """A history of a group that was carried out."""

    trace: Trace
    moments: list[Moment]
    with_results: frozenset[int]
    """Events that were done together with a result."""
    otherwise: frozenset[int]
    """Events that were done, or may have been, by other means too."""


class GroupWorld:
    """A log with a group, its members, and a note of all that became of it."""

    def __init__(self, directory: str, ordering: str) -> None:
        self.files = RecordingFiles()
        self.desk = DeskWorld(directory, self.files, segment_bytes=4096)
        self.ordering = ordering
        self.members: dict[int, tuple[Member, list[int]]] = {}
        self.next_member = M1
        self.moments: list[Moment] = []
        self.with_results: set[int] = set()
        self.otherwise: set[int] = set()
        self._watch()

    def _watch(self) -> None:
        """Note the state after each record."""
        store = self.desk.store
        real: Callable[..., None] = store.commit

        def commit(*record: Any) -> None:
            real(*record)
            self.note()

        store.commit = commit
        self.note()

    def note(self, *, is_synced: bool = False) -> None:
        """Keep what is now."""
        calls = len(self.files.calls)
        self.moments.append(moment_of(self.desk, calls)._replace(is_synced=is_synced))

    def _page(self, member: Member) -> None:
        """What the member stored into its page, which passes no door of the writer's."""
        slot: int = member.joined.slot
        with open(f"{self.desk.directory}/{MEMBERS}", "rb") as file:
            file.seek(slot * PAGE_BYTES)
            page = file.read(PAGE_BYTES)
        number = self.files.disk.names[MEMBERS]
        self.files.note(Call("page", number, slot * PAGE_BYTES, page))

    def do(self, step: Step) -> None:
        """Carry out a step; one that makes no sense just now does nothing."""
        kind, *arguments = step
        getattr(self, f"do_{kind}")(*arguments)

    def do_group(self) -> None:
        self.desk.open_group(ordering=self.ordering, max_deliveries=2)

    def do_append(self, count: int) -> None:
        self.desk.append(count, key=lambda number: str(number % 3))

    def do_join(self) -> None:
        if len(self.members) < 3:
            member = Member(self.desk, self.next_member)
            self.members[self.next_member] = (member, [])
            self.next_member += 1

    def _someone(self, place: int) -> tuple[Member, list[int]] | None:
        busy = [one for one in self.members.values() if one[1]]
        return busy[place % len(busy)] if busy else None

    def do_lease(self, place: int, count: int) -> None:
        idle = [name for name, (_, held) in self.members.items() if not held]
        if idle:
            member, held = self.members[idle[place % len(idle)]]
            member.heard()
            peer_asks = any(one.peer is member for one in self._asking())
            held += member.leased() if peer_asks else member.lease(count)
            if held:
                member.page.states[0] = STARTED
                self._page(member)

    def _asking(self) -> list[Any]:
        return list(self.desk.actor.groups._leases._asking.get(GROUP, ()))

    def do_settle(self, place: int) -> None:
        found = self._someone(place)
        if found:
            member, held = found
            self.otherwise.add(held[0])
            member.settle(held.pop(0))

    def do_results(self, place: int) -> None:
        found = self._someone(place)
        if found:
            member, held = found
            numbers = [held.pop(0) for _ in range(min(2, len(held)))]
            member.results(*numbers)
            self.with_results.update(numbers)

    def do_nack(self, place: int) -> None:
        found = self._someone(place)
        if found:
            found[0].nack(found[1].pop(0))

    def do_bury(self, place: int) -> None:
        found = self._someone(place)
        if found:
            self.otherwise.add(found[1][0])
            found[0].bury(found[1].pop(0))

    def do_release(self, place: int) -> None:
        found = self._someone(place)
        if found:
            found[0].release(found[1].pop())

    def do_hang_up(self, place: int) -> None:
        if self.members:
            name = list(self.members)[place % len(self.members)]
            member, held = self.members.pop(name)
            self.otherwise.update(held)
            member.hang_up()

    def do_retry_dead(self) -> None:
        self.desk.peer().ask(RetryDead, GROUP, EVERYTHING)
        self.note()

    def do_drop_dead(self) -> None:
        self.desk.peer().ask(DropDead, GROUP, EVERYTHING)
        self.note()

    def do_skip(self, seq_no: int) -> None:
        self._move(Ack, seq_no)

    def do_seek(self, position: int) -> None:
        self._move(Seek, position)

    def _move(self, kind: Any, seq_no: int) -> None:
        seq_no = min(seq_no, self.desk.log.last_seq_no)
        self.otherwise.update(range(1, self.desk.log.last_seq_no + 1))
        self.desk.peer().ask(kind, GROUP, seq_no)
        for _, held in self.members.values():
            held.clear()

    def do_rewrite(self) -> None:
        self.desk.store._rewrite()

    def do_sync(self) -> None:
        work = self.desk.log.begin_sync()
        self.desk.store.sync()
        work.run()
        self.desk.log.finish_sync(work)
        self.desk.log.sync_positions()
        self.note(is_synced=True)

    def do_kill(self) -> None:
        """The writer is killed; the members come back, with what they held."""
        self.desk.end()
        self.desk.start(self.files)
        self._watch()
        for name in self.members:
            self.members[name] = (Member(self.desk, name), [])
            joined = self.members[name][0].joined
            lease = self.desk.state().leases.get(joined.lease_id)
            if lease is not None:
                self.members[name][0].lease_id = joined.lease_id
                self.members[name][1].extend(lease.open.numbers())


def moment_of(desk: DeskWorld, calls: int) -> Moment:
    """What the group is now."""
    state = desk.store.groups.get(GROUP)
    dead = frozenset(desk.store.dead.get(GROUP, RangeSet()).numbers())
    if state is None:
        return Moment(calls, None, frozenset(), dead)
    return Moment(calls, snapshot_of(state), done_in(state, desk.log.last_seq_no), dead)


def snapshot_of(state: GroupState) -> tuple[Any, ...]:
    """All of the state, in a form that does not change with it."""
    return copy.deepcopy(state.snapshot())


def done_in(state: GroupState, last: int) -> frozenset[int]:
    """The events that need no handling any more."""
    return frozenset(number for number in range(1, last + 1) if state.is_done(number))


def run(directory: str, seed: object, steps: list[Step], ordering: str) -> GroupTrace:
    """Carry out a history, recording every call."""
    with booted("first"):
        world = GroupWorld(directory, ordering)
        try:
            bounds = [(0, len(world.files.calls))]
            for step in steps:
                before = len(world.files.calls)
                world.do(step)
                bounds.append((before, len(world.files.calls)))
        finally:
            world.desk.end()
            world.files.bury()
    trace = Trace(seed, steps, {}, Disk(), world.files.calls, bounds, [Known()], {}, frozenset(), 0)
    return GroupTrace(
        trace, world.moments, frozenset(world.with_results), frozenset(world.otherwise)
    )


# --- the check -------------------------------------------------------------------------------


def check(directory: str, history: GroupTrace, crash: Crash, *, is_thorough: bool) -> None:
    """Start a writer on what the crash left, and hold it to what was acknowledged."""
    materialise(crash.image, directory)
    try:
        with booted("third" if crash.is_power_cut else "first"):
            _check(directory, history, crash, is_thorough=is_thorough)
    except Exception as error:
        trace = history.trace
        error.add_note(f"seed {trace.seed!r}, {trace.steps}\n{crash}")
        raise


def _check(directory: str, history: GroupTrace, crash: Crash, *, is_thorough: bool) -> None:
    desk = DeskWorld(directory, segment_bytes=4096)
    try:
        found = moment_of(desk, crash.calls)
        before, after = _around(history, crash)
        if crash.is_power_cut:
            _check_after_power_cut(desk, found, history, crash)
        else:
            assert found.snapshot in (before.snapshot, after.snapshot)
            assert before.dead & after.dead <= found.dead <= before.dead | after.dead
        if found.snapshot is not None:
            offset = desk.log.offsets.find(GROUP)
            assert offset is not None
            assert offset.position == desk.state().position
        letters = {letter.seq_no for letter in read_dead_letters(directory)}
        assert letters == found.dead
        _check_results(desk, history, found)
        if is_thorough and found.snapshot is not None:
            _finish(desk, found)
    finally:
        desk.end()


def _around(history: GroupTrace, crash: Crash) -> tuple[Moment, Moment]:
    """The last moment before the crash, and the first after it."""
    place = max(
        (n for n, moment in enumerate(history.moments) if moment.calls <= crash.calls), default=0
    )
    return history.moments[place], history.moments[min(place + 1, len(history.moments) - 1)]


def _check_after_power_cut(
    desk: DeskWorld, found: Moment, history: GroupTrace, crash: Crash
) -> None:
    """Nothing is done that was not; nothing that was synced is undone."""
    until = [one for one in history.moments if one.calls <= crash.calls]
    window = [*until, _around(history, crash)[1]]
    synced = [place for place, one in enumerate(until) if one.is_synced]
    window = window[synced[-1] :] if synced else window
    last = desk.log.last_seq_no
    ever = frozenset().union(*(one.done for one in window))
    always = window[0].done.intersection(*(one.done for one in window)) if synced else frozenset()
    assert found.done <= ever, f"{sorted(found.done - ever)} were never done"
    lost = {number for number in always - found.done if number <= last}
    assert not lost, f"{sorted(lost)} were done, and on the disk"


def _check_results(desk: DeskWorld, history: GroupTrace, found: Moment) -> None:
    """A result is there if, and only if, its event is done; and once."""
    results = [event[1] for event in stored_events(desk.directory).values() if type(event) is list]
    assert len(results) == len(set(results)), f"results are there twice: {results}"
    only = history.with_results - history.otherwise
    assert {*results} & only == found.done & only, "results and acknowledgements differ"


def _finish(desk: DeskWorld, found: Moment) -> None:
    """Members of before are gone; another handles all that is left, each event once."""
    desk.actor.groups._clock = lambda: 10**18
    for state, member_id in list(desk.store.members()):
        desk.actor.groups.end_member(state, member_id)
    desk.actor.groups.resume_due()
    member = Member(desk, M1 + 500)
    seen: list[int] = []
    numbers = member.lease(50)
    while True:
        if numbers:
            seen += numbers
            member.settle(*numbers)
            numbers = member.lease(50)
        elif condemned := list(desk.state().condemned):  # with keys in order, others wait for them
            for number in condemned:
                desk.peer().ask(Bury, GROUP, 0, number, LETTER)
            numbers = member.leased()
        else:
            break
    assert len(seen) == len(set(seen))
    assert found.done.isdisjoint(seen)
    left = set(range(1, desk.log.last_seq_no + 1)) - found.done - set(seen)
    results = {n for n, event in stored_events(desk.directory).items() if type(event) is list}
    letters = set(desk.store.dead.get(GROUP, RangeSet()).numbers())
    assert left <= letters | results


# --- histories -------------------------------------------------------------------------------

SHORT: Final[list[Step]] = [
    ("append", 9),
    ("group",),
    ("join",),
    ("join",),
    ("lease", 0, 4),
    ("lease", 0, 3),
    ("settle", 0),
    ("results", 0),
    ("sync",),
    ("results", 1),
    ("nack", 0),
    ("append", 2),
    ("bury", 1),
    ("rewrite",),
    ("retry_dead",),
    ("lease", 0, 5),
    ("hang_up", 0),
    ("lease", 0, 9),
    ("bury", 0),
    ("kill",),
    ("results", 0),
    ("drop_dead",),
    ("sync",),
    ("release", 0),
    ("hang_up", 0),
]


def random_history(seed: object, length: int) -> list[Step]:
    """Steps from a seed."""
    rng = random.Random(f"groups {seed}")
    steps: list[Step] = [("append", rng.randint(1, 12)), ("group",), ("join",)]
    while len(steps) < length:
        place = rng.randint(0, 5)
        choices: list[tuple[int, Step]] = [
            (3, ("append", rng.randint(1, 4))),
            (2, ("join",)),
            (8, ("lease", place, rng.randint(1, 6))),
            (5, ("settle", place)),
            (6, ("results", place)),
            (3, ("nack", place)),
            (3, ("bury", place)),
            (2, ("release", place)),
            (2, ("hang_up", place)),
            (1, ("retry_dead",)),
            (1, ("drop_dead",)),
            (1, ("skip", rng.randint(0, 12))),
            (1, ("seek", rng.randint(0, 12))),
            (1, ("rewrite",)),
            (2, ("sync",)),
            (1, ("kill",)),
        ]
        weights, steps_there = zip(*choices, strict=True)
        steps += rng.choices(steps_there, weights)
    return steps


__all__ = ["SHORT", "EventLogError", "GroupTrace", "check", "random_history", "run"]
