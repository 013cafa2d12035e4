"""Groups of a log in memory, for trio and asyncio; `blocking_group` is the twin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from eventlog.api.arguments import GroupOptions, check_numbers, check_owner
from eventlog.api.engines import open_log
from eventlog.api.group import (
    DeadLetter,
    Exhausted,
    ExitReport,
    Group,
    Lease,
    Member,
    MemberReport,
    OnRefused,
)
from eventlog.api.log import EventLog
from eventlog.api.loops import call_in_this_loop
from eventlog.api.positions import check_name, check_seq_no
from eventlog.errors import EventLogError
from eventlog.memory.handle import MemoryHandle
from eventlog.memory.member import UNASKED, MemberCore


class GroupsForLoops(MemoryHandle):
    """What a log for trio and asyncio has of groups."""

    @asynccontextmanager
    async def _group(self, options: GroupOptions) -> AsyncIterator[Group]:
        name, ordering, max_deliveries, position = options
        behind = max(self.log.resolve(position, name) - 1, 0)
        self.log.groups.open(name, ordering, max_deliveries, min(behind, self.log.last))
        yield InMemoryGroup(self, name)

    async def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return self.log.groups.retry_dead(check_name(group), check_numbers(group, seq_nos))

    async def retry_corrected(self, group: str, seq_no: int, event: Any) -> int:
        seq_no = check_seq_no(seq_no, consumer=check_name(group))
        return self.log.groups.retry_corrected(group, seq_no, self.only_event(event))

    async def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return self.log.groups.drop_dead(check_name(group), check_numbers(group, seq_nos))

    async def wait_change_of(self, group: str, seen: int) -> None:
        """Wait until the log changes, or a failed event of the group may be tried again."""
        changed = anyio.Event()
        self.log.call_when_changed(call_in_this_loop(changed.set), seen)
        with anyio.move_on_after(self.log.groups.wait_s(group)):
            await changed.wait()


class InMemoryGroup(Group):
    """See `Group`."""

    def __init__(self, log: GroupsForLoops, name: str) -> None:
        self._log = log
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> Member:
        check_owner(owner)
        is_own = output == self._log.path
        async with AsyncExitStack() as stack:
            log = None
            if output is not None and not is_own:
                log = await stack.enter_async_context(open_log(output, UNASKED))
            core = MemberCore(
                self._log.log.groups, self._name, owner, on_refused, is_own_output=is_own
            )
            return InMemoryMember(self._log, core, log, stack.pop_all())

    def members(self) -> list[MemberReport]:
        return self._log.log.groups.get(self._name).member_reports()

    def member(self, member_id: int) -> MemberReport | None:
        return self._log.log.groups.get(self._name).member_report(member_id)

    def lag(self) -> int:
        return self._log.log.groups.lag(self._name)

    async def wait_drained(self, seq_no: int | None = None) -> None:
        groups = self._log.log.groups
        last = self._log.log.last if seq_no is None else check_seq_no(seq_no, consumer=self._name)
        await checkpoint()
        while True:
            seen = self._log.log.version
            if groups.is_drained(self._name, last):
                return
            await self._log.wait_change_of(self._name, seen)

    async def wait_exhausted(self, owner: int) -> list[Exhausted]:
        await checkpoint()
        while True:
            seen = self._log.log.version
            if found := self._log.log.groups.exhausted(self._name, owner):
                return found
            await self._log.wait_change_of(self._name, seen)

    async def wait_lost(self, owner: int) -> set[int]:
        await anyio.sleep_forever()
        raise AssertionError

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        self._log.log.groups.reject(self._name, exhausted, report)

    async def dismiss(self, member_id: int) -> None:
        self._log.log.groups.end(self._name, member_id)

    async def excuse(self, owner: int) -> None:
        self._log.log.groups.excuse(self._name, owner)

    async def dead_letters(self) -> list[DeadLetter]:
        return self._log.log.groups.dead_letters(self._name)


class InMemoryMember(Member):
    """See `Member`; `output` takes the results, unless they go to the group's own log."""

    def __init__(
        self, log: GroupsForLoops, core: MemberCore, output: EventLog | None, stack: AsyncExitStack
    ) -> None:
        self._log = log
        self._core = core
        self._output = output
        self._stack = stack
        core.has_output = core.is_own_output or output is not None
        log.members.append(core)

    def __repr__(self) -> str:
        """Which member, of which group."""
        return repr(self._core)

    @property
    def member_id(self) -> int:
        return self._core.member_id

    async def lease(self, count: int = 1, least: int = 1) -> Lease | None:
        await checkpoint()
        await self.flush()
        while True:
            seen = self._log.log.version
            if self._core.is_stopped:
                return None
            lease = self._core.take(count, least)
            if lease is not None:
                return lease
            await self._log.wait_change_of(self._core.name, seen)

    def stop(self) -> None:
        self._core.is_stopped = True
        self._core.groups.wake()

    async def flush(self) -> None:
        for pending in self._core.take_pending():
            assert self._output is not None
            try:
                await self._output.append_many(pending.results)
            except EventLogError as error:
                self._core.refused(pending, error)
            else:
                pending.lease.done(pending.envelope)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            async with self._stack:
                try:
                    await self.flush()
                finally:
                    self._core.leave()
                    self._log.forget_member(self._core)
