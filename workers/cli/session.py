"""What `workers run` does: a pool, or with --reload one after the other, until told to stop.

    signals ----- the first: let handlers end; the second: kill the workers
    files ------- a change ends the pool in order, and the next one begins
    view -------- shows the pool's statistics
    pool -------- until stopped, drained, or failed

Rule: whoever ends a pool says why first (`is_stopping`, `is_drained`, `failure`), so that what
comes after it is decided in one place, `_run_pools`.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator
from typing import Any, Final, TypeVar

import trio

import eventlog
from workers.cli.changes import LOOK_S, Snapshot, changed, snapshot
from workers.cli.show import Rate
from workers.cli.views import View
from workers.errors import PoolFailed
from workers.pool import Pool

logger = logging.getLogger("workers")
E = TypeVar("E", bound=BaseException)
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Session:
    """One `workers run`: `options` are those of `Pool`, `folder` is looked at for changes."""

    def __init__(
        self,
        path: str,
        options: dict[str, Any],
        view: View,
        *,
        until_drained: bool,
        folder: str | None,
        lease_s: float | None = None,
    ) -> None:
        self._path = path
        self._lease_s = lease_s
        self._options = options
        self._view = view
        self._until_drained = until_drained
        self._folder = folder
        self._pool: Pool | None = None
        self._entered = False
        self._life = trio.CancelScope()
        self._woken = trio.Event()
        self._rate = Rate()
        self.is_stopping = False
        self.is_drained = False
        self.ended_by: signal.Signals | None = None
        """The signal that asked it to stop."""
        self.failure: PoolFailed | None = None
        """What the last pool ended of, if it did."""
        self.broken_pipe: BrokenPipeError | None = None
        """Whoever read what is shown has left."""

    def __repr__(self) -> str:
        """The pool, and whether it is to end."""
        return f"<Session {self._pool!r}{' stopping' if self.is_stopping else ''}>"

    async def run(self) -> None:
        """Return when all is over; see `failure`."""
        seen = snapshot(self._folder) if self._folder is not None else {}
        early = _note_signals()
        with trio.open_signal_receiver(*SIGNALS) as signals:
            for number in early:
                self._take_signal(number)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals, signals)
                nursery.start_soon(self._show_pool)
                if self._folder is not None:
                    nursery.start_soon(self._watch_files, self._folder, seen)
                await self._run_pools()
                nursery.cancel_scope.cancel()

    async def _run_pools(self) -> None:
        while not self.is_stopping:
            self._woken = trio.Event()
            self.failure = await self._run_pool()
            if self.is_drained or self._folder is None:
                return
            if self.failure is not None and not self.is_stopping:
                logger.error("%s\n%s", self.failure, self.failure.worker_traceback or "")
                logger.info("waiting for a change below %s", self._folder)
                await self._woken.wait()

    async def _run_pool(self) -> PoolFailed | None:
        """One pool from its start to its end; what it ended of, unless it was told to."""
        failure: PoolFailed | None = None
        try:
            with trio.CancelScope() as self._life:
                async with eventlog.open(self._path, lease_s=self._lease_s) as log:
                    self._pool = Pool(log, **self._options)
                    async with self._pool:
                        await self._accompany(self._pool)
        except* PoolFailed as group:
            failure = first_of(group)
        if self._pool is not None and self._entered:
            self._show_end(self._pool, failure)
        self._pool, self._entered = None, False
        return failure

    async def _accompany(self, pool: Pool) -> None:
        """Until somebody asks the pool to stop."""
        self._entered = True
        self._rate = Rate()
        self._rate.note(trio.current_time(), 0)
        logger.info("ready: %r", pool)
        async with trio.open_nursery() as waiting:
            if self._until_drained:
                waiting.start_soon(self._await_drained, pool)
            await pool.wait_stop_asked()
            waiting.cancel_scope.cancel()

    async def _await_drained(self, pool: Pool) -> None:
        await pool.drained()
        self.is_drained = True
        pool.request_stop()

    # --- who ends a pool ---------------------------------------------------------------------

    def _end_pool(self) -> None:
        """Let handlers end, if it has begun; else stop beginning."""
        self._woken.set()
        if self._pool is not None and self._entered:
            self._pool.request_stop()
        else:
            self._life.cancel()

    async def _watch_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            self._take_signal(number)

    def _take_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self.is_stopping:
            self.ended_by = signal.Signals(number)
            logger.info("%s: stopping when running handlers have ended; again to kill", name)
            self.is_stopping = True
            self._end_pool()
            return
        logger.warning("%s again: killing the workers", name)
        if self._pool is not None:
            self._pool.kill()

    async def _watch_files(self, folder: str, seen: Snapshot) -> None:
        while True:
            await trio.sleep(LOOK_S)
            now = await trio.to_thread.run_sync(snapshot, folder)
            if names := changed(seen, now):
                seen = now
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                logger.info("%s%s changed: starting the pool anew", names[0], more)
                self._end_pool()

    # --- what is shown -----------------------------------------------------------------------

    async def _show_pool(self) -> None:
        while True:
            if self._pool is not None and self._entered:
                self._show(self._pool)
            await trio.sleep(self._view.refresh_s)

    def _show(self, pool: Pool) -> None:
        stats = pool.stats()
        try:
            self._view.show(stats, self._rate.note(trio.current_time(), stats.handled))
        except BrokenPipeError as error:
            self._leave_quietly(error)

    def _show_end(self, pool: Pool, failure: PoolFailed | None) -> None:
        stats = pool.stats()
        rate = self._rate.note(trio.current_time(), stats.handled)
        error = None if failure is None else str(failure)
        try:
            self._view.end(stats, rate, error)
        except BrokenPipeError as broken:
            self._leave_quietly(broken)

    def _leave_quietly(self, error: BrokenPipeError) -> None:
        self.broken_pipe = error
        self.is_stopping = True
        self._end_pool()


def _note_signals() -> list[int]:
    """Signals from now on only add to the list, until a receiver takes them; and again after it.

    So an impatient second one, after the pool has ended and before the process has, does not turn
    the exit code into another.
    """
    noted: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda number, _: noted.append(number))
    return noted


def ignore_signals() -> None:
    """For what is left of this process.

    Python gives up handlers of ours before its end, so that a signal at the very last would still
    change the exit code; this action it keeps.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def first_of(group: BaseExceptionGroup[E]) -> E:
    """One of the exceptions; the others are of the same cause."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error  # type: ignore[return-value]  # a leaf
