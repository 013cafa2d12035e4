"""Calls of a driver: made again while nobody answers, and ended when the handle is closed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from eventlog.api.refusals import closed
from eventlog.errors import WriterUnavailable
from eventlog.remote.driver import Unreachable

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0
ROOM_PAUSE_S: Final = 0.5
"""The longest pause of an append that waits for room: no server tells of it."""


class Pauses:
    """The pauses between a call and its repetitions, until `retry_s` is over."""

    def __init__(self, calls: Calls, retry_s: float) -> None:
        self._calls = calls
        self._retry_s = retry_s
        self._since: float | None = None
        self._next_s = FIRST_PAUSE_S

    def reset(self) -> None:
        """The server has answered."""
        self._since = None
        self._next_s = FIRST_PAUSE_S

    async def pause(self, error: Unreachable) -> None:
        """Wait before the next try.

        Raises:
            WriterUnavailable: there has been no answer for `retry_s`.
            LogClosed: the handle was closed meanwhile.
        """
        now = anyio.current_time()
        self._since = now if self._since is None else self._since
        left = self._since + self._retry_s - now
        if left <= 0:
            raise unavailable(self._calls.path, self._retry_s, error) from error
        await self._calls.pause(min(self._next_s * random.uniform(0.75, 1.0), left))  # noqa: S311
        self._next_s = min(2 * self._next_s, LONGEST_PAUSE_S)


class Calls:
    """All calls of one open handle."""

    def __init__(self, path: str, retry_s: float) -> None:
        self.path = path
        self.retry_s = retry_s
        self.is_closed = False
        self._scopes: set[anyio.CancelScope] = set()

    def close(self) -> None:
        """End all calls, now and from now on, with `LogClosed`."""
        self.is_closed = True
        for scope in self._scopes:
            scope.cancel()

    async def until_closed(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call.

        Raises:
            LogClosed: the handle was closed before its answer.
            Unreachable, EventLogError: as the driver says.
        """
        with anyio.CancelScope() as scope:
            if self.is_closed:
                raise closed("handle", self.path)
            self._scopes.add(scope)
            try:
                return await call()
            except Unreachable:
                if self.is_closed:
                    raise closed("handle", self.path) from None
                raise
            finally:
                self._scopes.discard(scope)
        raise closed("handle", self.path)

    async def pause(self, seconds: float) -> None:
        """Let some time pass."""
        await self.until_closed(lambda: anyio.sleep(seconds))

    def pauses(self) -> Pauses:
        """For calls that are made again."""
        return Pauses(self, self.retry_s)

    async def repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call again and again until it is answered.

        Raises:
            WriterUnavailable: it was not, for `retry_s`.
            LogClosed: the handle was closed before.
            EventLogError: as the driver says.
        """
        pauses = self.pauses()
        while True:
            try:
                return await self.until_closed(call)
            except Unreachable as error:
                await pauses.pause(error)


def unavailable(path: str, seconds: float, error: Unreachable) -> WriterUnavailable:
    """The error for a server that does not answer."""
    return WriterUnavailable(
        f"the server of the log {path} did not answer for {seconds:g} s: {error}; see whether it"
        " runs, and whether the address is right",
        path=path,
    )
