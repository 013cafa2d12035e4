"""Events that survive a loss of power: stored and synced before the producer goes on.

One at a time: each event waits for its sync. 64 at once: together in one call, or, where it says
so, from 64 tasks of which each appends one event at a time. What a disk promises by `fdatasync` is
its own affair; a virtual one may answer in a tenth of a millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, Literal, NamedTuple

from benchmark import measures
from benchmark.durable import ALL
from benchmark.durable.base import Clock, Durable
from benchmark.durable.file import DurableFile
from benchmark.durable.jetstream import DurableJetStream
from benchmark.durable.log import DurableLog
from benchmark.durable.redis_streams import DurableRedis
from benchmark.processes import Crew, Link
from benchmark.results import Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.workloads.base import Column, Contender, Workload

FIGURE: Final = "events_per_s"
SECONDS: Final = 1.0
QUICK_SECONDS: Final = 0.3
AT_ONCE: Final = 64

Way = Literal["one at a time", "64 at once", "64 tasks"]


class _Stored(NamedTuple):
    """What a child reports."""

    events: int
    wall_s: float
    cpu_s: float


def _named(system: type[Durable], way: Way) -> str:
    return f"{way}: {system.name}"


def _goal(text: str, way: Way, to: str, at_least: float) -> RatioGoal:
    return RatioGoal(text=text, figure=FIGURE, of=_named(DurableLog, way), to=to, at_least=at_least)


class Sync(Workload):
    """See the module."""

    name = "sync"
    title = "Appends that survive a loss of power"
    note = "us: CPU time of all processes, user and system, for each event."
    columns = (
        Column(FIGURE, "events/s"),
        Column("sync_us", "us a call", 1),
        Column("cpu_us", "all us", 2),
    )
    goals = (
        _goal(
            "log / pwrite and fdatasync, one at a time",
            "one at a time",
            _named(DurableFile, "one at a time"),
            0.55,
        ),
        _goal(
            "log / JetStream, one at a time",
            "one at a time",
            _named(DurableJetStream, "one at a time"),
            2.0,
        ),
        _goal(
            "log, 64 tasks / Redis pipelined", "64 tasks", _named(DurableRedis, "64 at once"), 1.0
        ),
        _goal(
            "log, append_many(64) / group commit of a file",
            "64 at once",
            _named(DurableFile, "64 at once"),
            0.7,
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            Contender(
                _named(system, way), partial(_measure, system, way, settings), system.missing()
            )
            for way in _WAYS
            for system in ([DurableLog] if way == "64 tasks" else ALL)
        ]


_WAYS: Final[tuple[Way, ...]] = ("one at a time", "64 at once", "64 tasks")


def _measure(make: type[Durable], way: Way, settings: Settings) -> Figures:
    seconds = QUICK_SECONDS if settings.is_quick else SECONDS
    with settings.new_directory() as directory:
        system = make(directory)
        with system.opened() as own_pids, Crew() as crew:
            before_s = measures.cpu_s(own_pids)
            member = crew.start("producer", partial(_store, system, way, seconds))
            stored: _Stored = crew.hear(member)[0]
            cpu_s = stored.cpu_s + measures.cpu_s(own_pids) - before_s
    calls = stored.events / (1 if way == "one at a time" else AT_ONCE)
    return {
        FIGURE: stored.events / stored.wall_s,
        "sync_us": stored.wall_s / calls * 1e6,
        "cpu_us": cpu_s / stored.events * 1e6,
    }


def _store(system: Durable, way: Way, seconds: float, link: Link) -> None:
    _run(system, way, Clock(0.05))  # imports, and connections that are opened for the first time
    clock, before_s = Clock(seconds), time.process_time()
    _run(system, way, clock)
    link.say(_Stored(clock.count, clock.elapsed_s(), time.process_time() - before_s))


def _run(system: Durable, way: Way, clock: Clock) -> None:
    if way == "one at a time":
        system.one_at_a_time(clock)
    elif way == "64 at once":
        system.at_once(clock, AT_ONCE)
    else:
        system.concurrently(clock, AT_ONCE)
