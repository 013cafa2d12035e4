"""A group on a server, on trio and asyncio.

Its block runs two tasks: one sends what members have said, one tells the server that members live.
That is said for the members of this handle, and, where a pool looks after them, for those of the
pool whose processes live: no timer takes work from a worker that is only slow. Once the server has
not answered for as long as it waits itself, it has given them up, and so does this side.
"""

from __future__ import annotations

import os
import secrets
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, cast

import anyio

from eventlog.api.arguments import GroupOptions, check_numbers, check_owner
from eventlog.api.engines import open_log
from eventlog.api.group import (
    DeadLetter,
    Exhausted,
    ExitReport,
    Group,
    GroupReport,
    Member,
    MemberReport,
    OnRefused,
)
from eventlog.api.log_of_groups import LogOfGroups
from eventlog.api.loops import call_in_this_loop
from eventlog.api.positions import check_name, check_seq_no
from eventlog.api.refusals import no_groups
from eventlog.config import GroupOrdering
from eventlog.errors import EventLogError
from eventlog.remote.driver import DriverOfGroups, GroupDriver
from eventlog.remote.handle import RemoteHandle
from eventlog.remote.member import RemoteMember

KEEPS_PER_LEASE: Final = 3
"""How often members are said to live; the counts of other processes are as old at most."""
FORMER_KEPT: Final = 64


class GroupsOfRemote(LogOfGroups):
    """What a log on a server has of groups."""

    @abstractmethod
    async def ready(self) -> RemoteHandle:
        """The open handle."""

    async def _driver(self) -> tuple[RemoteHandle, DriverOfGroups]:
        handle = await self.ready()
        if not hasattr(handle.driver, "group"):
            raise no_groups(self.path)
        return handle, cast("DriverOfGroups", handle.driver)

    @asynccontextmanager
    async def _group(self, options: GroupOptions) -> AsyncIterator[Group]:
        name, ordering, max_deliveries, position = options
        handle, driver = await self._driver()
        behind = max((await handle.start_of(position, name))[0] - 1, 0)
        last = (await handle.state()).last
        found = await handle.calls.repeated(
            lambda: driver.group(name, ordering, max_deliveries, min(behind, last))
        )
        group = RemoteGroup(handle, driver, found, name, ordering, max_deliveries)
        await group.refresh()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(group.run_settler)
                tasks.start_soon(group.run_keeper)
                try:
                    yield group
                finally:
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            # The block's own exception, as it would be without our tasks: they raise none.
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from errors.exceptions[0].__cause__
            raise

    async def groups(self) -> list[GroupReport]:
        handle, driver = await self._driver()
        return await handle.calls.repeated(driver.groups)

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        check_name(group)
        handle, driver = await self._driver()
        return await handle.calls.repeated(lambda: driver.dead_letters(group))

    async def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        numbers = sorted(check_numbers(check_name(group), seq_nos))
        handle, driver = await self._driver()
        return await handle.calls.repeated(lambda: driver.retry_dead(group, numbers))

    async def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        numbers = sorted(check_numbers(check_name(group), seq_nos))
        handle, driver = await self._driver()
        return await handle.calls.repeated(lambda: driver.drop_dead(group, numbers))


