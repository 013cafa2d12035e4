"""`InMemoryEventLog`: the reference backend for trio and asyncio; a shell around `memory_log`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from eventlog.api.arguments import Bounds, PublisherOptions
from eventlog.api.event_stream import EventRange, EventStream
from eventlog.api.expectation import Expectation, check_one_batch
from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.log import EventLog
from eventlog.api.loops import LoopOwner, call_in_this_loop
from eventlog.api.operated import Trimmed
from eventlog.api.positions import ConsumerState, SeekPosition, check_name, check_position
from eventlog.api.publisher import AppendHandle, ManyHandle, Publisher
from eventlog.api.refusals import closed, never_synced
from eventlog.api.statistics import (
    Counters,
    LogStatistics,
    PublisherStatistics,
    StreamStatistics,
    log_statistics,
)
from eventlog.api.status import LogStatus
from eventlog.api.stream_options import StreamOptions
from eventlog.api.streams import NextBatch, RangeOfBatches, StreamOfBatches
from eventlog.api.waiting import SLOW_S, warn_of_wait
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import EventLogError
from eventlog.event.envelope import EventEnvelope
from eventlog.event.filters import EventFilter
from eventlog.event.many_events import stored_before
from eventlog.event.record_batch import Decode, PackedBatch
from eventlog.event.scheduled import scheduled
from eventlog.event.texts import Headers, Keys
from eventlog.memory.feed import MemoryFeed, batches_between
from eventlog.memory.group import GroupsForLoops
from eventlog.memory.handle import MemoryHandle
from eventlog.memory.model import MemoryLog


class InMemoryEventLog(GroupsForLoops, EventLog):
    """See `EventLog`; the reference that the others are tested against.

    `InMemoryEventLog()` is the same as `eventlog.open("memory:")`.
    """

    def __init__(
        self,
        name: str = "",
        asked: AskedOptions | None = None,
        beside: MemoryHandle | None = None,
    ) -> None:
        super().__init__(name, asked or AskedOptions(), beside)
        self._loop: LoopOwner | None = None

    async def open(self) -> None:
        if self.is_open:
            _ = self.log  # in another event loop: `WrongEventLoop`
        self._loop = LoopOwner()
        self.open_handle()

    async def aclose(self) -> None:
        if self.is_open and self._loop is not None and not self._loop.is_over():
            self._loop.check(self.path)
        self.close_handle()

    @property
    def log(self) -> MemoryLog:
        found = super().log
        if self._loop is not None:
            self._loop.check(self.path)
        return found

    async def wait_changed(self, seen: int, *, is_for_room: bool = False) -> None:
        """Wait until the log is not what it was when `version` was `seen`."""
        changed = anyio.Event()
        self.log.call_when_changed(call_in_this_loop(changed.set), seen)
        if is_for_room:
            with anyio.move_on_after(SLOW_S):
                await changed.wait()
            if not changed.is_set():
                warn_of_wait(self.path, self.log.last_consumer())
        await changed.wait()

    async def _append(
        self,
        packed: PackedBatch,
        counters: Counters[PublisherStatistics],
        expected: Expectation | None = None,
    ) -> int:
        await checkpoint()
        while True:
            seen = self.log.version
            base = self.store(packed, counters, expected)
            if base is not None:
                return base
            await self.wait_changed(seen, is_for_room=True)

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
        event = scheduled(event, not_before, expires)
        expected = Expectation.of_event(event, key, expect, expect_last)
        return await self._append(self.packed(event, key, headers), self.counters, expected)

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
        packed = await self.many_events(keys, headers).pack_any(events)
        if expected is not None:
            check_one_batch(packed, self.path)
        return await self.append_packed(packed, self.counters, expected)

    async def append_packed(
        self,
        packed: list[PackedBatch],
        counters: Counters[PublisherStatistics],
        expected: Expectation | None = None,
    ) -> tuple[int, int]:
        """Store batch after batch, until one is refused; if something is expected, it is one."""
        first = last = stored = 0
        count = sum(one.count for one in packed)
        for one in packed:
            try:
                base = await self._append(one, counters, expected)
            except EventLogError as error:
                counters.refused += count - stored - one.count  # those behind it
                raise stored_before(error, stored) from error.__cause__
            first, last, stored = first or base, base + one.count - 1, stored + one.count
        return first, last

    @asynccontextmanager
    async def _publisher(self, _options: PublisherOptions) -> AsyncIterator[Publisher]:
        _ = self.log
        publisher = InMemoryPublisher(self)
        try:
            yield publisher
            publisher.check_stored()
        finally:
            publisher.is_closed = True

    @asynccontextmanager
    async def _subscribe(
        self, consumer: str | None, position: SeekPosition, options: StreamOptions
    ) -> AsyncIterator[EventStream]:
        stream = InMemoryStream(self, MemoryFeed(self, consumer, position, options), consumer)
        try:
            yield stream
        finally:
            stream.close()

    def _read(self, bounds: Bounds) -> EventRange:
        numbers = self.log.numbers_of(bounds)
        return RangeOfBatches(lambda decode: self._reader(*numbers, bounds.filter, decode))

    def _reader(
        self, start: int, stop: int, wanted: EventFilter | None, decode: Decode
    ) -> NextBatch:
        batches: Iterator[list[EventEnvelope]] | None = None

        async def next_batch() -> list[EventEnvelope] | None:
            nonlocal batches
            if batches is None:
                batches = batches_between(self.log, start, stop, wanted, decode)
            return next(batches, None)

        return next_batch

    async def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        self.ack_checked(consumer, seq_no, state)

    async def seek(self, consumer: str, position: SeekPosition) -> None:
        self.log.seek(check_name(consumer), check_position(position))

    async def groups(self) -> list[GroupReport]:
        return self.log.groups.reports()

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        return self.log.groups.dead_letters(check_name(group))

    async def synced(self, seq_no: int | None = None) -> None:
        raise never_synced(self.log.path)

    async def last_seq_no(self) -> int | None:
        return self.log.last or None

    async def consumers(self) -> list[ConsumerState]:
        return self.log.consumers()

    async def forget(self, consumer: str) -> None:
        self.log.forget(check_name(consumer))

    async def _configure(self, asked: AskedOptions) -> LogOptions:
        return self.log.configure(asked)

    async def _trim(self, position: SeekPosition, *, force: bool) -> Trimmed:
        return self.log.trim(position, force=force)

    async def status(self) -> LogStatus:
        return self.log.status()

    async def statistics(self) -> LogStatistics:
        return log_statistics(self.counters.statistics(), self.log.statistics())


class InMemoryPublisher(Publisher):
    """Every `send` is stored at once; there is no pipe to fill."""

    def __init__(self, log: InMemoryEventLog) -> None:
        self._log = log
        self._error: EventLogError | None = None
        """Why a list was not stored whole: the next `flush` tells of it."""
        self._counters = Counters(PublisherStatistics)
        self.is_closed = False

    def statistics(self) -> PublisherStatistics:
        return self._counters.statistics()

    async def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        if self.is_closed:
            raise closed("publisher", self._log.path)
        packed = self._log.packed(event, key, headers)
        return InMemoryAppendHandle(await self._log._append(packed, self._counters))

    async def send_many(
        self,
        events: Iterable[Any] | AsyncIterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
    ) -> ManyHandle:
        if self.is_closed:
            raise closed("publisher", self._log.path)
        packed = await self._log.many_events(keys, headers).pack_any(events)
        try:
            return InMemoryManyHandle(await self._log.append_packed(packed, self._counters))
        except EventLogError as error:
            self._error = error
            return InMemoryManyHandle(error)

    async def flush(self) -> None:
        _ = self._log.log
        if self.is_closed:
            raise closed("publisher", self._log.path)
        self.check_stored()

    def check_stored(self) -> None:
        """Pass if all lists were stored since the last look."""
        error, self._error = self._error, None
        if error is not None:
            raise error


class InMemoryAppendHandle(AppendHandle):
    """Known from the start."""

    def __init__(self, seq_no: int) -> None:
        self._seq_no = seq_no

    @property
    def seq_no(self) -> int:
        return self._seq_no

    async def result(self) -> int:
        return self._seq_no


class InMemoryManyHandle(ManyHandle):
    """Known from the start."""

    def __init__(self, answer: tuple[int, int] | EventLogError) -> None:
        self._answer = answer

    @property
    def seq_nos(self) -> tuple[int, int] | None:
        return None if isinstance(self._answer, EventLogError) else self._answer

    async def result(self) -> tuple[int, int]:
        if isinstance(self._answer, EventLogError):
            raise self._answer
        return self._answer


class InMemoryStream(StreamOfBatches):
    """See `EventStream`."""

    def __init__(self, log: InMemoryEventLog, feed: MemoryFeed, consumer: str | None) -> None:
        super().__init__(log, consumer, feed.state)
        self._memory = log
        self._feed = feed

    def use_as(self, mode: str) -> None:
        self._feed.use_as(mode)

    def check_open(self) -> None:
        self._feed.check_open()

    def close(self) -> None:
        """Hand nothing out any more."""
        self._feed.is_closed = True
        self.drop_events()

    def statistics(self) -> StreamStatistics:
        return self._feed.statistics()

    async def next_batch(self) -> list[EventEnvelope] | None:
        await checkpoint()
        while True:
            seen = self._memory.log.version
            events = self._feed.next_batch()
            if events is not None or self._feed.is_finished:
                return events
            await self._memory.wait_changed(seen)
            self._feed.counters.wake_ups += 1
