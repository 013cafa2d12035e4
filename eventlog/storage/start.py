"""Opening a log for its writer: make it if need be, recover it, and say what was found."""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable

from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import CorruptLog, NotALog, PermissionDenied, StorageFailed
from eventlog.storage import producers as producers_file
from eventlog.storage.control import EPOCH_MAX, FILE_NAME, ControlPage, is_log, make_control_file
from eventlog.storage.files import FILES, Files, os_errors
from eventlog.storage.format import (
    BatchHeader,
    IndexEntry,
    base_of_name,
    index_name,
    segment_name,
)
from eventlog.storage.identity import boot_id, process_start
from eventlog.storage.index import is_due, write_index
from eventlog.storage.log import WritableLog
from eventlog.storage.offsets import OffsetTable, open_or_make
from eventlog.storage.producers import ProducerTable
from eventlog.storage.recovery import Damage, Scan, SealedSegment, StoredAcks, scan_segment
from eventlog.storage.salvage import salvage, sync_segments
from eventlog.storage.segment import (
    SegmentReader,
    SegmentWriter,
    read_segment_header,
)

OWN_FILES = ("writer.lock", "writer.sock", "writer.log", FILE_NAME + ".new")
"""What may lie in the directory of a log that is not made yet."""


def make_log(directory: str, asked: AskedOptions, files: Files = FILES) -> None:
    """Make the directory a log if it is none; the caller holds the directory's lock.

    Raises:
        NotALog: the path is a file, or other things are in the directory.
        PermissionDenied: the operating system refuses.
        InvalidConfig: the options contradict each other.
    """
    if is_log(directory):
        return
    with os_errors(directory, "looking into the directory"):
        others = sorted(set(files.names(directory)) - set(OWN_FILES))
    if others:
        raise NotALog(
            f"{directory} is no log and not empty (it holds {others[0]!r}); a log is a directory"
            " of its own: give another path",
            path=directory,
        )
    make_control_file(directory, LogOptions.of(asked), files)


def make_directory(directory: str, files: Files = FILES) -> None:
    """Make the directory, and those above it; only its owner may enter it.

    Raises:
        NotALog: the path, or one above it, is a file.
        PermissionDenied: the operating system refuses, or the directory is another user's.
    """
    with os_errors(directory, "making the directory"):
        try:
            files.make_directory(directory)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotALog(
                f"{directory} cannot be a log: {error.filename} is a file; give another path",
                path=directory,
            ) from None
        owner = os.stat(directory).st_uid
    if owner != os.geteuid():
        raise PermissionDenied(
            f"{directory} belongs to the user with id {owner}; run as that user, or give another"
            " path",
            path=directory,
        )


def open_log(
    directory: str, files: Files = FILES, clock: Callable[[], int] = time.time_ns
) -> WritableLog:
    """The log, recovered; the caller holds its lock.

    Raises:
        CorruptLog: a file that everything hangs on is damaged.
        UnknownFormat: the log is of another version.
        StorageFailed, LogFull, PermissionDenied: from the operating system.
    """
    control = ControlPage(directory, writable=True, files=files)
    try:
        if control.epoch >= EPOCH_MAX:
            raise CorruptLog(
                f"the control file of {directory} is damaged: it tells of {control.epoch} writers;"
                " `eventlog verify --repair` mends it",
                path=directory,
            )
        salvage(control, boot_id(), files)
        offsets = open_or_make(directory, files)
        recovery = _Recovery(control, files)
        try:
            return recovery.run(offsets, clock)
        except BaseException as error:
            if isinstance(error, StorageFailed):  # a sync, perhaps
                control.note_failed_sync(boot_id())
            recovery.close()
            offsets.close()
            raise
    except BaseException:
        control.close()
        raise


