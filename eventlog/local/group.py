"""A group of a local log, for trio and asyncio; `blocking_group` is its twin."""

from __future__ import annotations

from functools import partial

import anyio
import anyio.to_thread

from eventlog.api.arguments import check_owner
from eventlog.api.group import DeadLetter, Exhausted, ExitReport, Group, Member, OnRefused
from eventlog.local.client.asynchronous import AsyncRequests
from eventlog.local.client.group import GroupCalls, GroupFields
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.member import LocalMember
from eventlog.local.member import AsyncLocalMember


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
