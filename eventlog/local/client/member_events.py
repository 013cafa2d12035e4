"""Events that a member works on, as they lie in the log or in dead letters.

Handlers get each event once, and may change it; a dead letter gets it as it was appended.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, TypeVar, cast

from eventlog.api.group import ExitReport
from eventlog.api.refusals import expired
from eventlog.api.times import LogClock
from eventlog.errors import CorruptLog, EventLogError, EventsTruncated
from eventlog.event.envelope import EventEnvelope, Row
from eventlog.event.record_batch import (
    FLAG_DUE,
    decode_any,
    decode_some,
    key_hash,
    lend_any,
    packed_columns,
    take_deletions,
    unpack_body,
)
from eventlog.local.client.handle import LocalHandle
from eventlog.local.groups.corrections import StoredCorrections
from eventlog.local.groups.letter_content import envelope_of_letter, fitting_letter
from eventlog.local.groups.stored import StoredLetters
from eventlog.local.storage.reading.batch_reader import BatchReader, StoredBatch

LETTER_AROUND_BYTES: Final = 64
"""More than the numbers of a message with a dead letter take."""
NOWHERE: Final = 1 << 63
"""A base that no event is behind."""
LENT_EVENT_BYTES: Final = 64 * 1024
"""Events that are larger, in the mean of a batch, are read where they lie."""
BATCHES_KEPT: Final = 4
"""Decoded batches: the members of a group take turns in the same few."""
DUE_BATCHES_KEPT: Final = 32
"""Batches whose events are due at any time, so that they come out by turns."""


class EventExpired(EventLogError):
    """An event that is not to be started any more; `described` is its dead letter's error."""


class _Batch:
    """A decoded batch. Events that were handed out are `None`: who has them may change them.

    Of large events, arrays are views of the mapped segment, which stays mapped as long as anybody
    has one; of others, they are copies.
    """

    __slots__ = ("_columns", "_decode", "_stored_ns", "base", "body", "events", "spare")

    def __init__(self, stored: StoredBatch, path: str) -> None:
        self.base = stored.header.base_seq_no
        self._stored_ns = stored.header.append_time_ns
        is_large = stored.header.length > LENT_EVENT_BYTES * stored.header.count
        self._decode = lend_any if is_large else decode_any
        envelopes = stored.envelopes(path, self._decode)
        self.events: list[EventEnvelope | None] = [*envelopes]
        """For handlers."""
        self.spare: list[EventEnvelope | None] | None = None
        """For dead letters, once there are some."""
        self._columns = envelopes[0].columns
        start = stored.position + stored.header.body_offset
        body = stored.segment.view[start : stored.position + stored.header.length]
        self.body = body if is_large else bytes(body)
        """Kept, because retention may delete an event while its handler fails."""

    def decoded(self) -> list[EventEnvelope | None]:
        """All events, as they were appended."""
        count, stored_ns = len(self.events), self._stored_ns
        return [*unpack_body(self.body, count, self.base, self._decode, stored_ns)]

    def spare_of(self, seq_no: int) -> EventEnvelope:
        """An event for its dead letter."""
        index = seq_no - self.base
        if self.spare is None or self.spare[index] is None:
            self.spare = self.decoded()
        envelope, self.spare[index] = self.spare[index], None
        assert envelope is not None
        return envelope

    def key_of(self, seq_no: int) -> str | None:
        """The key of one of the events."""
        keys: list[str | None] | None = self._columns.keys
        return None if keys is None else keys[seq_no - self.base]


class _DueBatch:
    """A batch whose events are due at any time, so each is decoded alone, when it comes out."""

    __slots__ = ("_packed", "base", "events")

    def __init__(self, stored: StoredBatch, path: str) -> None:
        self.base = stored.header.base_seq_no
        self._packed = stored.envelopes(path, packed_columns)
        """Their payloads keep the segment mapped: retention may delete an event meanwhile."""
        self.events: list[EventEnvelope | None] = [None] * len(self._packed)

    def expires_ns(self, seq_no: int) -> int:
        """From when on no handler begins with the event; 0 for never."""
        return self._packed[seq_no - self.base].due.expires_ns

    def spare_of(self, seq_no: int) -> EventEnvelope:
        """One event, as it was appended."""
        packed = self._packed[seq_no - self.base]
        values = decode_some([packed.event], [0], decode_any)
        if take_deletions(values):
            columns = packed.columns
            columns.deletions = {*columns.deletions, seq_no - self.base}
        return cast("EventEnvelope", Row(values[0], seq_no, packed.columns))

    def key_of(self, seq_no: int) -> str | None:
        """The key of one of the events."""
        return self._packed[seq_no - self.base].key


AnyBatch = TypeVar("AnyBatch", _Batch, _DueBatch)


