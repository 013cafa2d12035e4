"""What is done to a log, step by step, and what is known of it after each step.

A history is a list of steps, made by hand or from a seed. `run` does it to a real log, with a
recorder at the door, and gives a `Trace`: every call, and after each step what was acknowledged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, NamedTuple

import pytest

from eventlog.api.times import LogClock
from eventlog.config import Retention
from eventlog.errors import LogFull
from eventlog.event.record_batch import PackedBatch
from eventlog.local.storage.files import Files
from eventlog.local.storage.log.sync_work import SyncWork
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.starting import start
from eventlog.testing import batch_of, open_storage
from tests.faults.disk import Call, Disk
from tests.faults.recorder import RecordingFiles

SEGMENT_BYTES: Final = 4096
BEGINNING_NS: Final = 10**18
YEARS_S: Final = 3 * 365 * 86_400
CONSUMERS: Final = ("alpha", "beta", "gamma")
PRODUCERS: Final = (7, 8)
Step = tuple[Any, ...]


class Batch(NamedTuple):
    """An append: which producer's, which of its batches, and the events."""

    producer_id: int
    producer_seq: int
    events: tuple[str, ...]

    @property
    def packed(self) -> PackedBatch:
        """As it travels."""
        return batch_of(*self.events)


@dataclass(frozen=True)
class Known:
    """What is known of a log between two steps: all of it was acknowledged."""

    last: int = 0
    first: int = 1
    synced: int = 0
    """Up to here events were on the disk at a moment when nothing was being done."""
    positions: dict[str, int] = field(default_factory=dict)
    positions_since: int = 0
    """The step after which positions were last known to be on the disk."""
    producers: dict[int, tuple[int, Batch]] = field(default_factory=dict)
    """The last batch of each producer, with the number that it got."""


class Trace(NamedTuple):
    """A history that was carried out."""

    seed: object
    steps: list[Step]
    options: dict[str, Any]
    start: Disk
    calls: list[Call]
    bounds: list[tuple[int, int]]
    """For each step: the calls before it, and the calls before the one after it."""
    known: list[Known]
    """`known[i]`: before step i; one more than there are steps."""
    events: dict[int, str]
    """What was appended, by number."""
    batch_ends: frozenset[int]
    now_ns: int

    def at(self, calls: int, *, is_torn: bool = False) -> tuple[int, Known, Known]:
        """The step in which a crash after so many calls falls, and what is known on either side.

        Between two steps both sides are the same: everything is known then. With `is_torn` the
        next call had begun.
        """
        for step, (begin, end) in enumerate(self.bounds):
            if begin < calls < end or (is_torn and begin == calls < end):
                return step, self.known[step], self.known[step + 1]
        done = sum(end <= calls for _, end in self.bounds)
        return done, self.known[done], self.known[done]


