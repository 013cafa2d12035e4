"""A group of a local log and its members, for trio and asyncio; `blocking_group` is its twin."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from eventlog.api import forks
from eventlog.api.arguments import check_owner
from eventlog.api.group import DeadLetter, Exhausted, ExitReport, Group, Lease, Member, OnRefused
from eventlog.api.loops import LoopOwner
from eventlog.local.client.asynchronous import AsyncRequests
from eventlog.local.client.group import GroupCalls, GroupFields
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.member import LocalMember


class LocalGroup(GroupCalls, Group):
    """See `Group`."""

    def __init__(self, handle: LocalHandle, fields: GroupFields) -> None:
        super().__init__(handle, fields)
        self._requests = AsyncRequests(handle, "group")

    async def open(self) -> None:
        """Make the group, or check that it works as this handle says."""
        await self._requests.run(self._open())

    async def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> Member:
        self._requests.check_open()
        join = partial(
            LocalMember, self._handle, self._fields[:3], check_owner(owner), output, on_refused
        )
        with anyio.CancelScope(shield=True):
            member = await anyio.to_thread.run_sync(join)
        return AsyncLocalMember(member, self._handle.path)

    async def wait_drained(self, seq_no: int | None = None) -> None:
        await self._requests.run(self._wait_drained(seq_no))

    async def wait_exhausted(self, owner: int) -> list[Exhausted]:
        return await self._requests.run(self._wait_exhausted(owner))

    async def wait_lost(self, owner: int) -> set[int]:
        await anyio.sleep_forever()
        raise AssertionError

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        await self._requests.run(self._reject(exhausted, report))

    async def dismiss(self, member_id: int) -> None:
        await self._requests.run(self._dismiss(member_id))

    async def excuse(self, owner: int) -> None:
        await self._requests.run(self._excuse(owner))

    async def dead_letters(self) -> list[DeadLetter]:
        return await self._requests.run(self._dead_letters())

    def close(self) -> None:
        """Give the pipes back."""
        self._known.close()
        self._requests.close()


class AsyncLocalMember(Member):
    """See `Member`; `client.member` does the work, and its waits are a thread's.

    A member leases a few times a second.
    """

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
