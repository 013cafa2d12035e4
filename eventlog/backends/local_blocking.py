"""The log of this machine, for processes without an event loop; the twin of `local`.

Conversations, batches and reading are the same code as there; only what waits is written twice.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

import msgspec

from eventlog import forks
from eventlog.backends.interface import LogStatus
from eventlog.backends.local_group_blocking import BlockingLocalGroup
from eventlog.blocking import (
    LINGER_S_DEFAULT,
    AppendHandle,
    EventLog,
    EventStream,
    Group,
    Publisher,
)
from eventlog.client.conversations import Channel
from eventlog.client.feed import Feed, closed
from eventlog.client.group import group_fields, number_ranges
from eventlog.client.local import LocalHandle, check_publisher, check_range
from eventlog.client.outbox import OutBatch, copy_of
from eventlog.client.threads import BlockingPipe
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


class BlockingLocalEventLog(EventLog):
    """See `eventlog.blocking.EventLog`."""

    def __init__(self, path: str | os.PathLike[str], asked: AskedOptions) -> None:
        self._handle = LocalHandle(path, asked)
        self._handle.open()
        self._requests = _new_pipe(self._handle, self._handle.new_channel())
        outbox = self._handle.new_outbox()
        self._outbox = outbox
        self._outbox_lock = threading.Lock()
        self._appends = _new_pipe(self._handle, outbox.channel)
        if self._handle.can_write:
            # A log that cannot be written should say so now, not at the first append.
            try:
                self._request(Status)
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

    def close(self) -> None:
        if self._handle.generation == forks.generation:
            self._handle.close()

    def _request(self, kind: Any, *fields: Any) -> Any:
        self._handle.check_open()
        pipe = self._requests
        with pipe.lock:
            return pipe.run(pipe.channel.request(kind, *fields))

    # --- producing ---------------------------------------------------------------------------

    def append(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        self._handle.check_open()
        with self._outbox_lock:
            batch, row = self._outbox.add(event, key, headers)
        self._deliver(batch)
        return batch.seq_no_of(row)

    def append_many(self, events: Iterable[Any]) -> tuple[int, int]:
        packed = self._handle.packed(events)
        with self._outbox_lock:
            batches = [self._outbox.add_packed(batch) for batch in packed]
        self._deliver(batches[-1])
        numbers = [batch.seq_no_of(0) for batch in batches]
        return numbers[0], numbers[-1] + packed[-1].count - 1

    def _deliver(self, batch: OutBatch) -> None:
        """Wait for the batch's answer; whoever gets the pipe first sends for all that wait."""
        with self._appends.lock:
            while not batch.is_done:
                with self._outbox_lock:
                    self._outbox.seal()
                self._appends.run(self._outbox.deliver(0))

    def publisher(
        self,
        linger: float = LINGER_S_DEFAULT,
        max_batch_bytes: int = PUBLISHER_BATCH_BYTES_DEFAULT,
        max_in_flight: int = MAX_IN_FLIGHT_DEFAULT,
    ) -> AbstractContextManager[Publisher]:
        check_publisher(linger, max_batch_bytes, max_in_flight, self.path)
        return self._publisher(linger, max_batch_bytes, max_in_flight)

    @contextmanager
    def _publisher(
        self, linger: float, max_batch_bytes: int, max_in_flight: int
    ) -> Iterator[Publisher]:
        publisher = BlockingLocalPublisher(self._handle, linger, max_batch_bytes, max_in_flight)
        try:
            yield publisher
            publisher.flush()
        except Exception:
            # What was queued before the block failed is still to be stored; the block's own
            # exception matters more than what may come of that.
            with suppress(EventLogError):
                publisher.flush()
            raise
        finally:
            publisher.close()

    # --- consuming ---------------------------------------------------------------------------

    @contextmanager
    def _subscribe(
        self, consumer: str, position: SeekPosition, options: StreamOptions
    ) -> Iterator[EventStream]:
        reader = self._handle.reader
        feed = Feed(reader, consumer, position, options)
        stream = BlockingLocalStream(self._handle, feed)
        try:
            yield stream
        finally:
            stream.close()

    def read(self, start: int, stop: int | None = None) -> Iterator[EventEnvelope]:
        batches = read_range(self._handle.reader, *check_range(start, stop))
        return (envelope for envelopes in batches for envelope in envelopes)

    def ack(self, consumer: str, seq_no: int) -> None:
        self._request(Ack, check_name(consumer), check_seq_no(seq_no, consumer=consumer))

    def seek(self, consumer: str, position: SeekPosition) -> None:
        number = self._handle.seek_number(consumer, position)
        if number is not None:
            self._request(Seek, consumer, number)

    def forget(self, consumer: str) -> None:
        self._request(Forget, check_name(consumer))

    def group(
        self,
        name: str,
        *,
        ordering: GroupOrdering = None,
        max_deliveries: int = MAX_DELIVERIES_DEFAULT,
        position: SeekPosition = SeekPosition.LAST_ACKNOWLEDGED,
    ) -> Group:
        fields = group_fields(self._handle, name, ordering, max_deliveries, position)
        group = BlockingLocalGroup(self._handle, fields)
        try:
            group.open()
        except BaseException:
            group.close()
            raise
        return group

    def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return self._count(RetryDead, group, seq_nos)

    def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return self._count(DropDead, group, seq_nos)

    def _count(self, kind: Any, group: str, seq_nos: Iterable[int]) -> int:
        messages = number_ranges(check_name(group), seq_nos)
        return sum(self._request(kind, group, ranges).number for ranges in messages)

    # --- looking -----------------------------------------------------------------------------

    def synced(self, seq_no: int | None = None) -> None:
        wanted = self._handle.number_to_sync(seq_no)
        if wanted is not None:
            self._request(AwaitSynced, wanted)

    def last_seq_no(self) -> int | None:
        return self._handle.reader.last_seq_no or None

    def consumers(self) -> list[ConsumerState]:
        return self._handle.reader.consumers()

    def status(self) -> LogStatus:
        if not self._handle.can_write:
            return self._handle.status(0)
        report = self._request(Status)
        assert isinstance(report, StatusReport)
        return self._handle.status(report.connections)


