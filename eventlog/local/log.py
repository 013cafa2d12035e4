"""The log of this machine, for trio and asyncio: a mapped directory, and pipes to its writer.

A handle has a pipe for requests and one for appends; every stream and every publisher has its own.
All are opened when first needed, so a handle that only reads never needs a writer.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from eventlog.api import forks
from eventlog.api.arguments import Bounds, GroupOptions, PublisherOptions
from eventlog.api.batches import ManyBatches
from eventlog.api.event_stream import EventRange, EventStream
from eventlog.api.expectation import Expectation, check_one_batch
from eventlog.api.group import DeadLetter, Group, GroupReport
from eventlog.api.log import EventLog
from eventlog.api.loops import LoopOwner
from eventlog.api.operated import Trimmed
from eventlog.api.positions import ConsumerState, SeekPosition
from eventlog.api.publisher import Publisher
from eventlog.api.publisher_block import publisher_block
from eventlog.api.statistics import LogStatistics, PublisherStatistics
from eventlog.api.status import LogStatus
from eventlog.api.stream_options import StreamOptions
from eventlog.api.streams import RangeOfBatches
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import EventLogError
from eventlog.event.many_events import stored_before
from eventlog.event.scheduled import scheduled
from eventlog.event.texts import Headers, Keys
from eventlog.local.client import calls
from eventlog.local.client.asynchronous import AppendPipe, AsyncPipe, AsyncRequests
from eventlog.local.client.calls import Call
from eventlog.local.client.feed import Feed
from eventlog.local.client.group import group_fields
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.group import LocalGroup
from eventlog.local.publisher import LocalPublisher
from eventlog.local.stream import LocalStream, read_from
from eventlog.local.wire.group_messages import DropDead, RetryDead

T = TypeVar("T")


class LocalEventLog(EventLog):
    """See `EventLog`."""

    def __init__(self, path: str | os.PathLike[str], asked: AskedOptions) -> None:
        self._handle = LocalHandle(path, asked)
        self._requests = AsyncRequests(self._handle, "handle")
        self._appends: AppendPipe | None = None
        self._reopens = False
        """Unpickled in another process: the first use opens it, with or without `async with`."""
        self._opening: anyio.Lock | None = None

    def __repr__(self) -> str:
        """The path, and whether the handle is open."""
        return f"<EventLog {self.path!r} {'open' if self._handle.is_open else 'closed'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets a handle that opens there."""
        return (_reopened, (self.path, self._handle.asked))

    @property
    def path(self) -> str:
        return self._handle.path

    def opening(self) -> tuple[str, dict[str, Any]]:
        return self.path, self._handle.asked.of_handles()

    async def open(self) -> None:
        if self._handle.is_open:
            self._handle.check_open()  # another library's event loop cannot wait for the lock
        self._opening = opening = self._opening or anyio.Lock()
        async with opening:
            if not self._handle.is_open:
                await self._open()

    async def _open(self) -> None:
        self._reopens = False
        self._handle.loop = LoopOwner()
        await anyio.to_thread.run_sync(self._handle.open)
        # A log that cannot be written should say so now, not at the first append.
        try:
            with self._handle.opening():
                await self._requests.run(calls.reach_writer(self._handle))
        except BaseException:
            self._close()
            raise

    async def aclose(self) -> None:
        self._check_may_close()
        self._close()

    def _check_may_close(self) -> None:
        """Pass if nobody waits in another loop with this handle, whom closing would not wake."""
        loop = self._handle.loop
        if loop is not None and self._handle.is_open and not loop.is_over():
            loop.check(self.path)

    def _close(self) -> None:
        if self._handle.generation != forks.generation:
            return  # the pipes, and what the event loop watches them with, are the parent's too
        self._requests.close()
        self._requests = AsyncRequests(self._handle, "handle")
        self._appends = None
        self._reopens = False
        self._opening = None  # the next event loop may be another library's
        self._handle.close()

    async def _ready(self) -> LocalHandle:
        if self._reopens:
            await self.open()
        forks.check(self._handle.generation, self.path)
        self._handle.check_open()
        return self._handle

    async def _run(self, call: Call[T]) -> T:
        await self._ready()
        return await self._requests.run(call)

    # --- producing ---------------------------------------------------------------------------

    async def append(
        self,
        event: Any,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        expect: int | None = None,
        expect_last: int | None = None,
        not_before: datetime | None = None,
        expires: datetime | None = None,
    ) -> int:
        if not_before is not None or expires is not None:
            event = scheduled(event, not_before, expires)
        if expect is not None or expect_last is not None:
            expected = Expectation.of_event(event, key, expect, expect_last)
            producer = await self._producer()
            batch = producer.outbox.add_expecting(event, key, headers, expected)
            return (await self._store(producer, ManyBatches([batch])))[0]
        pipe = self._appends
        loop = self._handle.loop
        if pipe is None or loop is None or self._handle.generation != forks.generation:
            pipe = await self._producer()
        else:
            loop.check(self.path)
        batch, row = pipe.outbox.add(event, key, headers)
        await pipe.deliver(batch)
        return batch.seq_no_of(row)

    async def append_many(
        self,
        events: Iterable[Any] | AsyncIterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
        expect: Mapping[str, int] | None = None,
        expect_last: int | None = None,
    ) -> tuple[int, int]:
        expected = Expectation.of_events(expect, expect_last)
        pipe = await self._producer()
        packed = await self._handle.many_events(keys, headers).pack_any(events)
        if expected is not None:
            check_one_batch(packed, self.path)
        return await self._store(pipe, pipe.outbox.add_many(packed, expected))

    async def _store(self, pipe: AppendPipe, many: ManyBatches[OutBatch]) -> tuple[int, int]:
        try:
            for batch in many.batches:
                await pipe.deliver(batch)
        except EventLogError as error:
            raise stored_before(error, many.stored) from error.__cause__
        finally:
            pipe.outbox.withdraw(many)  # cancelled: later appends are not to send them
        return many.result()

    async def _producer(self) -> AppendPipe:
        handle = await self._ready()
        if self._appends is None:
            outbox = handle.new_outbox()
            pipe = AsyncPipe(handle.path, outbox.channel, handle.notice_of(outbox))
            self._appends = AppendPipe(handle.adopt(pipe), outbox)
        return self._appends

    @asynccontextmanager
    async def _publisher(self, options: PublisherOptions) -> AsyncIterator[Publisher]:
        handle = await self._ready()
        publisher = LocalPublisher(handle, options)
        tasks = publisher.run_sender, publisher.run_receiver
        async with publisher_block(publisher, *tasks):
            yield publisher

    # --- consuming ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _subscribe(
        self, consumer: str | None, position: SeekPosition, options: StreamOptions
    ) -> AsyncIterator[EventStream]:
        handle = await self._ready()
        feed = Feed(handle.reader, consumer, position, options)
        stream = LocalStream(self, handle, feed, consumer)
        try:
            yield stream
        finally:
            stream.close()

    def _read(self, bounds: Bounds) -> EventRange:
        numbers = None if self._reopens else self._handle.numbers_of(bounds)
        return RangeOfBatches(read_from(self, bounds, numbers))

    def _snapshot_place(self) -> str | None:
        return self._handle.snapshot_place

    async def _bounds(self) -> tuple[int, int]:
        return (await self._ready()).bounds()

    async def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        await self._run(calls.ack(self._handle, consumer, seq_no, state))

    async def seek(self, consumer: str, position: SeekPosition) -> None:
        await self._run(calls.seek(self._handle, consumer, position))

    async def forget(self, consumer: str) -> None:
        await self._run(calls.forget(consumer))

    @asynccontextmanager
    async def _group(self, options: GroupOptions) -> AsyncIterator[Group]:
        handle = await self._ready()
        group = LocalGroup(handle, group_fields(handle, options))
        try:
            await group.open()
            yield group
        finally:
            group.close()

    async def groups(self) -> list[GroupReport]:
        return await self._run(calls.groups(self._handle))

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        return await self._run(calls.dead_letters(self._handle, group))

    async def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return await self._run(calls.end_dead(RetryDead, group, seq_nos))

    async def retry_corrected(self, group: str, seq_no: int, event: Any) -> int:
        return await self._run(calls.retry_corrected(self._handle, group, seq_no, event))

    async def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return await self._run(calls.end_dead(DropDead, group, seq_nos))

    # --- operating ---------------------------------------------------------------------------

    async def _configure(self, asked: AskedOptions) -> LogOptions:
        return await self._run(calls.configure(self._handle, asked))

    async def _trim(self, position: SeekPosition, *, force: bool) -> Trimmed:
        return await self._run(calls.trim(self._handle, position, force=force))

    # --- looking -----------------------------------------------------------------------------

    async def synced(self, seq_no: int | None = None) -> None:
        await self._run(calls.synced(self._handle, seq_no))

    async def last_seq_no(self) -> int | None:
        return (await self._ready()).reader.last_seq_no or None

    async def consumers(self) -> list[ConsumerState]:
        return (await self._ready()).reader.consumers()

    async def status(self) -> LogStatus:
        return await self._run(calls.status(self._handle))

    async def statistics(self) -> LogStatistics:
        own = self._appends.outbox.statistics() if self._appends else PublisherStatistics()
        return await self._run(calls.statistics(self._handle, own))


def _reopened(path: str, asked: AskedOptions) -> LocalEventLog:
    log = LocalEventLog(path, asked)
    log._reopens = True
    return log
