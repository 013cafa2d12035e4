"""What is measured of an engine: events that are stored, acknowledged, and read again.

The bare client packs each event as MessagePack, behind as many bytes as our record has beside the
event, and unpacks it again: the same bytes and batches, and the same values at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NamedTuple

import anyio
import msgpack

import eventlog
from benchmark import events
from eventlog import SeekPosition

BATCH_EVENTS: Final = 1000
"""Events of an `append_many`, and of what the bare client sends before it waits."""
AROUND_BYTES: Final = 32
"""What a record has beside the packed event: id, time, and their frame."""
AROUND: Final = bytes(AROUND_BYTES)


class Times(NamedTuple):
    """How long it took: the clock, and this process's CPU."""

    store_s: float
    store_cpu_s: float
    read_s: float
    read_cpu_s: float


Served = Callable[[str], AbstractContextManager[tuple[str, int]]]
"""Runs a server in a directory; its address for a client of ours, and its process."""


class Way(NamedTuple):
    """One client, doing the work in one way."""

    name: str
    served: Served
    run: Callable[[str, int], Times]
    """Store and read so many events at an address."""
    missing: Callable[[], str | None]


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Add how long the block took, and how much CPU."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    yield
    into += [time.perf_counter() - wall_s, time.process_time() - cpu_s]


def packed(event: Any) -> bytes:
    """What the bare client stores of an event."""
    return AROUND + msgpack.packb(event)


def unpacked(record: bytes) -> Any:
    """The event again."""
    return msgpack.unpackb(memoryview(record)[AROUND_BYTES:])


def ours_in_batches(address: str, count: int) -> Times:
    """`append_many`, and the batches of a stream."""
    return anyio.run(_ours, address, count, _append_many, _read_batches)


def ours_by_event(address: str, count: int) -> Times:
    """`send` of a publisher, and the events of a stream."""
    return anyio.run(_ours, address, count, _send, _read_events)


async def _ours(address: str, count: int, store: Any, read: Any) -> Times:
    times: list[float] = []
    async with eventlog.open(address) as log:
        with timed(times):
            await store(log, count)
        async with log.follow(SeekPosition.BEGINNING) as stream:
            with timed(times):
                await read(stream, count)
    return Times(*times)


async def _append_many(log: eventlog.EventLog, count: int) -> None:
    for chunk in events.chunks(count, BATCH_EVENTS):
        await log.append_many(chunk)


async def _send(log: eventlog.EventLog, count: int) -> None:
    async with log.publisher() as publisher:
        for event in events.events(count):
            await publisher.send(event)


async def _read_batches(stream: eventlog.EventStream, count: int) -> None:
    async for batch in stream.batches():
        count -= len([envelope.event for envelope in batch])
        if not count:
            return


async def _read_events(stream: eventlog.EventStream, count: int) -> None:
    async for envelope in stream:
        count -= envelope.event is not None
        if not count:
            return