def _new_pipe(handle: LocalHandle, channel: Channel) -> BlockingPipe:
    pipe = BlockingPipe(handle.path, channel)
    handle.pipes.add(pipe)
    return pipe


class BlockingLocalStream(EventStream):
    """See `eventlog.blocking.EventStream`."""

    def __init__(self, handle: LocalHandle, feed: Feed) -> None:
        self._handle = handle
        self._feed = feed
        self._pipe = _new_pipe(handle, handle.new_channel())
        self._events: Iterator[EventEnvelope] = iter(())
        self._is_closed = False

    def __repr__(self) -> str:
        """Where the stream is."""
        return f"<EventStream of {self._handle.path!r} before event {self._feed.next_seq_no}>"

    def __iter__(self) -> Iterator[EventEnvelope]:
        self._feed.use_as("events")
        return self

    def __next__(self) -> EventEnvelope:
        for envelope in self._events:
            return envelope
        events = self._next(self._feed.next_events)
        if events is None:
            raise StopIteration
        self._events = iter(events)
        return next(self._events)

    def batches(self) -> Iterator[list[EventEnvelope]]:
        self._feed.use_as("batches")
        return iter(lambda: self._next(self._feed.next_batch), None)

    def _next(self, read: Callable[[], list[EventEnvelope] | None]) -> list[EventEnvelope] | None:
        """The next events, waiting for them if need be; `None` at the end."""
        while True:
            if self._is_closed:
                raise closed("stream", self._handle.path)
            self._handle.check_open()
            events = read()
            if events is not None or self._feed.is_finished:
                return events
            if self._feed.options.spin and self._spin():
                continue
            with self._pipe.lock:
                # The writer answers at once if the number is published by now: looking again
                # after it has taken note is what makes a lost wake-up impossible.
                kind = AwaitSynced if self._feed.options.durable_only else Park
                self._pipe.run(self._pipe.channel.request(kind, self._feed.next_seq_no))

    def _spin(self) -> bool:
        """Look for the next event, again and again, for as long as was asked for."""
        end = time.perf_counter() + self._feed.options.spin
        while time.perf_counter() < end:
            if self._is_closed or not self._handle.is_open or self._feed.has_more:
                return True
        return False

    def close(self) -> None:
        """Give pipe and maps back."""
        self._is_closed = True
        if self._handle.generation == forks.generation:
            self._handle.pipes.discard(self._pipe)
            self._pipe.close()
            self._feed.close()


