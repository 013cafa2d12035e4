"""Groups: what is done to one, step by step, and the check of what a crash leaves of it.

Steps are taken by members with real pages, through the actor that the writer runs. After every
record of the journal the state is noted, so that a killed writer's successor can be held to the
very state before or after the record that it was at.

A loss of power leaves more than two possible states. Then every event that is done has to be
explained (`_check_explained`): by what was on the disk, by what a member or user asked for since,
by a result that is in the log, or by a dead letter that is in its file.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from eventlog.errors import EventLogError
from eventlog.local.groups.ranges import RangeSet
from eventlog.local.groups.records import Snapshot
from eventlog.local.groups.state import GroupState
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.storage.members import FILE_NAME as MEMBERS
from eventlog.local.storage.members import PAGE_BYTES, STARTED
from eventlog.local.wire.group_messages import Bury, DropDead, RetryDead
from eventlog.local.wire.messages import Ack, Seek
from eventlog.testing import batch_of, stored_events
from tests.faults.crashes import Crash, disk_after, kills, power_cuts
from tests.faults.disk import Call, Disk
from tests.faults.histories import Known, Step, Trace, booted
from tests.faults.recorder import RecordingFiles, materialise
from tests.groups.world import LETTER, M1, Member, accepted, check_state
from tests.groups.world import World as GroupsWorld

GROUP: Final = "g"
EVERYTHING: Final = ((1, 1000),)
LATER: Final = 1000
FILLER_BYTES: Final = 1500
"""Three such events, and the log rolls."""


def end_in_order(desk: GroupsWorld) -> None:
    """What `Server.run` does at its end, call by call: the one place to change together with it.

    `test_the_server_ends_as_these_histories_do` holds the two against each other.
    """
    desk.end("close")


class Moment(NamedTuple):
    """What the group was after a record."""

    calls: int
    """Made until then."""
    snapshot: Snapshot | None
    """`None`: there was no group."""
    done: frozenset[int]
    dead: frozenset[int]
    is_synced: bool = False
    """All up to here was on the disk."""


class Reason(NamedTuple):
    """Why events may be done without a result or a dead letter that is there."""

    calls: int
    """Made before it was asked for."""
    kind: str
    """settle, drop, skip"""
    numbers: frozenset[int]


class GroupTrace(NamedTuple):
    """A history of a group that was carried out."""

    trace: Trace
    moments: list[Moment]
    with_results: frozenset[int]
    """Events that were done together with a result."""
    otherwise: frozenset[int]
    """Events that were done, or may have been, by other means too."""
    reasons: list[Reason]
    stored: Counter[int]
    """How often each event's result was acknowledged; more than once only after a seek."""
    has_sought: bool
    """Somebody set the group back, so events may be handled again, although they are done."""
    boot: str


