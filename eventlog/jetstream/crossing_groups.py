"""Groups through the door between event loops: see `crossing`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from eventlog.api.group import Exhausted, ExitReport, MemberReport
from eventlog.jetstream.group import JetStreamGroup
from eventlog.remote.driver import Delivery, Outcome

Call = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Awaitable[Any]]
"""Makes a call where the driver is, and waits for its end."""


class CrossingGroup:
    """See `remote.driver.GroupDriver`."""

    def __init__(self, call: Call, group: JetStreamGroup) -> None:
        self._call = call
        self._group = group

    async def join(self, member_id: int, owner: int, pid: int) -> None:
        """See `GroupDriver`."""
        await self._call(lambda: self._group.join(member_id, owner, pid))

    async def take(self, member_id: int, count: int, least: int) -> list[Delivery]:
        """See `GroupDriver`."""
        found: list[Delivery] = await self._call(lambda: self._group.take(member_id, count, least))
        return found

    async def settle(self, member_id: int, outcomes: Sequence[Outcome]) -> set[int]:
        """See `GroupDriver`."""
        stale: set[int] = await self._call(lambda: self._group.settle(member_id, outcomes))
        return stale

    async def keep(self, member_ids: Sequence[int]) -> set[int]:
        """See `GroupDriver`."""
        gone: set[int] = await self._call(lambda: self._group.keep(member_ids))
        return gone

    async def end(self, member_id: int, *, has_failed: bool) -> None:
        """See `GroupDriver`."""
        await self._call(lambda: self._group.end(member_id, has_failed=has_failed))

    async def exhausted(self, owner: int) -> list[Exhausted]:
        """See `GroupDriver`."""
        found: list[Exhausted] = await self._call(lambda: self._group.exhausted(owner))
        return found

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        """See `GroupDriver`."""
        await self._call(lambda: self._group.reject(exhausted, report))

    async def drained(self, seq_no: int) -> None:
        """See `GroupDriver`."""
        await self._call(lambda: self._group.drained(seq_no))

    async def members(self) -> list[MemberReport]:
        """See `GroupDriver`."""
        found: list[MemberReport] = await self._call(self._group.members)
        return found
