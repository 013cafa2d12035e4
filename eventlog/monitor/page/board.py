"""The logs of a page, and what is seen of them while somebody looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.to_thread

import eventlog
from eventlog import blocking
from eventlog.api.log import EventLog
from eventlog.errors import EventLogError
from eventlog.monitor.history import History
from eventlog.monitor.sample import Sampler, opened_to_look
from eventlog.monitor.views import LogView, known_fields


class Shown:
    """One log of the page, in both colours, until the page ends."""

    def __init__(self, looks: blocking.EventLog, log: EventLog) -> None:
        self.looks = looks
        """For looks in threads; it starts no writer."""
        self.log = log
        """For reading, and for actions."""
        self.sampler = Sampler(looks)
        self._history = History()

    def look(self) -> LogView:
        """What the log is now.

        Raises:
            EventLogError: it does not say.
        """
        return self._history.add(self.sampler.take())


class Board:
    """Looks at the logs once an interval, as long as somebody waits for what is seen."""

    def __init__(self, logs: list[Shown], interval_s: float) -> None:
        self.logs = logs
        self._interval_s = interval_s
        self._looked = anyio.Event()
        self._wanted = anyio.Event()
        self._views: list[dict[str, object]] = []

    async def next_views(self) -> list[dict[str, object]]:
        """What is seen next, of each log; an error in the place of one that does not say."""
        self._wanted.set()
        await self._looked.wait()
        return self._views

    async def run(self) -> None:
        """Look, until it is cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            self._views = [await anyio.to_thread.run_sync(_seen, one) for one in self.logs]
            self._looked.set()
            self._looked = anyio.Event()
            await anyio.sleep(self._interval_s)


def _seen(shown: Shown) -> dict[str, object]:
    try:
        fields: dict[str, object] = known_fields(shown.look())
    except EventLogError as error:
        return {"path": shown.looks.path, "error": str(error)}
    return fields


@asynccontextmanager
async def board_of(addresses: list[str], interval_s: float) -> AsyncIterator[Board]:
    """A board of these logs, which runs in the block.

    Raises:
        EventLogError: one of them cannot be opened.
    """
    async with AsyncExitStack() as stack:
        shown = []
        for address in addresses:
            looks = await anyio.to_thread.run_sync(opened_to_look, address)
            stack.callback(looks.close)
            log = await stack.enter_async_context(eventlog.open(address))
            shown.append(Shown(looks, log))
            stack.callback(shown[-1].sampler.close)
        board = Board(shown, interval_s)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(board.run)
            yield board
            tasks.cancel_scope.cancel()
