"""One segment with its index: the writer's side, which grows it, and the readers', which map it."""

from __future__ import annotations

import errno
import os
import struct
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from eventlog.config import WRITE_AHEAD_BYTES
from eventlog.errors import CorruptLog, EventLogError, UnknownFormat
from eventlog.local.storage.files import FILES, Files, os_errors, sync_errors, translated
from eventlog.local.storage.formats.format import (
    FIRST_BATCH,
    HEADER_BYTES,
    INDEX_ENTRY,
    LENGTH_OFFSET,
    OTHER_VERSION,
    SEGMENT_HEADER,
    VERSION,
    BatchHeader,
    IndexEntry,
    aligned,
    index_bytes,
    index_name,
    pack_index_entry,
    pack_segment_header,
    segment_header_fault,
    segment_name,
    unpack_batch_header,
    unpack_index_entry,
)
from eventlog.local.storage.formats.recovery import Scan, find_batch_after, scan_segment
from eventlog.local.storage.index import read_index
from eventlog.local.storage.spare import FILE_NAME as SPARE_NAME

_LENGTH: Final = struct.Struct("<I")
_NOTHING_YET: Final = bytes(4)
_ZEROS: Final = memoryview(bytes(WRITE_AHEAD_BYTES))


class SegmentWriter:
    """The active segment; only the writer process has one."""

    def __init__(
        self, directory: str, base_seq_no: int, segment: int, index: int, size: int, files: Files
    ) -> None:
        self.base_seq_no = base_seq_no
        self.position = FIRST_BATCH
        self._size = size
        self._written_to = size
        """Where blocks begin that were allocated and never written, as far as that matters."""
        self._directory = directory
        self._segment = segment
        self._index = index
        self._files = files
        self._index_position = 0
        self._indexed_to = 0

    @classmethod
    def create(
        cls,
        directory: str,
        base_seq_no: int,
        size: int,
        epoch: int,
        now_ns: int,
        files: Files,
        *,
        spare: int | None = None,
        writes_ahead: bool = False,
    ) -> SegmentWriter:
        """A new segment with all the room it will ever need; on failure nothing is left of it.

        `spare` is the descriptor of a file that is ready for it (see `spare`); one made here
        writes zeros ahead if it is to. The segment gets its name last, so that a segment which can
        be seen is always whole, and has an index.
        """
        path = os.path.join(directory, segment_name(base_seq_no))
        index_path = os.path.join(directory, index_name(base_seq_no))
        temporary = path + ".new" if spare is None else os.path.join(directory, SPARE_NAME)
        opened = [] if spare is None else [spare]
        try:
            with os_errors(directory, f"allocating a segment of {size} bytes"):
                if spare is None:
                    opened.append(files.create(temporary))
                    files.allocate(opened[0], size)
                opened.append(files.create(index_path))
                files.allocate(opened[1], index_bytes(size))
                header = pack_segment_header(base_seq_no, size, epoch, now_ns)
                files.write(opened[0], [header], 0)
                files.rename(temporary, path)
        except EventLogError:
            for descriptor in opened:
                files.close(descriptor)
            with suppress(OSError):  # what stays is removed at the next start, or used up here
                files.unlink(temporary)
                files.unlink(index_path)
            raise
        segment = cls(directory, base_seq_no, opened[0], opened[1], size, files)
        if writes_ahead and spare is None:
            segment.begin_write_ahead()
        return segment

    @classmethod
    def reopen(cls, directory: str, base_seq_no: int, size: int, files: Files) -> SegmentWriter:
        """An existing segment with an empty index; `resume` says what is in it."""
        with os_errors(directory, "opening its last segment"):
            segment = files.open_write(os.path.join(directory, segment_name(base_seq_no)))
            try:
                index = files.create(os.path.join(directory, index_name(base_seq_no)))
            except OSError:
                files.close(segment)
                raise
        with suppress(OSError):  # without room for it seeks are longer; the log is none the worse
            files.allocate(index, index_bytes(size))
        return cls(directory, base_seq_no, segment, index, size, files)

    def resume(self, position: int, entries: list[IndexEntry]) -> None:
        """Go on at `position`, after the batches that recovery found, with a new index of them."""
        self.position = position
        if entries:
            packed = b"".join(map(pack_index_entry, entries))
            with suppress(OSError):  # as in `_note`
                self._files.write(self._index, [packed], 0)
                self._index_position = len(packed)
                self._indexed_to = entries[-1].position

    def cut(self) -> None:
        """Write zeros from here to the end, over whatever a crash left there."""
        step = 1 << 20
        with os_errors(self._directory, "cutting a torn tail"):
            for start in range(self.position, self._size, step):
                self._files.write(self._segment, [bytes(min(step, self._size - start))], start)
        self.sync()

    @property
    def is_half_full(self) -> bool:
        """Time to make the next one ready."""
        return self.position * 2 >= self._size

    def has_room(self, length: int) -> bool:
        """Whether a batch of that length, with its header, still fits."""
        return self.position + length <= self._size

    def append(self, header: bytes, payload: bytes | memoryview, entry: IndexEntry) -> None:
        """Store one batch at `position`; the caller has looked for room and publishes it after.

        The length is written last, so a process killed in between leaves a place that reads as
        "nothing here yet". A failed write moves nothing: the next batch goes to the same place.
        """
        place = self.position
        before, after = header[:LENGTH_OFFSET], header[LENGTH_OFFSET + 4 :]
        length = header[LENGTH_OFFSET : LENGTH_OFFSET + 4]
        try:
            if place + len(header) + len(payload) > self._written_to:
                self._write_ahead(place + len(header) + len(payload))
            self._files.write(self._segment, [before, _NOTHING_YET, after, payload], place)
            self._files.write(self._segment, [length], place + LENGTH_OFFSET)
        except OSError as error:  # as `os_errors`, which costs as much as the second write
            raise translated(error, self._directory, "writing a batch") from error
        self.position = aligned(place + len(header) + len(payload))
        if entry.is_due(self._indexed_to):
            self._note(entry)

    def begin_write_ahead(self) -> None:
        """From now on, write zeros over blocks before batches get there: for who syncs each batch.

        A file system notes in its journal when a block that was only allocated is written for the
        first time, and a sync of such a block waits for that too: half as long again, on ext4.
        """
        self._written_to = self.position

    def _write_ahead(self, end: int) -> None:
        """Do so past the place that a batch is about to take."""
        is_large = end - self.position >= WRITE_AHEAD_BYTES // 4  # its own bytes take longer
        ahead = 0 if is_large else min(WRITE_AHEAD_BYTES, self._size - end)
        if ahead:
            with suppress(OSError):  # the batch may fit all the same, where a disk copies on write
                self._files.write(self._segment, [_ZEROS[:ahead]], end)
        self._written_to = end + ahead

    def _note(self, entry: IndexEntry) -> None:
        """Index a batch. A missing entry makes a seek longer, never wrong: no failed append."""
        with suppress(OSError):
            self._files.write(self._index, [pack_index_entry(entry)], self._index_position)
            self._index_position += INDEX_ENTRY.size
            self._indexed_to = entry.position

    def sync(self) -> None:
        """Return when all that was appended is on the disk. May run beside appends, in a thread."""
        with sync_errors(self._directory, "syncing a segment"):
            self._files.sync(self._segment)

    def close(self) -> None:
        """Give the descriptors back; may be called twice."""
        if self._segment >= 0:
            self._files.close(self._segment)
            self._files.close(self._index)
            self._segment = self._index = -1


