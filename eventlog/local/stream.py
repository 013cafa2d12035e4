"""Reading a local log on trio and asyncio: streams that wait for events, and ranges that don't."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import anyio.lowlevel

from eventlog.api import forks
from eventlog.api.arguments import Bounds
from eventlog.api.refusals import closed
from eventlog.api.statistics import StreamStatistics
from eventlog.api.streams import NextBatch, StreamOfBatches
from eventlog.event.envelope import EventEnvelope
from eventlog.local.client.asynchronous import AsyncPipe
from eventlog.local.client.feed import Feed
from eventlog.local.client.handle import LocalHandle
from eventlog.local.storage.reader import read_range
from eventlog.local.wire.messages import AwaitSynced, Park

if TYPE_CHECKING:
    from eventlog.local.log import LocalEventLog


def read_from(
    log: LocalEventLog, bounds: Bounds, numbers: tuple[int, int] | None
) -> Callable[[], NextBatch]:
    """What `RangeOfBatches` starts; `numbers` are the bounds as they were at the call.

    `None` is for a handle that only its use opens.
    """

    def start() -> NextBatch:
        batches: Iterator[list[EventEnvelope]] | None = None

        async def next_batch() -> list[EventEnvelope] | None:
            nonlocal batches
            handle = await log._ready()
            await anyio.lowlevel.checkpoint()
            if batches is None:
                batches = read_range(handle.reader, *(numbers or handle.numbers_of(bounds)))
            return next(batches, None)

        return next_batch

    return start


class LocalStream(StreamOfBatches):
    """See `EventStream`."""

    def __init__(
        self, log: LocalEventLog, handle: LocalHandle, feed: Feed, consumer: str | None
    ) -> None:
        super().__init__(log, consumer)
        self._handle = handle
        self._feed = feed
        self._pipe = handle.adopt(AsyncPipe(handle.path, handle.new_channel()))
        self._is_closed = False

    def __repr__(self) -> str:
        """Where the stream is."""
        return f"<EventStream of {self._handle.path!r} before event {self._feed.next_seq_no}>"

    def use_as(self, mode: str) -> None:
        self._feed.use_as(mode)

    async def next_events(self) -> list[EventEnvelope] | None:
        return await self._next(self._feed.next_events)

    async def next_batch(self) -> list[EventEnvelope] | None:
        return await self._next(self._feed.next_batch)

    async def _next(
        self, read: Callable[[], list[EventEnvelope] | None]
    ) -> list[EventEnvelope] | None:
        """The next events, waiting for them if need be; `None` at the end."""
        await anyio.lowlevel.checkpoint()
        while True:
            if self._is_closed:
                raise closed("stream", self._handle.path)
            self._handle.check_open()
            events = read()
            if events is not None or self._feed.is_finished:
                return events
            if self._feed.options.spin and await self._spin():
                continue
            async with self._pipe.lock:
                # The writer answers at once if the number is published by now: looking again
                # after it has taken note is what makes a lost wake-up impossible.
                kind = AwaitSynced if self._feed.options.durable_only else Park
                await self._pipe.run(self._pipe.channel.request(kind, self._feed.next_seq_no))
            self._feed.counters.wake_ups += 1

    async def _spin(self) -> bool:
        """Look for the next event, again and again, for as long as was asked for."""
        end = time.perf_counter() + self._feed.options.spin
        while time.perf_counter() < end:
            await anyio.lowlevel.checkpoint()
            if self._is_closed or not self._handle.is_open or self._feed.has_more:
                return True
        return False

    def statistics(self) -> StreamStatistics:
        return self._feed.statistics(is_open=not self._is_closed and self._handle.is_open)

    def close(self) -> None:
        """Give pipe and maps back."""
        self._is_closed = True
        self.drop_events()
        if self._handle.generation == forks.generation:
            self._handle.pipes.discard(self._pipe)
            self._pipe.close()
            self._feed.close()
