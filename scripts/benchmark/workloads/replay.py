"""A million stored events, read back through the public API, against msgpack alone.

`msgpack alone` unpacks the same events, packed, from memory: one `unpackb` for each event, which is
what the goal is set against, or one for each list of a thousand. Reading the log is that, and
mapping, checking each batch's CRC, and making an envelope with its number for each event. The log
decodes with msgspec, so a loop of that is shown too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import msgpack

import eventlog
import eventlog.blocking
from benchmark import events
from benchmark.processes import Crew, Link
from benchmark.results import Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.log import CHUNK_EVENTS, served
from benchmark.workloads.base import Column, Contender, Workload
from eventlog import SeekPosition

FIGURE: Final = "events_per_s"
COUNT: Final = 1_000_000
AT_LEAST: Final = 0.5
PER_EVENT: Final = "msgpack.unpackb for each event"
PER_BATCH: Final = "msgpack.unpackb for each 1000"
PER_EVENT_MSGSPEC: Final = "msgspec decode for each event"
BY_API: Final = (
    "log, trio, event by event",
    "log, trio, batches",
    "log, blocking, event by event",
    "log, blocking, batches",
)


class _Replayed(NamedTuple):
    """What a child reports."""

    wall_s: float
    cpu_s: float


class Replay(Workload):
    """See the module."""

    name = "replay"
    title = "A million stored events, replayed"
    note = "subscribe(BEGINNING, follow=False) against a loop over the same events in memory."
    columns = (Column(FIGURE, "events/s"), Column("cpu_us", "CPU us", 2))
    goals = tuple(
        RatioGoal(
            text=f"{name} / {to}",
            figure=FIGURE,
            of=name,
            to=to,
            at_least=AT_LEAST if to == PER_EVENT else None,
        )
        for to in (PER_EVENT, PER_BATCH, PER_EVENT_MSGSPEC)
        for name in BY_API
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Write the log that all runs read."""
        count = settings.scaled(COUNT)
        with settings.new_directory() as directory:
            path = os.path.join(directory, "log")
            with served(path, settings.durability) as (log, _):
                for chunk in events.chunks(count, CHUNK_EVENTS):
                    log.append_many(chunk)
                yield [
                    *(
                        Contender(name, partial(_measure, count, partial(role, path, count)))
                        for name, role in zip(BY_API, _ROLES, strict=True)
                    ),
                    Contender(PER_EVENT, partial(_measure, count, partial(_loop, count))),
                    Contender(PER_BATCH, partial(_measure, count, partial(_loop_lists, count))),
                    Contender(
                        PER_EVENT_MSGSPEC, partial(_measure, count, partial(_loop_msgspec, count))
                    ),
                ]


def _measure(count: int, role: Callable[[Link], None]) -> Figures:
    with Crew() as crew:
        member = crew.start("reader", role)
        replayed: _Replayed = crew.hear(member)[0]
    return {FIGURE: count / replayed.wall_s, "cpu_us": replayed.cpu_s / count * 1e6}


class _Stopwatch:
    """Wall and CPU time of this process, from its making."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._start_s = time.perf_counter()

    def stop(self, last: object, count: int, link: Link) -> None:
        """Report the time, if `last` is the last event."""
        wall_s = time.perf_counter() - self._start_s
        cpu_s = time.process_time() - self._cpu_s
        assert last == events.event_at(count - 1), f"the last event read is {last!r}"
        link.say(_Replayed(wall_s, cpu_s))


def _blocking_events(path: str, count: int, link: Link) -> None:
    event: Any = None
    with eventlog.blocking.open(path) as log:
        watch = _Stopwatch()
        with log.subscribe("replay", SeekPosition.BEGINNING, follow=False) as stream:
            for envelope in stream:
                event = envelope.event
            watch.stop(event, count, link)


def _blocking_batches(path: str, count: int, link: Link) -> None:
    event: Any = None
    with eventlog.blocking.open(path) as log:
        watch = _Stopwatch()
        with log.subscribe("replay", SeekPosition.BEGINNING, follow=False) as stream:
            for batch in stream.batches():
                event = batch[-1].event
            watch.stop(event, count, link)


def _trio_events(path: str, count: int, link: Link) -> None:
    import trio

    async def replay() -> None:
        event: Any = None
        async with eventlog.open(path) as log:
            watch = _Stopwatch()
            async with log.subscribe("replay", SeekPosition.BEGINNING, follow=False) as stream:
                async for envelope in stream:
                    event = envelope.event
                watch.stop(event, count, link)

    trio.run(replay)


def _trio_batches(path: str, count: int, link: Link) -> None:
    import trio

    async def replay() -> None:
        event: Any = None
        async with eventlog.open(path) as log:
            watch = _Stopwatch()
            async with log.subscribe("replay", SeekPosition.BEGINNING, follow=False) as stream:
                async for batch in stream.batches():
                    event = batch[-1].event
                watch.stop(event, count, link)

    trio.run(replay)


_ROLES: Final = (_trio_events, _trio_batches, _blocking_events, _blocking_batches)


def _packed(count: int) -> list[bytes]:
    pack = msgpack.Packer().pack
    return [pack(event) for event in events.events(count)]


def _loop(count: int, link: Link) -> None:
    packed = _packed(count)
    event: Any = None
    watch = _Stopwatch()
    for data in packed:
        event = msgpack.unpackb(data)
    watch.stop(event, count, link)


def _loop_msgspec(count: int, link: Link) -> None:
    import msgspec

    packed = _packed(count)
    decode = msgspec.msgpack.Decoder().decode
    event: Any = None
    watch = _Stopwatch()
    for data in packed:
        event = decode(data)
    watch.stop(event, count, link)


def _loop_lists(count: int, link: Link) -> None:
    pack = msgpack.Packer().pack
    packed = [pack(chunk) for chunk in events.chunks(count, CHUNK_EVENTS)]
    event: Any = None
    watch = _Stopwatch()
    for data in packed:
        event = msgpack.unpackb(data)[-1]
    watch.stop(event, count, link)
