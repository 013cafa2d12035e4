"""Walking the batches of a log, segment by segment, never past its mark.

What may stand at a place, and what that means, is drawn in `reader`.

Each look into a map comes after a look at the size of its file, since what lies past the end of a
file that somebody truncated is no error but a SIGBUS. (What is truncated within the microseconds in
between, or under a `memoryview` of a payload that was handed out uncopied, still is one.)
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from eventlog.errors import CorruptLog
from eventlog.event.envelope import EventEnvelope
from eventlog.event.filters import EventFilter, unpack_matching
from eventlog.event.record_batch import (
    FLAG_DUE,
    FLAGS_KNOWN,
    Decode,
    areas_bytes,
    decode_any,
    due_area,
    mismatch,
    note_due,
    unpack_body,
)
from eventlog.local.storage.formats.format import (
    BATCH_HEADER,
    FIRST_BATCH,
    HEADER_BYTES,
    BatchHeader,
    aligned,
    batch_fault,
    unpack_batch_header,
)
from eventlog.local.storage.key_index import Found, look_up
from eventlog.local.storage.segment import SegmentReader

if TYPE_CHECKING:
    from eventlog.local.storage.reading.reader import LogReader

PASSED_AT_ONCE: Final = 256
"""Batches that a filter may refuse unread between two looks at the size of their file."""
KEYS_BY_INDEX_MAX: Final = 256
"""Streams of more keys look at each batch: most have one of them."""


class StoredBatch(NamedTuple):
    """One batch of a mapped segment, checked; valid until its `BatchReader` goes on."""

    header: BatchHeader
    segment: SegmentReader
    position: int

    def envelopes(
        self, path: str, decode: Decode = decode_any, wanted: EventFilter | None = None
    ) -> list[EventEnvelope]:
        """The events, decoded; only those that the filter wants, if there is one.

        Raises:
            EventTypeMismatch: one is not of the decoder's type.
            CorruptLog: they cannot be; whoever produced the batch packed something else.
        """
        header = self.header
        if wanted is not None and wanted.refuses(
            header.flags, header.count, self.segment.view, self.position + HEADER_BYTES
        ):
            return []
        start, end = self.position + header.body_offset, self.position + header.length
        try:
            # Not released here: what was decoded may still look at it.
            body = self.segment.view[start:end]
            count, base, stored_ns = header.count, header.base_seq_no, header.append_time_ns
            if wanted is not None:
                envelopes = unpack_matching(body, count, base, wanted, decode, stored_ns)
            else:
                envelopes = unpack_body(body, count, base, decode, stored_ns)
            if header.flags & FLAG_DUE:
                note_due(envelopes, self.due())
            return envelopes
        except (msgspec.ValidationError, RecursionError) as error:
            raise mismatch(error, header.base_seq_no, path) from error
        except ValueError as error:
            raise CorruptLog(
                f"the events {header.base_seq_no} to {header.last_seq_no} of the log {path} cannot"
                f" be decoded: {error}; they were stored so by their producer",
                path=path,
                seq_no=header.base_seq_no,
                last_seq_no=header.last_seq_no,
            ) from error

    def due(self) -> bytes | None:
        """The due times of the events (see `event.due`); `None` if they have none."""
        header = self.header
        view = self.segment.view
        return due_area(header.flags, header.count, view, self.position + HEADER_BYTES)


class BatchReader:
    """Walks the batches of a log from one event on. `position` is the offset of the next batch."""

    def __init__(
        self, log: LogReader, next_seq_no: int, *, verify: bool = True, durable_only: bool = False
    ) -> None:
        self._log = log
        self._verify = verify
        self._durable_only = durable_only
        self.next_seq_no = next_seq_no
        self.position = 0
        self._segment: SegmentReader | None = None
        self._index: tuple[int, Found | None] | None = None
        """The segment whose index by key was looked into last, and what it said."""
        self._known_readable = 0
        """Looked up when the reader gets there: events that were published stay so."""

    @property
    def last_readable(self) -> int:
        """The number that this reader goes up to, for now."""
        control = self._log.control
        control.check_whole()
        return control.synced if self._durable_only else control.high_water

    def next_batch(self) -> StoredBatch | None:
        """The batch that holds event `next_seq_no`, checked; `None` if it is not there yet.

        Raises:
            EventsTruncated, CorruptLog, LogDeleted: see the module's table.
        """
        if not self._is_readable():
            return None
        while True:
            segment = self._segment
            if segment is None:
                self._enter(self._log.open_segment(self.next_seq_no))
                continue
            if segment.is_cut_off:
                raise self._cut_off(segment)
            there = segment.header_at(self.position)
            if there is None or there.length == 0:
                self._go_on(segment, "a batch that is not there")
                continue
            header = self._checked(segment, there)
            if isinstance(header, str):
                self._go_on(segment, header)
                continue
            batch = StoredBatch(header, segment, self.position)
            self.position = aligned(self.position + header.length)
            if header.last_seq_no < self.next_seq_no:
                continue  # still on the way from an index entry to the number asked for
            self.next_seq_no = header.last_seq_no + 1
            return batch

    def pass_over(self, wanted: EventFilter) -> None:
        """Go past batches that the filter refuses, by an index or one by one, at most some."""
        if not self._jump(wanted):
            self._pass_refused(wanted)

    def unindexed(self, wanted: EventFilter) -> int | None:
        """The segment of the next event, if an index by key that is not there would help."""
        if not _is_for_index(wanted) or not self._is_readable():
            return None
        base = self._log.full_segment_of(self.next_seq_no)
        return base if base is not None and self._indexed(base, wanted) is None else None

    def index_made(self) -> None:
        """Look for the index again."""
        self._index = None

    def _indexed(self, base: int, wanted: EventFilter) -> Found | None:
        """What the segment's index says of the wanted keys, if it has one."""
        if self._index is None or self._index[0] != base:
            log = self._log
            self._index = base, look_up(log.directory, base, wanted.key_hashes, log.files)
        return self._index[1]

    def _jump(self, wanted: EventFilter) -> bool:
        """Go to the next batch that may have a wanted key; false if no index tells which it is."""
        if not _is_for_index(wanted):
            return False
        for _ in range(PASSED_AT_ONCE):
            if not self._is_readable():
                return True
            base = self._log.full_segment_of(self.next_seq_no)
            found = None if base is None else self._indexed(base, wanted)
            if base is None or found is None or not found.is_whole_at(self.next_seq_no):
                return self._jump_by_hash(wanted)
            if found.positions:
                place = self._place_among(base, found.positions)
                if place is None:
                    return False
                if place:
                    self.position = place
                    return True
            self.close()
            self.next_seq_no = min(found.extent.end_seq_no, self._known_readable + 1)
        return True

    def _jump_by_hash(self, wanted: EventFilter) -> bool:
        """The same, in a segment whose keys somebody has looked through, as far as that went."""
        keys, seq_no = self._log.active_keys, self.next_seq_no
        if keys is None or len(wanted.key_hashes) != 1:
            return False
        segment = self.enter(keys.base_seq_no) if seq_no in keys.known else None
        if segment is None:
            return False
        [wanted_hash] = wanted.key_hashes
        first, place = keys.next_batch(wanted_hash, seq_no)
        self.position, self.next_seq_no = place, max(first, seq_no)
        return True

    def enter(self, base: int) -> SegmentReader | None:
        """That segment, which has the next event; `None` if nobody can go by its index."""
        segment = self._segment
        if segment is None or segment.base_seq_no != base:
            self.close()
            segment = self._log.open_base(base, self.next_seq_no)
            if segment is None:
                return None  # deleted just now: `next_batch` says so
            self._enter(segment)
        return None if segment.is_cut_off else segment

    def _place_among(self, base: int, positions: list[int]) -> int | None:
        """Where of these the next batch to look at is; 0: at none of them any more.

        `None` if the batch there is not what it was when it was indexed: it is damaged.
        """
        segment = self.enter(base)
        if segment is None:
            return None
        for rank in range(bisect_left(positions, self.position), len(positions)):
            header = segment.header_at(positions[rank])
            if header is None or not header.length:
                return None
            if header.last_seq_no >= self.next_seq_no:  # else it is before a range's begin
                self.next_seq_no = max(self.next_seq_no, header.base_seq_no)
                return positions[rank]
        return 0

    def _pass_refused(self, wanted: EventFilter) -> None:
        """Go past batches that the filter refuses by key hashes, or bytes, at most a few.

        Nothing else of them is read: damage in there is not seen. What a header says is believed
        if the batch behind it is where, and has the number that, it says. It stops where that is
        not so, such as at the end of a segment: `next_batch` reads, and checks, that one.
        """
        segment = self._segment
        if segment is None or segment.is_cut_off:
            return
        view, last_place = segment.view, len(segment.view) - HEADER_BYTES
        header: tuple[Any, ...] | None = segment.header_at(self.position)
        for _ in range(PASSED_AT_ONCE):
            if header is None or not self._is_readable():
                return
            # As `batch_fault`, written out, and no more: this runs for every batch.
            _, length, base, _, _, _, count, flags, header_bytes, _, acks_bytes, _ = header
            following = aligned(self.position + length)
            if base > self.next_seq_no or not count or not self.position < following <= last_place:
                return
            header = BATCH_HEADER.unpack_from(view, following)
            if header[1] == 0 or header[2] != base + count:
                return
            areas = HEADER_BYTES + areas_bytes(count, flags, acks_bytes)
            if header_bytes != HEADER_BYTES or flags & ~FLAGS_KNOWN or areas > length:
                return
            place = self.position
            if not wanted.refuses(flags, count, view, place + HEADER_BYTES) and not wanted.lacks(
                view[place + areas : place + length], count
            ):
                return
            self.position = following
            self.next_seq_no = max(self.next_seq_no, base + count)

    def _is_readable(self) -> bool:
        if self.next_seq_no > self._known_readable:
            self._known_readable = self.last_readable
        return self.next_seq_no <= self._known_readable

    def _cut_off(self, segment: SegmentReader) -> CorruptLog:
        """The error for a file that is shorter than it was; nothing in its map is looked at."""
        last = self._log.last_of(segment.base_seq_no)
        return CorruptLog(
            f"the events {self.next_seq_no} to {last} of the log {self._log.directory} cannot be"
            f" read: segment {segment.base_seq_no} was truncated while it was in use; restore a"
            " backup, or go on after them",
            path=self._log.directory,
            seq_no=self.next_seq_no,
            last_seq_no=last,
        )

    def _checked(self, segment: SegmentReader, header: BatchHeader) -> BatchHeader | str:
        """The header of a whole batch, the next one or one before it; or why there is none."""
        fault = batch_fault(segment.view, self.position, header, verify=self._verify)
        if fault is not None:
            # On processors that let a length be seen before what it covers, a second look, after
            # all that the first one loaded, tells a batch in the making from a damaged one.
            header = unpack_batch_header(segment.view, self.position)
            fault = batch_fault(segment.view, self.position, header, verify=self._verify)
        if fault is None and header.base_seq_no > self.next_seq_no:
            fault = f"event {header.base_seq_no} in the place of {self.next_seq_no}"
        return fault or header

    def _corrupt(self, segment: SegmentReader, fault: str) -> CorruptLog:
        found = segment.find_batch_after(self.position, self.next_seq_no)
        last = found[1].base_seq_no - 1 if found else self._log.last_of(segment.base_seq_no)
        return CorruptLog(
            f"the events {self.next_seq_no} to {last} of the log {self._log.directory} are damaged"
            f" ({fault} at offset {self.position} of segment {segment.base_seq_no}); all others"
            " are readable: restore a backup, or go on after them",
            path=self._log.directory,
            seq_no=self.next_seq_no,
            last_seq_no=last,
        )

    def _enter(self, segment: SegmentReader) -> None:
        """Begin in a segment, at the batch before `next_seq_no` that its index knows."""
        self._segment = segment
        if self.next_seq_no == segment.base_seq_no:
            self.position = FIRST_BATCH
            return
        entry = segment.nearest(lambda entry: entry.base_seq_no <= self.next_seq_no)
        self.position = entry.position if entry else FIRST_BATCH

    def _go_on(self, segment: SegmentReader, fault: str) -> None:
        """Leave a place where no whole batch stands for where event `next_seq_no` is.

        That is another segment, after the end of this one (or after what a failed write left
        there), or the copy of this one that a later writer goes on in, or further on in this one,
        if the damage lies before the event.

        Raises:
            CorruptLog: the damage took the event.
        """
        following = self._log.open_next(self.next_seq_no)
        if following.base_seq_no == segment.base_seq_no and not segment.is_replaced:
            following.close()  # by names that may be old: somebody may have put one back
            following = self._log.open_segment(self.next_seq_no, look=True)
        if following.base_seq_no != segment.base_seq_no or segment.is_replaced:
            self.close()
            self._enter(following)
            return
        following.close()
        if segment.is_cut_off:
            raise self._cut_off(segment)
        found = segment.find_batch_after(self.position, segment.base_seq_no)
        if found is None or found[1].base_seq_no > self.next_seq_no:
            raise self._corrupt(segment, fault)
        self.position = found[0]

    def skip_to(self, seq_no: int) -> None:
        """Go, without decoding, to where event `seq_no` is or will be."""
        self.next_seq_no = min(seq_no, self._log.last_seq_no)
        if self.next_seq_no >= max(self._log.first_available, 1):
            self.next_batch()

    def skip_to_time(self, timestamp_ns: int) -> None:
        """Go close before the first batch of that time, by the index of this segment."""
        if self.next_seq_no > self._log.last_seq_no:
            return
        segment = self._log.open_segment(self.next_seq_no)
        entry = segment.nearest(lambda entry: entry.append_time_ns < timestamp_ns)
        if entry is None:
            segment.close()
            return
        self.close()
        self._segment = segment
        self.position = entry.position
        self.next_seq_no = max(entry.base_seq_no, self.next_seq_no)

    def close(self) -> None:
        """Unmap the segment; may be called twice, and the reader goes on at its number."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None


def _is_for_index(wanted: EventFilter) -> bool:
    """Whether the filter names few enough keys to be looked up in an index."""
    return wanted.keys is not None and len(wanted.keys) <= KEYS_BY_INDEX_MAX


def trimmed(
    envelopes: list[EventEnvelope], header: BatchHeader, first: int, end: int
) -> list[EventEnvelope]:
    """The envelopes of a batch, or some of them, with numbers from `first` to before `end`."""
    if header.base_seq_no >= first and header.last_seq_no < end:
        return envelopes
    return _cut(envelopes, range(first, end))


def _cut(envelopes: list[EventEnvelope], seq_nos: range) -> list[EventEnvelope]:
    # In `trimmed`, what the comprehension shares with it would be an object at each call, for which
    # the garbage collector walks the new batch (see `Feed._last`).
    return [one for one in envelopes if one.seq_no in seq_nos]
