"""`Pool` for scripts, notebooks and threads: the same names, without `async`.

::

    import eventlog
    from workers.blocking import Pool

    with eventlog.blocking.open("images") as log, Pool(log, group="resize", handler=resize) as pool:
        pool.drained()

The pool's own event loop runs in a thread; handlers run in worker processes, as ever.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Self, Unpack, cast

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

import eventlog
import eventlog.blocking
from eventlog import DeadLetter, EventLogError, InvalidArgumentType, system
from workers import pool
from workers.arguments import check_thread
from workers.errors import PoolError, PoolFailed
from workers.options import PoolOptions, signature
from workers.signals import PoolSignals
from workers.stats import PoolStats


class Pool:
    """See `workers.Pool`, whose arguments it takes; `log` comes from `eventlog.blocking.open`."""

    def __init__(self, log: eventlog.blocking.EventLog, **options: Unpack[PoolOptions]) -> None:
        if not isinstance(log, eventlog.blocking.EventLog):
            raise InvalidArgumentType(
                f"log={log!r}; give what eventlog.blocking.open gives; for trio and asyncio there"
                " is workers.Pool"
            )
        stand_in: Any = _PathOf(log.path)
        if options.get("output") is log:
            options["output"] = stand_in
        self._log = log
        self._path = log.path
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._life: Future[None] | None = None
        self._entered: Future[None] = Future()
        self._has_left = False
        self._left: anyio.Event | None = None
        """Made in the pool's event loop: the caller's thread may run another one, as notebooks."""
        self._scope: anyio.CancelScope | None = None
        self._is_inside = False
        """Entered, and not left yet."""
        self._pool = pool.Pool(stand_in, **options)
        self._signals = PoolSignals(self._pool_call("request_stop"), self._pool_call("kill"))

    def __repr__(self) -> str:
        """What it does."""
        return repr(self._pool)

    def __enter__(self) -> Self:
        """Start the workers; returns when all of them are ready."""
        self._pool.check_process()
        if self._portal is not None:
            raise PoolError("a pool is used once; make another one", path=self._path)
        check_thread(self._path)
        try:
            with system.interrupts_held():
                self._portal = self._stack.enter_context(self._new_portal())
            self._life = self._portal.start_task_soon(self._live)
            self._life.add_done_callback(self._note_end)
            self._entered.result()
            self._is_inside = True
        except BaseException:
            with suppress(EventLogError):  # it is being raised already
                self.__exit__(*sys.exc_info())
            raise
        return self

    @contextmanager
    def _new_portal(self) -> Iterator[BlockingPortal]:
        with ExitStack() as stack:
            try:
                system.hold_standard_descriptors()
                portal = stack.enter_context(start_blocking_portal("trio"))
            except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
                raise PoolFailed(
                    f"the pool of {self._path} cannot start its event loop: {error}",
                    path=self._path,
                ) from error
            yield portal

    async def _live(self) -> None:
        """From entering to leaving, in the pool's event loop."""
        with anyio.CancelScope() as self._scope:
            if self._has_left:
                return
            self._left = anyio.Event()
            async with self._log.for_event_loop() as log:
                self._pool.use_log(log)
                async with self._pool:
                    self._entered.set_result(None)
                    await self._left.wait()

    def _note_end(self, life: Future[None]) -> None:
        if not self._entered.done():
            self._entered.set_exception(life.exception() or PoolError("the pool was left"))

    def _leave(self) -> None:
        self._has_left = True
        if self._left is not None:
            self._left.set()
        if self._scope is not None and not self._entered.done():
            self._scope.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Let handlers that run end, give the rest back, and wait for all processes.

        Ctrl-C kills the workers then, and is a `KeyboardInterrupt` when they are gone.
        """
        if not self._pool.check_may_leave(error):
            return None
        self._is_inside = False
        is_asked_for = self._signals.has_taken
        try:
            self._signals.begin_to_leave()
        finally:  # also if one more Ctrl-C was faster: nothing is left behind
            try:
                self._wait_for_the_end()
            finally:
                self._signals.give_back()
        if self._signals.is_interrupted and kind is None and not is_asked_for:
            raise KeyboardInterrupt
        return None

    def _wait_for_the_end(self) -> None:
        with self._stack:
            if self._portal is not None and self._life is not None:
                self._portal.call(self._leave)
                self._life.result()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have the pool's event loop call it; an exception here, as of Ctrl-C, cancels that."""
        self._pool.check_process()
        if self._portal is None:
            raise PoolError("the pool has not begun; enter it first", path=self._path)
        try:
            future = self._portal.start_task_soon(function, *arguments)
        except RuntimeError:  # the portal is closed
            raise self._end() from None
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _end(self) -> Exception:
        """The error for who uses the pool after its end: what ended it."""
        life = self._life
        if life is not None and life.done() and not life.cancelled():
            error = life.exception()
            if isinstance(error, EventLogError):
                return copy.copy(error)
        return PoolError("the pool has ended", path=self._path)

    def _pool_call(self, name: str) -> Callable[[], None]:
        def call() -> None:
            with suppress(EventLogError):  # it has ended meanwhile
                self._call(getattr(self._pool, name))

        return call

    def drained(self) -> None:
        """See `workers.Pool.drained`."""
        self._call(self._pool.drained)

    def run_forever(self) -> None:
        """See `workers.Pool.run_forever`; signals reach it in the main thread only."""
        self._signals.take()
        try:
            self._call(self._pool.wait_stop_asked)
        finally:
            if not self._is_inside:  # nobody else gives them back
                self._signals.give_back()

    def request_stop(self) -> None:
        """See `workers.Pool.request_stop`; callable from any thread."""
        self._call(self._pool.request_stop)

    def statistics(self) -> PoolStats:
        """As `stats`."""
        return self.stats()

    def stats(self) -> PoolStats:
        """See `workers.Pool.stats`."""
        try:
            return cast("PoolStats", self._call(self._pool.stats))
        except EventLogError:  # it has ended, or not begun, as the pool itself says
            return self._pool.stats()

    def kill(self) -> None:
        """See `workers.Pool.kill`."""
        self._call(self._pool.kill)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """See `workers.Pool.dead_letters`."""
        return iter(self._call(self._collect))

    async def _collect(self) -> list[DeadLetter]:
        return [letter async for letter in self._pool.dead_letters()]


class _PathOf:
    """Stands for a log until the pool's event loop has opened it."""

    def __init__(self, path: str) -> None:
        self.path = path


Pool.__signature__ = signature()  # type: ignore[attr-defined]  # for `help`
