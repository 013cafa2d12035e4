"""A group of a local log without its pipes: what both colours share."""

from __future__ import annotations

from eventlog.api.arguments import GroupOptions
from eventlog.api.group import DeadLetter, Exhausted, ExitReport, MemberReport
from eventlog.api.positions import check_seq_no
from eventlog.local.client import calls
from eventlog.local.client.calls import Ask, Call, Work
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.known_members import KnownMembers
from eventlog.local.client.member_events import letter_of_death
from eventlog.local.storage.members import pool_of
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Dismiss,
    Excuse,
    OpenGroup,
)

GroupFields = tuple[str, str, int, int]
"""The fields of `OpenGroup`."""


def group_fields(handle: LocalHandle, options: GroupOptions) -> GroupFields:
    """What the group's handle asks for."""
    name, ordering, max_deliveries, position = options
    behind = handle.reader.resolve(position, name) - 1
    return name, ordering or "", max_deliveries, max(behind, 0)


class GroupCalls:
    """See `Group`: what is known without asking, and the calls that ask the writer."""

    def __init__(self, handle: LocalHandle, fields: GroupFields) -> None:
        self._handle = handle
        self._fields = fields
        self._known = KnownMembers(handle.path, fields[0])

    @property
    def name(self) -> str:
        """See `Group`."""
        return self._fields[0]

    def members(self) -> list[MemberReport]:
        """See `Group`."""
        return self._known.reports()

    def member(self, member_id: int) -> MemberReport | None:
        """See `Group`."""
        return self._known.report(member_id)

    def lag(self) -> int:
        """See `Group`."""
        return self._handle.reader.lag_of(self.name)

    def _open(self) -> Call[None]:
        """Make the group, or check that it works as this handle says."""
        yield Ask(OpenGroup, self._fields)

    def _wait_drained(self, seq_no: int | None) -> Call[None]:
        last = self._handle.reader.last_seq_no
        wanted = last if seq_no is None else check_seq_no(seq_no, consumer=self.name)
        yield Ask(AwaitDrained, (self.name, wanted))

    def _wait_exhausted(self, owner: int) -> Call[list[Exhausted]]:
        answer = yield Ask(AwaitCondemned, (self.name, owner))
        return [
            Exhausted(
                seq_no=seq_no, deliveries=deliveries, member_id=member_id, owner=pool_of(member_id)
            )
            for seq_no, deliveries, member_id in answer.events
        ]

    def _reject(self, exhausted: Exhausted, report: ExitReport) -> Call[None]:
        letter = yield Work(letter_of_death, (self._handle, self.name, exhausted.seq_no, report))
        yield Ask(Bury, (self.name, 0, exhausted.seq_no, letter))

    def _dismiss(self, member_id: int) -> Call[None]:
        yield Ask(Dismiss, (self.name, member_id))

    def _excuse(self, owner: int) -> Call[None]:
        yield Ask(Excuse, (owner,))

    def _dead_letters(self) -> Call[list[DeadLetter]]:
        return calls.dead_letters(self._handle, self.name)
