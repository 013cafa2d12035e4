"""This log with `durability="sync"`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import eventlog
import eventlog.blocking
from benchmark.durable.base import Clock, Durable
from benchmark.systems.log import served


class DurableLog(Durable):
    """`append`, `append_many`, and `append` in many tasks at once."""

    name = "log"

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Make the log; its writer runs until the end."""
        self.path = os.path.join(self.directory, "log")
        with served(self.path, "sync") as (_, writer_pid):
            yield [writer_pid]

    def one_at_a_time(self, clock: Clock) -> None:
        """Blocking `append`s."""
        with eventlog.blocking.open(self.path) as log:
            for event in clock.events():
                log.append(event)

    def at_once(self, clock: Clock, size: int) -> None:
        """Blocking `append_many`s."""
        with eventlog.blocking.open(self.path) as log:
            for chunk in clock.chunks(size):
                log.append_many(chunk)

    def concurrently(self, clock: Clock, size: int) -> None:
        """Tasks on trio, each with one `append` at a time; they share batches and syncs."""
        import trio

        async def append_all() -> None:
            async with eventlog.open(self.path) as log, trio.open_nursery() as nursery:
                for _ in range(size):
                    nursery.start_soon(_append, log, clock)

        trio.run(append_all)


async def _append(log: eventlog.EventLog, clock: Clock) -> None:
    for event in clock.events():
        await log.append(event)
