"""Streams and ranges over whatever gives the next batch, for trio and asyncio."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import anyio

from eventlog.api.arguments import check_stream_ack
from eventlog.api.event_stream import EventRange, EventStream
from eventlog.api.log import EventLog
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode, decode_any

NextBatch = Callable[[], Awaitable[list[EventEnvelope] | None]]
"""Waits for the next events; `None` at the end. A range gives none where its filter refuses all."""
StartOfRange = Callable[[Decode], NextBatch]
"""Begins to read a range; an engine that decodes batches itself uses the decoder."""


class StreamOfBatches(EventStream):
    """A stream of an engine that has `next_batch`, and says how the stream may be used."""

    def __init__(self, log: EventLog, consumer: str | None, state: bytes | None = None) -> None:
        self._log = log
        self._consumer = consumer
        self._state = state
        self._events: Iterator[EventEnvelope] = iter(())
        self._turn = anyio.Lock(fast_acquire=True)
        """The lock of the task that reads a batch; others wait, and then have the rest of it."""

    @abstractmethod
    def use_as(self, mode: str) -> None:
        """Fix how the stream is used, by its first use.

        Raises:
            InvalidArgument: it is already used the other way.
        """

    @abstractmethod
    def check_open(self) -> None:
        """Pass if stream and handle are open, and of this process and event loop.

        Raises:
            LogClosed, ForkedHandle, WrongEventLoop: they are not.
        """

    @abstractmethod
    async def next_batch(self) -> list[EventEnvelope] | None:
        """The next events, waiting for them if need be; `None` at the end."""

    async def next_events(self) -> list[EventEnvelope] | None:
        """The next batch for a caller that takes event by event: small ones may be put together."""
        return await self.next_batch()

    def __aiter__(self) -> AsyncIterator[EventEnvelope]:
        """Event by event."""
        self.use_as("events")
        return self

    async def __anext__(self) -> EventEnvelope:
        """The next event, waiting for it."""
        for envelope in self._events:
            return envelope
        self.check_open()  # another library's event loop cannot even wait for the lock
        self.use_as("events")
        async with self._turn:
            for envelope in self._events:
                return envelope
            events = await self.next_events()
            if events is None:
                raise StopAsyncIteration
            self._events = iter(events)
            return next(self._events)

    def batches(self) -> AsyncIterator[list[EventEnvelope]]:
        """The events of the stream, batch by batch."""
        self.use_as("batches")
        return _Batches(self.next_batch)

    async def ack(self, event: EventEnvelope | int, state: bytes | None = None) -> None:
        """See `EventStream.ack`."""
        await self._log.ack(*check_stream_ack(self._consumer, event, self._log.path), state)

    @property
    def state(self) -> bytes | None:
        """See `EventStream.state`."""
        return self._state

    def drop_events(self) -> None:
        """Hand nothing out any more of the batch that was read last."""
        self._events = iter(())


class _Batches:
    """A stream, batch by batch."""

    def __init__(self, next_batch: NextBatch) -> None:
        self._next_batch = next_batch

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> list[EventEnvelope]:
        events = await self._next_batch()
        if events is None:
            raise StopAsyncIteration
        return events


class RangeOfBatches(EventRange):
    """A range; `start` is called for each iteration, for what reads its batches."""

    def __init__(self, start: StartOfRange) -> None:
        self._start = start

    def __aiter__(self) -> AsyncIterator[EventEnvelope]:
        """Event by event."""
        return _RangeIterator(self._start(decode_any))

    def _decoded(self, decode: Decode) -> AsyncIterator[list[EventEnvelope]]:
        return _Batches(self._start(decode))


class _RangeIterator:
    """No generator: one that is left half-way could not be cleaned up without a warning."""

    def __init__(self, next_batch: NextBatch) -> None:
        self._next_batch = next_batch
        self._events: Iterator[EventEnvelope] = iter(())

    def __aiter__(self) -> _RangeIterator:
        return self

    async def __anext__(self) -> EventEnvelope:
        while True:
            for envelope in self._events:
                return envelope
            events = await self._next_batch()
            if events is None:
                raise StopAsyncIteration
            self._events = iter(events)
