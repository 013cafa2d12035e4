"""The log of this machine, for trio and asyncio: a mapped directory, and pipes to its writer.

A handle has a pipe for requests and one for appends; every stream and every publisher has its own.
All are opened when first needed, so a handle that only reads never needs a writer.
"""

from __future__ import annotations

import os
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from eventlog import forks
from eventlog.backends.interface import (
    AppendHandle,
    EventLog,
    EventRange,
    EventStream,
    Group,
    LogStatus,
    Publisher,
)
from eventlog.backends.local_group import LocalGroup
from eventlog.client.append_pipe import AppendPipe
from eventlog.client.asynchronous import AsyncPipe
from eventlog.client.conversations import Channel, PipeBroken
from eventlog.client.feed import Feed, closed
from eventlog.client.group import group_fields, number_ranges
from eventlog.client.local import LocalHandle, check_publisher, check_range
from eventlog.client.outbox import OutBatch, copy_of
from eventlog.config import (
    BATCH_EVENTS_LIMIT,
    MAX_DELIVERIES_DEFAULT,
    MAX_IN_FLIGHT_DEFAULT,
    PUBLISHER_BATCH_BYTES_DEFAULT,
    AskedOptions,
    GroupOrdering,
)
from eventlog.envelope import EventEnvelope
from eventlog.errors import EventLogError
from eventlog.positions import (
    ConsumerState,
    SeekPosition,
    check_name,
    check_seq_no,
)
from eventlog.storage.reader import read_range
from eventlog.subscription import StreamOptions
from eventlog.wire.group_messages import DropDead, RetryDead
from eventlog.wire.messages import Ack, AwaitSynced, Forget, Park, Seek, Status, StatusReport

_LAST_ROW: Final = BATCH_EVENTS_LIMIT - 1


