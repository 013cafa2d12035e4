"""A group of a local log, without an event loop; the twin of `group`."""

from __future__ import annotations

from eventlog.api.arguments import check_owner
from eventlog.api.group import BlockingGroup as Group
from eventlog.api.group import DeadLetter, Exhausted, ExitReport, OnRefused
from eventlog.local.client.group import GroupCalls, GroupFields
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.member import LocalMember
from eventlog.local.client.threads import BlockingRequests


class BlockingLocalGroup(GroupCalls, Group):
    """See `eventlog.blocking.Group`."""

    def __init__(self, handle: LocalHandle, fields: GroupFields) -> None:
        super().__init__(handle, fields)
        self._requests = BlockingRequests(handle, "group")

    def open(self) -> None:
        """Make the group, or check that it works as this handle says."""
        self._requests.run(self._open())

    def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> LocalMember:
        owner = check_owner(owner)
        return LocalMember(self._handle, self._fields[:3], owner, output, on_refused)

    def wait_drained(self, seq_no: int | None = None) -> None:
        self._requests.run(self._wait_drained(seq_no))

    def wait_exhausted(self, owner: int) -> list[Exhausted]:
        return self._requests.run(self._wait_exhausted(owner))

    def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        self._requests.run(self._reject(exhausted, report))

    def dismiss(self, member_id: int) -> None:
        self._requests.run(self._dismiss(member_id))

    def excuse(self, owner: int) -> None:
        self._requests.run(self._excuse(owner))

    def dead_letters(self) -> list[DeadLetter]:
        return self._requests.run(self._dead_letters())

    def close(self) -> None:
        self._known.close()
        self._requests.close()
