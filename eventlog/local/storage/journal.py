"""A file of records, each appended whole: what groups did, dead letters, states of consumers.

::

    offset  size
         0     8  magic, b"EVLOGJNL"
         8     2  version of the format
        10     2  byte order mark, 0x0102
        12     4  reserved, zero
        16        records: length (4 bytes) | CRC-32C of the bytes (4) | MessagePack array

A record that a crash cut short, or that does not match its checksum, ends the file: it and what
follows were never acknowledged, or are lost by a failure of the disk, and the next record takes its
place. Room that was taken ahead is zeros. Only the writer appends. To keep the file small the
writer replaces it, in one step, by one that says the same in fewer records.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgpack
import msgspec

from eventlog.checksum import crc32c
from eventlog.config import KIB
from eventlog.errors import CorruptLog, EventLogError, UnknownFormat
from eventlog.local.storage.files import FILES, Files, os_errors, read_file, sync_errors
from eventlog.local.storage.formats.format import BYTE_ORDER, VERSION

GROUPS_NAME: Final = "groups"
DEAD_NAME: Final = "dead"
STATES_NAME: Final = "states"
MAGIC: Final = b"EVLOGJNL"
_HEADER: Final = struct.Struct("<8sHHI")
_FRAME: Final = struct.Struct("<II")
_NONSENSE: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What comes of using a record that no writer wrote."""
RESERVE_BYTES: Final = 64 * KIB
Record = list[Any]
"""A record as it is read; whoever appends may have a type for it (see `groups.records`)."""


class Journal:
    """The writer's end of one file; `records` has what was there when it was opened."""

    def __init__(self, directory: str, name: str, files: Files = FILES) -> None:
        self._directory = directory
        self._path = os.path.join(directory, name)
        self._files = files
        self._has_new_name = False
        self._syncing = threading.Lock()
        """A sync runs in a thread: meanwhile its descriptor is not to be closed."""
        self._descriptor = self._open()
        try:
            with os_errors(directory, f"reading its file {name}"):
                data = files.read(self._descriptor, files.size(self._descriptor), 0)
            self.records, self.bytes = parse(data, directory, name)
            self._reserved_to = self.bytes
            """Up to there the file has its room; what is zeros behind it may be a hole."""
            self.is_torn = len(data) > self.bytes
            """Whether something followed the last record when the file was opened."""
            if data[self.bytes :].strip(b"\0"):
                self._cut(len(data))
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        with os_errors(self._directory, f"opening {os.path.basename(self._path)}"):
            try:
                return self._files.open_write(self._path)
            except FileNotFoundError:
                descriptor = self._files.create(self._path + ".new")
                try:
                    self._files.write(descriptor, [journal_header()], 0)
                    # A loss of power may leave a name to a file that has nothing yet.
                    self._files.sync(descriptor)
                    self._files.rename(self._path + ".new", self._path)
                except BaseException:
                    self._files.close(descriptor)
                    raise
                self._has_new_name = True
                return descriptor

    def _cut(self, end: int) -> None:
        """Put zeros over what is no record, so that it never comes back behind a new one.

        Synced, or a loss of power could leave the new record and bring back what was behind it.
        """
        with os_errors(self._directory, "cutting a torn record"):
            self._files.write(self._descriptor, [bytes(end - self.bytes)], self.bytes)
            self._files.sync(self._descriptor)

    def reserve(self, size: int) -> None:
        """Have room for so many bytes of records: the disk is full now, or not when they come.

        Raises:
            LogFull, StorageFailed: there is none.
        """
        if self.bytes + size > self._reserved_to:
            end = self.bytes + size + RESERVE_BYTES
            with os_errors(self._directory, f"growing {os.path.basename(self._path)}"):
                self._files.allocate(self._descriptor, end)
            self._reserved_to = end

    def append(self, *records: object) -> None:
        """Add records; a crash may leave the first few of them.

        Raises:
            LogFull, StorageFailed: none was added.
        """
        data = b"".join(map(framed, records))
        with os_errors(self._directory, f"appending to {os.path.basename(self._path)}"):
            self._files.write(self._descriptor, [data], self.bytes)
        self.bytes += len(data)

    def replace(self, records: Iterable[object]) -> None:
        """Have these records instead of all that there are."""
        with os_errors(self._directory, f"rewriting {os.path.basename(self._path)}"):
            descriptor = self._files.create(self._path + ".new")
            try:
                end = _HEADER.size
                self._files.write(descriptor, [journal_header()], 0)
                for record in records:
                    data = framed(record)
                    self._files.write(descriptor, [data], end)
                    end += len(data)
                self._files.sync(descriptor)
                self._files.rename(self._path + ".new", self._path)
            except BaseException:
                self._files.close(descriptor)
                raise
        with self._syncing:
            self._files.close(self._descriptor)
            self._descriptor, self.bytes, self._reserved_to = descriptor, end, end
            self._has_new_name = True

    def sync(self) -> None:
        """Return when all records, and the file's name, are on the disk."""
        what = f"syncing {os.path.basename(self._path)}"
        with self._syncing, sync_errors(self._directory, what):
            has_new_name, self._has_new_name = self._has_new_name, False
            self._files.sync(self._descriptor)
            if has_new_name:
                self._files.sync_directory(self._directory)

    def close(self) -> None:
        """Give the descriptor back; may be called twice."""
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
            self._descriptor = -1


