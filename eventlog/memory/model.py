"""The reference: what every backend does, to be read in one sitting.

A log is a list of batches, a dict of positions and the number of the last event; everybody who
waits, for an event or for room, is called whenever any of it changes. Events are packed when they
come and unpacked for each reader, so nobody sees what another one does to a value, and bad input
gets the same errors as anywhere. Nothing here waits: that is left to the two shells, `memory` for
trio and asyncio and `memory_blocking` for threads.

`"memory:"` is a log of its own handle, `"memory:NAME"` one of the whole process. Neither survives
it.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from eventlog.api import forks
from eventlog.api.arguments import Bounds
from eventlog.api.positions import ConsumerState, SeekPosition
from eventlog.api.refusals import closed, not_opened
from eventlog.api.statistics import Counters, PublisherStatistics, WriterStatistics
from eventlog.api.status import LogStatus
from eventlog.api.times import LogClock, first_at
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import (
    EventsTruncated,
    InvalidArgumentType,
    LogFull,
    SequenceOutOfRange,
)
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.envelope import EventEnvelope, datetime_of
from eventlog.event.many_events import Headers, Keys, ManyEvents
from eventlog.event.payload import unpack
from eventlog.event.record_batch import Decode, PackedBatch, areas_bytes, mismatch, unpack_body


class Batch(NamedTuple):
    """A stored batch."""

    base_seq_no: int
    append_time_ns: int
    steady_ns: int
    """When it was stored, by a clock that never jumps (see `storage.times`)."""
    packed: PackedBatch

    @property
    def last_seq_no(self) -> int:
        """The number of its last event."""
        return self.base_seq_no + self.packed.count - 1

    def envelopes(self, path: str, decode: Decode) -> list[EventEnvelope]:
        """Its events, unpacked anew."""
        count, flags, acks_bytes, payload = self.packed
        body = payload[areas_bytes(count, flags, acks_bytes) :]
        try:
            return unpack_body(body, count, self.base_seq_no, decode, self.append_time_ns)
        except (msgspec.ValidationError, RecursionError) as error:
            raise mismatch(error, self.base_seq_no, path) from error


class Offset(NamedTuple):
    """A consumer: the last number behind it, and when that was set."""

    position: int
    last_seen_ns: int


class MemoryLog:
    """The log itself; any thread may call it, and none of its methods waits."""

    def __init__(self, path: str, options: LogOptions) -> None:
        self.path = path
        self.log_id = UUID(bytes=os.urandom(16))
        self.options = options
        self.last = 0
        self.handles = 0
        self.version = 0
        """Another number after each change."""
        self._batches: list[Batch] = []
        self._offsets: dict[str, Offset] = {}
        self._clock = LogClock.of_system()
        self._lock = threading.RLock()
        self._waiting: list[Callable[[], object]] = []
        self.counters = Counters(WriterStatistics)
        self._made_s = time.monotonic()

    @property
    def first_available(self) -> int:
        """The oldest event still stored; past the last one if there is none."""
        return self._batches[0].base_seq_no if self._batches else self.last + 1

    # --- waiting -----------------------------------------------------------------------------

    def call_when_changed(self, call: Callable[[], object], seen: int) -> None:
        """Call once after the next change; at once if there was one since `seen` was taken."""
        with self._lock:
            if self.version == seen:
                self._waiting.append(call)
                return
        call()

    def wake(self) -> None:
        """Let everybody who waits look again, at the log and at their own handle."""
        with self._lock:
            self._changed()

    def _changed(self) -> None:
        self.version += 1
        waiting, self._waiting = self._waiting, []
        self.counters.wake_ups += len(waiting)
        for call in waiting:
            call()

    # --- appending and retention -------------------------------------------------------------

    def append(self, packed: PackedBatch) -> int:
        """Store a batch; the number of its first event.

        Raises:
            LogFull: retention may not delete what would have to go.
        """
        with self._lock:
            self._make_room(len(packed.payload))
            base_seq_no = self.last + 1
            newest = self._batches[-1].append_time_ns if self._batches else 0
            now, steady = self._clock.stamp(newest), self._clock.steady()
            self._batches.append(Batch(base_seq_no, now, steady, packed))
            self.last += packed.count
            self.counters.add_batch(packed.count, len(packed.payload))
            self._changed()
            return base_seq_no

    def _make_room(self, size: int) -> None:
        """Delete whole batches that are over a limit, as far as consumers allow it."""
        retention = self.options.retention
        while self._batches and self._is_over(self._batches[0], size):
            lowest = min((o.position for o in self._offsets.values()), default=self.last)
            if retention.keep_unacked and lowest < self._batches[0].last_seq_no:
                if not self._is_too_large(size):
                    return
                raise LogFull(
                    f"the log {self.path} is full: it may keep {retention.max_bytes} bytes and a"
                    f" consumer has not acknowledged event {lowest + 1}; acknowledge, forget"
                    " the consumer, or raise the limit",
                    path=self.path,
                    is_by_retention=True,
                )
            del self._batches[0]

    def _is_over(self, oldest: Batch, size: int) -> bool:
        age = self.options.retention.max_age
        is_old = age is not None and self._clock.steady() - oldest.steady_ns > (
            age.total_seconds() * 1e9
        )
        return is_old or self._is_too_large(size)

    def _is_too_large(self, size: int) -> bool:
        limit = self.options.retention.max_bytes
        return limit is not None and self.bytes + size > limit

    @property
    def bytes(self) -> int:
        """The size of all that is stored."""
        return sum(len(batch.packed.payload) for batch in self._batches)

    # --- reading -----------------------------------------------------------------------------

    def next_batch(self, seq_no: int, decode: Decode = unpack) -> list[EventEnvelope] | None:
        """The events of the batch that holds `seq_no`, from it on; `None` if there is none yet.

        Raises:
            EventsTruncated: retention deleted it.
            EventTypeMismatch: the batch holds an event of another type.
        """
        with self._lock:
            if seq_no > self.last:
                return None
            if seq_no < self.first_available:
                raise EventsTruncated(
                    f"event {seq_no} of the log {self.path} was deleted by retention; the first"
                    f" one available is {self.first_available}: seek to it, or subscribe with"
                    ' on_truncated="skip"',
                    path=self.path,
                    seq_no=seq_no,
                    first_available=self.first_available,
                )
            place = bisect_right(self._batches, seq_no, key=lambda batch: batch.base_seq_no) - 1
            batch = self._batches[place]
        return batch.envelopes(self.path, decode)[seq_no - batch.base_seq_no :]

    def resolve(self, position: SeekPosition, consumer: str) -> int:
        """The number of the next event for a subscription that starts at `position` now."""
        with self._lock:
            match position.kind:
                case "latest":
                    return self.last + 1
                case "sequence":
                    return position.value or self.first_available
                case "last_acknowledged" if self.position_of(consumer):
                    return self.position_of(consumer) + 1
                case "timestamp":
                    return self.find_time(position.value)
            return self.first_available

    def find_time(self, timestamp_ns: int) -> int:
        """The first event stored at or after that time; the next one to come if there is none."""
        with self._lock:
            times = ((one.base_seq_no, one.append_time_ns) for one in self._batches)
            found = first_at(times, timestamp_ns, time.time_ns())
            return self.last + 1 if found is None else found

    def numbers_of(self, bounds: Bounds) -> tuple[int, int]:
        """Where a range begins, and before which event it ends."""
        with self._lock:
            return bounds.numbers(self.first_available, self.last, self.find_time)

    # --- consumers ---------------------------------------------------------------------------

    def position_of(self, consumer: str) -> int:
        """The last number behind the consumer; 0 at the beginning."""
        return self._offsets[consumer].position if consumer in self._offsets else 0

    def last_consumer(self) -> tuple[str, int] | None:
        """The consumer that is furthest behind, and the first event not acknowledged by it."""
        with self._lock:
            behind = [(offset.position, name) for name, offset in self._offsets.items()]
        return (min(behind)[1], min(behind)[0] + 1) if behind else None

    def ack(self, consumer: str, seq_no: int) -> None:
        """Move the position forward.

        Raises:
            SequenceOutOfRange: there is no such event yet.
        """
        with self._lock:
            if seq_no > self.last:
                raise SequenceOutOfRange(
                    f"consumer {consumer!r} cannot acknowledge event {seq_no}: the last one of the"
                    f" log {self.path} is {self.last}",
                    path=self.path,
                    consumer=consumer,
                    seq_no=seq_no,
                    last_seq_no=self.last,
                )
            self._set(consumer, max(seq_no, self.position_of(consumer)))

    def seek(self, consumer: str, position: SeekPosition) -> None:
        """Set the position."""
        with self._lock:
            match position.kind:
                case "last_acknowledged":
                    return
                case "beginning":
                    self._set(consumer, 0)
                case "sequence":
                    self._set(consumer, max(position.value - 1, 0))
                case _:
                    self._set(consumer, self.resolve(position, consumer) - 1)

    def _set(self, consumer: str, position: int) -> None:
        self._offsets[consumer] = Offset(position, self._clock.now())
        self.counters.positions += 1
        self._changed()

    def forget(self, consumer: str) -> None:
        """Remove the consumer."""
        with self._lock:
            self._offsets.pop(consumer, None)
            self.counters.positions += 1
            self._changed()

    def consumers(self) -> list[ConsumerState]:
        """All consumers, by name."""
        with self._lock:
            return [
                ConsumerState(
                    name=name,
                    last_acked=offset.position or None,
                    lag=max(self.last - max(offset.position, self.first_available - 1), 0),
                    last_seen=datetime_of(offset.last_seen_ns),
                )
                for name, offset in sorted(self._offsets.items())
            ]

    def statistics(self) -> WriterStatistics:
        """What was counted since the log was made."""
        with self._lock:
            now_s, parked = time.monotonic() - self._made_s, len(self._waiting)
            return self.counters.statistics(uptime_s=now_s, parked=parked, connections=self.handles)

    def status(self) -> LogStatus:
        """The log at this moment."""
        with self._lock:
            return LogStatus(
                path=self.path,
                log_id=self.log_id,
                writer_pid=os.getpid(),
                synced_seq_no=None,
                first_seq_no=self.first_available if self._batches else None,
                last_seq_no=self.last or None,
                bytes=self.bytes,
                segments=len(self._batches),
                durability=self.options.durability,
                connections=self.handles,
            )


_named: dict[str, MemoryLog] = {}
_named_lock = threading.Lock()


def find_log(prefix: str, name: str, asked: AskedOptions) -> MemoryLog:
    """The process's log of that name, made if need be; without a name, a new one."""
    path = f"{prefix}{name}"
    if not name:
        return MemoryLog(path, LogOptions.of(asked))
    with _named_lock:
        if path not in _named:
            _named[path] = MemoryLog(path, LogOptions.of(asked))
        log = _named[path]
    asked.check_against(log.options, path)
    return log


