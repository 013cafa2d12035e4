"""Reading a local log on trio and asyncio: streams that wait for events, and ranges that don't."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from eventlog.api import forks
from eventlog.api.arguments import Bounds, check_stream_ack
from eventlog.api.log import EventRange, EventStream
from eventlog.api.refusals import closed
from eventlog.api.statistics import StreamStatistics
from eventlog.event.envelope import EventEnvelope
from eventlog.local.client.asynchronous import AsyncPipe
from eventlog.local.client.feed import Feed
from eventlog.local.client.handle import LocalHandle
from eventlog.local.storage.reader import read_range
from eventlog.local.wire.messages import AwaitSynced, Park

if TYPE_CHECKING:
    from eventlog.local.log import LocalEventLog


class LocalRange(EventRange):
    """See `EventRange`."""

    def __init__(self, log: LocalEventLog, bounds: Bounds, numbers: tuple[int, int] | None) -> None:
        self._log = log
        self._bounds = bounds
        self._numbers = numbers
        """What the bounds meant at the call; `None` for a handle that only its use opens."""

    def __aiter__(self) -> AsyncIterator[EventEnvelope]:
        return _RangeIterator(self._log, self._bounds, self._numbers)


class _RangeIterator:
    """No generator: one that is left half-way could not be cleaned up without a warning."""

    def __init__(self, log: LocalEventLog, bounds: Bounds, numbers: tuple[int, int] | None) -> None:
        self._log = log
        self._bounds = bounds
        self._numbers = numbers
        self._batches: Iterator[list[EventEnvelope]] | None = None
        self._events: Iterator[EventEnvelope] = iter(())

    def __aiter__(self) -> _RangeIterator:
        return self

    async def __anext__(self) -> EventEnvelope:
        for envelope in self._events:
            return envelope
        handle = await self._log._ready()
        await anyio.lowlevel.checkpoint()
        if self._batches is None:
            numbers = self._numbers or handle.numbers_of(self._bounds)
            self._batches = read_range(handle.reader, *numbers)
        for events in self._batches:
            self._events = iter(events)
            return next(self._events)
        raise StopAsyncIteration


class LocalStream(EventStream):
    """See `EventStream`."""

    def __init__(
        self, log: LocalEventLog, handle: LocalHandle, feed: Feed, consumer: str | None
    ) -> None:
        self._log = log
        self._handle = handle
        self._feed = feed
        self._consumer = consumer
        self._pipe = handle.adopt(AsyncPipe(handle.path, handle.new_channel()))
        self._events: Iterator[EventEnvelope] = iter(())
        self._turn = anyio.Lock(fast_acquire=True)
        """Of the task that reads a batch: others wait, and then have the rest of it."""
        self._is_closed = False

    def __repr__(self) -> str:
        """Where the stream is."""
        return f"<EventStream of {self._handle.path!r} before event {self._feed.next_seq_no}>"

    def __aiter__(self) -> LocalStream:
        self._feed.use_as("events")
        return self

    async def __anext__(self) -> EventEnvelope:
        for envelope in self._events:
            return envelope
        self._feed.use_as("events")
        async with self._turn:
            for envelope in self._events:
                return envelope
            events = await self._next(self._feed.next_events)
            if events is None:
                raise StopAsyncIteration
            self._events = iter(events)
            return next(self._events)

    def batches(self) -> AsyncIterator[list[EventEnvelope]]:
        self._feed.use_as("batches")
        return _BatchIterator(self)

    async def ack(self, event: EventEnvelope | int) -> None:
        await self._log.ack(*check_stream_ack(self._consumer, event, self._handle.path))

    async def next_batch(self) -> list[EventEnvelope] | None:
        """The next batch, waiting for it if need be; `None` at the end."""
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
        self._events = iter(())
        if self._handle.generation == forks.generation:
            self._handle.pipes.discard(self._pipe)
            self._pipe.close()
            self._feed.close()


class _BatchIterator:
    """A stream, batch by batch."""

    def __init__(self, stream: LocalStream) -> None:
        self._stream = stream

    def __aiter__(self) -> _BatchIterator:
        return self

    async def __anext__(self) -> list[EventEnvelope]:
        events = await self._stream.next_batch()
        if events is None:
            raise StopAsyncIteration
        return events
