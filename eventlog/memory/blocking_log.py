"""The reference backend for threads and scripts; a shell around `memory_log`."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from eventlog.api.arguments import Bounds, PublisherOptions, check_stream_ack
from eventlog.api.blocking_log import AppendHandle, EventLog, EventStream, ManyHandle, Publisher
from eventlog.api.blocking_range import EventRange
from eventlog.api.expectation import Expectation, check_one_batch
from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.log import EventLog as AsyncEventLog
from eventlog.api.operated import Trimmed
from eventlog.api.positions import ConsumerState, SeekPosition, check_name, check_position
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
from eventlog.api.waiting import SLOW_S, warn_of_wait
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import EventLogError
from eventlog.event.envelope import EventEnvelope
from eventlog.event.many_events import stored_before
from eventlog.event.record_batch import PackedBatch
from eventlog.event.scheduled import scheduled
from eventlog.event.texts import Headers, Keys
from eventlog.memory.blocking_group import GroupsForThreads
from eventlog.memory.feed import MemoryFeed, batches_between


class BlockingInMemoryEventLog(GroupsForThreads, EventLog):
    """See `eventlog.blocking.EventLog`."""

    def __init__(self, name: str, asked: AskedOptions) -> None:
        super().__init__(name, asked)
        self.open_handle()

    def close(self) -> None:
        self.close_handle()

    def for_event_loop(self) -> AsyncEventLog:
        from eventlog.memory.log import InMemoryEventLog  # it needs an event loop

        return InMemoryEventLog(beside=self)

    def wait_changed(self, seen: int, *, is_for_room: bool = False) -> None:
        """Wait until the log is not what it was when `version` was `seen`."""
        changed = threading.Event()
        self.log.call_when_changed(changed.set, seen)
        if is_for_room and not changed.wait(SLOW_S):
            warn_of_wait(self.path, self.log.last_consumer())
        changed.wait()

    def _append(
        self,
        packed: PackedBatch,
        counters: Counters[PublisherStatistics],
        expected: Expectation | None = None,
    ) -> int:
        while True:
            seen = self.log.version
            base = self.store(packed, counters, expected)
            if base is not None:
                return base
            self.wait_changed(seen, is_for_room=True)

    def append(
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
        return self._append(self.packed(event, key, headers), self.counters, expected)

    def append_many(
        self,
        events: Iterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
        expect: Mapping[str, int] | None = None,
        expect_last: int | None = None,
    ) -> tuple[int, int]:
        expected = Expectation.of_events(expect, expect_last)
        packed = self.many_events(keys, headers).pack(events)
        if expected is not None:
            check_one_batch(packed, self.path)
        return self.append_packed(packed, self.counters, expected)

    def append_packed(
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
                base = self._append(one, counters, expected)
            except EventLogError as error:
                counters.refused += count - stored - one.count  # those behind it
                raise stored_before(error, stored) from error.__cause__
            first, last, stored = first or base, base + one.count - 1, stored + one.count
        return first, last

    @contextmanager
    def _publisher(self, _options: PublisherOptions) -> Iterator[Publisher]:
        _ = self.log
        publisher = BlockingInMemoryPublisher(self)
        try:
            yield publisher
            publisher.check_stored()
        finally:
            publisher.is_closed = True

    @contextmanager
    def _subscribe(
        self, consumer: str | None, position: SeekPosition, options: StreamOptions
    ) -> Iterator[EventStream]:
        feed = MemoryFeed(self, consumer, position, options)
        stream = BlockingInMemoryStream(self, feed, consumer)
        try:
            yield stream
        finally:
            stream.close()

    def _read(self, bounds: Bounds) -> EventRange:
        numbers = self.log.numbers_of(bounds)
        return EventRange(lambda decode: batches_between(self.log, *numbers, bounds.filter, decode))

    def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        self.ack_checked(consumer, seq_no, state)

    def seek(self, consumer: str, position: SeekPosition) -> None:
        self.log.seek(check_name(consumer), check_position(position))

    def groups(self) -> list[GroupReport]:
        return self.log.groups.reports()

    def dead_letters(self, group: str) -> list[DeadLetter]:
        return self.log.groups.dead_letters(check_name(group))

    def synced(self, seq_no: int | None = None) -> None:
        raise never_synced(self.log.path)

    def last_seq_no(self) -> int | None:
        return self.log.last or None

    def consumers(self) -> list[ConsumerState]:
        return self.log.consumers()

    def forget(self, consumer: str) -> None:
        self.log.forget(check_name(consumer))

    def _configure(self, asked: AskedOptions) -> LogOptions:
        return self.log.configure(asked)

    def _trim(self, position: SeekPosition, *, force: bool) -> Trimmed:
        return self.log.trim(position, force=force)

    def status(self) -> LogStatus:
        return self.log.status()

    def statistics(self) -> LogStatistics:
        return log_statistics(self.counters.statistics(), self.log.statistics())


class BlockingInMemoryPublisher(Publisher):
    """Every `send` is stored at once; there is no pipe to fill."""

    def __init__(self, log: BlockingInMemoryEventLog) -> None:
        self._log = log
        self._error: EventLogError | None = None
        """Why a list was not stored whole: the next `flush` tells of it."""
        self._counters = Counters(PublisherStatistics)
        self.is_closed = False

    def statistics(self) -> PublisherStatistics:
        return self._counters.statistics()

    def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        if self.is_closed:
            raise closed("publisher", self._log.path)
        packed = self._log.packed(event, key, headers)
        return BlockingInMemoryAppendHandle(self._log._append(packed, self._counters))

    def send_many(
        self,
        events: Iterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
    ) -> ManyHandle:
        if self.is_closed:
            raise closed("publisher", self._log.path)
        packed = self._log.many_events(keys, headers).pack(events)
        try:
            return BlockingInMemoryManyHandle(self._log.append_packed(packed, self._counters))
        except EventLogError as error:
            self._error = error
            return BlockingInMemoryManyHandle(error)

    def flush(self) -> None:
        if self.is_closed:
            raise closed("publisher", self._log.path)
        self.check_stored()

    def check_stored(self) -> None:
        """Pass if all lists were stored since the last look."""
        error, self._error = self._error, None
        if error is not None:
            raise error


class BlockingInMemoryAppendHandle(AppendHandle):
    """Known from the start."""

    def __init__(self, seq_no: int) -> None:
        self._seq_no = seq_no

    @property
    def seq_no(self) -> int:
        return self._seq_no

    def result(self) -> int:
        return self._seq_no


class BlockingInMemoryManyHandle(ManyHandle):
    """Known from the start."""

    def __init__(self, answer: tuple[int, int] | EventLogError) -> None:
        self._answer = answer

    @property
    def seq_nos(self) -> tuple[int, int] | None:
        return None if isinstance(self._answer, EventLogError) else self._answer

    def result(self) -> tuple[int, int]:
        if isinstance(self._answer, EventLogError):
            raise self._answer
        return self._answer


class BlockingInMemoryStream(EventStream):
    """See `eventlog.blocking.EventStream`."""

    def __init__(
        self, log: BlockingInMemoryEventLog, feed: MemoryFeed, consumer: str | None
    ) -> None:
        self._log = log
        self._feed = feed
        self._consumer = consumer
        self._events: Iterator[EventEnvelope] = iter(())

    def __iter__(self) -> Iterator[EventEnvelope]:
        self._feed.use_as("events")
        return self

    def __next__(self) -> EventEnvelope:
        for envelope in self._events:
            return envelope
        self._feed.use_as("events")
        events = self._next_batch()
        if events is None:
            raise StopIteration
        self._events = iter(events)
        return next(self._events)

    def batches(self) -> Iterator[list[EventEnvelope]]:
        self._feed.use_as("batches")
        return iter(self._next_batch, None)

    def ack(self, event: EventEnvelope | int, state: bytes | None = None) -> None:
        self._log.ack(*check_stream_ack(self._consumer, event, self._log.path), state)

    @property
    def state(self) -> bytes | None:
        return self._feed.state

    def close(self) -> None:
        """Hand nothing out any more."""
        self._feed.is_closed = True
        self._events = iter(())

    def statistics(self) -> StreamStatistics:
        return self._feed.statistics()

    def _next_batch(self) -> list[EventEnvelope] | None:
        while True:
            seen = self._log.log.version
            events = self._feed.next_batch()
            if events is not None or self._feed.is_finished:
                return events
            self._log.wait_changed(seen)
            self._feed.counters.wake_ups += 1
