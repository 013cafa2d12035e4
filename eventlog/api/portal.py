"""A thread with an event loop, in which a program without one calls asynchronous code.

Calls and blocks of a program end when another thread closes the portal: a call with what its
coroutine makes of that, a block by leaving its context manager.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, suppress
from types import CoroutineType
from typing import Any, Literal, ParamSpec, TypeVar

import anyio
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal

from eventlog import system
from eventlog.api import forks
from eventlog.api.refusals import closed

T = TypeVar("T")
P = ParamSpec("P")


class _Block:
    """A block of the program that an asynchronous context manager lasts for."""

    def __init__(self) -> None:
        self.is_left = anyio.Event()
        self.error: BaseException | None = None

    def leave(self, error: BaseException | None = None) -> None:
        """Call it in the event loop; the first error counts."""
        self.error = self.error or error
        self.is_left.set()


class Portal:
    """The thread with the event loop, and calls into it."""

    def __init__(self, path: str, loop: Literal["asyncio", "trio"]) -> None:
        self.path = path
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._loop = loop
        self._closing = threading.Lock()
        self._blocks: set[_Block] | None = set()
        """Those that are entered, for the event loop alone; `None` once there can be no more."""
        self.generation = forks.generation

    @property
    def is_open(self) -> bool:
        """Between `open` and `close`."""
        return self._portal is not None

    def open(self) -> None:
        """Start the thread."""
        with system.interrupts_held():
            self._portal = self._stack.enter_context(start_blocking_portal(self._loop))

    def _opened(self) -> BlockingPortal:
        forks.check(self.generation, self.path)
        portal = self._portal
        if portal is None:
            raise closed("handle", self.path)
        return portal

    def call(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        """What the function, or coroutine function, gives in the event loop.

        Raises:
            LogClosed, ForkedHandle: the log is of no use here.
        """
        portal = self._opened()
        try:
            future: Future[Any] = portal.start_task_soon(_bound(function, args, kwargs))
        except RuntimeError:  # closed by another thread since
            raise closed("handle", self.path) from None
        return self._result(future)

    def _result(self, future: Future[T]) -> T:
        try:
            return future.result()
        except CancelledError:  # the event loop has ended below it
            raise closed("handle", self.path) from None
        except BaseException:
            future.cancel()  # by Ctrl-C: the call is not to go on without us
            raise

    @contextmanager
    def entered(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """An asynchronous context manager as a blocking one; the end of the portal leaves it."""
        portal = self._opened()
        task, (block, value) = self._started(portal, manager)
        try:
            yield value
        except BaseException as error:
            self._leave(portal, block, task, error)
            raise
        else:
            self._leave(portal, block, task, None)

    def _started(
        self, portal: BlockingPortal, manager: AbstractAsyncContextManager[T]
    ) -> tuple[Future[None], tuple[_Block, T]]:
        try:
            return portal.start_task(self._last, manager)
        except (RuntimeError, CancelledError):
            if self._portal is portal:
                raise
            raise closed("handle", self.path) from None  # by another thread since

    async def _last(
        self,
        manager: AbstractAsyncContextManager[T],
        *,
        task_status: TaskStatus[tuple[_Block, T]],
    ) -> None:
        """Enter the manager, wait until its block is left, and leave it: all in one task."""
        if self._blocks is None:
            raise closed("handle", self.path)
        block = _Block()
        self._blocks.add(block)
        try:
            task_status.started((block, await manager.__aenter__()))
            try:
                await block.is_left.wait()
            finally:
                kind = None if block.error is None else type(block.error)
                trace = None if block.error is None else block.error.__traceback__
                await manager.__aexit__(kind, block.error, trace)
        finally:
            if self._blocks is not None:
                self._blocks.discard(block)

    def _leave(
        self,
        portal: BlockingPortal,
        block: _Block,
        task: Future[None],
        error: BaseException | None,
    ) -> None:
        forks.check(self.generation, self.path)
        with suppress(RuntimeError):  # closed since, and left with that
            portal.start_task_soon(block.leave, error)
        self._result(task)

    def _leave_all(self) -> None:
        blocks, self._blocks = self._blocks, None
        for block in blocks or ():
            block.leave()

    def close(self) -> None:
        """End the thread; may be called twice."""
        with self._closing:
            portal, self._portal = self._portal, None
        if portal is not None and self.generation == forks.generation:
            with suppress(RuntimeError):  # the event loop has ended by itself
                portal.call(self._leave_all)
            self._stack.close()


def _bound(function: Callable[..., Any], args: Any, kwargs: Any) -> Callable[[], Any]:
    async def run() -> Any:
        result = function(*args, **kwargs)
        # Handles and ranges can be awaited as well, and are what was asked for.
        return await result if isinstance(result, CoroutineType) else result

    return run
