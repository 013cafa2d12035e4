"""The offset table: every consumer's position, in a mapped file that anybody may read.

    +--------+--------+--------+------ - - -
    | header | slot 0 | slot 1 | ...            grown by doubling
    +--------+--------+--------+------ - - -

    offset header (64 bytes)
        0    8  magic            b"EVLOGOFF"
        8    2  version          of the format
       10    2  byte_order       0x0102
       12    4  slot_bytes       of a slot
       16   48  reserved         zero

    offset slot (576 bytes)
        0    8  state            0: free, 1: a consumer; written last when a slot is made
        8    8  position         the last number behind the consumer; 0: it is at the beginning
       16    8  last_seen_ns     when the position was last set, nanoseconds since 1970
       24    4  name_bytes       of the name in UTF-8
       28    4  name_crc         CRC-32C of the name
       32   32  reserved         zero
       64  512  name             128 characters of up to 4 bytes

A slot is made whole before its state says so, and a position is one aligned 8-byte store, so a
writer that is killed leaves the old value or the new one. Readers check the name's CRC: a slot that
was given to another consumer while they read it is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from typing import Final, NamedTuple

from eventlog.checksum import crc32c
from eventlog.errors import CorruptLog, LogNotFound, SequenceOutOfRange, UnknownFormat
from eventlog.local.storage.files import FILES, Files, os_errors, sync_errors
from eventlog.local.storage.format import BYTE_ORDER, VERSION
from eventlog.local.storage.layout import Field, Layout

FILE_NAME: Final = "offsets"
MAGIC: Final = b"EVLOGOFF"
NAME_BYTES_MAX: Final = 512
SLOTS_AT_FIRST: Final = 64

HEADER: Final = Layout(
    "offset header",
    Field("magic", "8s", 'b"EVLOGOFF"'),
    Field("version", "H", "of the format"),
    Field("byte_order", "H", "0x0102"),
    Field("slot_bytes", "I", "of a slot"),
    Field("reserved", "48s", "zero"),
)
SLOT: Final = Layout(
    "offset slot",
    Field("state", "Q", "0: free, 1: a consumer; written last when a slot is made"),
    Field("position", "Q", "the last number behind the consumer; 0: it is at the beginning"),
    Field("last_seen_ns", "Q", "when the position was last set, nanoseconds since 1970"),
    Field("name_bytes", "I", "of the name in UTF-8"),
    Field("name_crc", "I", "CRC-32C of the name"),
    Field("reserved", "32s", "zero"),
    Field("name", f"{NAME_BYTES_MAX}s", "128 characters of up to 4 bytes"),
)
_FREE: Final = 0
_USED: Final = 1


class Offset(NamedTuple):
    """One consumer's row."""

    name: str
    position: int
    last_seen_ns: int


