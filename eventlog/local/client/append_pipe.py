"""The appends of one handle, by any number of tasks, through one pipe."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from eventlog.local.client.asynchronous import AsyncPipe
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.outbox import Outbox


class AppendPipe:
    """A pipe and its outbox; one task at a time sends and receives, for all that wait.

    The others wait for the end of its round, and are woken together: a lock that goes from hand to
    hand would take a turn of the event loop for each of them. Who is not answered by then leads the
    next round, or waits for it.
    """

    def __init__(self, pipe: AsyncPipe, outbox: Outbox) -> None:
        self.outbox = outbox
        self._pipe = pipe
        self._is_led = False
        """Whether a task sends and receives now."""
        self._ended: anyio.Event | None = None
        """Set at the end of its round; there is one as soon as somebody waits for that."""
        self._had_company = False
        """Whether others waited for the end of the last round."""

    async def deliver(self, batch: OutBatch) -> None:
        """Return when the batch is answered.

        Raises:
            EventLogError: the log cannot be reached; everything on its way got that error.
        """
        while not batch.is_done:
            if not self._is_led:
                await self._lead()
                continue
            if self._ended is None:
                self._ended = anyio.Event()
            await self._ended.wait()

    async def _lead(self) -> None:
        self._is_led = True
        try:
            if self._had_company:
                # They were woken with this task and are about to append again: let them, or this
                # round would be for one event, and they would wait for two. In its next turn trio
                # may run this task before them, in the one after that it can't.
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
            self.outbox.seal()
            await self._pipe.run(self.outbox.deliver(0))
        finally:
            # Also after a cancellation: one of those that wait goes on with what was left.
            self._is_led = False
            ended, self._ended = self._ended, None
            self._had_company = ended is not None
            if ended is not None:
                ended.set()