class LocalEventLog(EventLog):
    """See `EventLog`."""

    def __init__(self, path: str | os.PathLike[str], asked: AskedOptions) -> None:
        self._handle = LocalHandle(path, asked)
        self._requests: AsyncPipe | None = None
        self._appends: AppendPipe | None = None
        self._reopens = False
        """Unpickled in another process: the first use opens it, with or without `async with`."""

    def __repr__(self) -> str:
        """The path, and whether the handle is open."""
        return f"<EventLog {self.path!r} {'open' if self._handle.is_open else 'closed'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets a handle that opens there."""
        return (_reopened, (self.path, self._handle.asked))

    @property
    def path(self) -> str:
        return self._handle.path

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def _open(self) -> None:
        await anyio.to_thread.run_sync(self._handle.open)
        if self._handle.can_write:
            # A log that cannot be written should say so now, not at the first append.
            try:
                await self._request(Status)
            except BaseException:
                self._close()
                raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._requests = self._appends = None
        self._reopens = False
        self._handle.close()

    async def _ready(self) -> LocalHandle:
        if self._reopens and not self._handle.is_open:
            self._reopens = False
            await self._open()
        forks.check(self._handle.generation, self.path)
        if not self._handle.is_open:
            raise closed("handle", self.path)
        return self._handle

    async def _request(self, kind: Any, *fields: Any) -> Any:
        if self._requests is None:
            self._requests = _new_pipe(self._handle, self._handle.new_channel())
        pipe = self._requests
        async with pipe.lock:
            return await pipe.run(pipe.channel.request(kind, *fields))

    # --- producing ---------------------------------------------------------------------------

    async def append(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        pipe = await self._producer()
        batch, row = pipe.outbox.add(event, key, headers)
        await pipe.deliver(batch)
        return batch.seq_no_of(row)

    async def append_many(self, events: Iterable[Any] | AsyncIterable[Any]) -> tuple[int, int]:
        pipe = await self._producer()
        if isinstance(events, AsyncIterable):
            events = [event async for event in events]
        batches = [pipe.outbox.add_packed(packed) for packed in self._packed(events)]
        last_count = batches[-1].packed
        assert last_count is not None
        await pipe.deliver(batches[-1])
        numbers = [batch.seq_no_of(0) for batch in batches]
        return numbers[0], numbers[-1] + last_count.count - 1

    def _packed(self, events: Any) -> list[Any]:
        return self._handle.packed(events)

    async def _producer(self) -> AppendPipe:
        handle = await self._ready()
        if self._appends is None:
            outbox = handle.new_outbox()
            self._appends = AppendPipe(_new_pipe(handle, outbox.channel), outbox)
        return self._appends

    def publisher(
        self,
        linger: float = 0.0,
        max_batch_bytes: int = PUBLISHER_BATCH_BYTES_DEFAULT,
        max_in_flight: int = MAX_IN_FLIGHT_DEFAULT,
    ) -> AbstractAsyncContextManager[Publisher]:
        check_publisher(linger, max_batch_bytes, max_in_flight, self.path)
        return self._publisher(linger, max_batch_bytes, max_in_flight)

    @asynccontextmanager
    async def _publisher(
        self, linger: float, max_batch_bytes: int, max_in_flight: int
    ) -> AsyncIterator[Publisher]:
        handle = await self._ready()
        publisher = LocalPublisher(handle, linger, max_batch_bytes, max_in_flight)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publisher.run_sender)
                tasks.start_soon(publisher.run_receiver)
                try:
                    yield publisher
                    await publisher.flush()
                except Exception:
                    # What was queued before the block failed is still to be stored; the block's
                    # own exception matters more than what may come of that.
                    with suppress(EventLogError):
                        await publisher.flush()
                    raise
                finally:
                    publisher.close()
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The block's own exception, as it would be without our tasks: they raise none.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise

    # --- consuming ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _subscribe(
        self, consumer: str, position: SeekPosition, options: StreamOptions
    ) -> AsyncIterator[EventStream]:
        handle = await self._ready()
        feed = Feed(handle.reader, consumer, position, options)
        stream = LocalStream(handle, feed)
        try:
            yield stream
        finally:
            stream.close()

    def read(self, start: int, stop: int | None = None) -> EventRange:
        start, stop = check_range(start, stop)
        if not self._reopens:
            stored = self._handle.reader.last_seq_no + 1
            stop = stored if stop is None else min(stop, stored)
        return LocalRange(self, start, stop)

    async def ack(self, consumer: str, seq_no: int) -> None:
        check_name(consumer)
        check_seq_no(seq_no, consumer=consumer)
        await self._ready()
        await self._request(Ack, consumer, seq_no)

    async def seek(self, consumer: str, position: SeekPosition) -> None:
        number = (await self._ready()).seek_number(consumer, position)
        if number is not None:
            await self._request(Seek, consumer, number)

    async def forget(self, consumer: str) -> None:
        check_name(consumer)
        await self._ready()
        await self._request(Forget, consumer)

    def group(
        self,
        name: str,
        *,
        ordering: GroupOrdering = None,
        max_deliveries: int = MAX_DELIVERIES_DEFAULT,
        position: SeekPosition = SeekPosition.LAST_ACKNOWLEDGED,
    ) -> AbstractAsyncContextManager[Group]:
        return self._group(name, ordering, max_deliveries, position)

    @asynccontextmanager
    async def _group(
        self, name: str, ordering: GroupOrdering, max_deliveries: int, position: SeekPosition
    ) -> AsyncIterator[Group]:
        handle = await self._ready()
        group = LocalGroup(handle, group_fields(handle, name, ordering, max_deliveries, position))
        try:
            await group.open()
            yield group
        finally:
            group.close()

    async def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return await self._count(RetryDead, group, seq_nos)

    async def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return await self._count(DropDead, group, seq_nos)

    async def _count(self, kind: Any, group: str, seq_nos: Iterable[int]) -> int:
        messages = number_ranges(check_name(group), seq_nos)
        await self._ready()
        return sum([(await self._request(kind, group, ranges)).number for ranges in messages])

    # --- looking -----------------------------------------------------------------------------

    async def synced(self, seq_no: int | None = None) -> None:
        wanted = (await self._ready()).number_to_sync(seq_no)
        if wanted is not None:
            await self._request(AwaitSynced, wanted)

    async def last_seq_no(self) -> int | None:
        return (await self._ready()).reader.last_seq_no or None

    async def consumers(self) -> list[ConsumerState]:
        return (await self._ready()).reader.consumers()

    async def status(self) -> LogStatus:
        handle = await self._ready()
        if not handle.can_write:
            return handle.status(0)
        report = await self._request(Status)
        assert isinstance(report, StatusReport)
        return handle.status(report.connections)