def read_segment_header(directory: str, base_seq_no: int, files: Files) -> dict[str, Any]:
    """The header of a segment, by field name.

    Raises:
        CorruptLog: it is none.
        UnknownFormat: it is one of another version.
    """
    path = os.path.join(directory, segment_name(base_seq_no))
    with os_errors(directory, "reading a segment"):
        descriptor = files.open_read(path)
    try:
        return _checked_header(directory, base_seq_no, descriptor, files)
    finally:
        files.close(descriptor)


def with_numbers(error: CorruptLog, first: int, last: int) -> CorruptLog:
    """The error of a segment of which nothing can be read, with the events that are lost by it."""
    return CorruptLog(
        f"the events {first} to {last} of the log {error.path} are damaged ({error}); all others"
        " are readable: try `eventlog verify --repair`, restore a backup, or go on after them",
        path=error.path,
        seq_no=first,
        last_seq_no=last,
    )


def _checked_header(
    directory: str, base_seq_no: int, descriptor: int, files: Files
) -> dict[str, Any]:
    with os_errors(directory, "reading a segment"):
        header = files.read(descriptor, FIRST_BATCH, 0)
    fault = segment_header_fault(header, base_seq_no)
    if fault is not None:
        path = os.path.join(directory, segment_name(base_seq_no))
        if fault.startswith(OTHER_VERSION):
            raise UnknownFormat(
                f"the segment {path} cannot be read: {fault}, and this program reads version"
                f" {VERSION}; use the release that wrote it",
                path=directory,
            )
        raise CorruptLog(
            f"the segment {path} cannot be read: {fault}",
            path=directory,
            seq_no=base_seq_no,
        )
    return SEGMENT_HEADER.to_dict(header)