class MemberEvents:
    """The events of one member's leases."""

    def __init__(self, handle: LocalHandle, group: str) -> None:
        self._handle = handle
        self._group = group
        self._reader: BatchReader | None = None
        self._reading = threading.Lock()
        """Guards the batches and their reader."""
        self._batches: OrderedDict[int, _Batch] = OrderedDict()
        self._due_batches: OrderedDict[int, _DueBatch] = OrderedDict()
        self._letters = StoredLetters(handle.path, group)
        self._clock: LogClock | None = None
        """What expiry is compared with, once there are events that expire."""
        self.corrections = StoredCorrections(handle.path, group)
        """Dead letters that were corrected; to be looked at when a lease begins."""
        self._base = 0
        self._events: list[EventEnvelope | None] = []
        """The batch that was last asked for, from event `_base` on."""

    def envelope(self, seq_no: int) -> EventEnvelope:
        """One of the leased events, as it was appended: no two calls give the same object.

        A dead letter that is retried comes from its letter, if retention has deleted the event.

        Raises:
            CorruptLog, EventsTruncated: it cannot be read.
            EventExpired: it is not to be started any more.
        """
        if seq_no in self.corrections.numbers and (corrected := self._corrected(seq_no)):
            return corrected
        index = seq_no - self._base
        if not 0 <= index < len(self._events) or self._events[index] is None:
            try:
                index = self._turn_to(seq_no)
            except (CorruptLog, EventsTruncated) as error:
                return self._copy_of(seq_no, error)
        envelope, self._events[index] = self._events[index], None
        assert envelope is not None
        return envelope

    def _corrected(self, seq_no: int) -> EventEnvelope | None:
        """What is to be handled in the place of an event."""
        letter = self._letters.find(seq_no, is_new=True)
        return None if letter is None else envelope_of_letter(letter, seq_no)

    def _turn_to(self, seq_no: int) -> int:
        """Make the batch with that event the current one; the event's index in it."""
        with self._reading:
            batch = self._batch_of(seq_no)
            index = seq_no - batch.base
            if isinstance(batch, _DueBatch):
                self._base = NOWHERE  # so that each of its events comes here
                self._check_not_expired(seq_no, batch.expires_ns(seq_no))
                batch.events[index] = batch.spare_of(seq_no)
            else:
                self._base = batch.base
                if batch.events[index] is None:
                    batch.events = batch.decoded()
        self._events = batch.events
        return index

    def _check_not_expired(self, seq_no: int, expires_ns: int) -> None:
        """Pass if the event may be started; a dead letter that is retried always may."""
        if not expires_ns:
            return
        if self._clock is None:
            self._clock = LogClock.of_system()
        if self._clock.now() >= expires_ns and self.letter(seq_no) is None:
            raise EventExpired(expired(expires_ns), seq_no=seq_no)

    def appended(self, seq_no: int) -> EventEnvelope:
        """An event as it was appended, whatever a handler did to it; callable from any thread.

        Raises:
            CorruptLog, EventsTruncated: it cannot be read.
        """
        if seq_no in self.corrections.numbers and (corrected := self._corrected(seq_no)):
            return corrected
        try:
            with self._reading:
                return self._batch_of(seq_no).spare_of(seq_no)
        except (CorruptLog, EventsTruncated) as error:
            return self._copy_of(seq_no, error)

    def _batch_of(self, seq_no: int) -> _Batch | _DueBatch:
        kept: list[_Batch | _DueBatch] = [*self._batches.values(), *self._due_batches.values()]
        for batch in kept:
            if batch.base <= seq_no < batch.base + len(batch.events):
                return batch
        if self._reader is None or self._reader.next_seq_no != seq_no:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._handle.reader.batches(seq_no)
        stored = self._reader.next_batch()
        if stored is None:
            raise CorruptLog(f"event {seq_no} was leased and is not published", seq_no=seq_no)
        if stored.header.flags & FLAG_DUE:
            due_batch = _DueBatch(stored, self._handle.path)
            _keep(self._due_batches, due_batch, DUE_BATCHES_KEPT)
            return due_batch
        whole = _Batch(stored, self._handle.path)
        _keep(self._batches, whole, BATCHES_KEPT)
        return whole

    def _copy_of(self, seq_no: int, error: EventLogError) -> EventEnvelope:
        """The copy in the dead letter of an event that cannot be read."""
        letter = self.letter(seq_no)
        copy = None if letter is None else envelope_of_letter(letter, seq_no)
        if copy is None:
            raise error
        return copy

    def letter(self, seq_no: int) -> bytes | None:
        """The dead letter of an event that is retried; `None` if it has none."""
        return self._letters.find(seq_no)

    def fitting_letter(
        self,
        seq_no: int,
        error: str,
        traceback: str | None = None,
        *,
        log_lines: tuple[str, ...] = (),
        exit_code: int | None = None,
        peak_rss_bytes: int | None = None,
    ) -> bytes:
        """A dead letter of an event, as it was appended, that fits a frame."""
        try:
            envelope = self.appended(seq_no)
        except EventLogError:  # deleted or damaged meanwhile: the letter says the rest
            envelope = None
        around_bytes = len(self._group.encode()) + LETTER_AROUND_BYTES
        limit = self._handle.options.frame_bytes_max - around_bytes
        return fitting_letter(
            limit,
            envelope,
            error=error,
            traceback=traceback,
            log_lines=log_lines,
            exit_code=exit_code,
            peak_rss_bytes=peak_rss_bytes,
        )

    def may_be_of(self, seq_no: int, wanted: int) -> bool:
        """Whether the event has a key of that hash, or nobody can tell."""
        try:
            with self._reading:
                return key_hash(self._batch_of(seq_no).key_of(seq_no)) == wanted
        except (CorruptLog, EventsTruncated):
            return True

    def close(self) -> None:
        """Unmap what is read; may be called twice."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _keep(kept: OrderedDict[int, AnyBatch], batch: AnyBatch, limit: int) -> None:
    """Keep a batch instead of the oldest one."""
    kept[batch.base] = batch
    while len(kept) > limit:
        kept.popitem(last=False)


def letter_of_death(handle: LocalHandle, group: str, seq_no: int, report: ExitReport) -> bytes:
    """The dead letter of an event that used up its deliveries by deaths, as it is stored."""
    events = MemberEvents(handle, group)
    events.corrections.look()
    try:
        return events.fitting_letter(
            seq_no,
            report.error,
            log_lines=report.log_lines,
            exit_code=report.exit_code,
            peak_rss_bytes=report.peak_rss_bytes,
        )
    finally:
        events.close()
