"""Reading a local log on trio and asyncio: streams that wait for events, and ranges that don't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import anyio.lowlevel

from eventlog.api import forks
from eventlog.api.arguments import Bounds
from eventlog.api.statistics import StreamStatistics
from eventlog.api.streams import NextBatch, StartOfRange, StreamOfBatches
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode
from eventlog.local.client.asynchronous import AsyncRequests
from eventlog.local.client.feed import Feed, upcoming
from eventlog.local.client.handle import LocalHandle

if TYPE_CHECKING:
    from eventlog.local.log import LocalEventLog


def read_from(log: LocalEventLog, bounds: Bounds, numbers: tuple[int, int] | None) -> StartOfRange:
    """What `RangeOfBatches` starts; `numbers` are the bounds as they were at the call.

    `None` is for a handle that only its use opens.
    """

    def start_reading(decode: Decode) -> NextBatch:
        batches: Iterator[list[EventEnvelope]] | None = None

        async def next_batch() -> list[EventEnvelope] | None:
            nonlocal batches, numbers
            handle = await log._ready()
            await anyio.lowlevel.checkpoint()
            if batches is None:
                numbers = numbers or handle.numbers_of(bounds)  # the same for every reading
                batches = handle.read_range(*numbers, bounds.filter, decode)
            return next(batches, None)

        return next_batch

    return start_reading


class LocalStream(StreamOfBatches):
    """See `EventStream`."""

    def __init__(
        self, log: LocalEventLog, handle: LocalHandle, feed: Feed, consumer: str | None
    ) -> None:
        super().__init__(log, consumer, feed.state)
        self._handle = handle
        self._feed = feed
        self._requests = AsyncRequests(handle, "stream")

    def __repr__(self) -> str:
        """Where the stream is."""
        return f"<EventStream of {self._handle.path!r} before event {self._feed.next_seq_no}>"

    def use_as(self, mode: str) -> None:
        self._feed.use_as(mode)

    def check_open(self) -> None:
        self._requests.check_open()

    async def next_events(self) -> list[EventEnvelope] | None:
        return await self._next(self._feed.next_events)

    async def next_batch(self) -> list[EventEnvelope] | None:
        return await self._next(self._feed.next_batch)

    async def _next(
        self, read: Callable[[], list[EventEnvelope] | None]
    ) -> list[EventEnvelope] | None:
        """The next events, waiting for them if need be; `None` at the end."""
        await anyio.lowlevel.checkpoint()
        self._requests.check_open()
        # See the twin of this in `blocking_stream`.
        return read() or await self._requests.run(upcoming(self._feed, self._requests, read))

    def statistics(self) -> StreamStatistics:
        is_open = not self._requests.is_closed and self._handle.is_open
        return self._feed.statistics(is_open=is_open)

    def close(self) -> None:
        """Give pipe and maps back."""
        self.drop_events()
        self._requests.close()
        if self._handle.generation == forks.generation:
            self._feed.close()
