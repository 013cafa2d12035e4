"""A group of a local log, without an event loop; the twin of `local_group`."""

from __future__ import annotations

from typing import Any

from eventlog.api import forks
from eventlog.api.group import BlockingGroup as Group
from eventlog.api.group import DeadLetter, MemberReport, OnRefused
from eventlog.local.client.group import check_owner, number_to_drain
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.known_members import KnownMembers
from eventlog.local.client.member import LocalMember
from eventlog.local.client.threads import BlockingPipe
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.wire.group_messages import AwaitDrained, OpenGroup


class BlockingLocalGroup(Group):
    """See `eventlog.blocking.Group`."""

    def __init__(self, handle: LocalHandle, fields: tuple[str, str, int, int]) -> None:
        self._handle = handle
        self._fields = fields
        self._known = KnownMembers(handle.path, fields[0])
        self._pipe = BlockingPipe(handle.path, handle.new_channel())
        handle.pipes.add(self._pipe)

    @property
    def name(self) -> str:
        return self._fields[0]

    def _request(self, kind: Any, *fields: Any) -> Any:
        self._handle.check_open()
        with self._pipe.lock:
            return self._pipe.run(self._pipe.channel.request(kind, *fields))

    def open(self) -> None:
        """Make the group, or check that it works as this handle says."""
        self._request(OpenGroup, *self._fields)

    def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> LocalMember:
        owner = check_owner(owner)
        return LocalMember(self._handle, self._fields[:3], owner, output, on_refused)

    def members(self) -> list[MemberReport]:
        return self._known.reports()

    def member(self, member_id: int) -> MemberReport | None:
        return self._known.report(member_id)

    def lag(self) -> int:
        return self._handle.reader.lag_of(self.name)

    def wait_drained(self, seq_no: int | None = None) -> None:
        last = self._handle.unless_closed(number_to_drain, self._handle, self.name, seq_no)
        self._request(AwaitDrained, self.name, last)

    def dead_letters(self) -> list[DeadLetter]:
        return read_dead_letters(self._handle.path, self.name)

    def close(self) -> None:
        self._known.close()
        if self._handle.generation == forks.generation:
            self._handle.pipes.discard(self._pipe)
            self._pipe.close()
