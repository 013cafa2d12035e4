"""The event loop to which an asynchronous handle belongs: what it waits with works in no other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from eventlog.errors import WrongEventLoop


class LoopOwner:
    """The event loop of trio or asyncio that runs when this is made."""

    def __init__(self) -> None:
        import sniffio

        self._library = sniffio.current_async_library()
        self._current: Callable[[], object]
        """What gives the loop that runs where it is called, or is a `RuntimeError`."""
        if self._library == "trio":
            import trio

            self._current = trio.lowlevel.current_trio_token
        else:
            import asyncio

            self._current = asyncio.get_running_loop
        self._loop: Any = self._current()

    def is_here(self) -> bool:
        """Whether the caller runs in that loop."""
        try:
            return self._current() is self._loop
        except RuntimeError:
            return False

    def is_over(self) -> bool:
        """Whether that loop has ended, so that nothing waits in it any more."""
        if self._library == "asyncio":
            return bool(self._loop.is_closed())
        import trio

        try:
            self._loop.run_sync_soon(_nothing)
        except trio.RunFinishedError:
            return True
        return False

    def check(self, path: str) -> None:
        """Pass if the caller runs in that loop.

        Raises:
            WrongEventLoop: it runs in another one.
        """
        if not self.is_here():
            raise WrongEventLoop(
                f"this handle of the log {path} belongs to another event loop of {self._library},"
                " the one in which it was opened: open the log again in this one, or use"
                " eventlog.blocking.open, whose handles any thread may use",
                path=path,
            )


def _nothing() -> None:
    pass


def call_in_this_loop(call: Callable[[], object]) -> Callable[[], object]:
    """`call`, to be called from whichever thread, but to run in the loop that runs now.

    Once that loop has ended, it does nothing: whoever waited there is gone.
    """
    import sniffio

    schedule: Callable[[Callable[[], object]], object]
    if sniffio.current_async_library() == "trio":
        import trio

        schedule = trio.lowlevel.current_trio_token().run_sync_soon
    else:
        import asyncio

        schedule = asyncio.get_running_loop().call_soon_threadsafe

    def call_there() -> None:
        with suppress(RuntimeError):
            schedule(call)

    return call_there