def _reopened(path: str, asked: AskedOptions) -> LocalEventLog:
    log = LocalEventLog(path, asked)
    log._reopens = True
    return log


def _new_pipe(handle: LocalHandle, channel: Channel) -> AsyncPipe:
    pipe = AsyncPipe(handle.path, channel)
    handle.pipes.add(pipe)
    return pipe


class LocalRange(EventRange):
    """See `EventRange`."""

    def __init__(self, log: LocalEventLog, start: int, stop: int | None) -> None:
        self._log = log
        self._start = start
        self._stop = stop

    def __aiter__(self) -> AsyncIterator[EventEnvelope]:
        return _RangeIterator(self._log, self._start, self._stop)


class _RangeIterator:
    """No generator: one that is left half-way could not be cleaned up without a warning."""

    def __init__(self, log: LocalEventLog, start: int, stop: int | None) -> None:
        self._log = log
        self._bounds = start, stop
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
            self._batches = read_range(handle.reader, *self._bounds)
        for events in self._batches:
            self._events = iter(events)
            return next(self._events)
        raise StopAsyncIteration


class LocalStream(EventStream):
    """See `EventStream`."""

    def __init__(self, handle: LocalHandle, feed: Feed) -> None:
        self._handle = handle
        self._feed = feed
        self._pipe = _new_pipe(handle, handle.new_channel())
        self._events: Iterator[EventEnvelope] = iter(())
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
        events = await self._next(self._feed.next_events)
        if events is None:
            raise StopAsyncIteration
        self._events = iter(events)
        return next(self._events)

    def batches(self) -> AsyncIterator[list[EventEnvelope]]:
        self._feed.use_as("batches")
        return _BatchIterator(self)

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

    async def _spin(self) -> bool:
        """Look for the next event, again and again, for as long as was asked for."""
        end = time.perf_counter() + self._feed.options.spin
        while time.perf_counter() < end:
            await anyio.lowlevel.checkpoint()
            if self._is_closed or not self._handle.is_open or self._feed.has_more:
                return True
        return False

    def close(self) -> None:
        """Give pipe and maps back."""
        self._is_closed = True
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


