"""The thread with the event loop of a blocking log over an asynchronous one; see `over_async`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from types import CoroutineType
from typing import Any, Literal, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from eventlog.api import forks
from eventlog.api.refusals import closed

T = TypeVar("T")
P = ParamSpec("P")


class Portal:
    """The thread with the event loop, and calls into it."""

    def __init__(self, path: str, loop: Literal["asyncio", "trio"]) -> None:
        self.path = path
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._loop = loop
        self._closing = threading.Lock()
        self.generation = forks.generation

    @property
    def is_open(self) -> bool:
        """Between `open` and `close`."""
        return self._portal is not None

    def open(self) -> None:
        """Start the thread."""
        self._portal = self._stack.enter_context(start_blocking_portal(self._loop))

    def call(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        """What the function, or coroutine function, gives in the event loop.

        Raises:
            LogClosed, ForkedHandle: the log is of no use here.
        """
        forks.check(self.generation, self.path)
        portal = self._portal
        if portal is None:
            raise closed("handle", self.path)
        try:
            future: Future[Any] = portal.start_task_soon(_bound(function, args, kwargs))
        except RuntimeError:  # closed by another thread since
            raise closed("handle", self.path) from None
        try:
            return future.result()
        except BaseException:
            future.cancel()  # by Ctrl-C: the call is not to go on without us
            raise

    @contextmanager
    def entered(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """An asynchronous context manager as a blocking one."""
        forks.check(self.generation, self.path)
        portal = self._portal
        if portal is None:
            raise closed("handle", self.path)
        with portal.wrap_async_context_manager(manager) as value:
            yield value

    def close(self) -> None:
        """End the thread; may be called twice."""
        with self._closing:
            portal, self._portal = self._portal, None
        if portal is not None and self.generation == forks.generation:
            self._stack.close()


def _bound(function: Callable[..., Any], args: Any, kwargs: Any) -> Callable[[], Any]:
    async def run() -> Any:
        result = function(*args, **kwargs)
        # Handles and ranges can be awaited as well, and are what was asked for.
        return await result if isinstance(result, CoroutineType) else result

    return run