class _Recovery:
    """One recovery: what the directory says at first, and what the writer goes on with."""

    def __init__(self, control: ControlPage, files: Files) -> None:
        self._control = control
        self._directory = control.directory
        self._files = files
        self._damages: list[Damage] = []
        self._acks: list[StoredAcks] = []
        self._dropped: set[int] = set()
        self._active: SegmentWriter | None = None
        self._last_append_ns = 0
        self._was_orderly = control.writer_pid == 0 and control.epoch > 0
        self._is_same_boot = control.boot_id == boot_id() != ""  # without an id, nobody knows
        self._is_whole = self._is_same_boot or (
            self._was_orderly and control.options.durability != "memory"
        )
        """No page can have been lost: nobody cut the power since, or all was synced before."""
        self._trusted = control.high_water if self._is_whole else control.synced
        self._next_seq_no = max(self._trusted + 1, control.first_available)
        """If there is no segment at all."""
        self._producers, self._producers_to = ProducerTable(), 0

    def run(self, offsets: OffsetTable, clock: Callable[[], int]) -> WritableLog:
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
        self._take_over(bases)
        self._clamp(offsets)
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
            files=self._files,
            clock=clock,
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
        self._drop(retired)
        kept = bases[len(retired) :]
        owned = {index_name(base) for base in kept}
        with os_errors(self._directory, "removing leftovers"):
            for name in names:
                is_orphan = name.endswith(".idx") and name not in owned
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
                for name in (segment_name(base), index_name(base)):
                    self._files.unlink(os.path.join(self._directory, name))

    def _read_producers(self) -> tuple[ProducerTable, int]:
        path = os.path.join(self._directory, producers_file.FILE_NAME)
        with os_errors(self._directory, "reading its producers"):
            try:
                descriptor = self._files.open_read(path)
            except FileNotFoundError:
                return ProducerTable(), 0
            try:
                data = self._files.read(descriptor, self._files.size(descriptor), 0)
            finally:
                self._files.close(descriptor)
        return ProducerTable.from_bytes(data)

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
        self._last_append_ns = max(self._last_append_ns, scan.last_append_time_ns)
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
            if is_due(entry, fresh[-1].position if fresh else 0):
                fresh.append(entry)
            if header.acks_bytes:
                self._acks.append(_acks_of(reader.view, header, position))
            if header.producer_id and header.base_seq_no > self._producers_to:
                self._producers.note(header.producer_id, header.producer_seq, header.base_seq_no)

        return fresh, reader.scan(self._trusted, note)

    def _sealed(self, bases: list[int], active: SegmentWriter | None) -> list[SealedSegment]:
        """The full segments, each with the time at which the next one began; and their indexes."""
        times = [self._created_ns(base) for base in bases]
        self._last_append_ns = max([self._last_append_ns, *times])
        full = bases[:-1] if active is not None else bases
        for base in full:
            self._ensure_index(base)
        newest = [*times[1:], self._last_append_ns]
        for place in reversed(range(len(newest) - 1)):
            newest[place] = newest[place] or newest[place + 1]  # unknown must not make it old
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
            if is_due(entry, fresh[-1].position if fresh else 0):
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

    def _take_over(self, bases: list[int]) -> None:
        """Say what the log holds and who writes it now."""
        control = self._control
        last_seq_no = self._next_seq_no - 1
        control.high_water = last_seq_no
        is_from_disk = "" != control.boot_id != boot_id() != ""
        control.synced = last_seq_no if is_from_disk else min(control.synced, last_seq_no)
        if bases:
            control.first_available = bases[0]
        else:
            control.first_available = self._next_seq_no
        control.epoch += 1
        control.boot_id = boot_id()
        control.writer_start = process_start(os.getpid())
        control.writer_pid = os.getpid()
        if control.options.durability != "memory":
            # Before the first append: a page on the disk that still says "orderly end" would, after
            # a loss of power, keep the next start from looking at what was appended since.
            control.sync()
        self._producers.forget_after(last_seq_no)

    def _clamp(self, offsets: OffsetTable) -> None:
        """No position may lie past events that a loss of power took, with or without a trace."""
        if self._is_whole and all(one.first_seq_no > self._trusted for one in self._damages):
            return  # what was cut was never published
        last_seq_no = self._next_seq_no - 1
        for offset in offsets.all():
            if offset.position > last_seq_no:
                offsets.set(offset.name, last_seq_no, offset.last_seen_ns)


def _acks_of(buffer: memoryview, header: BatchHeader, position: int) -> StoredAcks:
    end = position + header.body_offset
    with buffer[end - header.acks_bytes : end] as area:
        return StoredAcks(header.base_seq_no, header.last_seq_no, bytes(area))
