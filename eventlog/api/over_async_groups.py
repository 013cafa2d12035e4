"""Groups of a blocking log over an engine that has only the asynchronous one; see `over_async`.

A lease is the engine's own, used in the caller's thread: none of its methods waits, and a hop to
the event loop and back would take longer than most handlers.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from eventlog.api.group import (
    BlockingGroup,
    BlockingMember,
    DeadLetter,
    Exhausted,
    ExitReport,
    Group,
    Lease,
    Member,
    MemberReport,
    OnRefused,
)
from eventlog.api.portal import Portal


class GroupOverAsync(BlockingGroup):
    """See `BlockingGroup`."""

    def __init__(self, portal: Portal, manager: AbstractAsyncContextManager[Group]) -> None:
        self._portal = portal
        self._block = portal.entered(manager)
        """One task enters and leaves it: a group may run tasks of its own meanwhile."""
        self._group: Group = self._block.__enter__()
        self._is_closed = False

    @property
    def name(self) -> str:
        return self._group.name

    def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> BlockingMember:
        member = self._portal.call(self._group.open_member, owner, output, on_refused)
        return _Member(self._portal, member)

    def members(self) -> list[MemberReport]:
        reports: list[MemberReport] = self._portal.call(self._group.members)
        return reports

    def member(self, member_id: int) -> MemberReport | None:
        report: MemberReport | None = self._portal.call(self._group.member, member_id)
        return report

    def lag(self) -> int:
        lag: int = self._portal.call(self._group.lag)
        return lag

    def refresh(self) -> None:
        self._portal.call(self._group.refresh)

    def wait_drained(self, seq_no: int | None = None) -> None:
        self._portal.call(self._group.wait_drained, seq_no)

    def wait_exhausted(self, owner: int) -> list[Exhausted]:
        found: list[Exhausted] = self._portal.call(self._group.wait_exhausted, owner)
        return found

    def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        self._portal.call(self._group.reject, exhausted, report)

    def dismiss(self, member_id: int) -> None:
        self._portal.call(self._group.dismiss, member_id)

    def excuse(self, owner: int) -> None:
        self._portal.call(self._group.excuse, owner)

    def dead_letters(self) -> list[DeadLetter]:
        letters: list[DeadLetter] = self._portal.call(self._group.dead_letters)
        return letters

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._block.__exit__(None, None, None)


class _Member(BlockingMember):
    """See `BlockingMember`."""

    def __init__(self, portal: Portal, member: Member) -> None:
        self._portal = portal
        self._member = member

    @property
    def member_id(self) -> int:
        return self._member.member_id

    def lease(self, count: int = 1, least: int = 1) -> Lease | None:
        lease: Lease | None = self._portal.call(self._member.lease, count, least)
        return lease

    def stop(self) -> None:
        self._member.stop()

    def flush(self) -> None:
        self._portal.call(self._member.flush)

    def close(self) -> None:
        if self._portal.is_open:
            self._portal.call(self._member.aclose)
