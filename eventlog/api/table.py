"""`log.table(...)` for trio and asyncio: a mapping that follows a log, begun with a snapshot.

::

    snapshot --> rows <-- events with a key, from the snapshot's end on
                   `----> snapshot, whenever enough has come

Nothing runs in the background: `caught_up` takes in what is stored, `changed` waits for more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import anyio
import anyio.to_thread

from eventlog.api import forks, table_file
from eventlog.api.log import EventLog
from eventlog.api.loops import LoopOwner
from eventlog.api.positions import SeekPosition
from eventlog.api.table_rows import LatestByKey, Snapshot, options_of_reading
from eventlog.errors import EventsTruncated
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode


class Table(LatestByKey):
    """The latest event of each key of a log, as of the last `caught_up` or `changed`."""

    def __init__(self, log: EventLog, decode: Decode, place: str | None) -> None:
        super().__init__(log.path, decode)
        self._generation, self._loop = forks.generation, LoopOwner()
        self._log = log
        self._place = place
        self._log_id = UUID(int=0)
        self._turn = anyio.Lock()
        self._waiting = anyio.Lock()
        self._streams = AsyncExitStack()
        self._batches: AsyncIterator[list[EventEnvelope]] | None = None
        self._untold: dict[str, None] = {}
        """Keys that `changed` is to tell of."""

    async def caught_up(self) -> None:
        """Take in all events that are stored by now.

        Raises:
            CorruptLog, LogDeleted, LogClosed: as a stream of the log.
        """
        self._check_here()
        async with self._turn:
            first, last = await self._log._bounds()
            if last < self.seq_no:  # a server has lost events: they may have been in the table
                self._begin_anew()
            if last > self.seq_no:
                position = SeekPosition.sequence(self.seq_no + 1)
                options = options_of_reading(follow=False)
                async with self._log._subscribe(None, position, options) as stream:
                    async for events in stream.batches():
                        self._apply(events)
                self._pass_to(last)
            self._drop_before(first)
            await self._save()

    async def changed(self) -> list[str]:
        """Wait for new events of keys, and take them in: the keys, which may be gone by now.

        Each event since the first call is told of once, also if `caught_up` took it in.

        Raises:
            CorruptLog, LogDeleted, LogClosed: as a stream of the log.
        """
        self._check_here()
        async with self._waiting:
            if self._batches is None:
                position = SeekPosition.sequence(self.seq_no + 1)
                following = self._log._subscribe(None, position, options_of_reading(follow=True))
                stream = await self._streams.enter_async_context(following)
                self._batches = stream.batches()
            if not self._untold:  # else a call was cancelled after it had taken them in
                self._untold.update(dict.fromkeys(self._apply(await anext(self._batches))))
            await self.caught_up()
            keys, self._untold = [*self._untold], {}
            return keys

    def _check_here(self) -> None:
        forks.check(self._generation, self._log.path)
        self._loop.check(self._log.path)

    async def _start(self) -> None:
        if self._place is not None:
            self._log_id = (await self._log.status()).log_id
            snapshot = await anyio.to_thread.run_sync(table_file.load, self._place, self._log_id)
            if snapshot is not None and await self._is_of_now(snapshot):
                self._take(snapshot)
        await self.caught_up()

    async def _is_of_now(self, snapshot: Snapshot) -> bool:
        """Whether the log has the snapshot's last event still, or has deleted all that it has."""
        first, last = await self._log._bounds()
        if snapshot.seq_no < first or snapshot.seq_no > last:
            return snapshot.seq_no <= last
        try:
            (event,) = await self._log.read(snapshot.seq_no, snapshot.seq_no + 1)
        except EventsTruncated:
            return True
        return event.id_bytes == snapshot.event_id

    async def _save(self) -> None:
        if self._place is not None and self._is_snapshot_due:
            snapshot = self._snapshot(self._log_id)
            await anyio.to_thread.run_sync(table_file.save, self._place, snapshot)


@asynccontextmanager
async def open_table(log: EventLog, decode: Decode, place: str | None) -> AsyncIterator[Table]:
    """The table, with all that is stored in it."""
    table = Table(log, decode, place)
    async with table._streams:
        await table._start()
        yield table
