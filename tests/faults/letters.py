"""Dead letters whose events retention has deleted: what a crash leaves of them.

A letter that was acknowledged is kept until its event was handled, or it was dropped. It is listed,
or its event is handed out, with the letter's own copy if the log has it no more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from eventlog.config import Retention
from eventlog.local.groups.stored import StoredLetters, read_dead_letters
from eventlog.local.storage.files import FILES, Files
from eventlog.local.wire.group_messages import Bury, DropDead, RetryDead
from tests.faults.crashes import Crash
from tests.faults.histories import Known, Step, Trace, booted
from tests.faults.recorder import RecordingFiles, materialise
from tests.groups.world import M1, Member, accepted, pack_letter
from tests.groups.world import World as GroupsWorld

GROUP: Final = "g"
OPTIONS: Final[dict[str, Any]] = {
    "segment_bytes": 4096,
    "retention": Retention(max_bytes=2 * 4096, keep_unacked=False),
}
EVERYTHING: Final = ((1, 10_000),)
MANY: Final = 120
"""So many events, and retention has deleted those before them."""


class LettersTrace(NamedTuple):
    """A history that was carried out."""

    trace: Trace
    kept: list[frozenset[int]]
    """`kept[i]`: the letters before step i that may not be lost; one more than there are steps."""
    synced: list[int]
    """The steps after which all was on the disk."""


def letter_of(number: int) -> bytes:
    """What is told about an event that is dead."""
    return pack_letter(event=number, key=None, headers=None, error="ValueError: no")


class LettersWorld:
    """A log with short retention, and a group with one member."""

    def __init__(self, directory: str, files: Files) -> None:
        self.desk = GroupsWorld(directory, files, **OPTIONS)
        self.files = files
        self.kept: set[int] = set()
        self.held: list[int] = []
        self.next_member = M1
        self.desk.append(10)
        self.desk.open_group()
        self.join()

    def join(self) -> None:
        """Another member: the one before is gone."""
        self.desk.end_absent()
        self.next_member += 1
        self.member = Member(self.desk, self.next_member)
        self.held = []

    def do(self, step: Step) -> None:
        """Carry out a step; one that makes no sense just now does nothing."""
        kind, *arguments = step
        getattr(self, f"do_{kind}")(*arguments)

    def do_append(self, count: int) -> None:
        self.desk.append(count)

    def do_lease(self, count: int) -> None:
        self.held = self.held or self.member.lease(count)

    def do_settle(self) -> None:
        if self.held:
            number = self.held.pop(0)
            accepted(self.member.settle(number))
            self.kept.discard(number)

    def do_bury(self) -> None:
        if self.held:
            number = self.held.pop(0)
            fields = (GROUP, self.member.lease_id, number, letter_of(number))
            accepted(self.member.ask(Bury, *fields))
            self.kept.add(number)

    def do_retry(self) -> None:
        accepted(self.desk.peer().ask(RetryDead, GROUP, EVERYTHING))

    def do_drop(self) -> None:
        dead = {letter.seq_no for letter in read_dead_letters(self.desk.directory, GROUP)}
        accepted(self.desk.peer().ask(DropDead, GROUP, EVERYTHING))
        self.kept -= dead

    def do_rewrite(self) -> None:
        self.desk.store._rewrite()

    def do_sync(self) -> None:
        work = self.desk.log.begin_sync()
        self.desk.store.sync()
        work.run()
        self.desk.log.finish_sync(work)

    def do_kill(self) -> None:
        self._restart("abandon")

    def do_close(self) -> None:
        self._restart("close")

    def _restart(self, ending: str) -> None:
        self.desk.end(ending)
        self.desk.start(self.files)
        self.join()


def run(directory: str, seed: object, steps: list[Step]) -> LettersTrace:
    """Carry out a history, recording every call."""
    files = RecordingFiles()
    with booted("first"):
        world = LettersWorld(directory, files)
        kept, synced = [frozenset[int](), frozenset[int]()], list[int]()
        bounds = [(0, len(files.calls))]
        try:
            for number, step in enumerate(steps, 1):
                before = len(files.calls)
                world.do(step)
                bounds.append((before, len(files.calls)))
                kept.append(frozenset(world.kept))
                if step[0] in {"sync", "close"}:
                    synced.append(number)
        finally:
            world.desk.end()
            files.bury()
    trace = Trace(seed, steps, {}, files.start, files.calls, bounds, [Known()], {}, frozenset(), 0)
    return LettersTrace(trace, kept, synced)


def safe_after(history: LettersTrace, crash: Crash) -> frozenset[int]:
    """The letters that a crash may not cost: kept before and after the step that it falls into."""
    bounds = history.trace.bounds
    done = sum(end <= crash.calls for _, end in bounds)
    window = history.kept[done : done + 2]
    if crash.is_power_cut:
        on_disk = max((step for step in history.synced if step < done), default=-1)
        window = history.kept[on_disk + 1 : done + 2]
    return frozenset.intersection(*window)


def check(directory: str, history: LettersTrace, crash: Crash) -> None:
    """The next writer lists each letter, or hands its event out with what the letter says."""
    materialise(crash.image, directory)
    try:
        with booted("third" if crash.is_power_cut else "first"):
            _check(directory, safe_after(history, crash))
    except Exception as error:
        error.add_note(f"seed {history.trace.seed!r}, {history.trace.steps}\n{crash}")
        raise


def _check(directory: str, safe: frozenset[int]) -> None:
    desk = GroupsWorld(directory, FILES, **OPTIONS)
    try:
        if GROUP not in desk.store.groups:
            assert not safe, f"the group is gone, with its letters {sorted(safe)}"
            return
        found = {one.seq_no: one.event for one in read_dead_letters(directory, GROUP)}
        found |= dict(_handed_out(desk, safe - found.keys()))
        lost = {number for number in safe if found.get(number) != number}
        assert not lost, f"the letters {sorted(lost)} are lost; there are {found}"
    finally:
        desk.end()


def _handed_out(desk: GroupsWorld, wanted: frozenset[int]) -> Iterator[tuple[int, Any]]:
    """Those of the wanted events that a member gets, and what a letter says that each is."""
    if not wanted:
        return
    desk.end_absent()
    member = Member(desk, M1 + 1000)
    letters = StoredLetters(desk.directory, GROUP)
    while numbers := member.lease(1000):
        for number in wanted.intersection(numbers):
            if letters.find(number) == letter_of(number):
                yield number, number
        member.settle(*numbers)


# --- histories -------------------------------------------------------------------------------

SHORT: Final[list[Step]] = [
    ("lease", 4),
    ("bury",),
    ("settle",),
    ("bury",),
    ("sync",),
    ("append", MANY),
    ("retry",),
    ("settle",),
    ("lease", 3),
    ("bury",),
    ("kill",),
    ("retry",),
    ("lease", 2),
    ("settle",),
    ("rewrite",),
    ("close",),
    ("lease", 2),
    ("settle",),
    ("bury",),
    ("drop",),
]
"""Letters that outlive their events, are retried, die again, and are handled."""


def random_history(seed: object, length: int) -> list[Step]:
    """Steps from a seed."""
    rng = random.Random(f"letters {seed}")
    choices: list[tuple[int, Step]] = [
        (2, ("append", 3)),
        (2, ("append", MANY)),
        (6, ("lease", 5)),
        (4, ("settle",)),
        (7, ("bury",)),
        (4, ("retry",)),
        (1, ("drop",)),
        (1, ("rewrite",)),
        (2, ("sync",)),
        (2, ("kill",)),
        (1, ("close",)),
    ]
    weights, steps = zip(*choices, strict=True)
    return rng.choices(steps, weights, k=length)
