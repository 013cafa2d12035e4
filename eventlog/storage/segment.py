"""One segment with its index: the writer's side, which grows it, and the readers', which map it."""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from eventlog.errors import CorruptLog, EventLogError
from eventlog.storage.files import FILES, Files, os_errors, translated
from eventlog.storage.format import (
    FIRST_BATCH,
    HEADER_BYTES,
    INDEX_ENTRY,
    INDEX_EVERY_BYTES,
    LENGTH_OFFSET,
    SEGMENT_HEADER,
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

_LENGTH: Final = struct.Struct("<I")
_NOTHING_YET: Final = bytes(4)


class SegmentWriter:
    """The active segment; only the writer process has one."""

    def __init__(
        self, directory: str, base_seq_no: int, segment: int, index: int, size: int, files: Files
    ) -> None:
        self.base_seq_no = base_seq_no
        self.position = FIRST_BATCH
        self._size = size
        self._directory = directory
        self._segment = segment
        self._index = index
        self._files = files
        self._index_position = 0
        self._indexed_to = 0

    @classmethod
    def create(
        cls, directory: str, base_seq_no: int, size: int, epoch: int, now_ns: int, files: Files
    ) -> SegmentWriter:
        """A new segment with all the room it will ever need; on failure nothing is left of it.

        The index comes first and the segment gets its name last, so that a segment which can be
        seen is always whole.
        """
        path = os.path.join(directory, segment_name(base_seq_no))
        index_path = os.path.join(directory, index_name(base_seq_no))
        temporary = path + ".new"
        opened: list[int] = []
        try:
            with os_errors(directory, "allocating a segment"):
                opened.append(files.create(index_path))
                files.allocate(opened[0], index_bytes(size))
                opened.append(files.create(temporary))
                files.allocate(opened[1], size)
                header = pack_segment_header(base_seq_no, size, epoch, now_ns)
                files.write(opened[1], [header], 0)
                files.rename(temporary, path)
        except EventLogError:
            for descriptor in opened:
                files.close(descriptor)
            with suppress(OSError):  # what stays is removed at the next start, or used up here
                files.unlink(temporary)
                files.unlink(index_path)
            raise
        return cls(directory, base_seq_no, opened[1], opened[0], size, files)

    @classmethod
    def reopen(cls, directory: str, base_seq_no: int, size: int, files: Files) -> SegmentWriter:
        """An existing segment with an empty index; `resume` and `note` say what is in it."""
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
            self._files.sync(self._segment)

    def has_room(self, length: int) -> bool:
        """Whether a batch of that length, with its header, still fits."""
        return self.position + length <= self._size

    def append(self, header: bytes, payload: bytes, entry: IndexEntry) -> None:
        """Store one batch at `position`; the caller has looked for room and publishes it after.

        The length is written last, so a process killed in between leaves a place that reads as
        "nothing here yet". A failed write moves nothing: the next batch goes to the same place.
        """
        place = self.position
        before, after = header[:LENGTH_OFFSET], header[LENGTH_OFFSET + 4 :]
        with os_errors(self._directory, "writing a batch"):
            self._files.write(self._segment, [before, _NOTHING_YET, after, payload], place)
            length = header[LENGTH_OFFSET : LENGTH_OFFSET + 4]
            self._files.write(self._segment, [length], place + LENGTH_OFFSET)
        self.position = aligned(place + len(header) + len(payload))
        if is_due(entry, self._indexed_to):
            self._note(entry)

    def _note(self, entry: IndexEntry) -> None:
        """Index a batch. A missing entry makes a seek longer, never wrong: no failed append."""
        with suppress(OSError):
            self._files.write(self._index, [pack_index_entry(entry)], self._index_position)
            self._index_position += INDEX_ENTRY.size
            self._indexed_to = entry.position

    def sync(self) -> None:
        """Return when all that was appended is on the disk. May run beside appends, in a thread."""
        with os_errors(self._directory, "syncing a segment"):
            self._files.sync(self._segment)

    def close(self) -> None:
        """Give the descriptors back; may be called twice."""
        if self._segment >= 0:
            self._files.close(self._segment)
            self._files.close(self._index)
            self._segment = self._index = -1


def is_due(entry: IndexEntry, indexed_to: int) -> bool:
    """Whether a batch gets an index entry: the first one, and then about one for each page."""
    return not indexed_to or entry.position >= indexed_to + INDEX_EVERY_BYTES


def write_index(directory: str, base_seq_no: int, entries: list[IndexEntry], files: Files) -> None:
    """The index of a sealed segment, made again, whole or not at all.

    On a full disk it stays missing: that makes a seek longer, never wrong, and the next start tries
    again.
    """
    path = os.path.join(directory, index_name(base_seq_no))
    with suppress(OSError):
        descriptor = files.create(path + ".new")
        try:
            files.write(descriptor, [b"".join(map(pack_index_entry, entries))], 0)
        finally:
            files.close(descriptor)
        files.rename(path + ".new", path)


def read_segment_header(directory: str, base_seq_no: int, files: Files) -> dict[str, Any]:
    """The header of a segment, by field name.

    Raises:
        CorruptLog: it is none.
    """
    path = os.path.join(directory, segment_name(base_seq_no))
    with os_errors(directory, "reading a segment"):
        descriptor = files.open_read(path)
    try:
        return _checked_header(directory, base_seq_no, descriptor, files)
    finally:
        files.close(descriptor)


def _checked_header(
    directory: str, base_seq_no: int, descriptor: int, files: Files
) -> dict[str, Any]:
    with os_errors(directory, "reading a segment"):
        header = files.read(descriptor, FIRST_BATCH, 0)
    fault = segment_header_fault(header, base_seq_no)
    if fault is not None:
        path = os.path.join(directory, segment_name(base_seq_no))
        raise CorruptLog(
            f"the segment {path} cannot be read: {fault}; its events, from {base_seq_no} on, are"
            " lost unless there is a backup",
            path=directory,
            seq_no=base_seq_no,
        )
    return SEGMENT_HEADER.to_dict(header)


class SegmentReader:
    """A mapped segment; any process may have as many as it likes."""

    def __init__(self, directory: str, base_seq_no: int, files: Files = FILES) -> None:
        self.directory = directory
        self.base_seq_no = base_seq_no
        self._files = files
        self._path = os.path.join(directory, segment_name(base_seq_no))
        try:
            self._descriptor = files.open_read(self._path)
        except FileNotFoundError:
            raise  # as it is: the caller must tell a deleted segment from a lost one
        except OSError as error:
            raise translated(error, directory, "opening a segment") from error
        try:
            # By the same descriptor: the name may be deleted by now.
            _checked_header(directory, base_seq_no, self._descriptor, files)
            with os_errors(directory, "mapping a segment"):
                files.lock_shared(self._descriptor)
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
                f"the segment {self._path} is too short to hold anything; its events, from"
                f" {self.base_seq_no} on, are lost unless there is a backup",
                path=self.directory,
                seq_no=self.base_seq_no,
            )

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
        packed = self._read_index()

        def is_after(offset: int) -> bool:
            entry = unpack_index_entry(packed, offset)
            return entry is None or not is_before(entry)

        offsets = range(0, len(packed) - INDEX_ENTRY.size + 1, INDEX_ENTRY.size)
        place = bisect_right(offsets, False, key=is_after) - 1
        entry = unpack_index_entry(packed, offsets[place]) if place >= 0 else None
        return entry if entry and self.leads_to_batch(entry) else None

    def entries(self) -> list[IndexEntry]:
        """All entries of the index, in order, up to the first that is not whole."""
        packed, found = self._read_index(), []
        for offset in range(0, len(packed) - INDEX_ENTRY.size + 1, INDEX_ENTRY.size):
            entry = unpack_index_entry(packed, offset)
            if entry is None:
                break
            found.append(entry)
        return found

    def _read_index(self) -> bytes:
        """All entries; a few hundred KiB at most."""
        try:
            descriptor = self._files.open_read(
                os.path.join(self.directory, index_name(self.base_seq_no))
            )
        except OSError:
            return b""
        try:
            return self._files.read(descriptor, self._files.size(descriptor), 0)
        except OSError:
            return b""
        finally:
            self._files.close(descriptor)

    def leads_to_batch(self, entry: IndexEntry) -> bool:
        """Whether the batch that the entry names begins where it says."""
        if entry.position % 8 or entry.position < FIRST_BATCH:
            return False
        header = self.header_at(entry.position)
        return header is not None and header.length > 0 and header.base_seq_no == entry.base_seq_no

    def close(self) -> None:
        """Unmap; may be called twice."""
        if self._descriptor >= 0:
            self.view.release()
            self._map.close()
            self._files.close(self._descriptor)
            self._descriptor = -1
