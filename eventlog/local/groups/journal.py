"""The files of a log's groups as their writer keeps them: records appended under its rules.

A writer that another one has followed stores nothing more. A sync that fails ends what is stored in
this log (see `WritableLog.fail`), and in a log that lives in memory there is nothing to sync.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing

from eventlog.errors import EventLogError, StorageFailed
from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME, Journal, Record
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.members import MemberPages


class RecordFile(Journal):
    """One of the two files of records."""

    def __init__(self, log: WritableLog, name: str) -> None:
        super().__init__(log.directory, name, log.files)
        self._log = log

    def take_records(self) -> list[Record]:
        """The records that were there when the file was opened, as they are stored; once."""
        found, self.records = self.records, []
        return found

    def append(self, *records: object) -> None:
        """Store records.

        Raises:
            LogFull, StorageFailed: none is stored.
        """
        if self._log.is_superseded:
            raise StorageFailed(
                f"another writer of the log {self._log.directory} has taken over, so this one"
                " stores nothing more",
                path=self._log.directory,
            )
        super().append(*records)

    def sync(self) -> None:
        """Have all records on the disk, before something else is there that depends on them.

        Raises:
            StorageFailed, LogFull: they are not, and nothing more is stored in the log.
        """
        if self._log.options.durability == "memory":
            return
        try:
            super().sync()
        except EventLogError as error:
            self._log.fail(error)
            raise


class GroupFiles:
    """All files of a log's groups, made together with the first group."""

    def __init__(self, log: WritableLog) -> None:
        self._log = log
        self._open: tuple[RecordFile, RecordFile, MemberPages] | None = None

    @property
    def are_there(self) -> bool:
        """Whether the log has any: letters outlive a lost journal."""
        paths = (os.path.join(self._log.directory, name) for name in (GROUPS_NAME, DEAD_NAME))
        return any(map(os.path.exists, paths))

    @property
    def groups(self) -> RecordFile:
        """What the groups did."""
        return self._opened[0]

    @property
    def letters(self) -> RecordFile:
        """The dead letters."""
        return self._opened[1]

    @property
    def pages(self) -> MemberPages:
        """The members' pages."""
        return self._opened[2]

    @property
    def _opened(self) -> tuple[RecordFile, RecordFile, MemberPages]:
        if self._open is None:
            log = self._log
            with ExitStack() as opened:
                groups = opened.enter_context(closing(RecordFile(log, GROUPS_NAME)))
                letters = opened.enter_context(closing(RecordFile(log, DEAD_NAME)))
                self._open = (
                    groups,
                    letters,
                    MemberPages(log.directory, writable=True, files=log.files),
                )
                opened.pop_all()  # they stay open, as the last one could be opened too
        return self._open

    def sync(self) -> None:
        """Return when all records are on the disk.

        Raises:
            StorageFailed, LogFull: they are not.
        """
        if self._open is not None:
            self.groups.sync()
            self.letters.sync()

    def close(self) -> None:
        """Give the descriptors back."""
        for file in self._open or ():
            file.close()