class GroupWorld:
    """A log with a group, its members, and a note of all that became of it."""

    def __init__(self, directory: str, ordering: str, files: Any) -> None:
        self.files = files
        self.desk = GroupsWorld(directory, files, segment_bytes=4096)
        self.ordering = ordering
        self.members: dict[int, tuple[Member, list[int]]] = {}
        self.next_member = M1
        self.moments: list[Moment] = []
        self.with_results: set[int] = set()
        self.otherwise: set[int] = set()
        self.reasons: list[Reason] = []
        self.stored: Counter[int] = Counter()
        self.has_sought = False
        self._watch()
        self._take_over()

    def _take_over(self) -> None:
        """What an earlier history left counts as known, and as on the disk."""
        start = self.moments[-1]
        results = results_in(self.desk.directory)
        self.stored.update(results)
        self.with_results.update(results)
        self.otherwise.update(start.done ^ results.keys())
        self.moments[-1] = start._replace(calls=0, is_synced=True)

    def _watch(self) -> None:
        """Note the state after each record."""
        store = self.desk.store
        real: Callable[..., None] = store.commit

        def commit(*record: Any) -> None:
            real(*record)
            self.note()

        store.commit = store.letters._commit = commit
        self.note()

    @property
    def calls(self) -> int:
        """Made until now."""
        return len(self.files.calls)

    def note(self, *, is_synced: bool = False) -> None:
        """Keep what is now."""
        self.moments.append(moment_of(self.desk, self.calls)._replace(is_synced=is_synced))

    def _because(self, kind: str, *numbers: int) -> None:
        """What is asked for next may make these events done."""
        self.reasons.append(Reason(self.calls, kind, frozenset(numbers)))

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

    def do_fill(self) -> None:
        """An event of another kind, so large that a few make the log roll; producers know it."""
        self.desk.log.append(batch_of("f" * FILLER_BYTES))
        self.desk.actor.groups.on_published()

    def do_join(self) -> None:
        if len(self.members) < 3 and GROUP in self.desk.store.groups:
            self.next_member += 1
            member = Member(self.desk, self.next_member)
            self.members[self.next_member] = (member, [])

    def _someone(self, place: int) -> tuple[Member, list[int]] | None:
        busy = [one for one in self.members.values() if one[1]]
        return busy[place % len(busy)] if busy else None

    def do_lease(self, place: int, count: int) -> None:
        idle = [name for name, (_, held) in self.members.items() if not held]
        if idle:
            member, held = self.members[idle[place % len(idle)]]
            held += member.leased()  # it may have come meanwhile
            member.heard()
            if not held and not any(one.peer is member for one in self._asking()):
                held += member.lease(count)
            if held:
                member.page.states[0] = STARTED
                self._page(member)

    def _asking(self) -> list[Any]:
        return list(self.desk.actor.groups._leasing.asking.get(GROUP, ()))

    def do_settle(self, place: int) -> None:
        found = self._someone(place)
        if found:
            member, held = found
            self.otherwise.add(held[0])
            self._because("settle", held[0])
            accepted(member.settle(held[0]))
            self.settled(held.pop(0))

    def do_results(self, place: int) -> None:
        found = self._someone(place)
        if found:
            member, held = found
            numbers = held[:2]
            self._store_results(member, numbers)
            del held[: len(numbers)]
            again = [number for number in numbers if self.stored[number]]
            assert not again or self.has_sought, f"{again} have their results twice"
            self.stored.update(numbers)
            self.with_results.update(numbers)
            self.settled(*numbers)

    def _store_results(self, member: Member, numbers: list[int]) -> None:
        try:
            accepted(member.results(*numbers))
        except EventLogError:
            member.producer_seq -= 1  # it was refused: what comes next takes its place
            raise

    def do_nack(self, place: int) -> None:
        found = self._someone(place)
        if found:
            accepted(found[0].nack(found[1][0]))
            found[1].pop(0)

    def do_bury(self, place: int) -> None:
        found = self._someone(place)
        if found:
            self.otherwise.add(found[1][0])
            accepted(found[0].reject(found[1][0]))
            self.settled(found[1].pop(0))

    def do_condemned(self) -> None:
        """A pool buries what used up its deliveries."""
        if GROUP in self.desk.store.groups:
            for number in list(self.desk.state().exhausted):
                self.otherwise.add(number)
                accepted(self.desk.peer().ask(Bury, GROUP, 0, number, LETTER))
                self.settled(number)

    def do_release(self, place: int) -> None:
        found = self._someone(place)
        if found:
            accepted(found[0].release(found[1][-1]))
            found[1].pop()

    def do_hang_up(self, place: int) -> None:
        if self.members:
            name = list(self.members)[place % len(self.members)]
            member, held = self.members.pop(name)
            self.otherwise.update(held)
            member.hang_up()

    def do_absent(self) -> None:
        """The members of an earlier writer are gone."""
        for state, member_id, *_ in self.desk.actor.groups.absent():
            self.desk.actor.groups.end_member(state, member_id)

    def do_retry_dead(self) -> None:
        if GROUP in self.desk.store.groups:
            self.unsettled(*self._dead())
            accepted(self.desk.peer().ask(RetryDead, GROUP, EVERYTHING))
            self.note()

    def do_drop_dead(self) -> None:
        self._because("drop", *self._dead())
        accepted(self.desk.peer().ask(DropDead, GROUP, EVERYTHING))
        self.note()

    def _dead(self) -> list[int]:
        return list(self.desk.store.letters.numbers.listed.get(GROUP, RangeSet()).numbers())

    def do_skip(self, seq_no: int) -> None:
        self._move(Ack, seq_no)

    def do_seek(self, position: int) -> None:
        self.has_sought = True
        self.unsettled(*range(position + 1, self.desk.log.last_seq_no + 1))
        self._move(Seek, position)

    def _move(self, kind: Any, seq_no: int) -> None:
        seq_no = min(seq_no, self.desk.log.last_seq_no)
        self.otherwise.update(range(1, self.desk.log.last_seq_no + 1))
        self._because("skip", *range(1, seq_no + 1))
        accepted(self.desk.peer().ask(kind, GROUP, seq_no))
        for _, held in self.members.values():
            held.clear()

    def settled(self, *numbers: int) -> None:
        """The group was told, and said yes, that it need not hand these events out again."""

    def unsettled(self, *numbers: int) -> None:
        """Somebody is about to ask for these events once more."""

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
        self.go_on()

    def do_close(self) -> None:
        """The writer ends in order; the members come back, with what they held."""
        last = moment_of(self.desk, self.calls)
        end_in_order(self.desk)
        self.moments.append(last._replace(calls=self.calls, is_synced=True))
        self.go_on()

    def go_on(self) -> None:
        """The next writer starts."""
        self.desk.start(self.files)
        self._watch()
        for name, (before, _) in self.members.items():
            self.members[name] = (Member(self.desk, name), [])
            # A batch of an older number would be taken for a repeated one, and not be stored.
            self.members[name][0].producer_seq = before.producer_seq
            joined = self.members[name][0].joined
            lease = self.desk.state().leases.get(joined.lease_id)
            if lease is not None:
                self.members[name][0].lease_id = joined.lease_id
                self.members[name][1].extend(lease.open.numbers())


