"""Groups of a log in memory, for threads; the twin of `group`."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from eventlog.api.arguments import GroupOptions, check_numbers, check_owner
from eventlog.api.blocking_log import EventLog
from eventlog.api.engines import open_blocking_log
from eventlog.api.group import (
    BlockingGroup,
    BlockingMember,
    DeadLetter,
    Exhausted,
    ExitReport,
    Lease,
    MemberReport,
    OnRefused,
)
from eventlog.api.positions import check_name, check_seq_no
from eventlog.errors import EventLogError
from eventlog.memory.handle import MemoryHandle
from eventlog.memory.member import UNASKED, MemberCore


class GroupsForThreads(MemoryHandle):
    """What a log for threads has of groups."""

    def _group(self, options: GroupOptions) -> BlockingGroup:
        name, ordering, max_deliveries, position = options
        behind = max(self.log.resolve(position, name) - 1, 0)
        self.log.groups.open(name, ordering, max_deliveries, min(behind, self.log.last))
        return BlockingInMemoryGroup(self, name)

    def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return self.log.groups.retry_dead(check_name(group), check_numbers(group, seq_nos))

    def retry_corrected(self, group: str, seq_no: int, event: Any) -> int:
        seq_no = check_seq_no(seq_no, consumer=check_name(group))
        return self.log.groups.retry_corrected(group, seq_no, self.only_event(event))

    def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return self.log.groups.drop_dead(check_name(group), check_numbers(group, seq_nos))

    def wait_change_of(self, group: str, seen: int) -> None:
        """Wait until the log changes, or a failed event of the group may be tried again."""
        changed = threading.Event()
        self.log.call_when_changed(changed.set, seen)
        changed.wait(self.log.groups.wait_s(group))


class BlockingInMemoryGroup(BlockingGroup):
    """See `eventlog.blocking.Group`."""

    def __init__(self, log: GroupsForThreads, name: str) -> None:
        self._log = log
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> BlockingMember:
        check_owner(owner)
        is_own = output == self._log.path
        log = None if output is None or is_own else open_blocking_log(output, UNASKED)
        try:
            core = MemberCore(
                self._log.log.groups, self._name, owner, on_refused, is_own_output=is_own
            )
        except BaseException:
            if log is not None:
                log.close()
            raise
        return BlockingInMemoryMember(self._log, core, log)

    def members(self) -> list[MemberReport]:
        return self._log.log.groups.get(self._name).member_reports()

    def member(self, member_id: int) -> MemberReport | None:
        return self._log.log.groups.get(self._name).member_report(member_id)

    def lag(self) -> int:
        return self._log.log.groups.lag(self._name)

    def wait_drained(self, seq_no: int | None = None) -> None:
        groups = self._log.log.groups
        last = self._log.log.last if seq_no is None else check_seq_no(seq_no, consumer=self._name)
        while True:
            seen = self._log.log.version
            if groups.is_drained(self._name, last):
                return
            self._log.wait_change_of(self._name, seen)

    def wait_exhausted(self, owner: int) -> list[Exhausted]:
        while True:
            seen = self._log.log.version
            if found := self._log.log.groups.exhausted(self._name, owner):
                return found
            self._log.wait_change_of(self._name, seen)

    def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        self._log.log.groups.reject(self._name, exhausted, report)

    def dismiss(self, member_id: int) -> None:
        self._log.log.groups.end(self._name, member_id)

    def excuse(self, owner: int) -> None:
        self._log.log.groups.excuse(self._name, owner)

    def dead_letters(self) -> list[DeadLetter]:
        return self._log.log.groups.dead_letters(self._name)

    def close(self) -> None:
        """Nothing is to be given back."""


class BlockingInMemoryMember(BlockingMember):
    """See `BlockingMember`; `output` takes the results, unless they go to the group's own log."""

    def __init__(self, log: GroupsForThreads, core: MemberCore, output: EventLog | None) -> None:
        self._log = log
        self._core = core
        self._output = output
        core.has_output = core.is_own_output or output is not None
        log.members.append(core)

    def __repr__(self) -> str:
        """Which member, of which group."""
        return repr(self._core)

    @property
    def member_id(self) -> int:
        return self._core.member_id

    def lease(self, count: int = 1, least: int = 1) -> Lease | None:
        self.flush()
        while True:
            seen = self._log.log.version
            if self._core.is_stopped:
                return None
            lease = self._core.take(count, least)
            if lease is not None:
                return lease
            self._log.wait_change_of(self._core.name, seen)

    def stop(self) -> None:
        self._core.is_stopped = True
        self._core.groups.wake()

    def flush(self) -> None:
        for pending in self._core.take_pending():
            assert self._output is not None
            try:
                self._output.append_many(pending.results)
            except EventLogError as error:
                self._core.refused(pending, error)
            else:
                pending.lease.done(pending.envelope)

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._core.leave()
            self._log.forget_member(self._core)
            if self._output is not None:
                self._output.close()
