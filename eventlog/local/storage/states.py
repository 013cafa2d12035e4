"""The states of consumers: a journal beside the offset table, of position and state together.

A record is `[name, position, last_seen_ns, state]`, and the last one of a name counts. It is read
for the consumers whose slot in the table says so (`kept`): position and state of those stand here
alone, so that no crash leaves one without the other. A loss of power may take the latest records
and leave an earlier one, or none; then the slot has the position from before the first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from typing import Final

from eventlog.api.positions import check_name, check_seq_no, check_state
from eventlog.config import MIB
from eventlog.errors import EventLogError
from eventlog.local.storage.files import FILES, Files, os_errors
from eventlog.local.storage.formats.offset_format import Offset
from eventlog.local.storage.journal import (
    STATES_NAME,
    Journal,
    Record,
    framed,
    journal_header,
    parse,
    read_records,
    records_from,
    replaying,
    stamp_of,
)

REWRITE_BYTES: Final = 1 * MIB
"""The journal is rewritten when it is this large, and four times what it has to say."""


def offset_of(record: Record) -> Offset:
    """What a record says; `ValueError` or `TypeError` if it is none."""
    name, position, last_seen_ns, state = record
    try:
        check_state(state, check_name(name))
        return Offset(name, check_seq_no(position), check_seq_no(last_seen_ns), state)
    except EventLogError as error:
        raise ValueError(str(error)) from error


def read_offsets(directory: str, files: Files = FILES) -> list[Offset]:
    """Every record of the journal, in their order; none if there is no file."""
    with replaying(directory, STATES_NAME):
        return [*map(offset_of, read_records(directory, STATES_NAME, files))]


def states_bytes(offsets: Iterable[Offset]) -> bytes:
    """A whole journal of these."""
    return journal_header() + b"".join(framed(offset) for offset in offsets)


class StoredStates:
    """What the journal says, for readers: once read, what it grows by; a new file as a whole."""

    def __init__(self, directory: str, files: Files) -> None:
        self._directory = directory
        self._files = files
        self._stamp: tuple[int, ...] = ()
        self._descriptor = -1
        """Held open, so that no later file can be taken for this one."""
        self._end = 0
        """Offset after the last record that was read."""
        self._last: dict[str, Offset] = {}

    def find(self, name: str) -> Offset | None:
        """The last record of a consumer."""
        stamp = stamp_of(self._directory, STATES_NAME)
        if stamp != self._stamp:
            with os_errors(self._directory, f"reading its file {STATES_NAME}"):
                self._read_on()
            self._stamp = stamp
        return self._last.get(name)

    def _read_on(self) -> None:
        if not self._has_grown():
            self.close()
            self._end, self._last = 0, {}
            with suppress(FileNotFoundError):
                path = os.path.join(self._directory, STATES_NAME)
                self._descriptor = self._files.open_read(path)
        if self._descriptor < 0:
            return
        size = self._files.size(self._descriptor)
        data = self._files.read(self._descriptor, size - self._end, self._end)
        if self._end:
            records, end = records_from(data, 0)
        else:
            records, end = parse(data, self._directory, STATES_NAME)
        with replaying(self._directory, STATES_NAME):
            self._last |= {offset.name: offset for offset in map(offset_of, records)}
        self._end += end

    def _has_grown(self) -> bool:
        """Whether the file is still the one that was read, with all that was read of it."""
        if self._descriptor < 0:
            return False
        identity = self._files.identity(self._descriptor)
        return self._files.is_there(os.path.join(self._directory, STATES_NAME), identity, self._end)

    def close(self) -> None:
        """Give the descriptor back; may be called twice."""
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
            self._descriptor = -1


class KeptStates:
    """The writer's end; the file is made with the first state.

    A loss of power takes events after the synced mark. So of each consumer there is also a record
    from before it, to which it can go back.
    """

    def __init__(self, directory: str, files: Files, synced: Callable[[], int]) -> None:
        self._directory = directory
        self._files = files
        self._synced = synced
        self._journal: Journal | None = None
        self._last: dict[str, Offset] = {}
        self._safe: dict[str, Offset] = {}
        """The last record of each consumer but one, or an earlier one whose event was synced."""
        self._rewrite_at = REWRITE_BYTES
        if os.path.exists(os.path.join(directory, STATES_NAME)):
            self._load()

    def _load(self) -> None:
        journal = self._journal = Journal(self._directory, STATES_NAME, self._files)
        records, journal.records = journal.records, []
        try:
            with replaying(self._directory, STATES_NAME):
                for offset in map(offset_of, records):
                    self._note(offset)
        except BaseException:
            journal.close()
            raise
        self._rewrite_at = max(REWRITE_BYTES, 2 * journal.bytes)

    def find(self, name: str) -> Offset | None:
        """The last record of a consumer."""
        return self._last.get(name)

    def append(self, offset: Offset) -> None:
        """Add a record.

        Raises:
            LogFull, StorageFailed: there is none more than before.
        """
        if self._journal is None:
            self._journal = Journal(self._directory, STATES_NAME, self._files)
        try:
            self._journal.append(offset)
        except EventLogError:
            self._rewrite_at = 0  # it may have left some bytes, and readers go by the size
            raise
        self._note(offset)
        if self._journal.bytes > self._rewrite_at:
            self._rewrite()

    def _note(self, offset: Offset) -> None:
        known = self._last.get(offset.name)
        if known is not None and known.position <= self._synced():
            self._safe[offset.name] = known
        self._last[offset.name] = offset

    def has_others(self, names: Set[str]) -> bool:
        """Whether there are records of other consumers."""
        return not self._last.keys() <= names

    def keep_only(self, names: Set[str]) -> None:
        """Drop the records of all others, and what a crash left behind the last record.

        Readers tell a journal that has grown by its size, so it ends with its last record.
        """
        if self._journal is None:
            return
        gone = self._last.keys() - names
        for name in gone:
            del self._last[name]
            self._safe.pop(name, None)
        if gone or self._journal.is_torn:
            self._rewrite()

    def _rewrite(self) -> None:
        assert self._journal is not None
        with suppress(EventLogError):  # it stays as long as it is, and says the same
            self._journal.replace([*self._safe.values(), *self._last.values()])
        self._rewrite_at = max(REWRITE_BYTES, 4 * self._journal.bytes)

    def sync(self) -> None:
        """Return when all records are on the disk."""
        if self._journal is not None:
            self._journal.sync()

    def close(self) -> None:
        """Give the descriptor back; may be called twice."""
        if self._journal is not None:
            self._journal.close()