def results_in(directory: str) -> Counter[int]:
    """How many results of each event the log has."""
    return Counter(event[1] for event in stored_events(directory).values() if type(event) is list)


def moment_of(desk: GroupsWorld, calls: int) -> Moment:
    """What the group is now."""
    state = desk.store.groups.get(GROUP)
    dead = frozenset(desk.store.letters.numbers.listed.get(GROUP, RangeSet()).numbers())
    if state is None:
        return Moment(calls, None, frozenset(), dead)
    return Moment(calls, snapshot_of(state), done_in(state, desk.log.last_seq_no), dead)


def snapshot_of(state: GroupState) -> Snapshot:
    """All of the state, in a form that does not change with it."""
    return copy.deepcopy(state.snapshot())


def done_in(state: GroupState, last: int) -> frozenset[int]:
    """The events that need no handling any more."""
    return frozenset(number for number in range(1, last + 1) if state.is_done(number))


def run(
    directory: str,
    seed: object,
    steps: list[Step],
    ordering: str,
    earlier: tuple[GroupTrace, Crash] | None = None,
) -> GroupTrace:
    """Carry out a history, recording every call: of a new log, or of what a crash left."""
    files, boot = RecordingFiles(), "first"
    if earlier is not None:
        image = earlier[1].image
        materialise(image, directory)
        files, boot = RecordingFiles(Disk.of(image)), "third"
    with booted(boot):
        world = GroupWorld(directory, ordering, files)
        if earlier is not None:
            world.has_sought = earlier[0].has_sought
            world.next_member += LATER  # other members, whose batches are no repeated ones
        bounds = [(0, len(files.calls))]
        try:
            for step in steps:
                before = len(files.calls)
                world.do(step)
                bounds.append((before, len(files.calls)))
        except Exception as error:
            error.add_note(f"seed {seed!r}, {steps}\nat step {len(bounds)}")
            raise
        finally:
            world.desk.end()
            files.bury()
    trace = Trace(seed, steps, {}, files.start, files.calls, bounds, [Known()], {}, frozenset(), 0)
    return GroupTrace(
        trace,
        world.moments,
        frozenset(world.with_results),
        frozenset(world.otherwise),
        world.reasons,
        world.stored,
        world.has_sought,
        boot,
    )


