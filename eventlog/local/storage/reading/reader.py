"""Reading a log: no pipe, no writer, no permission to write; any number of processes at once.

A `LogReader` is the log as it can be seen from outside; a `BatchReader` walks it, segment by
segment, and never goes past the high-water mark. What it finds at its place, and what that means:

==============================  ===============================================================
at the place of the next batch  then
==============================  ===============================================================
the mark says: not published    caught up; look again after the writer's wake-up
a whole batch, next number      handed out
nothing, or no room             the next segment, which is named after the next number
that segment is not there       deleted by retention (the control page knows): `EventsTruncated`;
                                otherwise `CorruptLog`
anything else                   `CorruptLog`, with the range that is lost
==============================  ===============================================================
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing, suppress

from eventlog.api.positions import ConsumerState, SeekPosition
from eventlog.api.refusals import truncated
from eventlog.api.times import first_at
from eventlog.errors import CorruptLog, EventsTruncated, LogDeleted, LogNotFound
from eventlog.event.moments import datetime_of
from eventlog.local.storage.active_keys import ActiveKeys
from eventlog.local.storage.control import ControlPage, check_is_log
from eventlog.local.storage.files import FILES, Files, os_errors
from eventlog.local.storage.formats.format import (
    FIRST_BATCH,
    base_of_name,
    segment_name,
    unpack_batch_header,
)
from eventlog.local.storage.offsets import OffsetTable
from eventlog.local.storage.reading.batch_reader import BatchReader
from eventlog.local.storage.segment import SegmentReader, with_numbers


class LogReader:
    """A log seen from outside: its marks, its consumers, and readers of its batches."""

    def __init__(self, directory: str, files: Files = FILES) -> None:
        check_is_log(directory)
        self.directory = directory
        self.files = files
        self.control = ControlPage(directory, files=files)
        self.options = self.control.options
        self._offsets: OffsetTable | None = None
        self._bases: list[int] = []
        """As they were listed last, for `open_segment`."""
        self.active_keys: ActiveKeys | None = None
        """The keys of the active segment, since somebody asked for one."""
        # A handle may be shared between threads, and the table is mapped anew when it has grown.
        self._offsets_lock = threading.Lock()

    @property
    def last_seq_no(self) -> int:
        """The number of the last published event; 0 if there was none."""
        self.control.check_whole()
        return self.control.high_water

    @property
    def first_available(self) -> int:
        """The number of the oldest event still stored; past the last one if there is none."""
        self.control.check_whole()
        return self.control.first_available

    # --- consumers ---------------------------------------------------------------------------

    def position_of(self, consumer: str) -> int:
        """The last number behind the consumer; 0 if it is at the beginning, or unknown."""
        return self.position_and_state(consumer)[0]

    def position_and_state(self, consumer: str) -> tuple[int, bytes | None]:
        """The same, and the state that the consumer left there."""
        with self._offsets_lock:
            table = self._table()
            offset = table.find(consumer) if table else None
        return (offset.position, offset.state) if offset else (0, None)

    def resume(self, consumer: str) -> tuple[int, bytes | None]:
        """The number of the consumer's next event, and its state, of one moment."""
        behind, state = self.position_and_state(consumer)
        return behind + 1 if behind else self.first_available, state

    def lag_of(self, consumer: str) -> int:
        """How many stored events are behind the consumer's position."""
        return max(self.last_seq_no - max(self.position_of(consumer), self.first_available - 1), 0)

    def consumers(self) -> list[ConsumerState]:
        """All consumers, by name."""
        with self._offsets_lock:
            table = self._table()
            offsets = table.all() if table else []
        last = self.last_seq_no
        return [
            ConsumerState(
                name=offset.name,
                last_acked=offset.position or None,
                lag=max(last - max(offset.position, self.first_available - 1), 0),
                last_seen=datetime_of(offset.last_seen_ns),
                state=offset.state,
            )
            for offset in offsets
        ]

    def _table(self) -> OffsetTable | None:
        """The offset table; a log that no writer ever served has none."""
        table = self._offsets
        if table is None or table.is_replaced():
            self._check_is_there()
            try:
                self._offsets = OffsetTable(self.directory, files=self.files)
            except LogNotFound:
                return table
            if table is not None:
                table.close()
        return self._offsets

    # --- positions ---------------------------------------------------------------------------

    def resolve(self, position: SeekPosition, consumer: str) -> int:
        """The number of the next event for a subscription that starts at `position` now."""
        match position.kind:
            case "beginning":
                return self.first_available
            case "last_acknowledged":
                return self.resume(consumer)[0]
            case "latest":
                return self.last_seq_no + 1
            case "sequence":
                return position.value or self.first_available
            case "timestamp":
                return self.find_time(position.value)

    def find_time(self, timestamp_ns: int) -> int:
        """The first event stored at or after that time; the next one to come if there is none.

        Stored times may go back where a clock was ahead, at a segment's begin: see `first_at`.
        """
        bases = self.segment_bases()
        is_ordered = self.control.times_from <= self.first_available
        if is_ordered:
            before = bisect_right(
                bases, False, key=lambda base: self._first_time(base) >= timestamp_ns
            )
            bases = bases[max(before - 1, 0) :]
        found = first_at(self._around(bases, timestamp_ns), timestamp_ns, time.time_ns())
        return self.last_seq_no + 1 if found is None else max(found, self.first_available)

    def events_since(self, timestamp_ns: int) -> int:
        """How many events were stored at or after that time; of those that are damaged, none."""
        with suppress(CorruptLog, EventsTruncated):
            return self.last_seq_no + 1 - self.find_time(timestamp_ns)
        return 0

    def _around(self, bases: list[int], timestamp_ns: int) -> Iterator[tuple[int, int]]:
        """Number and time of batches of each segment, from the last before that time to one after.

        The others of a segment say the same, because times do not go back within one.
        """
        reader = BatchReader(self, 1)
        try:
            for base, end in zip(bases, [*bases[1:], self.last_seq_no + 1], strict=False):
                reader.close()
                reader.next_seq_no = max(base, self.first_available)
                reader.skip_to_time(timestamp_ns)
                while reader.next_seq_no < end and (batch := reader.next_batch()) is not None:
                    yield batch.header.base_seq_no, batch.header.append_time_ns
                    if batch.header.append_time_ns >= timestamp_ns:
                        break
        finally:
            reader.close()

    def sample_times(self) -> dict[int, int]:
        """Stored times by event, where segments begin and where times turn, if they can be read."""
        times = {}
        for base in self.segment_bases():
            with suppress(CorruptLog):
                times[base] = self._first_time(base)
        for seq_no in (self.control.times_from - 1, self.last_seq_no):
            with suppress(CorruptLog, EventsTruncated), closing(self.batches(seq_no)) as reader:
                batch = reader.next_batch() if seq_no > 0 else None
                if batch is not None:
                    times[seq_no] = batch.header.append_time_ns
        return {seq_no: ns for seq_no, ns in times.items() if 0 < ns < 2**63}

    def _first_time(self, base_seq_no: int) -> int:
        """The append time of a segment's first event; that of none is later than any."""
        try:
            segment = SegmentReader(self.directory, base_seq_no, self.files)
        except FileNotFoundError:
            return 0  # deleted meanwhile: it was the oldest, so it is before any time asked for
        try:
            header = unpack_batch_header(segment.view, FIRST_BATCH)
            return header.append_time_ns if header.length else 2**63
        finally:
            segment.close()

    # --- segments ----------------------------------------------------------------------------

    def segment_bases(self) -> list[int]:
        """The numbers that the segments' names say, in order.

        Raises:
            LogDeleted: the names would be another log's, or there are none.
        """
        try:
            with os_errors(self.directory, "looking into the directory"):
                names = self.files.names(self.directory)
        except LogNotFound as error:
            raise self._deleted() from error
        self._check_is_there()
        self._bases = sorted(base for base in map(base_of_name, names) if base is not None)
        return self._bases

    def full_segment_of(self, seq_no: int) -> int | None:
        """The number of the full segment that holds the event, by the names that are known."""
        known = self._bases or self.segment_bases()
        if not known or not known[0] <= seq_no < known[-1] or seq_no < self.first_available:
            return None
        return known[bisect_right(known, seq_no) - 1]

    def open_next(self, seq_no: int) -> SegmentReader:
        """As `open_segment`, for a walk that comes to the event: mostly a segment begins with it.

        Its name is known then. Listing the directory for each segment would make a replay take time
        with the square of their number.
        """
        if seq_no < self.first_available:
            raise self.truncated(seq_no)
        return self.open_base(seq_no, seq_no) or self.open_segment(seq_no)

    def open_segment(self, seq_no: int, *, look: bool = False) -> SegmentReader:
        """The segment that holds the event.

        The directory is listed if the names that are known do not lead to it, or `look` is set.

        Raises:
            EventsTruncated: retention deleted it.
            CorruptLog: it should be there and is not.
            LogDeleted: the log is gone, perhaps for another one.
        """
        known = self._bases
        if not look and self.first_available <= seq_no and known and seq_no < known[-1]:
            # No third name ever comes between two that stood beside each other.
            segment = self._open_among(known, seq_no)
            if segment is not None:
                return segment
        for _ in range(2):  # a second look, because retention may delete between list and open
            if seq_no < self.first_available:
                raise self.truncated(seq_no)
            segment = self._open_among(self.segment_bases(), seq_no)
            if segment is not None:
                return segment
        raise self.missing(seq_no)

    def _open_among(self, bases: list[int], seq_no: int) -> SegmentReader | None:
        """The segment of these that holds the event, if it is still there."""
        place = bisect_right(bases, seq_no) - 1
        return self.open_base(bases[place], seq_no) if place >= 0 else None

    def open_base(self, base: int, seq_no: int) -> SegmentReader | None:
        """The segment of that name, for who wants the event from it; `None` if it is not there.

        Raises:
            CorruptLog: nothing of it can be read.
            LogDeleted: the log is gone, perhaps for another one.
        """
        try:
            segment = SegmentReader(self.directory, base, self.files)
        except FileNotFoundError:
            return None
        except CorruptLog as error:
            raise with_numbers(error, seq_no, self.last_of(base)) from error
        try:
            self._check_is_there()  # after it was opened: it may be of a log made anew
        except BaseException:
            segment.close()
            raise
        return segment

    def last_of(self, base: int) -> int:
        """The last number that the segment can hold: the one before the next segment's."""
        later = next((one for one in self.segment_bases() if one > base), None)
        return later - 1 if later else self.last_seq_no

    def _check_is_there(self) -> None:
        if self.control.is_replaced() and not self.control.is_cut_off():
            raise self._deleted()

    def _deleted(self) -> LogDeleted:
        return LogDeleted(
            f"the log {self.directory} was deleted while it was in use; open it again to make a new"
            " one",
            path=self.directory,
        )

    def truncated(self, seq_no: int) -> EventsTruncated:
        """The error for a reader that wants an event which retention deleted."""
        return truncated(str(self.directory), seq_no, self.first_available)

    def missing(self, seq_no: int) -> CorruptLog | EventsTruncated | LogDeleted:
        """The error for a segment that is not where it should be."""
        if self.control.is_replaced():
            return self._deleted()
        if seq_no < self.first_available:
            return self.truncated(seq_no)
        later = next((base for base in self.segment_bases() if base > seq_no), None)
        last = later - 1 if later else self.last_seq_no
        return CorruptLog(
            f"the events {seq_no} to {last} of the log {self.directory} are gone: their segment is"
            " missing; restore it from a backup, or go on after them",
            path=self.directory,
            seq_no=seq_no,
            last_seq_no=last,
        )

    def stored_bytes(self) -> int:
        """The bytes of all segments, of the last one only what is used."""
        bases = self.segment_bases()
        if not bases:
            return 0
        total = sum(self._file_bytes(base) for base in bases[:-1])
        reader = BatchReader(self, max(bases[-1], self.first_available))
        try:
            reader.skip_to(self.last_seq_no + 1)
            return total + max(reader.position, FIRST_BATCH)
        finally:
            reader.close()

    def _file_bytes(self, base_seq_no: int) -> int:
        try:
            return os.stat(os.path.join(self.directory, segment_name(base_seq_no))).st_size
        except FileNotFoundError:
            return 0

    def batches(
        self, next_seq_no: int, *, verify: bool = True, durable_only: bool = False
    ) -> BatchReader:
        """A reader whose first batch holds that event.

        Without `verify` the checksums are believed; with `durable_only` it goes no further than the
        synced mark.
        """
        return BatchReader(self, next_seq_no, verify=verify, durable_only=durable_only)

    def close(self) -> None:
        """Unmap everything; may be called twice."""
        if self._offsets is not None:
            self._offsets.close()
            self._offsets = None
        self.control.close()