class LocalPublisher(Publisher):
    """See `Publisher`.

    Two tasks: the sender seals the open batch as soon as the producer lets other tasks run (or
    `linger` later) and sends; the receiver owns the pipe, takes the answers, and opens a new pipe
    when it breaks. `send` itself sends a batch that is full, without waiting for a task.
    """

    def __init__(
        self, handle: LocalHandle, linger: float, max_batch_bytes: int, max_in_flight: int
    ) -> None:
        self._handle = handle
        self._linger_s = linger
        self._max_batch_bytes = min(max_batch_bytes, handle.options.batch_bytes_max)
        self._max_in_flight = max_in_flight
        self._outbox = handle.new_outbox()
        self._builder = self._outbox.builder
        self._channel = self._outbox.channel
        self._pipe = _new_pipe(handle, self._channel)
        self._to_send = anyio.Event()
        self._answered = anyio.Event()
        self._is_awaited = anyio.Event()
        self._failure: EventLogError | None = None
        self._generation = handle.generation
        """Of the process that may use it; `forks.UNUSABLE` once it is closed or has failed."""

    def __repr__(self) -> str:
        """What is on its way."""
        return f"<Publisher to {self._handle.path!r} batches on their way: {self._outbox.pending}>"

    async def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        if self._generation != forks.generation:
            self._refuse()
        # As `Outbox.add`, written out: this is the one line that runs for every event.
        batch, builder = self._outbox.open_batch, self._builder
        row = builder.add(event, key, headers)
        if builder.bytes >= self._max_batch_bytes or row >= _LAST_ROW:
            await self._send_full()
        elif row == 0:
            self._to_send.set()
        return LocalAppendHandle(self, batch, row)  # type: ignore[return-value]  # registered

    def _refuse(self) -> None:
        forks.check(self._handle.generation, self._handle.path)
        if self._failure is not None:
            raise copy_of(self._failure)
        raise closed("publisher", self._handle.path)

    async def _send_full(self) -> None:
        self._outbox.seal()
        self._pump()
        await anyio.lowlevel.checkpoint()
        await self._wait_pending(self._max_in_flight)

    async def flush(self) -> None:
        self._outbox.seal()
        self._pump()
        await anyio.lowlevel.checkpoint()
        await self._wait_pending(0)
        if self._failure is not None:
            raise copy_of(self._failure)
        self._outbox.check_stored()

    async def _wait_pending(self, pending_max: int) -> None:
        while self._outbox.pending > pending_max and self._failure is None:
            await self._answered.wait()

    def _pump(self) -> None:
        """Send what the window allows, as far as the pipe takes it without waiting."""
        outbox = self._outbox
        if not self._channel.is_open:
            self._is_awaited.set()
            return
        while outbox.unsent and len(outbox.in_flight) < self._max_in_flight:
            self._pipe.queue(*outbox.next_frame())
        try:
            if not self._pipe.send_now():
                self._to_send.set()
        except PipeBroken:
            pass  # the receiver sees it too, and it is the one who opens another pipe

    async def run_sender(self) -> None:
        """Seal and send whenever the producer pauses."""
        while True:
            await self._to_send.wait()
            self._to_send = anyio.Event()
            if self._linger_s:
                await anyio.sleep(self._linger_s)
            self._outbox.seal()
            self._pump()
            if self._channel.is_open:
                try:
                    await self._pipe.send_rest()
                except PipeBroken:
                    continue  # as in `_pump`

    async def run_receiver(self) -> None:
        """Open the pipe when there is something to send, and take answers."""
        while True:
            if not self._outbox.pending:
                await self._is_awaited.wait()
            self._is_awaited = anyio.Event()
            try:
                await self._receive_all()
            except EventLogError as error:
                self._failure = error
                self._generation = forks.UNUSABLE
                self._outbox.give_up(error)
                self._note_answers()
                return

    async def _receive_all(self) -> None:
        attempt = 0
        while True:
            try:
                await self._pipe.run(self._channel.open())
                self._pump()
                while True:
                    data = await self._pipe.receive()
                    self._outbox.take_answers(self._channel.messages_of(data))
                    attempt = 0  # a publisher outlives any number of writers that did something
                    self._note_answers()
                    self._pump()
            except PipeBroken as error:
                self._outbox.pipe_broke()
                if not self._outbox.pending:
                    return
                gave_up = self._channel.gave_up(attempt, error)
                attempt += 1
                if gave_up is not None:
                    raise gave_up from error

    def _note_answers(self) -> None:
        self._answered.set()
        self._answered = anyio.Event()

    async def wait_done(self, batch: OutBatch) -> None:
        """Wait until the writer has answered the batch."""
        if not batch.is_sealed:
            self._outbox.seal()
            self._pump()
        await anyio.lowlevel.checkpoint()
        while not batch.is_done:
            await self._answered.wait()

    def close(self) -> None:
        """Give the pipe back."""
        self._generation = forks.UNUSABLE
        self._handle.pipes.discard(self._pipe)
        self._pipe.close()


class LocalAppendHandle(msgspec.Struct, eq=False, gc=False):
    """See `AppendHandle`. A struct: one is made for every event, in a quarter of a class's time."""

    _publisher: LocalPublisher
    _batch: OutBatch
    _row: int

    @property
    def seq_no(self) -> int | None:
        base = self._batch.base_seq_no
        return None if base is None else base + self._row

    async def result(self) -> int:
        await self._publisher.wait_done(self._batch)
        return self._batch.seq_no_of(self._row)

    def __await__(self) -> Generator[Any, Any, int]:
        return self.result().__await__()


AppendHandle.register(LocalAppendHandle)