def crashes_of_recovery(
    directory: str, history: GroupTrace, crash: Crash, limit: int, rng: random.Random
) -> Iterator[Crash]:
    """The next writer's start, killed or without power in its turn, at each of its calls."""
    materialise(crash.image, directory)
    # After a power cut, what is there is on the disk; after a kill, only what had been synced is.
    disk = Disk.of(crash.image) if crash.is_power_cut else disk_after(history.trace, crash)
    files = RecordingFiles(disk)
    with booted(_boot_after(history, crash)):
        desk = GroupsWorld(directory, files, segment_bytes=4096)
        desk.end()
        files.bury()
    inner = history.trace._replace(start=files.start, calls=files.calls, bounds=[], known=[])
    for again in (*kills(inner, rng, 24), *power_cuts(inner, limit, rng)):
        how = f"{crash.how}, then in its recovery {again}"
        is_power_cut = crash.is_power_cut or again.is_power_cut
        yield crash._replace(how=how, image=again.image, is_power_cut=is_power_cut)


def _boot_after(history: GroupTrace, crash: Crash) -> str:
    return f"after {history.boot}" if crash.is_power_cut else history.boot


# --- the check -------------------------------------------------------------------------------


def check(directory: str, history: GroupTrace, crash: Crash, *, is_thorough: bool) -> None:
    """Start a writer on what the crash left, and hold it to what was acknowledged."""
    materialise(crash.image, directory)
    try:
        with booted(_boot_after(history, crash)):
            _check(directory, history, crash, is_thorough=is_thorough)
    except Exception as error:
        trace = history.trace
        error.add_note(f"seed {trace.seed!r}, {trace.steps}\n{crash}")
        raise


def _check(directory: str, history: GroupTrace, crash: Crash, *, is_thorough: bool) -> None:
    desk = GroupsWorld(directory, segment_bytes=4096)
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
        if found.snapshot is not None:
            check_state(desk.state())
            _check_explained(desk, history, found, crash)
            if is_thorough:
                finish(desk, found, has_sought=history.has_sought)
    finally:
        desk.end()


def _around(history: GroupTrace, crash: Crash) -> tuple[Moment, Moment]:
    """The last moment before the crash, and the first after it."""
    place = max(
        (n for n, moment in enumerate(history.moments) if moment.calls <= crash.calls), default=0
    )
    return history.moments[place], history.moments[min(place + 1, len(history.moments) - 1)]