class OffsetTable:
    """The mapped table. Only the writer opens it as writable, and calls `set` and `forget`."""

    def __init__(self, directory: str, *, writable: bool = False, files: Files = FILES) -> None:
        self.directory = directory
        self._files = files
        self._writable = writable
        self._path = path = os.path.join(directory, FILE_NAME)
        with os_errors(directory, "opening its offset table"):
            self._descriptor = files.open_write(path) if writable else files.open_read(path)
        try:
            self._map_all()
            self._check_header()
        except BaseException:
            self.close()
            raise
        self._slots: dict[str, int] = {}
        self._look()

    def _map_all(self) -> None:
        with os_errors(self.directory, "mapping its offset table"):
            size = self._files.size(self._descriptor)
            if size < HEADER.size + SLOT.size:
                raise self._damaged("it is too short")
            fresh = self._files.map(self._descriptor, size, writable=self._writable)
        if hasattr(self, "_words"):
            self._unmap()  # only now: without a new map the table goes on with the old one
        self._map = fresh
        self._view = memoryview(self._map)
        self._words = self._files.words(self._descriptor, self._view[: size & ~7])

    def _unmap(self) -> None:
        self._words.release()
        self._view.release()
        self._map.close()

    def _check_header(self) -> None:
        fields = HEADER.to_dict(self._view)
        if fields["magic"] != MAGIC or fields["slot_bytes"] != SLOT.size:
            raise self._damaged("it does not begin as one does")
        if fields["version"] != VERSION or fields["byte_order"] != BYTE_ORDER:
            raise UnknownFormat(
                f"the offset table of {self.directory} has format version {fields['version']};"
                f" this program reads version {VERSION}",
                path=self.directory,
            )

    def _damaged(self, why: str) -> CorruptLog:
        return CorruptLog(
            f"the offset table of {self.directory} is damaged: {why}; without the file 'offsets'"
            " the log starts with every consumer at the beginning",
            path=self.directory,
        )

    def is_cut_off(self) -> bool:
        """Whether somebody has truncated the file, so that a store would be a SIGBUS."""
        return self._files.is_cut_off(self._descriptor, len(self._view))

    def is_replaced(self) -> bool:
        """Whether the path leads to another table by now, which is the one that the writer has."""
        return not self._files.has_name(self._descriptor, self._path)

    @property
    def capacity(self) -> int:
        """How many slots the file has room for."""
        return (len(self._view) - HEADER.size) // SLOT.size

    def _walk(self) -> Iterator[tuple[int, Offset]]:
        for slot in range(self.capacity):
            offset = self._read(slot)
            if offset is not None:
                yield slot, offset

    def _look(self) -> None:
        """Learn where each consumer is.

        One that was forgotten and came back may be there twice after a loss of power: the slot that
        is further behind counts, and the writer frees the other one.
        """
        self._slots = {}
        for slot, offset in sorted(self._walk(), key=lambda found: found[1].position):
            if offset.name not in self._slots:
                self._slots[offset.name] = slot
            elif self._writable:
                self._words[self._word(slot)] = _FREE

    def _read(self, slot: int) -> Offset | None:
        word = self._word(slot)
        if self._words[word] != _USED:
            return None
        start = HEADER.size + slot * SLOT.size
        fields = SLOT.to_dict(self._view, start)
        name = fields["name"][: fields["name_bytes"]]
        if crc32c(name) != fields["name_crc"]:
            return None
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        position = self._words[word + SLOT.word("position")]
        return Offset(text, position, self._words[word + SLOT.word("last_seen_ns")])

    def _word(self, slot: int) -> int:
        return (HEADER.size + slot * SLOT.size) // 8

    def all(self) -> list[Offset]:
        """Every consumer, by name; a reader sees what the writer last stored."""
        self._follow_growth()
        return sorted(offset for _, offset in self._walk())

    def find(self, name: str) -> Offset | None:
        """One consumer's row; `None` if there is no such consumer."""
        slot = self._slots.get(name)
        if slot is not None:
            offset = self._read(slot)
            if offset is not None and offset.name == name:
                return offset
        if self._writable:
            return None
        self._follow_growth()
        self._look()
        slot = self._slots.get(name)
        return None if slot is None else self._read(slot)

    def _follow_growth(self) -> None:
        if self._files.size(self._descriptor) != len(self._view):
            self._map_all()

    def set(self, name: str, position: int, now_ns: int) -> None:
        """Set a consumer's position; a new one gets a slot."""
        slot = self._slots.get(name)
        if slot is None:
            self._make(name, position, now_ns)
            return
        word = self._word(slot)
        self._words[word + SLOT.word("last_seen_ns")] = now_ns
        self._words[word + SLOT.word("position")] = position

    def _make(self, name: str, position: int, now_ns: int) -> None:
        taken = set(self._slots.values())
        slot = next((slot for slot in range(self.capacity) if slot not in taken), None)
        if slot is None:
            slot = self.capacity
            self._grow()
        encoded = name.encode()
        start = HEADER.size + slot * SLOT.size
        packed = SLOT.pack(_FREE, position, now_ns, len(encoded), crc32c(encoded), b"", encoded)
        self._files.store(self._descriptor, self._view, start, packed)
        self._words[self._word(slot)] = _USED
        self._slots[name] = slot

    def _grow(self) -> None:
        with os_errors(self.directory, "growing its offset table"):
            self._files.allocate(self._descriptor, HEADER.size + 2 * self.capacity * SLOT.size)
        self._map_all()

    def forget(self, name: str) -> None:
        """Free a consumer's slot; an unknown one is none to free."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            self._words[self._word(slot)] = _FREE

    def lowest(self) -> int | None:
        """The position of the consumer that is furthest behind; `None` without consumers."""
        return min((offset.position for _, offset in self._walk()), default=None)

    def sync(self) -> None:
        """Return when the table is on the disk."""
        with sync_errors(self.directory, "syncing its offset table"):
            self._files.sync(self._descriptor)

    def close(self) -> None:
        """Unmap and close; may be called twice."""
        if self._descriptor < 0:
            return
        if hasattr(self, "_words"):
            self._unmap()
        self._files.close(self._descriptor)
        self._descriptor = -1


def beyond(directory: str, consumer: str, seq_no: int, last_seq_no: int) -> SequenceOutOfRange:
    """The error for an acknowledgement of an event that is not there yet."""
    return SequenceOutOfRange(
        f"consumer {consumer!r} cannot acknowledge event {seq_no}: the last one of the log"
        f" {directory} is {last_seq_no}",
        path=directory,
        consumer=consumer,
        seq_no=seq_no,
        last_seq_no=last_seq_no,
    )


def table_bytes(rows: Iterable[Offset]) -> bytes:
    """A whole table with these rows. Pure."""
    slots = [
        SLOT.pack(
            _USED, row.position, row.last_seen_ns, len(encoded), crc32c(encoded), b"", encoded
        )
        for row in rows
        for encoded in [row.name.encode()]
    ]
    header = HEADER.pack(MAGIC, VERSION, BYTE_ORDER, SLOT.size, b"")
    size = HEADER.size + max(len(slots), SLOTS_AT_FIRST) * SLOT.size
    return (header + b"".join(slots)).ljust(size, b"\0")


def mended(data: bytes, bad_slots: Container[int]) -> bytes:
    """A damaged table with a header as it should be, without the rows of `bad_slots`. Pure."""
    slots = [
        bytes(SLOT.size) if slot in bad_slots else data[start : start + SLOT.size]
        for slot, start in enumerate(range(HEADER.size, len(data) - SLOT.size + 1, SLOT.size))
    ]
    header = HEADER.pack(MAGIC, VERSION, BYTE_ORDER, SLOT.size, b"")
    size = HEADER.size + max(len(slots), SLOTS_AT_FIRST) * SLOT.size
    return (header + b"".join(slots)).ljust(size, b"\0")


def make_offset_table(directory: str, files: Files = FILES) -> None:
    """An empty table, whole or not at all."""
    path = os.path.join(directory, FILE_NAME)
    with os_errors(directory, "making its offset table"):
        descriptor = files.create(path + ".new")
        try:
            files.allocate(descriptor, HEADER.size + SLOTS_AT_FIRST * SLOT.size)
            header = HEADER.pack(MAGIC, VERSION, BYTE_ORDER, SLOT.size, b"")
            files.write(descriptor, [header], 0)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(path + ".new", path)


def open_or_make(directory: str, files: Files = FILES) -> OffsetTable:
    """The writer's table: the one there is, or a new one."""
    try:
        return OffsetTable(directory, writable=True, files=files)
    except LogNotFound:
        make_offset_table(directory, files)
        return OffsetTable(directory, writable=True, files=files)