class BlockingLocalPublisher(Publisher):
    """See `eventlog.Publisher`.

    The caller's thread fills batches and sends those that are full; one more thread seals and sends
    what is left when the caller pauses for `linger`, and takes the answers then.
    """

    def __init__(
        self, handle: LocalHandle, linger: float, max_batch_bytes: int, max_in_flight: int
    ) -> None:
        self._handle = handle
        self._linger_s = linger
        self._outbox = handle.new_outbox()
        self._builder = self._outbox.builder
        self._pipe = _new_pipe(handle, self._outbox.channel)
        self._max_batch_bytes = min(max_batch_bytes, handle.options.batch_bytes_max)
        self._max_in_flight = max_in_flight
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self._ended = threading.Event()
        self._failure: EventLogError | None = None
        self._generation = handle.generation
        """Of the process that may use it; `forks.UNUSABLE` once it is closed or has failed."""
        self._thread = threading.Thread(
            target=self._look_after, name=f"publisher to {handle.path}", daemon=True
        )
        self._thread.start()

    def __repr__(self) -> str:
        """What is on its way."""
        return f"<Publisher to {self._handle.path!r} batches on their way: {self._outbox.pending}>"

    def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        if self._generation != forks.generation:
            self._refuse()
        with self._lock:
            # As `Outbox.add`, written out: this runs for every event.
            batch, builder = self._outbox.open_batch, self._builder
            row = builder.add(event, key, headers)
            if builder.bytes >= self._max_batch_bytes or row >= _LAST_ROW:
                self._outbox.seal()
                self._pipe.run(self._outbox.deliver(self._max_in_flight))
            elif row == 0:
                self._opened.set()
        return BlockingLocalAppendHandle(self, batch, row)  # type: ignore[return-value]  # registered

    def _refuse(self) -> None:
        forks.check(self._handle.generation, self._handle.path)
        if self._failure is not None:
            raise copy_of(self._failure)
        raise closed("publisher", self._handle.path)

    def flush(self) -> None:
        with self._lock:
            self._outbox.seal()
            self._pipe.run(self._outbox.deliver(0))
            if self._failure is not None:
                raise copy_of(self._failure)
            self._outbox.check_stored()

    def wait_done(self, batch: OutBatch) -> None:
        """Wait until the writer has answered the batch."""
        with self._lock:
            if not batch.is_sealed:
                self._outbox.seal()
            while not batch.is_done:
                self._pipe.run(self._outbox.deliver(0))

    def _look_after(self) -> None:
        """Send a batch that nobody fills any more, and take the answers of an idle producer."""
        while True:
            self._opened.wait()
            self._opened.clear()
            if self._ended.wait(self._linger_s):
                return
            with self._lock:
                self._outbox.seal()
                try:
                    self._pipe.run(self._outbox.deliver(self._max_in_flight))
                    if not self._opened.is_set():
                        self._pipe.run(self._outbox.deliver(0))
                except EventLogError as error:
                    self._failure = error  # raised by the next call of the producer's thread
                    self._generation = forks.UNUSABLE
                    return

    def close(self) -> None:
        """End the thread and give the pipe back."""
        self._generation = forks.UNUSABLE
        self._ended.set()
        self._opened.set()
        if self._handle.generation == forks.generation:
            self._thread.join()
            self._handle.pipes.discard(self._pipe)
            self._pipe.close()


class BlockingLocalAppendHandle(msgspec.Struct, eq=False, gc=False):
    """See `eventlog.blocking.AppendHandle`; a struct, as in `local`."""

    _publisher: BlockingLocalPublisher
    _batch: OutBatch
    _row: int

    @property
    def seq_no(self) -> int | None:
        base = self._batch.base_seq_no
        return None if base is None else base + self._row

    def result(self) -> int:
        if not self._batch.is_done:
            self._publisher.wait_done(self._batch)
        return self._batch.seq_no_of(self._row)


AppendHandle.register(BlockingLocalAppendHandle)