def open_held(directory: str, base_seq_no: int, files: Files) -> int:
    """A descriptor of a segment; as long as it is open, the writer does not write over the file.

    Raises:
        FileNotFoundError: there is none, or none any more.
    """
    path = os.path.join(directory, segment_name(base_seq_no))
    try:
        descriptor = files.open_read(path)
    except FileNotFoundError:
        raise  # as it is: the caller must tell a deleted segment from a lost one
    except OSError as error:
        raise translated(error, directory, "opening a segment") from error
    try:
        with os_errors(directory, "locking a segment"):
            files.lock_shared(descriptor)
        # Only a lock that came before the writer's counts: what it retires it may write over.
        if not files.has_name(descriptor, path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    except BaseException:
        files.close(descriptor)
        raise
    return descriptor


class SegmentReader:
    """A mapped segment; any process may have as many as it likes."""

    def __init__(self, directory: str, base_seq_no: int, files: Files = FILES) -> None:
        self.directory = directory
        self.base_seq_no = base_seq_no
        self._files = files
        self._path = os.path.join(directory, segment_name(base_seq_no))
        self._descriptor = open_held(directory, base_seq_no, files)
        try:
            _checked_header(directory, base_seq_no, self._descriptor, files)
            with os_errors(directory, "mapping a segment"):
                size = files.size(self._descriptor)
                self._check_size(size)
                self._map = files.map(self._descriptor, size)
        except BaseException:
            files.close(self._descriptor)
            raise
        self.view = memoryview(self._map)

    def _check_size(self, size: int) -> None:
        if size < FIRST_BATCH + HEADER_BYTES:
            raise CorruptLog(
                f"the segment {self._path} is too short to hold anything",
                path=self.directory,
                seq_no=self.base_seq_no,
            )

    @property
    def is_cut_off(self) -> bool:
        """Whether somebody has truncated the file, so that a look at the map may be a SIGBUS."""
        return self._files.is_cut_off(self._descriptor, len(self.view))

    def data_end(self) -> int:
        """See `Files.data_end`."""
        with os_errors(self.directory, "reading a segment"):
            return self._files.data_end(self._descriptor, len(self.view))

    def scan(
        self, trusted: int, on_batch: Callable[[BatchHeader, int], None] | None = None
    ) -> Scan:
        """See `scan_segment`; from the first batch to where the segment ends."""
        end = self.data_end()
        return scan_segment(self.view, self.base_seq_no, trusted, data_end=end, on_batch=on_batch)

    def find_batch_after(self, position: int, seq_no: int) -> tuple[int, BatchHeader] | None:
        """See `recovery.find_batch_after`."""
        return find_batch_after(self.view, position, seq_no, self.data_end())

    @property
    def is_replaced(self) -> bool:
        """Whether the path leads to a copy of the file by now (see `salvage`): it goes on there."""
        return not self._files.has_name(self._descriptor, self._path)

    def header_at(self, position: int) -> BatchHeader | None:
        """The batch header there, unchecked; `None` past the last place for one."""
        if position + HEADER_BYTES > len(self.view):
            return None
        return unpack_batch_header(self.view, position)

    def nearest(self, is_before: Callable[[IndexEntry], bool]) -> IndexEntry | None:
        """The last index entry for which `is_before` holds; `None` if it holds for none.

        `is_before` must hold up to some entry and for none after it. A missing index, or an entry
        that does not lead to a batch, costs a walk from the segment's start and nothing else.
        """
        packed = read_index(self.directory, self.base_seq_no, self._files)

        def is_after(offset: int) -> bool:
            entry = unpack_index_entry(packed, offset)
            return entry is None or not is_before(entry)

        offsets = range(0, len(packed) - INDEX_ENTRY.size + 1, INDEX_ENTRY.size)
        place = bisect_right(offsets, False, key=is_after) - 1
        entry = unpack_index_entry(packed, offsets[place]) if place >= 0 else None
        return entry if entry and self.leads_to_batch(entry) else None

    def entries(self) -> list[IndexEntry]:
        """All entries of the index, in order, up to the first that is not whole."""
        packed, found = read_index(self.directory, self.base_seq_no, self._files), []
        for offset in range(0, len(packed) - INDEX_ENTRY.size + 1, INDEX_ENTRY.size):
            entry = unpack_index_entry(packed, offset)
            if entry is None:
                break
            found.append(entry)
        return found

    def leads_to_batch(self, entry: IndexEntry) -> bool:
        """Whether the batch that the entry names begins where it says."""
        if entry.position % 8 or entry.position < FIRST_BATCH or self.is_cut_off:
            return False
        header = self.header_at(entry.position)
        return header is not None and header.length > 0 and header.base_seq_no == entry.base_seq_no

    def close(self) -> None:
        """Unmap; may be called twice.

        Payloads that were handed out without copying keep the map, and with it the lock (it has a
        descriptor of its own), until the last of them is gone.
        """
        if self._descriptor >= 0:
            with suppress(BufferError):
                self.view.release()
                self._map.close()
            self._files.close(self._descriptor)
            self._descriptor = -1
