"""What a start of the writer makes of the files that an earlier writer left.

names -> what retention had begun to delete -> the segments that need it, scanned
      -> where the log ends, what is damaged or missing -> the marks, published
"""

from __future__ import annotations

import os
from bisect import bisect_right

from eventlog.api.times import LogClock, went_back
from eventlog.errors import CorruptLog
from eventlog.event.record_batch import FLAG_DUE
from eventlog.local.storage.active_keys import FILE_NAME as ACTIVE_KEYS_NAME
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.files import Files, os_errors, read_file
from eventlog.local.storage.formats import producers as producers_file
from eventlog.local.storage.formats.format import (
    BatchHeader,
    IndexEntry,
    base_of_name,
    index_name,
    key_index_name,
    segment_name,
)
from eventlog.local.storage.formats.producers import ProducerTable
from eventlog.local.storage.formats.recovery import (
    Damage,
    Scan,
    SealedSegment,
    StoredAcks,
    scan_segment,
)
from eventlog.local.storage.index import write_index
from eventlog.local.storage.log.retiring import learn_ages
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.offsets import OffsetTable
from eventlog.local.storage.segment import SegmentReader, SegmentWriter, read_segment_header
from eventlog.local.storage.starting.missing import ahead, ahead_remedy, lost_state
from eventlog.local.storage.starting.salvage import sync_segments


