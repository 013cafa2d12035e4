"""The offset table: every consumer's position, in a mapped file that anybody may read.

A slot is made whole before its state says so, and a position is one aligned 8-byte store, so a
writer that is killed leaves the old value or the new one. Readers check the name's CRC: a slot that
was given to another consumer while they read it is skipped.

The bytes are drawn in `offset_format`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from eventlog.api.positions import SEQ_NO_MAX
from eventlog.checksum import crc32c
from eventlog.errors import CorruptLog, EventLogError, LogNotFound, UnknownFormat
from eventlog.local.storage.files import FILES, Files, os_errors, sync_errors
from eventlog.local.storage.formats.format import BYTE_ORDER, VERSION
from eventlog.local.storage.formats.offset_format import (
    FILE_NAME,
    FREE,
    HEADER,
    KEPT,
    MAGIC,
    SLOT,
    SLOTS_AT_FIRST,
    STATES_VERSION,
    USED,
    Offset,
    header_bytes,
    slot_bytes,
)
from eventlog.local.storage.states import KeptStates, StoredStates, read_offsets


class OffsetTable:
    """The mapped table. Only the writer opens it as writable, and calls `set` and `forget`."""

    def __init__(
        self,
        directory: str,
        *,
        writable: bool = False,
        files: Files = FILES,
        synced: Callable[[], int] = lambda: SEQ_NO_MAX,
    ) -> None:
        self.directory = directory
        self._files = files
        self._writable = writable
        self._path = path = os.path.join(directory, FILE_NAME)
        with os_errors(directory, "opening its offset table"):
            self._descriptor = files.open_write(path) if writable else files.open_read(path)
        self._slots: dict[str, int] = {}
        self._failure: EventLogError | None = None
        self._states: KeptStates | StoredStates
        try:
            self._map_all()
            self._check_header()
            if writable:
                self._states = KeptStates(directory, files, synced)
            else:
                self._states = StoredStates(directory, files)
            self._look()
            self.lost = self.without_record() if writable else []
            """Consumers that have lost their state: they are where they were before it."""
            for offset in self.lost:
                self._words[self._word(self._slots[offset.name]) + SLOT.word("kept")] = 0
            if writable:
                self._drop_states()
        except BaseException:
            self.close()
            raise

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
        if fields["byte_order"] != BYTE_ORDER:
            raise self._damaged(f"its byte order mark is {fields['byte_order']:#06x}")
        if fields["version"] not in (VERSION, STATES_VERSION):
            raise UnknownFormat(
                f"the offset table of {self.directory} has format version {fields['version']};"
                f" this program reads the versions {VERSION} and {STATES_VERSION}",
                path=self.directory,
            )

    def _damaged(self, why: str) -> CorruptLog:
        return CorruptLog(
            f"the offset table of {self.directory} is damaged: {why}; `eventlog verify --repair`"
            " mends its header; without the file 'offsets' every consumer is at the beginning",
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
                self._words[self._word(slot)] = FREE

    def _read(self, slot: int) -> Offset | None:
        word = self._word(slot)
        if self._words[word] != USED:
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
        found = self._states.find(text) if self._is_kept(slot) else None
        if found is not None:
            return found
        position = self._words[word + SLOT.word("position")]
        return Offset(text, position, self._words[word + SLOT.word("last_seen_ns")])

    def _is_kept(self, slot: int) -> bool:
        """Whether the consumer's moves are records in `states`."""
        return self._words[self._word(slot) + SLOT.word("kept")] == KEPT

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

    def set(self, name: str, position: int, now_ns: int, state: bytes | None = None) -> None:
        """Set a consumer's position, and its state in the same step; a new one gets a slot.

        Raises:
            LogFull, StorageFailed: nothing changed.
        """
        slot = self._slots.get(name)
        if state is not None or (slot is not None and self._is_kept(slot)):
            self._keep(slot, Offset(name, position, now_ns, state))
        elif slot is None:
            self._make(self._free_slot(), name, position, now_ns)
        else:
            word = self._word(slot)
            self._words[word + SLOT.word("last_seen_ns")] = now_ns
            self._words[word + SLOT.word("position")] = position

    def _keep(self, slot: int | None, offset: Offset) -> None:
        """Have the move in `states`, and from the first one on say in the slot that it is there."""
        states = self._writers_states
        if slot is not None and self._is_kept(slot):
            states.append(offset)
            return
        self._raise_version()
        free = self._free_slot() if slot is None else slot
        states.append(offset)
        if slot is None:
            self._make(free, offset.name, 0, offset.last_seen_ns, kept=KEPT)
        else:
            self._words[self._word(slot) + SLOT.word("kept")] = KEPT

    def _raise_version(self) -> None:
        """Have older releases refuse the table, before any slot stays behind its consumer."""
        if HEADER.to_dict(self._view)["version"] != STATES_VERSION:
            self._files.store(self._descriptor, self._view, 0, header_bytes(STATES_VERSION))
            self.sync()

    @property
    def _writers_states(self) -> KeptStates:
        assert isinstance(self._states, KeptStates), "only the writer changes the table"
        return self._states

    def _free_slot(self) -> int:
        taken = set(self._slots.values())
        slot = next((slot for slot in range(self.capacity) if slot not in taken), None)
        if slot is None:
            slot = self.capacity
            self._grow()
        return slot

    def _make(self, slot: int, name: str, position: int, now_ns: int, *, kept: int = 0) -> None:
        encoded = name.encode()
        start = HEADER.size + slot * SLOT.size
        packed = slot_bytes(FREE, position, now_ns, encoded, kept)
        self._files.store(self._descriptor, self._view, start, packed)
        self._words[self._word(slot)] = USED
        self._slots[name] = slot

    def _grow(self) -> None:
        with os_errors(self.directory, "growing its offset table"):
            self._files.allocate(self._descriptor, HEADER.size + 2 * self.capacity * SLOT.size)
        self._map_all()

    def forget(self, name: str) -> None:
        """Free a consumer's slot, and drop its state; an unknown one is none to free."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            is_kept = self._is_kept(slot)
            self._words[self._word(slot)] = FREE
            if is_kept:
                self._drop_states()

    def _drop_states(self) -> None:
        """Have nothing in `states` but what slots say is there.

        A slot is free on the disk before its record goes, or a loss of power would leave it alone.
        """
        states = self._writers_states
        names = {name for name, slot in self._slots.items() if self._is_kept(slot)}
        if states.has_others(names):
            self.sync()
        states.keep_only(names)

    def go_back(self, last_seq_no: int) -> None:
        """Have no consumer past this event: those after it are lost.

        A state stays only with its own position, so its consumer goes back to an earlier record.
        """
        for offset in self.all():
            if offset.position > last_seq_no:
                slot = self._slots[offset.name]
                earlier = self._before(offset.name, last_seq_no) if self._is_kept(slot) else None
                position = last_seq_no if earlier is None else earlier.position
                state = None if earlier is None else earlier.state
                self.set(offset.name, position, offset.last_seen_ns, state)

    def _before(self, name: str, last_seq_no: int) -> Offset:
        """The last record of a consumer that is not past the event; else what its slot has."""
        for offset in reversed(read_offsets(self.directory, self._files)):
            if offset.name == name and offset.position <= last_seq_no:
                return offset
        word = self._word(self._slots[name])
        position = min(self._words[word + SLOT.word("position")], last_seq_no)
        return Offset(name, position, 0)

    def without_record(self) -> list[Offset]:
        """Those whose moves should be in `states` and are not: it, or a sync of it, is lost."""
        return [
            offset
            for slot, offset in self._walk()
            if self._is_kept(slot) and self._states.find(offset.name) is None
        ]

    def lowest(self) -> int | None:
        """The position of the consumer that is furthest behind; `None` without consumers."""
        return min((offset.position for _, offset in self._walk()), default=None)

    def sync(self) -> None:
        """Return when the table, and the states, are on the disk; once it has failed, never."""
        if self._failure is not None:
            raise self._failure
        try:
            self._writers_states.sync()
            with sync_errors(self.directory, "syncing its offset table"):
                self._files.sync(self._descriptor)
        except EventLogError as error:
            self._failure = error
            raise

    def close(self) -> None:
        """Unmap and close; may be called twice."""
        if self._descriptor < 0:
            return
        if hasattr(self, "_words"):
            self._unmap()
        if hasattr(self, "_states"):
            self._states.close()
        self._files.close(self._descriptor)
        self._descriptor = -1


def make_offset_table(directory: str, files: Files = FILES) -> None:
    """An empty table, whole or not at all."""
    path = os.path.join(directory, FILE_NAME)
    with os_errors(directory, "making its offset table"):
        descriptor = files.create(path + ".new")
        try:
            files.allocate(descriptor, HEADER.size + SLOTS_AT_FIRST * SLOT.size)
            files.write(descriptor, [header_bytes()], 0)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(path + ".new", path)


def open_or_make(
    directory: str, files: Files = FILES, synced: Callable[[], int] = lambda: SEQ_NO_MAX
) -> OffsetTable:
    """The writer's table: the one there is, or a new one. `synced` tells the synced mark."""
    try:
        return OffsetTable(directory, writable=True, files=files, synced=synced)
    except LogNotFound:
        make_offset_table(directory, files)
        return OffsetTable(directory, writable=True, files=files, synced=synced)
