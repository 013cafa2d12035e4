"""Redis Streams, on Valkey over TCP without persistence, with redis-py and hiredis.

Bare: `XADD`s in a pipeline, and `XREAD`. In batches a pipeline is a transaction, for a batch of
ours is stored whole or not at all.
"""

from __future__ import annotations

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
from benchmark.servers import valkey
from benchmark.servers.process import free_port
from benchmark.systems.base import first_missing

STREAM: Final = "bare"
FIELD: Final = b"r"
OPEN_MAX: Final = 256


@contextmanager
def served(directory: str) -> Iterator[tuple[str, int]]:
    """A server on a port of its own."""
    port = free_port()
    with valkey.served(directory, "--port", str(port)) as (_, pid):
        yield f"redis://127.0.0.1:{port}/0/log", pid


def client_at(address: str) -> Any:
    """A client of the server that an address names."""
    import redis

    return redis.Redis.from_url(address.rpartition("/")[0])


def bare(address: str, count: int, *, at_once: int, is_atomic: bool) -> Times:
    """Store and read, so many events at once."""
    client, times = client_at(address), list[float]()
    with timed(times):
        for chunk in events.chunks(count, at_once):
            pipeline = client.pipeline(transaction=is_atomic)
            for event in chunk:
                pipeline.xadd(STREAM, {FIELD: packed(event)})
            pipeline.execute()
    with timed(times):
        _read(client, count)
    client.close()
    return Times(*times)


def _read(client: Any, count: int) -> None:
    position: Any = b"0-0"
    while count:
        entries = client.xread({STREAM: position}, count=BATCH_EVENTS, block=0)[0][1]
        for _, fields in entries:
            unpacked(fields[FIELD])
        count -= len(entries)
        position = entries[-1][0]


def _missing() -> str | None:
    return first_missing(*valkey.NEEDS, "coredis")


REDIS: Final = (
    Way("eventlog on Redis, batches", served, ours_in_batches, _missing),
    Way(
        "redis-py, batches",
        served,
        partial(bare, at_once=BATCH_EVENTS, is_atomic=True),
        _missing,
    ),
    Way("eventlog on Redis, event by event", served, ours_by_event, _missing),
    Way(
        "redis-py, event by event",
        served,
        partial(bare, at_once=OPEN_MAX, is_atomic=False),
        _missing,
    ),
)
