"""`Pool` for scripts, notebooks and threads: the same names, without `async`.

::

    import eventlog
    from workers.blocking import Pool

    with eventlog.blocking.open("images") as log, Pool(log, group="resize", handler=resize) as pool:
        pool.drained()

The pool's own event loop runs in a thread; handlers run in worker processes, as ever.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

import eventlog
import eventlog.blocking
from eventlog import DeadLetter
from workers import pool
from workers.stats import PoolStats


class Pool:
    """See `workers.Pool`, whose arguments it takes; `log` comes from `eventlog.blocking.open`."""

    def __init__(self, log: eventlog.blocking.EventLog, **options: Any) -> None:
        if isinstance(output := options.get("output"), eventlog.blocking.EventLog):
            options["output"] = output.path
        self._path = log.path
        self._stack = ExitStack()
        self._portal: BlockingPortal
        self._pool = pool.Pool(_PathOf(log.path), **options)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        """What it does."""
        return repr(self._pool)

    def __enter__(self) -> Self:
        """Start the workers; returns when all of them are ready."""
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal("trio"))
            log = self._portal.call(eventlog.open, self._path)
            stack.enter_context(self._portal.wrap_async_context_manager(log))
            self._pool.use_log(log)
            context: AbstractContextManager[pool.Pool]
            context = self._portal.wrap_async_context_manager(self._pool)
            stack.enter_context(context)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Let handlers that run end, give the rest back, and wait for all processes."""
        return self._stack.__exit__(kind, error, traceback)

    def drained(self) -> None:
        """See `workers.Pool.drained`."""
        self._portal.call(self._pool.drained)

    def run_forever(self) -> None:
        """See `workers.Pool.run_forever`; signals reach it in the main thread only."""
        with self._signals():
            self._portal.call(self._pool.wait_stop_asked)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        asked = threading.Event()

        def ask(*_: object) -> None:
            action = self._pool.kill if asked.is_set() else self._pool.request_stop
            asked.set()
            # Not here: a signal handler may have interrupted whoever holds the portal's lock.
            threading.Thread(target=self._portal.call, args=(action,), daemon=True).start()

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        self._stack.callback(lambda: [signal.signal(*entry) for entry in before.items()])
        yield

    def stats(self) -> PoolStats:
        """See `workers.Pool.stats`."""
        return self._pool.stats()

    def kill(self) -> None:
        """See `workers.Pool.kill`."""
        self._portal.call(self._pool.kill)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """See `workers.Pool.dead_letters`."""
        return iter(self._portal.call(self._collect))

    async def _collect(self) -> list[DeadLetter]:
        return [letter async for letter in self._pool.dead_letters()]


class _PathOf:
    """Stands for a log until the pool's event loop has opened it."""

    def __init__(self, path: str) -> None:
        self.path = path
