"""A member of a group of a local log, for trio and asyncio; `client.member` does the work.

Its waits are a thread's: a member leases a few times a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from eventlog.api import forks
from eventlog.api.group import Lease, Member
from eventlog.api.loops import LoopOwner
from eventlog.local.client.member import LocalMember


class AsyncLocalMember(Member):
    """See `Member`."""

    def __init__(self, member: LocalMember, path: str) -> None:
        self._member = member
        self._path = path
        self._generation, self._loop = forks.generation, LoopOwner()
        self._limiter = anyio.CapacityLimiter(1)

    def _check_here(self) -> None:
        forks.check(self._generation, self._path)
        self._loop.check(self._path)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._limiter)

    @property
    def member_id(self) -> int:
        return self._member.member_id

    async def lease(self, count: int = 1, least: int = 1) -> Lease | None:
        self._check_here()
        call = threading.Event()
        ask = partial(self._member.lease, count, least, call)
        try:
            return await anyio.to_thread.run_sync(
                ask, abandon_on_cancel=True, limiter=self._limiter
            )
        except anyio.get_cancelled_exc_class():
            # The thread is to end; what it was given goes back with the next lease, or the end.
            self._member.call_off(call)
            raise

    def stop(self) -> None:
        self._member.stop()

    async def flush(self) -> None:
        self._check_here()
        await self._call(self._member.flush)

    async def aclose(self) -> None:
        self._member.stop()
        with anyio.CancelScope(shield=True):
            await self._call(self._member.close)