@contextmanager
def booted(boot: str) -> Iterator[None]:
    """The machine has been started, and calls this run of its kernel so."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(start, "boot_id", lambda: boot)
        yield


class World:
    """A log, what is done to it, and what is known of it."""

    def __init__(self, directory: str, files: Files, options: dict[str, Any]) -> None:
        self.directory = directory
        self.files = files
        self.options = {"segment_bytes": SEGMENT_BYTES, **options}
        self.known = Known()
        self.events: dict[int, str] = {}
        self.batch_ends = {0}
        self.steady_ns = 0
        self.ahead_ns = 0
        """How far the wall clock is from where it was at the beginning, beside the time that went
        by."""
        self.believed_ns = 0
        """By how much the wall clock was set forward for good: so much older events may seem."""
        self.born_ns: dict[int, int] = {}
        self.serial = 0
        self.log: WritableLog | None = None
        self.work: SyncWork | None = None
        self.work_last = 0

    def do(self, step: Step, number: int) -> None:
        """Carry out a step; `known` is then what is known after it."""
        kind, *arguments = step
        action: Callable[..., None] = getattr(self, f"do_{kind}")
        if kind in ("positions", "close"):
            action(number)
        else:
            action(*arguments)
        if self.log is not None:
            first = self.log.control.first_available
            self._check_ages(range(self.known.first, first))
            self.known = replace(self.known, first=first)

    @property
    def now_ns(self) -> int:
        """What the wall clock says."""
        return BEGINNING_NS + self.steady_ns + self.ahead_ns

    def _check_ages(self, deleted: range) -> None:
        """What retention deleted for its age is old, whatever the wall clock said meanwhile."""
        retention = self._log.options.retention
        if retention.max_age is None or retention.max_bytes is not None:
            return
        old_ns = int(retention.max_age.total_seconds() * 1e9) - self.believed_ns
        for number in deleted:
            age_ns = self.steady_ns - self.born_ns[number]
            assert age_ns >= old_ns, f"event {number} was deleted when it was {age_ns} ns old"

    @property
    def _log(self) -> WritableLog:
        assert self.log is not None
        return self.log

    def next_batch(self, count: int, size: int, producer: int) -> Batch:
        """The next batch of a producer; every event says another thing."""
        events = []
        for _ in range(count):
            self.serial += 1
            events.append(f"event {self.serial} " + "x" * size)
        known = self.known.producers.get(producer)
        return Batch(producer, known[1].producer_seq + 1 if known else 1, tuple(events))

    def do_open(self) -> None:
        self.log = None  # also if the start fails
        clock = LogClock(lambda: self.now_ns, lambda: self.steady_ns)
        self.log = open_storage(self.directory, self.files, clock, **self.options)
        self.log.on_spare_wanted = self._prepare

    def _prepare(self) -> None:
        """Make the next segment ready, as the writer does."""
        work = self._log.spare.begin()
        if work is not None:
            self._log.spare.finish(work.run())

    def do_append(self, count: int, size: int, producer: int = PRODUCERS[0]) -> None:
        batch = self.next_batch(count, size, producer)
        try:
            base = self._log.append(batch.packed, batch.producer_id, batch.producer_seq)
        except LogFull:
            return
        assert base == self.known.last + 1
        self.events.update(enumerate(batch.events, base))
        self.born_ns.update(dict.fromkeys(range(base, base + count), self.steady_ns))
        last = base + count - 1
        self.batch_ends.add(last)
        producers = {**self.known.producers, producer: (base, batch)}
        self.known = replace(self.known, last=last, producers=producers)

    def do_ack(self, consumer: str, behind: int) -> None:
        seq_no = max(self.known.last - behind, 0)
        self._log.ack(consumer, seq_no)
        position = max(seq_no, self.known.positions.get(consumer, 0))
        self._moved({**self.known.positions, consumer: position})

    def do_seek(self, consumer: str, position: int) -> None:
        self._log.seek(consumer, position)
        self._moved({**self.known.positions, consumer: position})

    def do_forget(self, consumer: str) -> None:
        self._log.offsets.forget(consumer)
        self._moved({n: p for n, p in self.known.positions.items() if n != consumer})

    def _moved(self, positions: dict[str, int]) -> None:
        self.known = replace(self.known, positions=positions)

    def do_retire(self, seconds: int) -> None:
        """Let time go by."""
        self.steady_ns += seconds * 10**9
        self._log.retire()

    def do_clock(self, seconds: int) -> None:
        """Set the wall clock for good."""
        self.ahead_ns += seconds * 10**9
        self.believed_ns += max(seconds, 0) * 10**9

    def do_jump(self, seconds: int, *meanwhile: Any) -> None:
        """The wall clock is wrong for a moment, in which something else is done."""
        self.ahead_ns += seconds * 10**9
        try:
            kind, *arguments = meanwhile
            getattr(self, f"do_{kind}")(*arguments)
        finally:
            self.ahead_ns -= seconds * 10**9

    # --- syncs, in one go or with other steps in between ---

    def do_begin_sync(self) -> None:
        # As the writer: of a log in memory it syncs nothing.
        if self.work is None and self._log.options.durability != "memory":
            self.work, self.work_last = self._log.begin_sync(), self.known.last

    def do_finish_sync(self) -> None:
        if self.work is not None:
            self.work.run()
            self._log.finish_sync(self.work)
            self.work = None
            self.known = replace(self.known, synced=max(self.known.synced, self.work_last))

    def do_sync(self) -> None:
        self.do_finish_sync()
        self.do_begin_sync()
        self.do_finish_sync()

    def do_positions(self, number: int) -> None:
        self._log.sync_positions()
        self.known = replace(self.known, positions_since=number + 1)

    # --- ends ---

    def do_kill(self) -> None:
        """The process is killed between two steps, and the next one recovers the log."""
        self._log.abandon()
        self.work = None
        self.do_open()

    def do_close(self, number: int) -> None:
        """An orderly end, and another start."""
        self.do_finish_sync()
        self._log.close()
        if self._log.options.durability != "memory":
            self.known = replace(self.known, synced=self.known.last, positions_since=number + 1)
        self.do_open()


def run(
    directory: str,
    seed: object,
    steps: list[Step],
    options: dict[str, Any],
    files: RecordingFiles | None = None,
    do: Callable[[World, Step, int], None] = World.do,
) -> Trace:
    """Carry out a history, recording every call; the log is made by the first step, `open`."""
    files = files or RecordingFiles()
    world = World(directory, files, options)
    known, bounds = [world.known], []
    try:
        with booted("first"):
            for number, step in enumerate(steps):
                before = len(files.calls)
                do(world, step, number)
                bounds.append((before, len(files.calls)))
                known.append(world.known)
    finally:
        if world.log is not None:
            world.log.abandon()
        files.bury()
    events, ends = dict(world.events), frozenset(world.batch_ends)
    return Trace(
        seed,
        steps,
        world.options,
        files.start,
        files.calls,
        bounds,
        known,
        events,
        ends,
        world.now_ns,
    )


# --- histories -------------------------------------------------------------------------------

SHORT: Final[dict[str, tuple[list[Step], dict[str, Any]]]] = {
    "appends": (
        [("open",), ("append", 1, 5), ("append", 3, 100), ("sync",), ("append", 2, 700)],
        {},
    ),
    "rolls": (
        [
            ("open",),
            *[("append", 1, 1500, p) for p in (7, 8, 7, 7, 8)],
            ("sync",),
            ("append", 1, 9),
        ],
        {},
    ),
    "rolls during a sync": (
        [
            ("open",),
            ("append", 1, 1500),
            ("begin_sync",),
            *[("append", 1, 1900)] * 3,
            ("finish_sync",),
            ("append", 2, 50),
            ("sync",),
        ],
        {},
    ),
    "positions": (
        [
            ("open",),
            ("append", 9, 20),
            ("ack", "alpha", 4),
            ("ack", "beta", 0),
            ("sync",),
            ("positions",),
            ("seek", "alpha", 2),
            ("ack", "alpha", 1),
            ("forget", "beta"),
            ("ack", "gamma", 3),
            ("append", 2, 20),
            ("ack", "gamma", 0),
        ],
        {},
    ),
    "retention": (
        [
            ("open",),
            *[("append", 1, 1900)] * 3,
            ("ack", "alpha", 2),
            *[("append", 1, 1900)] * 3,
            ("ack", "alpha", 0),
            *[("append", 1, 1900)] * 4,
            ("sync",),
            ("positions",),
            ("ack", "alpha", 0),
            *[("append", 1, 1900)] * 2,
        ],
        {"retention": Retention(max_bytes=3 * SEGMENT_BYTES)},
    ),
    "age": (
        [
            ("open",),
            *[("append", 1, 1900)] * 5,
            ("sync",),
            ("retire", 100),
            ("append", 1, 1900),
            ("clock", -500),
            *[("append", 1, 1900)] * 3,
            ("retire", 1000),
        ],
        {"retention": Retention(max_age=timedelta(seconds=50))},
    ),
    "clocks": (
        [
            ("open",),
            *[("append", 1, 1900)] * 3,
            ("retire", 20),
            *[("append", 1, 1900)] * 3,
            ("jump", YEARS_S, "retire", 0),
            ("jump", YEARS_S, "append", 1, 1900),
            ("jump", -600, "append", 1, 1900),
            ("retire", 35),
            ("jump", YEARS_S, "kill"),
            *[("append", 1, 1900)] * 3,
            ("retire", 20),
            ("append", 1, 1900),
            ("retire", 1000),
        ],
        {"retention": Retention(max_age=timedelta(seconds=50))},
    ),
    "restarts": (
        [
            ("open",),
            ("append", 2, 900),
            ("kill",),
            ("append", 2, 1200),
            ("ack", "alpha", 1),
            ("close",),
            ("append", 1, 1500),
            ("kill",),
            ("append", 1, 10),
        ],
        {},
    ),
    "memory": (
        [("open",), *[("append", 2, 900)] * 4, ("ack", "alpha", 3), ("close",), ("append", 1, 8)],
        {"durability": "memory"},
    ),
    "recycling in memory": (
        [("open",), *[("append", 1, 3000)] * 6, ("kill",), *[("append", 1, 3000)] * 3],
        {
            "durability": "memory",
            "retention": Retention(max_bytes=2 * SEGMENT_BYTES, keep_unacked=False),
        },
    ),
    "recycling": (
        [("open",), *[("append", 1, 3000), ("sync",)] * 6, ("append", 1, 3000)],
        {
            "durability": "sync",
            "retention": Retention(max_bytes=2 * SEGMENT_BYTES, keep_unacked=False),
        },
    ),
}
"""Short enough for every crash of each, but each with something that the others lack."""


MOMENTS: Final[list[Step]] = [("retire", 0), ("retire", 5), ("append", 1, 100)]
"""What may be done while the wall clock is wrong."""


def random_history(seed: object, length: int) -> tuple[list[Step], dict[str, Any]]:
    """Steps and options from a seed."""
    rng = random.Random(str(seed))
    options: dict[str, Any] = {}
    if rng.random() < 0.3:
        options["durability"] = rng.choice(["memory", "sync"])
    if rng.random() < 0.5:
        options["retention"] = rng.choice(
            [
                Retention(max_bytes=4 * SEGMENT_BYTES),
                Retention(max_bytes=2 * SEGMENT_BYTES, keep_unacked=False),
                Retention(max_age=timedelta(seconds=100)),
            ]
        )
    steps: list[Step] = [("open",)]
    while len(steps) < length:
        steps.append(_random_step(rng))
    return steps, options


def _random_step(rng: random.Random) -> Step:
    consumer = rng.choice(CONSUMERS)
    count = rng.choice([1, 1, 2, 5])
    steps: list[tuple[int, Step]] = [
        (12, ("append", count, rng.choice([0, 10, 200, 1700 // count]), rng.choice(PRODUCERS))),
        (4, ("ack", consumer, rng.randint(0, 5))),
        (2, ("seek", consumer, rng.randint(0, 40))),
        (1, ("forget", consumer)),
        (1, ("sync",)),
        (1, ("begin_sync",)),
        (2, ("finish_sync",)),
        (1, ("positions",)),
        (1, ("retire", rng.choice([1, 60, 300]))),
        (1, ("clock", rng.choice([-1000, -1, 5]))),
        (1, ("jump", rng.choice([YEARS_S, 7200]), "kill")),
        (2, ("jump", rng.choice([YEARS_S, 7200, -600]), *rng.choice(MOMENTS))),
        (1, ("kill",)),
        (1, ("close",)),
    ]
    weights, choices = zip(*steps, strict=True)
    chosen: Step = rng.choices(choices, weights)[0]
    return chosen
