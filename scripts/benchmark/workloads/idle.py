"""Four subscribers that have caught up, and the writer: what they use while nothing happens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import eventlog
import eventlog.blocking
from benchmark import events, measures
from benchmark.processes import Crew, Link, Member
from benchmark.results import Figures, LimitGoal
from benchmark.settings import Settings
from benchmark.systems.log import served
from benchmark.workloads.base import Column, Contender, Workload

IDLE_S: Final = 10.0
QUICK_IDLE_S: Final = 2.0
BEFORE: Final = 1000
"""Events that every subscriber receives before it is left alone."""
CPU_MS_MAX: Final = 10.0
"""For all five processes: a thousandth of one processor. The writer's sync of the last appends,
which falls into the time, and the subscribers' way to sleep take a few of these."""


class Idle(Workload):
    """See the module."""

    name = "idle"
    title = "Four idle subscribers (two on trio, two blocking) and an idle writer"
    note = "Afterwards one more event is appended, and all four have to receive it."
    columns = (
        Column("wall_s", "seconds", 1),
        Column("subscribers_cpu_ms", "subscribers' CPU ms", 2),
        Column("writer_cpu_ms", "writer's CPU ms", 2),
        Column("wake_ups", "wake-ups"),
    )
    goals = (LimitGoal(text="CPU ms of all five", figure="cpu_ms", of="log", at_most=CPU_MS_MAX),)
    is_repeated = False
    is_charted = False

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [Contender("log", partial(_measure, settings))]


def _measure(settings: Settings) -> Figures:
    seconds = QUICK_IDLE_S if settings.is_quick else IDLE_S
    with settings.new_directory() as directory:
        path = os.path.join(directory, "log")
        with served(path, settings.durability) as (log, writer_pid), Crew() as crew:
            roles = (_subscribe_trio, _subscribe_blocking) * 2
            members = [
                crew.start(f"subscriber {index}", partial(role, path))
                for index, role in enumerate(roles)
            ]
            crew.hear(*members)
            log.append_many(events.events(BEFORE))
            crew.hear(*members)
            figures = _watch(members, writer_pid, seconds)
            log.append(events.event_at(0))
            crew.hear(*members)
    return figures


def _watch(members: list[Member], writer_pid: int, seconds: float) -> Figures:
    """What these processes use in so many seconds."""
    pids = [member.pid for member in members]
    everybody = [*pids, writer_pid]
    start = time.monotonic()
    before = measures.cpu_s(pids), measures.cpu_s([writer_pid]), measures.wake_ups(everybody)
    time.sleep(seconds)  # it is the time itself that is measured
    subscribers_ms = (measures.cpu_s(pids) - before[0]) * 1e3
    writer_ms = (measures.cpu_s([writer_pid]) - before[1]) * 1e3
    return {
        "wall_s": time.monotonic() - start,
        "subscribers_cpu_ms": subscribers_ms,
        "writer_cpu_ms": writer_ms,
        "cpu_ms": subscribers_ms + writer_ms,
        "wake_ups": measures.wake_ups(everybody) - before[2],
    }


def _subscribe_blocking(path: str, link: Link) -> None:
    """Say three times that all is received: nothing, the first events, the last one."""
    with eventlog.blocking.open(path) as log, log.follow() as stream:
        link.say("subscribed")
        for envelope in stream:
            if envelope.seq_no == BEFORE:
                link.say("received")
            if envelope.seq_no == BEFORE + 1:
                break
        link.say("ended")


def _subscribe_trio(path: str, link: Link) -> None:
    """The same, on trio."""
    import trio

    async def subscribe() -> None:
        async with eventlog.open(path) as log, log.follow() as stream:
            link.say("subscribed")
            async for envelope in stream:
                if envelope.seq_no == BEFORE:
                    link.say("received")
                if envelope.seq_no == BEFORE + 1:
                    break
            link.say("ended")

    trio.run(subscribe)
