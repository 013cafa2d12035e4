"""Events on their way to the writer: batches that callers share, sent in order, repeated safely.

    add -> open batch -> seal -> unsent -> (Append) -> in flight -> (Appended) -> done
                                   ^                        |
                                   +---- the pipe broke ----+

A producer's batches are numbered when they are sealed and always sent in that order. After a lost
pipe all that were not answered are sent again: the writer answers a number that it already stored
with what it answered, or would have answered, the first time.

Batches of one call follow each other: the writer refuses those behind a refused one, and if the
pipe breaks before it has told of all of them, they are not sent again.

Pure, like `conversations`, whose `Channel` it builds on.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from eventlog.api.batches import ManyBatches, ManyRows, copy_of
from eventlog.api.expectation import Expectation
from eventlog.api.statistics import Counters, PublisherStatistics
from eventlog.config import MAX_IN_FLIGHT_LIMIT, STAGED_BYTES_MIN, LogOptions
from eventlog.errors import EventLogError, LogClosed
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.many_events import add_list
from eventlog.event.record_batch import BatchParts, PackedBatch
from eventlog.event.texts import Headers, Keys
from eventlog.local.client.conversations import Channel, PipeBroken, Send, Steps
from eventlog.local.client.out_batch import HANG_UPS_MAX, OutBatch, check_fits, hung_up
from eventlog.local.wire.connection import frame
from eventlog.local.wire.messages import Answer, Appended, Failed, Stage, Staged, error_of

SHARED_BYTES: Final = 64 * 1024
"""A batch of lists is full then: some hundred events share its cost, and a reader is faster with
events that fit its caches."""


class Ring(Protocol):
    """What an outbox knows of a staging ring (see `staging`)."""

    def put(self, parts: Sequence[bytes | memoryview], size: int) -> int | None:
        """Copy a batch there; its place, or `None` if there is no room."""

    def release(self, place: int) -> None:
        """The batch there has its answer."""

    def close(self) -> None:
        """Give it back."""


class Outbox:
    """One producer: its open batch, and those on their way."""

    def __init__(
        self,
        channel: Channel,
        options: LogOptions,
        map_ring: Callable[[int, int], Ring] | None = None,
        randbits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self.channel = channel
        self._map_ring = map_ring
        self._ring: Ring | None = None
        self._ring_request_id = 0
        """Number of the request for a ring on this pipe; 0 if there was none."""
        self._batch_bytes_max = options.batch_bytes_max
        self._frame_bytes_max = options.frame_bytes_max
        self.builder = BatchBuilder(options.max_event_bytes, channel.path)
        self.open_batch = OutBatch()
        self._producer_id = randbits(64) or 1
        self._producer_seq = 0
        self.unsent: deque[OutBatch] = deque()
        self.in_flight: deque[OutBatch] = deque()
        self._first_error: EventLogError | None = None
        self._counters = Counters(PublisherStatistics)
        self._hang_ups: Counter[tuple[int, int]] = Counter()
        """How often which writer, by its epoch, has hung up on which conditional batch."""
        self._refused = 0
        """Events that got an error since the last `check_stored`."""

    def statistics(self) -> PublisherStatistics:
        """What was counted."""
        return self._counters.statistics(in_flight=self.pending)

    @property
    def pending(self) -> int:
        """Sealed batches that are not answered."""
        return len(self.unsent) + len(self.in_flight)

    def add(
        self, event: Any, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[OutBatch, int]:
        """Put an event into the open batch; the batch, and the event's row in it.

        Raises:
            InvalidEvent, EventTooLarge, InvalidArgument: the batch is as it was before.
        """
        builder = self.builder
        if builder.bytes >= self._batch_bytes_max or builder.is_full:
            self.seal()
        try:
            row = builder.add(event, key, headers)
        except Exception:
            raise
        except BaseException:
            self.drop_half()
            raise
        self.open_batch.rows = row + 1
        return self.open_batch, row

    def add_list(
        self, events: object, keys: Keys, headers: Headers, full_bytes: int
    ) -> ManyRows[OutBatch] | None:
        """Put a list into the open batch, whole, and seal that if it is full then.

        `None`: it has no room there, or is no short list (see `many_events.add_list`).
        """
        limit_bytes = min(2 * full_bytes, self._batch_bytes_max)
        try:
            if not add_list(self.builder, events, keys, headers, limit_bytes):
                return None
        except BaseException:
            self.drop_half()
            raise
        batch = self.open_batch
        row, batch.rows = batch.rows, len(self.builder)
        if self.builder.bytes >= min(full_bytes, SHARED_BYTES):
            self.seal()
        return ManyRows(batch, row, batch.rows - row)

    def drop_half(self) -> None:
        """Drop what an interrupt, as of Ctrl-C, left half added to the open batch."""
        self.builder.truncate(self.open_batch.rows)

    @property
    def unstored(self) -> int:
        """Events that are not answered, and those refused of which `check_stored` has not told."""
        unanswered = sum(batch.rows for batch in (*self.unsent, *self.in_flight))
        return self.open_batch.rows + unanswered + self._refused

    def check_not_lost(self, batch: OutBatch) -> None:
        """Pass if there is still something to wait for, or the batch is answered.

        Raises:
            LogClosed: another thread's Ctrl-C came between sealing and queueing it.
        """
        if not (batch.is_done or self.pending):
            raise self._interrupted()

    def _interrupted(self) -> LogClosed:
        return LogClosed(
            f"an interrupt came while events for the log {self.channel.path} were put together;"
            " they were not appended",
            path=self.channel.path,
        )

    def seal(self) -> None:
        """Close the open batch, if there is anything in it, and queue it."""
        if len(self.builder):
            batch, self.open_batch = self.open_batch, OutBatch()
            self._queue(batch, self.builder.build_parts())

    def add_packed(
        self,
        packed: PackedBatch,
        before: OutBatch | None = None,
        expected: Expectation | None = None,
    ) -> OutBatch:
        """Queue a batch that is already packed, behind all that were added before.

        If it follows one of the same call, `before`, and that is refused, it is not stored either.
        """
        self.seal()
        batch = OutBatch()
        # All of it before it is queued: another thread may send it from then on.
        batch.rows, batch.before, batch.expected = packed.count, before, expected
        self._queue(batch, BatchParts(*packed[:3], [packed.payload]))
        return batch

    def add_expecting(
        self,
        event: Any,
        key: str | None,
        headers: Mapping[str, str] | None,
        expected: Expectation | None,
    ) -> OutBatch:
        """Queue one event as a batch of its own, behind all that were added before.

        Raises:
            InvalidEvent, EventTooLarge, InvalidArgument: the outbox is as it was before.
        """
        self.seal()
        batch = OutBatch()
        batch.expected, batch.rows = expected, 1
        try:
            self.builder.add(event, key, headers)
            parts = self.builder.build_parts()
            if expected is not None:
                check_fits(parts.size, expected, self._frame_bytes_max, self.channel.path)
        except BaseException:
            self.builder.truncate(0)
            raise
        self._queue(batch, parts)
        return batch

    def add_many(
        self, packed: Sequence[PackedBatch], expected: Expectation | None = None
    ) -> ManyBatches[OutBatch]:
        """Queue the batches of one call: if one is refused, none behind it is stored.

        If something is expected there is one batch.

        Raises:
            EventTooLarge: one message cannot hold it with all the keys that are expected.
        """
        if expected is not None:
            check_fits(len(packed[0].payload), expected, self._frame_bytes_max, self.channel.path)
        batches: list[OutBatch] = []
        for one in packed:
            batches.append(self.add_packed(one, batches[-1] if batches else None, expected))
        return ManyBatches(batches)

    def withdraw(self, many: ManyBatches[OutBatch]) -> None:
        """Drop what is not sent yet of a call that was interrupted or cancelled."""
        for batch in many.batches:
            if batch in self.unsent and batch not in self.in_flight:
                self.unsent.remove(batch)

    def _queue(self, batch: OutBatch, packed: BatchParts) -> None:
        self._producer_seq += 1
        batch.packed, batch.producer_seq, batch.is_sealed = packed, self._producer_seq, True
        self.unsent.append(batch)

    # --- what goes over the pipe ---------------------------------------------------------------

    def next_frame(self) -> list[bytes | memoryview]:
        """The bytes, in parts, of the next unsent batch, which is in flight from now on."""
        batch = self.unsent[0]
        packed = batch.packed
        assert packed is not None
        batch.request_id = self.channel.next_request_id()
        self.in_flight.append(batch)  # a Ctrl-C in between must not lose it
        self.unsent.popleft()
        batch.size = packed.size
        is_large = batch.size >= STAGED_BYTES_MIN
        if not is_large or packed.acks_bytes or batch.expected is not None:
            return [batch.head(self._producer_id), *packed.parts]
        if self._ring is not None:
            batch.place = self._ring.put(packed.parts, batch.size)
            if batch.place is not None:
                return [batch.head(self._producer_id)]
        return [self._ring_wanted(), batch.head(self._producer_id), *packed.parts]

    def _ring_wanted(self) -> bytes:
        """The request for a ring, once on each pipe; batches do not wait for the answer."""
        if self._map_ring is None or self._ring_request_id:
            return b""
        self._ring_request_id = self.channel.next_request_id()
        self.channel.descriptors = []
        return frame(Stage(self._ring_request_id))

    def _take_ring(self, message: Answer) -> None:
        """Use the ring from now on, if there is one."""
        descriptors, self.channel.descriptors = self.channel.descriptors, None
        if isinstance(message, Staged) and descriptors and self._map_ring is not None:
            with suppress(OSError):
                self._ring = self._map_ring(descriptors[0], message.size)

    def take_answers(self, messages: list[Answer]) -> None:
        """Note the writer's answers to batches in flight."""
        for message in messages:
            if message.request_id == self._ring_request_id:
                self._take_ring(message)
                continue
            batch = self._in_flight_of(message.request_id)
            if batch is None:
                continue
            self._release(batch)
            if isinstance(message, Appended):
                batch.finish(message.base_seq_no, None)
                self._counters.add_batch(batch.rows, batch.size)
            elif isinstance(message, Failed):
                error = error_of(message)
                self._first_error = self._first_error or error
                self._refused += batch.rows
                self._counters.refused += batch.rows
                batch.finish(None, error)
                self._refuse_followers()
            self.in_flight.remove(batch)

    def _in_flight_of(self, request_id: int) -> OutBatch | None:
        """The batch that the answer to this request is for: mostly the first one."""
        for batch in self.in_flight:
            if batch.request_id == request_id:
                return batch
        return None

    def _refuse_followers(self) -> None:
        """Answer what is still to be sent behind a refused batch of the same call."""
        for batch in list(self.unsent):  # in place: another thread may add to it meanwhile
            before = batch.before
            if before is not None and before.error is not None:
                self.unsent.remove(batch)
                self._refused += batch.rows
                self._counters.refused += batch.rows
                batch.finish(None, copy_of(before.error))

    def _release(self, batch: OutBatch) -> None:
        if batch.place is not None and self._ring is not None:
            self._ring.release(batch.place)
            batch.place = None

    def check_stored(self) -> None:
        """Pass if all batches answered since the last check were stored.

        Raises:
            EventLogError: the first refusal.
        """
        error, self._first_error = self._first_error, None
        self._refused = 0
        if error is not None:
            raise copy_of(error)

    def pipe_broke(self) -> None:
        """All that was not answered is to be sent again, in order."""
        self.channel.is_open = False
        self.close()
        for batch in self.in_flight:
            batch.place = None
        again = [one for one in self.in_flight if not one.is_done and one not in self.unsent]
        self.unsent.extendleft(reversed(again))
        self._counters.repeated += len(again)
        self.in_flight.clear()
        self._refuse_followers()

    def _count_hang_up(self, first: OutBatch | None) -> None:
        """Give a conditional batch up that a writer hangs up on again and again, and still lives.

        A writer that was killed is another one when the batch is sent again.
        """
        if first is None or first.expected is None:
            self._hang_ups.clear()
            return
        by = first.producer_seq, self.channel.epoch
        self._hang_ups = Counter({by: self._hang_ups[by] + 1})
        if self._hang_ups[by] == HANG_UPS_MAX:
            self.unsent.remove(first)
            self._refused += first.rows
            self._counters.refused += first.rows
            first.finish(None, hung_up(self.channel.path))

    def close(self) -> None:
        """Give the ring back: it ends with its pipe."""
        ring, self._ring, self._ring_request_id = self._ring, None, 0
        if ring is not None:
            ring.close()

    def give_up(self, error: EventLogError) -> None:
        """Answer everything on its way with this error: the log cannot be reached."""
        self.pipe_broke()
        while self.unsent:
            self._refused += self.unsent[0].rows
            self._counters.refused += self.unsent[0].rows
            self.unsent.popleft().finish(None, error)

    def deliver(self, pending_max: int) -> Steps[None]:
        """Send everything sealed, and receive until at most `pending_max` batches are unanswered.

        Never are there more of them than the writer remembers: it would not know the others again.

        Raises:
            EventLogError: the log cannot be reached; everything on its way got that error.
        """
        attempt = 0
        while self.unsent or self.pending > pending_max:
            try:
                if not self.channel.is_open:
                    self.pipe_broke()  # or somebody left in the middle, as with Ctrl-C
                    yield from self.channel.open()
                while self.unsent and len(self.in_flight) < MAX_IN_FLIGHT_LIMIT:
                    yield Send(self.next_frame())
                if self.unsent or self.pending > pending_max:
                    messages = yield from self.channel.receive()
                    self.take_answers(messages)
                    attempt = 0
            except PipeBroken as error:
                first = next((one for one in self.in_flight if not one.is_done), None)
                self.pipe_broke()
                self._count_hang_up(first)
                gave_up = self.channel.gave_up(attempt, error)
                attempt += 1
                if gave_up is not None:
                    self.give_up(gave_up)
                    raise gave_up from error
            except EventLogError as error:
                self.give_up(error)
                raise
