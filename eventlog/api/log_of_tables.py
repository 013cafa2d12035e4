"""What a log says of its keys, beside one event of one key: the part of `EventLog` with tables."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

from eventlog.api.status import LogStatus
from eventlog.event.record_batch import decoder_for

if TYPE_CHECKING:
    from eventlog.api.blocking_log import EventLog as BlockingEventLog
    from eventlog.api.blocking_table import Table as BlockingTable
    from eventlog.api.log import EventLog
    from eventlog.api.table import Table


class LogOfTables(ABC):
    """Its part of an `EventLog`."""

    @abstractmethod
    async def status(self) -> LogStatus:
        """See `EventLog.status`."""

    def table(
        self,
        type: Any = None,  # noqa: A002 - what it is
        *,
        snapshot: str | os.PathLike[str] | None = None,
    ) -> AbstractAsyncContextManager[Table]:
        """A mapping of each key to its latest event, for `async with`; it follows the log.

        It is what `latest` says of each key, as of the last `caught_up` or `changed`: entering the
        block takes in all that is stored, and looking up never waits. A key is gone when it was
        deleted, and when retention has deleted its latest event. `type`: what events are decoded
        to when they are looked up, as in `subscribe`.

        A snapshot makes the next start read only what is new. A directory has one, the file `table`
        in it, for tables of all types; on a server, give the path of a file as `snapshot`. One that
        is damaged, of another log, or ahead of the log is not used, and the log is read instead.

        Raises:
            InvalidArgumentType: nothing can be decoded to the type, or `snapshot` is no path.
            (when entered, and from its calls) CorruptLog, LogDeleted: as a stream of the log.
        """
        from eventlog.api.table import open_table
        from eventlog.api.table_file import check_place

        return open_table(
            cast("EventLog", self),
            decoder_for(type),
            check_place(snapshot) or self._snapshot_place(),
        )

    def _snapshot_place(self) -> str | None:
        """Where the snapshot of a table lies unless it is told; `None`: nowhere."""
        return None

    async def _bounds(self) -> tuple[int, int]:
        """The first event that is stored, one past the last if there is none, and the last one."""
        status = await self.status()
        last = status.last_seq_no or 0
        return status.first_seq_no or last + 1, last


class BlockingLogOfTables(ABC):
    """The same, for threads."""

    @abstractmethod
    def status(self) -> LogStatus:
        """See `EventLog.status`."""

    def table(
        self,
        type: Any = None,  # noqa: A002 - what it is
        *,
        snapshot: str | os.PathLike[str] | None = None,
    ) -> AbstractContextManager[BlockingTable]:
        """A mapping of each key to its latest event, for `with`; see `eventlog.EventLog.table`."""
        from eventlog.api.blocking_table import open_table
        from eventlog.api.table_file import check_place

        return open_table(
            cast("BlockingEventLog", self),
            decoder_for(type),
            check_place(snapshot) or self._snapshot_place(),
        )

    def _snapshot_place(self) -> str | None:
        """Where the snapshot of a table lies unless it is told; `None`: nowhere."""
        return None

    def _bounds(self) -> tuple[int, int]:
        """The first event that is stored, one past the last if there is none, and the last one."""
        status = self.status()
        last = status.last_seq_no or 0
        return status.first_seq_no or last + 1, last