def read_records(directory: str, name: str, files: Files = FILES) -> list[Record]:
    """The whole records of a file, while a writer may be appending; none if there is no file."""
    data = read_file(directory, name, files)
    return [] if data is None else parse(data, directory, name)[0]


def stamp_of(directory: str, name: str) -> tuple[int, ...]:
    """What changes whenever the file does; nothing if there is none."""
    try:
        status = os.stat(os.path.join(directory, name))
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def parse(data: bytes, directory: str, name: str) -> tuple[list[Record], int]:
    """The records, and the length of the bytes that hold them. Pure.

    Raises:
        CorruptLog, UnknownFormat: the bytes do not begin as a journal of this version.
    """
    _check_header(data, directory, name)
    return records_from(data, _HEADER.size)


def _check_header(data: bytes, directory: str, name: str) -> None:
    """The header has no checksum: a field that no release writes is damage, not another version."""
    if len(data) < _HEADER.size or data[:8] != MAGIC:
        raise _damaged_header(directory, name, f"it begins with {data[:8]!r}, not {MAGIC!r}")
    _, version, byte_order, _ = _HEADER.unpack_from(data)
    if byte_order != BYTE_ORDER:
        fault = f"its byte order mark is {byte_order:#06x}, not {BYTE_ORDER:#06x}"
        raise _damaged_header(directory, name, fault)
    if version != VERSION:
        raise UnknownFormat(
            f"the file {name!r} of the log {directory} has format version {version}; this program"
            f" reads version {VERSION}: use the release that wrote it; if there is none,"
            " `eventlog verify --repair` mends the header",
            path=directory,
        )


def _damaged_header(directory: str, name: str, fault: str) -> CorruptLog:
    return CorruptLog(
        f"the header of the file {name!r} of the log {directory} is damaged: {fault};"
        " `eventlog verify --repair` makes it again",
        path=directory,
    )


def records_from(data: bytes, position: int) -> tuple[list[Record], int]:
    """The whole records that begin there, and the offset after the last of them. Pure."""
    records: list[Record] = []
    while (found := whole_record(data, position)) is not None:
        records.append(found[0])
        position = found[1]
    return records, position


def whole_record(data: bytes, position: int) -> tuple[Record, int] | None:
    """The record that begins there, and the offset after it; `None` if none does. Pure."""
    start = position + _FRAME.size
    if start > len(data):
        return None
    length, checksum = _FRAME.unpack_from(data, position)
    if length == 0 or start + length > len(data):
        return None
    with memoryview(data)[start : start + length] as packed:
        if crc32c(packed) != checksum:
            return None
        try:
            return msgpack.unpackb(packed, strict_map_key=False), start + length
        except (TypeError, ValueError, msgpack.UnpackException):
            return None  # no writer's, although the checksum is right


@contextmanager
def replaying(directory: str, name: str) -> Iterator[None]:
    """Say of a record that makes no sense where it is: its checksum is right, so somebody made it.

    Raises:
        CorruptLog: instead of what came of using the record.
    """
    try:
        yield
    except EventLogError:
        raise
    except _NONSENSE as error:
        raise CorruptLog(
            f"the file {name!r} of the log {directory} has a record that makes no sense ({error});"
            " put back the file of a backup",
            path=directory,
        ) from error


def framed(record: object) -> bytes:
    """The bytes of one record."""
    packed = msgspec.msgpack.encode(record)
    return _FRAME.pack(len(packed), crc32c(packed)) + packed


def journal_header() -> bytes:
    """The first bytes of a file."""
    return _HEADER.pack(MAGIC, VERSION, BYTE_ORDER, 0)