def _check_after_power_cut(
    desk: GroupsWorld, found: Moment, history: GroupTrace, crash: Crash
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


def _check_results(desk: GroupsWorld, history: GroupTrace, found: Moment) -> None:
    """A result is there if, and only if, its event is done; and once."""
    results = results_in(desk.directory)
    twice = results - history.stored
    assert not twice, f"results are there more often than they were stored: {twice}"
    only = history.with_results - history.otherwise
    assert results.keys() & only == found.done & only, "results and acknowledgements differ"


def _check_explained(desk: GroupsWorld, history: GroupTrace, found: Moment, crash: Crash) -> None:
    """Every event that is done was done by somebody, and what did it is there.

    A dead letter that was to be tried again and is not there any more is to be handed out.
    """
    floor = next(
        one for one in reversed(history.moments) if one.is_synced and one.calls <= crash.calls
    )
    explained = set(floor.done - floor.dead)
    for reason in history.reasons:
        if floor.calls <= reason.calls <= crash.calls:
            explained |= reason.numbers
    events = stored_events(desk.directory)
    explained |= {number for number, event in events.items() if type(event) is list}
    explained |= results_in(desk.directory).keys() | found.dead
    lost = {number for number in found.done - explained if number in events}
    assert not lost, f"{sorted(lost)} are done, and nobody has handled or dropped them"


def finish(desk: GroupsWorld, found: Moment, *, has_sought: bool) -> None:
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
        elif exhausted := list(desk.state().exhausted):  # with keys in order, others wait for them
            for number in exhausted:
                desk.peer().ask(Bury, GROUP, 0, number, LETTER)
            numbers = member.leased()
        else:
            break
    assert len(seen) == len(set(seen))
    assert found.done.isdisjoint(seen)
    twice = results_in(desk.directory).keys() & seen
    assert not twice or has_sought, f"{sorted(twice)} have results, and are handed out again"
    left = set(range(1, desk.log.last_seq_no + 1)) - found.done - set(seen)
    results = {n for n, event in stored_events(desk.directory).items() if type(event) is list}
    letters = set(desk.store.letters.numbers.listed.get(GROUP, RangeSet()).numbers())
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


ORDERLY: Final[list[Step]] = [
    ("append", 6),
    ("group",),
    ("join",),
    ("join",),
    ("sync",),
    ("lease", 0, 3),
    ("lease", 0, 3),
    ("results", 0),
    ("settle", 0),
    ("bury", 1),
    ("close",),
    ("settle", 0),
    ("retry_dead",),
    ("lease", 0, 1),
    ("close",),
    ("results", 0),
    ("bury", 0),
    ("hang_up", 0),
    ("close",),
]
"""Ends in order, with results, acknowledgements and dead letters that no sync had covered."""

DEAD: Final[list[Step]] = [
    ("append", 4),
    ("group",),
    ("join",),
    ("lease", 0, 4),
    ("sync",),
    ("bury", 0),
    ("bury", 0),
    ("sync",),
    ("retry_dead",),
    ("nack", 0),
    ("settle", 0),
    ("lease", 0, 1),
    ("nack", 0),
    ("condemned",),
    ("retry_dead",),
]
"""Dead letters, buried by a member and by a pool, and tried again."""


def random_history(seed: object, length: int) -> list[Step]:
    """Steps from a seed."""
    rng = random.Random(f"groups {seed}")
    return [("append", rng.randint(1, 12)), ("group",), ("join",), *random_steps(rng, length - 3)]


def after_a_crash(rng: random.Random, length: int) -> list[Step]:
    """Steps on what a crash left."""
    return [("absent",), ("join",), ("lease", 0, 5), *random_steps(rng, length - 3)]


def random_steps(rng: random.Random, length: int) -> list[Step]:
    """What may come after there is a group and somebody in it."""
    may_move = rng.random() < 0.3  # after a seek, little can be said of what is handled once
    steps: list[Step] = []
    while len(steps) < length:
        place = rng.randint(0, 5)
        choices: list[tuple[int, Step]] = [
            (3, ("append", rng.randint(1, 4))),
            (1, ("fill",)),
            (2, ("join",)),
            (8, ("lease", place, rng.randint(1, 6))),
            (5, ("settle", place)),
            (6, ("results", place)),
            (3, ("nack", place)),
            (3, ("bury", place)),
            (2, ("condemned",)),
            (2, ("release", place)),
            (2, ("hang_up", place)),
            (1, ("retry_dead",)),
            (1, ("drop_dead",)),
            (may_move, ("skip", rng.randint(0, 12))),
            (may_move, ("seek", rng.randint(0, 12))),
            (1, ("rewrite",)),
            (2, ("sync",)),
            (1, ("kill",)),
            (1, ("close",)),
        ]
        weights, steps_there = zip(*choices, strict=True)
        steps += rng.choices(steps_there, weights)
    return steps
