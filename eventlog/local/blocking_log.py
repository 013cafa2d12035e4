"""The log of this machine, for processes without an event loop; the twin of `local`.

Conversations, batches and reading are the same code as there; only what waits is written twice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from eventlog.api import forks
from eventlog.api.arguments import Bounds, GroupOptions, PublisherOptions
from eventlog.api.batches import ManyBatches
from eventlog.api.blocking_log import EventLog, EventStream, Publisher
from eventlog.api.blocking_range import EventRange
from eventlog.api.engines import open_log
from eventlog.api.expectation import Expectation, check_one_batch
from eventlog.api.group import BlockingGroup as Group
from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.log import EventLog as AsyncEventLog
from eventlog.api.operated import Trimmed
from eventlog.api.positions import ConsumerState, SeekPosition
from eventlog.api.statistics import LogStatistics
from eventlog.api.status import LogStatus
from eventlog.api.stream_options import StreamOptions
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import EventLogError
from eventlog.event.envelope import EventEnvelope
from eventlog.event.many_events import stored_before
from eventlog.event.record_batch import Decode
from eventlog.event.scheduled import scheduled
from eventlog.event.texts import Headers, Keys
from eventlog.local.blocking_group import BlockingLocalGroup
from eventlog.local.blocking_publisher import BlockingLocalPublisher
from eventlog.local.blocking_stream import BlockingLocalStream
from eventlog.local.client import calls
from eventlog.local.client.feed import Feed
from eventlog.local.client.group import group_fields
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.threads import BlockingPipe, BlockingRequests
from eventlog.local.wire.group_messages import DropDead, RetryDead


class BlockingLocalEventLog(EventLog):
    """See `eventlog.blocking.EventLog`."""

    def __init__(self, path: str | os.PathLike[str], asked: AskedOptions) -> None:
        self._handle = LocalHandle(path, asked)
        self._handle.open()
        self._requests = BlockingRequests(self._handle, "handle")
        outbox = self._handle.new_outbox()
        self._outbox = outbox
        self._outbox_lock = threading.Lock()
        notice = self._handle.notice_of(outbox)
        self._appends = self._handle.adopt(BlockingPipe(self._handle.path, outbox.channel, notice))
        # A log that cannot be written should say so now, not at the first append.
        try:
            with self._handle.opening():
                self._requests.run(calls.reach_writer(self._handle))
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        """The path, and whether the handle is open."""
        return f"<EventLog {self.path!r} {'open' if self._handle.is_open else 'closed'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets a handle that is opened there."""
        return (BlockingLocalEventLog, (self.path, self._handle.asked))

    @property
    def path(self) -> str:
        return self._handle.path

    def for_event_loop(self) -> AsyncEventLog:
        return open_log(self.path, AskedOptions(**self._handle.asked.of_handles()))

    def close(self) -> None:
        if self._handle.generation == forks.generation:
            self._handle.close()

    # --- producing ---------------------------------------------------------------------------

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
        self._handle.check_open()
        if not_before is not None or expires is not None:
            event = scheduled(event, not_before, expires)
        if expect is not None or expect_last is not None:
            expected = Expectation.of_event(event, key, expect, expect_last)
            with self._outbox_lock:
                batch = self._outbox.add_expecting(event, key, headers, expected)
            return self._store(ManyBatches([batch]))[0]
        with self._outbox_lock:
            batch, row = self._outbox.add(event, key, headers)
        self._deliver(batch)
        return batch.seq_no_of(row)

    def append_many(
        self,
        events: Iterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
        expect: Mapping[str, int] | None = None,
        expect_last: int | None = None,
    ) -> tuple[int, int]:
        self._handle.check_open()
        expected = Expectation.of_events(expect, expect_last)
        packed = self._handle.many_events(keys, headers).pack(events)
        if expected is not None:
            check_one_batch(packed, self.path)
        with self._outbox_lock:
            many = self._outbox.add_many(packed, expected)
        return self._store(many)

    def _store(self, many: ManyBatches[OutBatch]) -> tuple[int, int]:
        try:
            for batch in many.batches:
                self._deliver(batch)
        except EventLogError as error:
            raise stored_before(error, many.stored) from error.__cause__
        except BaseException:  # Ctrl-C: later appends are not to send what was not sent
            if self._appends.lock.acquire(blocking=False):  # else another thread sends it now
                self._outbox.withdraw(many)
                self._appends.lock.release()
            raise
        return many.result()

    def _deliver(self, batch: OutBatch) -> None:
        """Wait for the batch's answer; whoever gets the pipe first sends for all that wait."""
        with self._appends.lock:
            while not batch.is_done:
                with self._outbox_lock:
                    self._outbox.seal()
                self._appends.run(self._outbox.deliver(0))
                self._outbox.check_not_lost(batch)

    @contextmanager
    def _publisher(self, options: PublisherOptions) -> Iterator[Publisher]:
        publisher = BlockingLocalPublisher(self._handle, options)
        try:
            yield publisher
        except BaseException as error:
            publisher.leave(error)
            raise
        else:
            publisher.leave(None)
        finally:
            publisher.close()

    # --- consuming ---------------------------------------------------------------------------

    @contextmanager
    def _subscribe(
        self, consumer: str | None, position: SeekPosition, options: StreamOptions
    ) -> Iterator[EventStream]:
        reader = self._handle.reader
        feed = self._handle.unless_closed(Feed, reader, consumer, position, options)
        stream = BlockingLocalStream(self, self._handle, feed, consumer)
        try:
            yield stream
        finally:
            stream.close()

    def _read(self, bounds: Bounds) -> EventRange:
        handle = self._handle
        numbers = handle.unless_closed(handle.numbers_of, bounds)

        def read(decode: Decode) -> Iterator[list[EventEnvelope]]:
            batches = handle.unless_closed(handle.read_range, *numbers, bounds.filter, decode)
            return iter(lambda: handle.unless_closed(next, batches, None), None)

        return EventRange(read)

    def _snapshot_place(self) -> str | None:
        return self._handle.snapshot_place

    def _bounds(self) -> tuple[int, int]:
        return self._handle.bounds()

    def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        self._requests.run(calls.ack(self._handle, consumer, seq_no, state))

    def seek(self, consumer: str, position: SeekPosition) -> None:
        self._requests.run(calls.seek(self._handle, consumer, position))

    def forget(self, consumer: str) -> None:
        self._requests.run(calls.forget(consumer))

    def _group(self, options: GroupOptions) -> Group:
        fields = self._handle.unless_closed(group_fields, self._handle, options)
        group = BlockingLocalGroup(self._handle, fields)
        try:
            group.open()
        except BaseException:
            group.close()
            raise
        return group

    def groups(self) -> list[GroupReport]:
        return self._requests.run(calls.groups(self._handle))

    def dead_letters(self, group: str) -> list[DeadLetter]:
        return self._requests.run(calls.dead_letters(self._handle, group))

    def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return self._requests.run(calls.end_dead(RetryDead, group, seq_nos))

    def retry_corrected(self, group: str, seq_no: int, event: Any) -> int:
        return self._requests.run(calls.retry_corrected(self._handle, group, seq_no, event))

    def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return self._requests.run(calls.end_dead(DropDead, group, seq_nos))

    # --- operating ---------------------------------------------------------------------------

    def _configure(self, asked: AskedOptions) -> LogOptions:
        return self._requests.run(calls.configure(self._handle, asked))

    def _trim(self, position: SeekPosition, *, force: bool) -> Trimmed:
        return self._requests.run(calls.trim(self._handle, position, force=force))

    # --- looking -----------------------------------------------------------------------------

    def synced(self, seq_no: int | None = None) -> None:
        self._requests.run(calls.synced(self._handle, seq_no))

    def last_seq_no(self) -> int | None:
        return self._handle.unless_closed(lambda: self._handle.reader.last_seq_no) or None

    def consumers(self) -> list[ConsumerState]:
        return self._handle.unless_closed(self._handle.reader.consumers)

    def status(self) -> LogStatus:
        return self._requests.run(calls.status(self._handle))

    def statistics(self) -> LogStatistics:
        return self._requests.run(calls.statistics(self._handle, self._outbox.statistics()))
