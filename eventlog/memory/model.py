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
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple
from uuid import UUID

from eventlog.api.arguments import Bounds
from eventlog.api.expectation import Expectation
from eventlog.api.operated import Trimmed
from eventlog.api.positions import ConsumerState, SeekPosition
from eventlog.api.refusals import full_by_retention, not_acknowledged, state_of_group, truncated
from eventlog.api.statistics import Counters, WriterStatistics
from eventlog.api.status import RATE_S, LogStatus
from eventlog.api.times import LogClock, first_at
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import LogFull, SequenceOutOfRange
from eventlog.event.envelope import EventEnvelope
from eventlog.event.moments import datetime_of
from eventlog.event.record_batch import FLAG_DUE, PackedBatch, decode_any
from eventlog.memory.batch import Batch
from eventlog.memory.coordinator import Groups
from eventlog.memory.keys import LastOfKeys

State = bytes | None
"""What a consumer has left with its position."""


class Offset(NamedTuple):
    """A consumer: the last number behind it, when that was set, and the state it left there."""

    position: int
    last_seen_ns: int
    state: State = None


class MemoryLog:
    """The log itself; any thread may call it, and none of its methods waits."""

    def __init__(self, path: str, options: LogOptions) -> None:
        self.path = path
        self.log_id = UUID(bytes=os.urandom(16))
        self.options = options
        self.changed_options = set[str]()
        """Names of those that were changed since the log was made."""
        self.last = 0
        self.handles = 0
        self.has_due = False
        """Whether events with due times were stored."""
        self.version = 0
        """Another number after each change."""
        self._batches: list[Batch] = []
        self._offsets: dict[str, Offset] = {}
        self.clock = LogClock.of_system()
        self._lock = threading.RLock()
        self._waiting: list[Callable[[], object]] = []
        self.groups = Groups(self, self._lock)
        self._keys = LastOfKeys()
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

    def append(self, packed: PackedBatch, expected: Expectation | None = None) -> int:
        """Store a batch, if the log is as it expects; the number of its first event.

        Raises:
            LogFull: retention may not delete what would have to go.
            WrongExpectation: the log is not as expected.
        """
        with self._lock:
            if expected is not None:
                expected.check(self.path, self.last, self.last_of)
            self.make_room(len(packed.payload))
            base_seq_no = self.last + 1
            newest = self._batches[-1].append_time_ns if self._batches else 0
            now, steady = self.clock.stamp(newest), self.clock.steady()
            self._batches.append(Batch(base_seq_no, now, steady, packed))
            self.last += packed.count
            self._keys.note(base_seq_no, packed)
            self.has_due |= bool(packed.flags & FLAG_DUE)
            self.counters.add_batch(packed.count, len(packed.payload))
            self._changed()
            return base_seq_no

    def last_of(self, key: str) -> int:
        """The number of the last event of a key that is stored; 0 without one."""
        return self._keys.find(key, ((one.base_seq_no, one.packed) for one in self._batches))

    def make_room(self, size: int) -> None:
        """Delete whole batches until that many bytes fit the limits, as far as consumers allow it.

        Raises:
            LogFull: they do not.
        """
        retention = self.options.retention
        while self._batches and self._is_over(self._batches[0], size):
            behind = self.last_consumer()
            if retention.keep_unacked and behind and behind[1] <= self._batches[0].last_seq_no:
                if not self._is_too_large(size):
                    return
                raise full_by_retention(self.path, retention.max_bytes, *behind)
            oldest = self._batches.pop(0)
            self._keys.forget(oldest.base_seq_no, oldest.packed)
            self.groups.pass_deleted()

    def _is_over(self, oldest: Batch, size: int) -> bool:
        age = self.options.retention.max_age
        is_old = age is not None and self.clock.steady() - oldest.steady_ns > (
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

    # --- operating ---------------------------------------------------------------------------

    def configure(self, asked: AskedOptions) -> LogOptions:
        """Change the options that are given."""
        with self._lock:
            if asked.given:
                self.options = self.options.changed(asked)
                self.changed_options.update(asked.given)
                with suppress(LogFull):
                    self.make_room(0)
                self._changed()
            return self.options

    def trim(self, position: SeekPosition, *, force: bool) -> Trimmed:
        """Delete whole batches before the position.

        Raises:
            NotAcknowledged: a consumer still needs one of them.
        """
        with self._lock:
            before, first = self.resolve(position, ""), self.first_available
            goes = [batch for batch in self._batches if batch.last_seq_no < before]
            behind = self.last_consumer()
            if goes and not force and behind is not None and behind[1] <= goes[-1].last_seq_no:
                raise not_acknowledged(self.path, *behind, goes[-1].last_seq_no)
            del self._batches[: len(goes)]
            for batch in goes:
                self._keys.forget(batch.base_seq_no, batch.packed)
            if goes:
                self.groups.pass_deleted()
                self._changed()
            return Trimmed(
                deleted=self.first_available - first, first_available=self.first_available
            )

    # --- reading -----------------------------------------------------------------------------

    def batch_of(self, seq_no: int) -> Batch | None:
        """The batch that holds `seq_no`; `None` if there is none yet.

        Raises:
            EventsTruncated: retention deleted it.
        """
        with self._lock:
            if seq_no > self.last:
                return None
            if seq_no < self.first_available:
                raise truncated(self.path, seq_no, self.first_available)
            place = bisect_right(self._batches, seq_no, key=lambda batch: batch.base_seq_no) - 1
            return self._batches[place]

    def next_batch(self, seq_no: int) -> list[EventEnvelope] | None:
        """The events of the batch that holds `seq_no`, from it on; `None` if there is none yet.

        Raises:
            EventsTruncated: retention deleted it.
        """
        batch = self.batch_of(seq_no)
        if batch is None:
            return None
        return batch.envelopes(self.path, decode_any)[seq_no - batch.base_seq_no :]

    def resolve(self, position: SeekPosition, consumer: str) -> int:
        """The number of the next event for a subscription that starts at `position` now."""
        with self._lock:
            match position.kind:
                case "latest":
                    return self.last + 1
                case "sequence":
                    return position.value or self.first_available
                case "last_acknowledged":
                    return self.resume(consumer)[0]
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

    def resume(self, consumer: str) -> tuple[int, State]:
        """The number of the consumer's next event, and its state."""
        with self._lock:
            position, state = self.position_of(consumer), self._state_of(consumer)
            return position + 1 if position else self.first_available, state

    def _state_of(self, consumer: str) -> State:
        return self._offsets[consumer].state if consumer in self._offsets else None

    def last_consumer(self) -> tuple[str, int] | None:
        """The consumer that is furthest behind, and the first event not acknowledged by it."""
        with self._lock:
            behind = [(offset.position, name) for name, offset in self._offsets.items()]
        return (min(behind)[1], min(behind)[0] + 1) if behind else None

    def ack(
        self,
        consumer: str,
        seq_no: int,
        state: State = None,
        *,
        keeps_state: bool = False,
    ) -> None:
        """Move the position forward, with this state, the one that there is, or none.

        Raises:
            SequenceOutOfRange: there is no such event yet.
            InvalidArgument: a state for a group.
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
            if state is not None and self.groups.has(consumer):
                raise state_of_group(consumer, self.path)
            position = self.position_of(consumer)
            if keeps_state or seq_no < position or (seq_no == position and state is None):
                state = self._state_of(consumer)
            self._set(consumer, self.groups.skip(consumer, max(seq_no, position)), state)

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
            self.groups.seek(consumer, self.position_of(consumer))

    def note_position(self, group: str, position: int) -> None:
        """A group is a consumer of its name, and is there."""
        known = self._offsets.get(group)
        if known is None or known.position != position or known.state is not None:
            self._offsets[group] = Offset(position, self.clock.now())

    def _set(self, consumer: str, position: int, state: State = None) -> None:
        self._offsets[consumer] = Offset(position, self.clock.now(), state)
        self.counters.positions += 1
        self._changed()

    def forget(self, consumer: str) -> None:
        """Remove the consumer."""
        with self._lock:
            self._offsets.pop(consumer, None)
            self.groups.forget(consumer)
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
                    state=offset.state,
                )
                for name, offset in sorted(self._offsets.items())
            ]

    def statistics(self) -> WriterStatistics:
        """What was counted since the log was made."""
        with self._lock:
            return self.counters.statistics(
                uptime_s=time.monotonic() - self._made_s,
                parked=len(self._waiting),
                in_flight=sum(report.in_flight for report in self.groups.reports()),
                postponed=self.groups.postponed(),
                connections=self.handles,
            )

    def _events_per_s(self) -> float:
        since = self.clock.now() - int(RATE_S * 1e9)
        return (self.last + 1 - self.find_time(since)) / RATE_S

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
                events_per_s=self._events_per_s(),
                connections=self.handles,
                max_event_bytes=self.options.max_event_bytes,
            )