class Restart:
    """One start: what the directory says at first, and what the writer goes on with."""

    def __init__(
        self, control: ControlPage, files: Files, boot: str, writer_start: int, warnings: list[str]
    ) -> None:
        self._control = control
        self._boot = boot
        self._writer_start = writer_start
        self._warnings = warnings
        self._directory = control.directory
        self._files = files
        self._damages: list[Damage] = []
        self._acks: list[StoredAcks] = []
        self._dropped: set[int] = set()
        self._active: SegmentWriter | None = None
        self._last_append_ns = 0
        self._was_orderly = control.writer_pid == 0 and control.epoch > 0
        self._was_killed = control.writer_pid != 0
        self._is_same_boot = control.boot_id == boot != ""  # without an id, nobody knows
        self._is_whole = self._is_same_boot or (
            self._was_orderly and control.options.durability != "memory"
        )
        """No page can have been lost: nobody cut the power since, or all was synced before."""
        self._trusted = control.high_water if self._is_whole else control.synced
        self._next_seq_no = max(self._trusted + 1, control.first_available)
        """If there is no segment at all."""
        self._times_from = 0
        self._producers, self._producers_to = ProducerTable(), 0

    def run(self, offsets: OffsetTable, clock: LogClock) -> WritableLog:
        """Recover, then publish what was found."""
        control = self._control
        self._producers, self._producers_to = self._read_producers()
        bases = self._tidy()
        first_scanned = self._first_scanned(bases)
        for index in range(first_scanned, len(bases)):
            self._recover_segment(bases[index], bases[index + 1 :])
            if bases[index] in self._dropped:
                break
            if self._active is not None:
                self._drop(bases[:index:-1])
                bases = bases[: index + 1]
                break
        bases = [base for base in bases if base not in self._dropped]
        if not bases:
            # What retention deleted had its numbers; none of them is given a second time.
            self._next_seq_no = max(self._next_seq_no, control.first_available)
        sealed = self._sealed(bases, self._active)
        self._sync_sealed(sealed)
        self._set_clock(clock, sealed)
        self._take_over(self._first_available(bases))
        self._clamp(offsets)
        self._warn_of_positions(offsets)
        return WritableLog(
            control,
            offsets,
            self._producers,
            self._producers_to,
            sealed,
            self._active,
            last_append_ns=self._last_append_ns,
            damages=self._damages,
            acks=self._acks,
            is_same_boot=self._is_same_boot,
            was_killed=self._was_killed,
            files=self._files,
            clock=clock,
            warnings=self._warnings,
        )

    def close(self) -> None:
        """Give back what a recovery that failed has opened."""
        if self._active is not None:
            self._active.close()

    # --- the directory ---

    def _tidy(self) -> list[int]:
        """The numbers of the segments, after what a killed writer left half-done was removed."""
        with os_errors(self._directory, "looking into the directory"):
            names = self._files.names(self._directory)
        bases = sorted(base for base in map(base_of_name, names) if base is not None)
        retired = self._retired(bases)
        if retired and self._control.options.durability != "memory":
            # Its sync may have been what failed. Said once more, so that the page is written again.
            self._control.first_available = self._control.first_available
            self._control.sync()
        self._drop(retired)
        kept = bases[len(retired) :]
        owned = {name for base in kept for name in (index_name(base), key_index_name(base))}
        owned.add(ACTIVE_KEYS_NAME)
        with os_errors(self._directory, "removing leftovers"):
            for name in names:
                is_orphan = name.endswith((".idx", ".keys")) and name not in owned
                if name.endswith(".new") or is_orphan:
                    self._files.unlink(os.path.join(self._directory, name))
        return kept

    def _retired(self, bases: list[int]) -> list[int]:
        """Those that retention had decided to delete and did not get to.

        It keeps a segment from its first event on; a mark that says anything else is damaged, or
        is of a segment that a loss of power took, and nothing is deleted because of it.
        """
        first_available = self._control.first_available
        return bases[: bases.index(first_available)] if first_available in bases else []

    def _drop(self, bases: list[int]) -> None:
        """Delete segments in an order that leaves, killed half-way, no hole between those left."""
        self._dropped.update(bases)
        with os_errors(self._directory, "removing a segment"):
            for base in bases:
                for name in (segment_name(base), index_name(base), key_index_name(base)):
                    self._files.unlink(os.path.join(self._directory, name))

    def _read_producers(self) -> tuple[ProducerTable, int]:
        data = read_file(self._directory, producers_file.FILE_NAME, self._files)
        return (ProducerTable(), 0) if data is None else ProducerTable.from_bytes(data)

    # --- segments ---

    def _first_scanned(self, bases: list[int]) -> int:
        """Only the last segment, unless something of those before is known from nowhere else.

        That is: what was not synced, if the power failed; and the producers of batches after their
        snapshot, if the writer was killed between a roll and saving it. A snapshot that is lost
        altogether is looked for no further back than one segment, so that a start stays short.
        """
        if not bases:
            return 0
        known = self._control.high_water
        if not self._is_whole and self._control.options.durability != "memory":
            known = self._trusted
        if not self._was_orderly:
            known = min(known, self._producers_to or bases[max(len(bases) - 2, 0)])
        return min(max(bisect_right(bases, known + 1) - 1, 0), len(bases) - 1)

    def _recover_segment(self, base: int, later: list[int]) -> None:
        """Scan one segment; it is the active one if the log ends in it."""
        following = later[0] if later else None
        try:
            reader = SegmentReader(self._directory, base, self._files)
        except CorruptLog as error:
            self._lose_segment(base, later, str(error))
            return
        try:
            entries, scan = self._scan(reader)
        finally:
            reader.close()
        self._next_seq_no = scan.next_seq_no
        self._last_append_ns = scan.last_append_time_ns or self._last_append_ns
        if following is not None and self._goes_on(scan, following):
            write_index(self._directory, base, entries, self._files)
            return
        self._damages += scan.damages
        self._active = SegmentWriter.reopen(
            self._directory, base, self._control.options.segment_bytes, self._files
        )
        self._active.resume(scan.end, entries)
        if scan.is_torn:
            self._active.cut()
        elif self._control.options.durability == "sync":
            self._active.begin_write_ahead()

    def _goes_on(self, scan: Scan, following: int) -> bool:
        """Whether the next segment belongs to the log, with or without a hole before it."""
        if scan.next_seq_no == following:
            self._damages += [damage for damage in scan.damages if damage.last_seq_no is not None]
            return True
        if following > self._trusted + 1:
            return False
        reason = scan.damages[-1].reason if scan.damages else "the end of a segment is missing"
        self._damages.append(Damage(scan.next_seq_no, following - 1, reason))
        return True

    def _lose_segment(self, base: int, later: list[int], reason: str) -> None:
        """A segment whose header is damaged: the log ends before it if it was never trusted.

        Otherwise it leaves a hole.
        """
        if base > self._trusted:
            self._drop([*reversed(later), base])
            self._next_seq_no = base
            if later or self._control.high_water >= base:
                self._damages.append(Damage(base, None, reason))
            return
        last = later[0] - 1 if later else max(self._trusted, base)
        self._damages.append(Damage(base, last, reason))
        self._next_seq_no = last + 1

    def _scan(self, reader: SegmentReader) -> tuple[list[IndexEntry], Scan]:
        """All of the segment, or after an orderly end only from its last index entry on."""
        if self._was_orderly and self._is_whole:
            entries = reader.entries()
            if entries:
                quick = scan_segment(
                    reader.view, reader.base_seq_no, 0, start=entries[-1], is_end_clean=True
                )
                if quick.next_seq_no == self._control.high_water + 1:
                    return entries, quick
        fresh: list[IndexEntry] = []

        def note(header: BatchHeader, position: int) -> None:
            entry = IndexEntry(header.base_seq_no, header.append_time_ns, position)
            if entry.is_due(fresh[-1].position if fresh else 0):
                fresh.append(entry)
            if header.flags & FLAG_DUE:
                self._control.note_due(header.base_seq_no, header.last_seq_no)
            if header.acks_bytes:
                self._acks.append(_acks_of(reader.view, header, position))
            if header.producer_id and header.base_seq_no > self._producers_to:
                self._producers.note(header.producer_id, header.producer_seq, header.base_seq_no)

        return fresh, reader.scan(self._trusted, note)

    def _sealed(self, bases: list[int], active: SegmentWriter | None) -> list[SealedSegment]:
        """The full segments, each with the time at which the next one began; and their indexes."""
        times = [self._created_ns(base) for base in bases]
        self._last_append_ns = self._last_append_ns or next(filter(None, reversed(times)), 0)
        place = went_back(times)
        if place is not None:
            self._times_from = bases[place]
        full = bases[:-1] if active is not None else bases
        for base in full:
            self._ensure_index(base)
        newest = [*times[1:], self._last_append_ns]
        return [SealedSegment(base, ns) for base, ns in zip(full, newest, strict=False)]

    def _created_ns(self, base: int) -> int:
        try:
            created: int = read_segment_header(self._directory, base, self._files)["created_ns"]
        except CorruptLog:
            return 0
        return created

    def _ensure_index(self, base: int) -> None:
        if os.path.exists(os.path.join(self._directory, index_name(base))):
            return
        try:
            reader = SegmentReader(self._directory, base, self._files)
        except CorruptLog:
            return  # it is reported to whoever reads it; a missing index changes nothing
        fresh: list[IndexEntry] = []

        def note(header: BatchHeader, position: int) -> None:
            entry = IndexEntry(header.base_seq_no, header.append_time_ns, position)
            if entry.is_due(fresh[-1].position if fresh else 0):
                fresh.append(entry)

        try:
            reader.scan(self._trusted, note)
        finally:
            reader.close()
        write_index(self._directory, base, fresh, self._files)

    # --- the control page and the positions ---

    def _sync_sealed(self, sealed: list[SealedSegment]) -> None:
        """Put on the disk what a killed writer had sealed and not synced.

        The next sync covers the active segment only, and then says that all before is synced.
        """
        control = self._control
        if self._was_orderly or control.options.durability == "memory":
            return
        bases = [segment.base_seq_no for segment in sealed]
        following = [*bases[1:], self._next_seq_no]
        ends = zip(bases, following, strict=False)
        unsynced = [base for base, end in ends if end > control.synced + 1]
        sync_segments(self._directory, unsynced, self._files)

    def _set_clock(self, clock: LogClock, sealed: list[SealedSegment]) -> None:
        """Go on with what the earlier writer's clock had settled on, if it is of this boot."""
        if self._is_same_boot and self._control.clock_offset:
            clock.trust(self._control.clock_offset)
            learn_ages(sealed, clock, is_trusted=True)

    def _first_available(self, bases: list[int]) -> int:
        """The first event that retention has left, whether or not its segment is there.

        Retention notes what it deletes before it does so. Without a sync of that note ("memory")
        it says nothing after a reboot.
        """
        marked = max(self._control.first_available, 1)
        first = bases[0] if bases else self._next_seq_no
        is_known = self._is_same_boot or self._control.options.durability != "memory"
        if marked >= first or not is_known:
            return first
        self._damages.append(Damage(marked, first - 1, "their segments are missing"))
        return marked

    def _take_over(self, first_available: int) -> None:
        """Say what the log holds and who writes it now."""
        control = self._control
        last_seq_no = self._next_seq_no - 1
        control.high_water = last_seq_no
        is_from_disk = "" != control.boot_id != self._boot != ""
        control.synced = last_seq_no if is_from_disk else min(control.synced, last_seq_no)
        control.first_available = first_available
        if not self._is_same_boot:
            control.clock_offset = 0
        if control.times_from > self._next_seq_no:
            control.times_from = 0
        control.times_from = max(control.times_from, self._times_from)
        control.epoch += 1
        control.boot_id = self._boot
        control.writer_start = self._writer_start
        control.writer_pid = os.getpid()
        control.hold()
        if control.options.durability != "memory":
            # Before the first append: a page on the disk that still says "orderly end" would, after
            # a loss of power, keep the next start from looking at what was appended since.
            control.sync()
        self._producers.forget_after(last_seq_no)

    def _clamp(self, offsets: OffsetTable) -> None:
        """No position may lie past events that a loss of power took, with or without a trace."""
        if self._is_whole and all(one.first_seq_no > self._trusted for one in self._damages):
            return  # what was cut was never published
        offsets.go_back(self._next_seq_no - 1)

    def _warn_of_positions(self, offsets: OffsetTable) -> None:
        last_seq_no, directory = self._next_seq_no - 1, self._directory
        self._warnings += [lost_state(one.name, one.position) for one in offsets.lost]
        self._warnings += [
            f"{ahead(offset.name, offset.position, last_seq_no)};"
            f" {ahead_remedy(directory, offset.name, last_seq_no)}"
            for offset in offsets.all()
            if offset.position > last_seq_no
        ]


def _acks_of(buffer: memoryview, header: BatchHeader, position: int) -> StoredAcks:
    end = position + header.body_offset
    with buffer[end - header.acks_bytes : end] as area:
        return StoredAcks(header.base_seq_no, header.last_seq_no, bytes(area))
