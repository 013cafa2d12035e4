"""The three flavours of a pool in the clothes of one: `workers.blocking.Pool` goes to threads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import eventlog
from eventlog import EventLog
from tests.conformance.facade import ThreadedEventLog, Threads
from workers import DeadLetter, Pool, PoolStats
from workers.blocking import Pool as BlockingPool


class AnyPool(Protocol):
    """What all flavours can do."""

    async def drained(self) -> None: ...

    def stats(self) -> PoolStats: ...

    def dead_letters(self) -> AsyncIterator[DeadLetter]: ...


class ThreadedPool:
    """A blocking pool; each call goes to a thread and is awaited there."""

    def __init__(self, pool: BlockingPool, threads: Threads) -> None:
        self._pool = pool
        self._threads = threads

    async def drained(self) -> None:
        await self._threads.run(self._pool.drained)

    def stats(self) -> PoolStats:
        return self._pool.stats()

    async def dead_letters(self) -> AsyncIterator[DeadLetter]:
        for letter in await self._threads.run(lambda: list(self._pool.dead_letters())):
            yield letter


@dataclass(frozen=True)
class Flavour:
    """One way to use pools."""

    name: str
    event_loop: Literal["trio", "asyncio"]
    is_blocking: bool = False

    def open(self, path: str) -> EventLog:
        """The log, not entered yet."""
        return ThreadedEventLog(path, {}) if self.is_blocking else eventlog.open(path)

    def pool(self, log: EventLog, **options: Any) -> AbstractAsyncContextManager[AnyPool]:
        """A pool on the log, not entered yet."""
        if self.is_blocking:
            return _threaded(log, options)
        return Pool(log, **options)


@asynccontextmanager
async def _threaded(log: EventLog, options: dict[str, Any]) -> AsyncIterator[AnyPool]:
    assert isinstance(log, ThreadedEventLog)
    if isinstance(options.get("output"), ThreadedEventLog):
        options = options | {"output": options["output"].blocking}
    threads = Threads()
    pool = BlockingPool(log.blocking, **options)
    async with threads.entered(pool):
        yield ThreadedPool(pool, threads)


FLAVOURS = (
    Flavour("trio", "trio"),
    Flavour("asyncio", "asyncio"),
    Flavour("blocking", "trio", is_blocking=True),
)
