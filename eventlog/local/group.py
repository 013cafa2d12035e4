"""A group of a local log, for trio and asyncio; `local_group_blocking` is its twin."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from eventlog.api import forks
from eventlog.api.group import (
    DeadLetter,
    Exhausted,
    ExitReport,
    Group,
    Member,
    MemberReport,
    OnRefused,
)
from eventlog.local.client.asynchronous import AsyncPipe
from eventlog.local.client.group import (
    check_owner,
    exhausted_of,
    number_to_drain,
)
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.known_members import KnownMembers
from eventlog.local.client.member import LocalMember
from eventlog.local.client.member_events import letter_of_death
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.member import AsyncLocalMember
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Dismiss,
    Excuse,
    OpenGroup,
)


class LocalGroup(Group):
    """See `Group`. Each kind of waiting has a pipe of its own."""

    def __init__(self, handle: LocalHandle, fields: tuple[str, str, int, int]) -> None:
        self._handle = handle
        self._fields = fields
        self._pipes: dict[str, AsyncPipe] = {}
        self._known = KnownMembers(handle.path, fields[0])

    @property
    def name(self) -> str:
        return self._fields[0]

    async def _request(self, purpose: str, kind: Any, *fields: Any) -> Any:
        self._handle.check_open()
        pipe = self._pipes.get(purpose)
        if pipe is None:
            pipe = self._pipes[purpose] = AsyncPipe(self._handle.path, self._handle.new_channel())
            self._handle.pipes.add(pipe)
        async with pipe.lock:
            return await pipe.run(pipe.channel.request(kind, *fields))

    async def open(self) -> None:
        """Make the group, or check that it works as this handle says."""
        await self._request("asking", OpenGroup, *self._fields)

    async def wait_drained(self, seq_no: int | None = None) -> None:
        last = number_to_drain(self._handle, self.name, seq_no)
        await self._request("draining", AwaitDrained, self.name, last)

    async def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> Member:
        self._handle.check_open()
        join = partial(
            LocalMember, self._handle, self._fields[:3], check_owner(owner), output, on_refused
        )
        with anyio.CancelScope(shield=True):
            member = await anyio.to_thread.run_sync(join)
        return AsyncLocalMember(member)

    def members(self) -> list[MemberReport]:
        return self._known.reports()

    def member(self, member_id: int) -> MemberReport | None:
        return self._known.report(member_id)

    def lag(self) -> int:
        return self._handle.reader.lag_of(self.name)

    async def wait_exhausted(self, owner: int) -> list[Exhausted]:
        return exhausted_of(await self._request("rejecting", AwaitCondemned, self.name, owner))

    async def wait_lost(self, owner: int) -> set[int]:
        await anyio.sleep_forever()
        raise AssertionError

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        pack = partial(letter_of_death, self._handle, self.name, exhausted.seq_no, report)
        letter = await anyio.to_thread.run_sync(pack)
        await self._request("asking", Bury, self.name, 0, exhausted.seq_no, letter)

    async def dismiss(self, member_id: int) -> None:
        await self._request("asking", Dismiss, self.name, member_id)

    async def excuse(self, owner: int) -> None:
        await self._request("leaving", Excuse, owner)

    async def dead_letters(self) -> list[DeadLetter]:
        return await anyio.to_thread.run_sync(read_dead_letters, self._handle.path, self.name)

    def close(self) -> None:
        """Give the pipes back."""
        self._known.close()
        if self._handle.generation != forks.generation:
            return
        for pipe in self._pipes.values():
            self._handle.pipes.discard(pipe)
            pipe.close()
        self._pipes.clear()