class MemoryHandle:
    """What both kinds of handle have: the log while they are open, and checks."""

    prefix = "memory:"
    """What stands before the name in the log's address."""

    def __init__(self, name: str, asked: AskedOptions) -> None:
        self._log = find_log(self.prefix, name, asked)
        self._is_open = False
        self._was_opened = False
        self.counters = Counters(PublisherStatistics)
        self._generation = forks.generation

    def __repr__(self) -> str:
        """The path, and whether the handle is open."""
        return f"<EventLog {self._log.path!r} {'open' if self._is_open else 'closed'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse: another process could not reach this one's memory."""
        raise InvalidArgumentType(
            f"the log {self._log.path} lives in this process and cannot be handed to another one;"
            " use a directory",
            path=self._log.path,
        )

    @property
    def path(self) -> str:
        """Where the log is."""
        return self._log.path

    @property
    def is_open(self) -> bool:
        """Between `open_handle` and `close_handle`."""
        return self._is_open

    def open_handle(self) -> None:
        if not self._is_open:
            self._is_open = self._was_opened = True
            self._log.handles += 1

    def close_handle(self) -> None:
        if self._is_open:
            self._is_open = False
            self._log.handles -= 1
            self._log.wake()

    @property
    def log(self) -> MemoryLog:
        """The log.

        Raises:
            LogClosed, ForkedHandle: the handle is of no use here.
        """
        forks.check(self._generation, self._log.path)
        if not self._is_open:
            path = self._log.path
            raise closed("handle", path) if self._was_opened else not_opened(path)
        return self._log

    def packed(self, event: Any, key: str | None, headers: Mapping[str, str] | None) -> PackedBatch:
        builder = BatchBuilder(self.log.options.max_event_bytes, self.path)
        builder.add(event, key, headers)
        return builder.build()

    def many_events(self, keys: Keys, headers: Headers) -> ManyEvents:
        """What packs the events of an `append_many`."""
        options = self.log.options
        return ManyEvents(
            options.max_event_bytes, options.batch_bytes_max, self.path, keys, headers
        )

    def store(self, packed: PackedBatch, counters: Counters[PublisherStatistics]) -> int | None:
        """Store a batch and count it; the first number, or `None` if it is to wait for room."""
        try:
            base = self.log.append(packed)
        except LogFull as error:
            if self.is_worth_waiting(error):
                return None
            counters.refused += packed.count
            raise
        counters.add_batch(packed.count, len(packed.payload))
        return base

    def is_worth_waiting(self, error: LogFull) -> bool:
        return error.is_by_retention and self._log.options.on_full == "wait"