class RemoteGroup(Group):
    """See `Group`."""

    def __init__(
        self,
        handle: RemoteHandle,
        log_driver: DriverOfGroups,
        driver: GroupDriver,
        name: str,
        ordering: GroupOrdering,
        max_deliveries: int,
    ) -> None:
        self.path = handle.path
        self.log_id = handle.opened.log_id
        self.limits = handle.limits
        self.store = handle.store
        self.calls = handle.calls
        self.driver = driver
        self.ordering = ordering
        self.max_deliveries = max_deliveries
        self._handle = handle
        self._log_driver = log_driver
        self._name = name
        self._position = 0
        self._members: dict[int, RemoteMember] = {}
        """Those of this handle."""
        self._others: dict[int, MemberReport] = {}
        """The others, as they were at the last look, also those that have ended lately."""
        self._living: set[int] = set()
        self._owners: set[int] = set()
        """Pools that are looked after through this handle."""
        self._excused: set[int] = set()
        self._heard_s = anyio.current_time()
        """When the last question was asked that the server has answered."""
        self._lost: dict[int, int] = {}
        """Members of other processes that the server has given up, and their owners."""
        self._has_lost = anyio.Event()
        self._said = anyio.Event()
        self._is_told = False
        """The settler was woken, and has not looked yet."""
        self._wake_settler = call_in_this_loop(self._end_pause)

    @property
    def name(self) -> str:
        return self._name

    def check_place(self) -> None:
        """See `RemoteHandle.check_place`."""
        self._handle.check_place()

    # --- members -----------------------------------------------------------------------------

    async def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> Member:
        check_owner(owner)
        self._handle.check_place()
        async with AsyncExitStack() as stack:
            log = None
            if output is not None and output != self.path:
                asked = self._handle.asked_of(output)
                log = await stack.enter_async_context(open_log(output, asked))
            member_id = secrets.randbits(63) | 1
            member = RemoteMember(self, member_id, owner, on_refused, log, output)
            await self.join(member)
            member.stack = stack.pop_all()
            self._members[member_id] = member
        return member

    async def join(self, member: RemoteMember) -> None:
        """Make it a member at the server."""
        await self.calls.repeated(
            lambda: self.driver.join(member.member_id, member.owner, os.getpid())
        )

    async def join_again(self, member: RemoteMember) -> None:
        """The same for one that was given up; what it had is others', also if it still has it."""
        await self._end(member.member_id, member.owner)
        await self.join(member)

    async def leave(self, member: RemoteMember) -> None:
        """It has left; what it has begun without a word has failed, unless its pool is excused."""
        if self._members.pop(member.member_id, None) is not None:
            self._note_former(member.report(os.getpid()))
            await self._end(member.member_id, member.owner)

    async def dismiss(self, member_id: int) -> None:
        member = self._members.pop(member_id, None)
        if member is None:
            await self._look()  # what it has done counts on
            known = self._others.get(member_id)
            await self._end(member_id, 0 if known is None else known.owner)
            self._living.discard(member_id)
            return
        self._note_former(member.report(os.getpid()))
        member.end_lease()
        await member.settle()
        await self._end(member_id, member.owner)
        member.lose_lease()

    async def _end(self, member_id: int, owner: int) -> None:
        has_failed = owner not in self._excused
        await self.calls.repeated(lambda: self.driver.end(member_id, has_failed=has_failed))

    async def excuse(self, owner: int) -> None:
        self._excused.add(owner)
        await self.refresh()

    def members(self) -> list[MemberReport]:
        own = [member.report(os.getpid()) for member in self._members.values()]
        return own + [one for one in self._others.values() if one.member_id in self._living]

    def member(self, member_id: int) -> MemberReport | None:
        own = self._members.get(member_id)
        return self._others.get(member_id) if own is None else own.report(os.getpid())

    def _note_former(self, report: MemberReport) -> None:
        self._others[report.member_id] = report
        self._living.discard(report.member_id)

    def lag(self) -> int:
        return max(self.store.last - self._position, 0)

    async def refresh(self) -> None:
        found = await self.calls.repeated(self._log_driver.positions)
        self._position = found[self._name].position if self._name in found else 0
        await self._handle.state()
        await self._look()

    async def _look(self) -> list[MemberReport]:
        """Ask who is in it, and what they have done."""
        reports = await self.calls.repeated(self.driver.members)
        others = {one.member_id: one for one in reports if one.member_id not in self._members}
        self._living = {number for number, one in others.items() if one.pid}
        self._others.update(others)
        former = [number for number in self._others if number not in self._living]
        for number in former[:-FORMER_KEPT]:
            del self._others[number]
        return reports

    # --- its tasks ---------------------------------------------------------------------------

    def note_said(self) -> None:
        """A member has said something, in whichever thread."""
        if not self._is_told:
            self._is_told = True
            self._wake_settler()

    def _end_pause(self) -> None:
        self._said.set()

    async def run_settler(self) -> None:
        """Send what members have said; what cannot be sent is told at their next call."""
        while True:
            await self._said.wait()
            self._said = anyio.Event()
            self._is_told = False
            for member in list(self._members.values()):
                if member.has_said:
                    with suppress(EventLogError):
                        await member.settle()

    async def run_keeper(self) -> None:
        """Say that members live, until the group's block ends."""
        lease_s = self._handle.lease_s
        while True:
            await anyio.sleep(lease_s / KEEPS_PER_LEASE)
            asked_s = anyio.current_time()
            with anyio.move_on_after(self._heard_s + lease_s - asked_s), suppress(EventLogError):
                await self._keep()
                self._heard_s = asked_s
            if anyio.current_time() >= self._heard_s + lease_s:
                self._lose([*self._members, *self._looked_after()])
                self._heard_s = anyio.current_time()

    async def _keep(self) -> None:
        before = self._looked_after()
        await self._look()
        looked_after = self._looked_after()
        mine = [*self._members, *looked_after]
        lost = await self.calls.repeated(lambda: self.driver.keep(mine)) if mine else set()
        self._lose([*lost, *(set(before) - set(looked_after))])

    def _looked_after(self) -> list[int]:
        """Members of other processes, which live, that this handle speaks for."""
        reports = [self._others[member_id] for member_id in self._living]
        return [one.member_id for one in reports if one.owner in self._owners and _lives(one.pid)]

    def _lose(self, member_ids: Iterable[int]) -> None:
        """What these have is somebody else's by now."""
        for member_id in member_ids:
            if member_id in self._members:
                self._members[member_id].lose_lease()
            elif member_id in self._others and _lives(self._others[member_id].pid):
                self._lost[member_id] = self._others[member_id].owner
                self._living.discard(member_id)
                self._has_lost.set()

    async def wait_lost(self, owner: int) -> set[int]:
        self._owners.add(owner)
        while True:
            found = {member_id for member_id, one in self._lost.items() if one == owner}
            if found:
                self._lost = {n: one for n, one in self._lost.items() if n not in found}
                return found
            self._has_lost = anyio.Event()
            await self._has_lost.wait()

    # --- the end of events -------------------------------------------------------------------

    async def wait_drained(self, seq_no: int | None = None) -> None:
        if seq_no is None:
            last = (await self._handle.state()).last
        else:
            last = check_seq_no(seq_no, consumer=self._name)
        await self.calls.repeated(lambda: self.driver.drained(last))
        await self.refresh()

    async def wait_exhausted(self, owner: int) -> list[Exhausted]:
        self._owners.add(owner)
        return await self.calls.repeated(lambda: self.driver.exhausted(owner))

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        await self.calls.repeated(lambda: self.driver.reject(exhausted, report))

    async def dead_letters(self) -> list[DeadLetter]:
        return await self.calls.repeated(lambda: self._log_driver.dead_letters(self._name))


def _lives(pid: int) -> bool:
    """Whether the process is there; it is one of this machine, as its pool is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
