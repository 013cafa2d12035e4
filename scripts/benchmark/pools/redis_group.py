"""A consumer group of Redis Streams: workers read in batches and acknowledge them.

The server is Valkey, on a Unix socket, without persistence.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgpack

from benchmark.pools.base import PROCESSES, HandleAll, Handler, PoolSystem
from benchmark.servers import valkey

STREAM: Final = "events"
GROUP: Final = "pool"
DONE: Final = "done"
READ_COUNT: Final = 256
WRITE_COUNT: Final = 1000


class RedisGroup(PoolSystem):
    """See the module."""

    name = "Redis Streams group"
    needs = valkey.NEEDS

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """The server, the group and its workers."""
        with valkey.served(directory) as (path, _):
            client = valkey.client_of(path)
            client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
            context = multiprocessing.get_context("spawn")
            workers = [
                context.Process(target=_work, args=(path, f"worker-{n}", handler), daemon=True)
                for n in range(PROCESSES)
            ]
            for worker in workers:
                worker.start()
            total = 0

            def handle_all(events: Sequence[Any]) -> None:
                nonlocal total
                total += len(events)
                _add(client, events)
                while int(client.get(DONE) or 0) < total:
                    time.sleep(0.001)

            try:
                yield handle_all
            finally:
                for worker in workers:
                    worker.terminate()
                    worker.join()


def _add(client: Any, events: Sequence[Any]) -> None:
    for start in range(0, len(events), WRITE_COUNT):
        pipeline = client.pipeline(transaction=False)
        for event in events[start : start + WRITE_COUNT]:
            pipeline.xadd(STREAM, {"event": msgpack.packb(event)})
        pipeline.execute()


def _work(path: str, name: str, handler: Handler) -> None:
    """A worker: read, handle, acknowledge, count."""
    client = valkey.client_of(path)
    while True:
        found: Any = client.xreadgroup(GROUP, name, {STREAM: ">"}, count=READ_COUNT, block=1000)
        for _, entries in found:
            for _, fields in entries:
                handler(msgpack.unpackb(fields[b"event"]))
            pipeline = client.pipeline(transaction=False)
            pipeline.xack(STREAM, GROUP, *(number for number, _ in entries))
            pipeline.incrby(DONE, len(entries))
            pipeline.execute()
