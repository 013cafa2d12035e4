"""Which dead letters hold a corrected event, which is handled in the place of the one in the log.

The file `corrected` is a MessagePack array of pairs, group and number. A number stands there before
its letter has the corrected event, and until the letter is dropped; without the letter it means
nothing. Members look whether the file has changed, once for each lease; mostly there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import msgpack

from eventlog.errors import CorruptLog, EventLogError
from eventlog.local.groups.ranges import Range, RangeSet
from eventlog.local.storage.files import FILES, Files, os_errors, read_file, replace_file
from eventlog.local.storage.journal import stamp_of

FILE_NAME: Final = "corrected"
Numbers = frozenset[tuple[str, int]]


def read_corrections(directory: str, files: Files = FILES) -> Numbers:
    """The pairs; none if there is no file.

    Raises:
        CorruptLog: they are none.
        StorageFailed: they cannot be read.
    """
    data = read_file(directory, FILE_NAME, files)
    if data is None:
        return frozenset()
    try:
        return frozenset((str(name), int(number)) for name, number in msgpack.unpackb(data))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptLog(
            f"the file {FILE_NAME} of the log {directory} is damaged: {error}; without it, dead"
            " letters that were retried with a corrected event are handled as they were: move it"
            " away to go on so",
            path=directory,
        ) from error


def pack_corrections(numbers: Numbers) -> bytes:
    """The file's content."""
    packed: bytes = msgpack.packb(sorted(numbers))
    return packed


class Corrections:
    """The writer's end."""

    def __init__(self, directory: str, files: Files) -> None:
        self._directory = directory
        self._files = files
        self._known = read_corrections(directory, files)

    def add(self, group: str, seq_no: int) -> None:
        """The letter of this event holds a corrected one soon.

        Raises:
            LogFull, StorageFailed: it cannot be noted.
        """
        self._store(self._known | {(group, seq_no)})

    def drop(self, group: str, ranges: Iterable[Range]) -> None:
        """These letters are gone; if that cannot be noted, it does no harm."""
        if self._known:
            gone = RangeSet(ranges)
            kept = frozenset(one for one in self._known if one[0] != group or one[1] not in gone)
            if kept != self._known:
                with suppress(EventLogError):
                    self._store(kept)

    def _store(self, numbers: Numbers) -> None:
        replace_file(self._directory, FILE_NAME, pack_corrections(numbers), self._files)
        with os_errors(self._directory, "syncing its directory"):
            self._files.sync_directory(self._directory)
        self._known = numbers


class StoredCorrections:
    """A member's end, of one group."""

    def __init__(self, directory: str, group: str) -> None:
        self._directory = directory
        self._group = group
        self._read_at: tuple[int, ...] = ()
        self.numbers = frozenset[int]()
        """Events whose letters are to be handled in their place, at the last look."""

    def look(self) -> None:
        """See what has changed."""
        stamp = stamp_of(self._directory, FILE_NAME)
        if stamp != self._read_at:
            found = read_corrections(self._directory)
            self._read_at = stamp
            self.numbers = frozenset(number for name, number in found if name == self._group)
