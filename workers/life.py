"""Whether a pool runs, why it ended, and who waits for it: nobody waits for a pool that has ended.

Those who wait may be outside of the pool's block, in other tasks, where no cancellation of the
pool's own tasks reaches them.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable

import anyio

from eventlog import EventLogError, ForkedHandle
from workers import generations
from workers.errors import PoolError


class PoolLife:
    """The life of one pool; used in its event loop."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._generation = generations.generation
        self._waits: set[anyio.CancelScope] = set()
        self._end: EventLogError | None = None
        self.has_begun = False

    @property
    def is_of_parent(self) -> bool:
        """Whether this process was forked from the one that made the pool."""
        return self._generation != generations.generation

    def check_process(self) -> None:
        """Pass in the process that made the pool.

        Raises:
            ForkedHandle: this one was forked from it.
        """
        if self.is_of_parent:
            raise ForkedHandle(
                f"this pool of the log {self._path} belongs to the parent process: open the log and"
                " make a pool after the fork",
                path=self._path,
            )

    def check_begun(self) -> None:
        """Pass once the pool was entered, in its own process.

        Raises:
            ForkedHandle, PoolError: it was not.
        """
        self.check_process()
        if not self.has_begun:
            raise PoolError("the pool has not begun; enter it first", path=self._path)

    def check_runs(self) -> None:
        """Pass between the beginning of the pool and its end.

        Raises:
            ForkedHandle, PoolError: it has not begun, or was left or killed.
            EventLogError: what ended it.
        """
        self.check_begun()
        if self._end is not None:
            error = copy.copy(self._end)  # one object raised twice would mix their tracebacks
            raise error from self._end.__cause__

    def end(self, reason: EventLogError) -> None:
        """Wake everybody who waits: they get this error, or that of an earlier end."""
        if self._end is None:
            self._end = reason
        for scope in self._waits:
            scope.cancel()

    async def unless_it_ends(
        self, wait: Callable[..., Awaitable[object]], *arguments: object
    ) -> None:
        """Wait for something that only a living pool brings about.

        Raises:
            PoolError, EventLogError: as `check_runs`, now or meanwhile.
        """
        self.check_runs()
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                await wait(*arguments)
            finally:
                self._waits.discard(scope)
        if scope.cancelled_caught:
            self.check_runs()

    async def noting_failure(
        self, task: Callable[..., Awaitable[None]], *arguments: object
    ) -> None:
        """Run one of the pool's tasks; an error of a log ends the pool, for all who wait."""
        try:
            await task(*arguments)
        except EventLogError as error:
            self.end(error)
            raise
