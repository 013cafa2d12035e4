"""A group of a local log, without an event loop; the twin of `group`."""

from __future__ import annotations

import threading
from typing import Any

from eventlog.api import forks
from eventlog.api.group import BlockingGroup as Group
from eventlog.api.group import DeadLetter, Exhausted, ExitReport, MemberReport, OnRefused
from eventlog.api.refusals import closed
from eventlog.local.client.group import (
    check_owner,
    exhausted_of,
    number_to_drain,
)
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.known_members import KnownMembers
from eventlog.local.client.member import LocalMember
from eventlog.local.client.member_events import letter_of_death
from eventlog.local.client.threads import BlockingPipe
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Dismiss,
    Excuse,
    OpenGroup,
)


class BlockingLocalGroup(Group):
    """See `eventlog.blocking.Group`. Each kind of waiting has a pipe of its own."""

    def __init__(self, handle: LocalHandle, fields: tuple[str, str, int, int]) -> None:
        self._handle = handle
        self._fields = fields
        self._known = KnownMembers(handle.path, fields[0])
        self._pipes: dict[str, BlockingPipe] = {}
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._fields[0]

    def _request(self, purpose: str, kind: Any, *fields: Any) -> Any:
        pipe = self._pipe_for(purpose)
        with pipe.lock:
            return pipe.run(pipe.channel.request(kind, *fields))

    def _pipe_for(self, purpose: str) -> BlockingPipe:
        with self._lock:
            self._handle.check_open()
            if self._is_closed:
                raise closed("group", self._handle.path)
            if purpose not in self._pipes:
                pipe = BlockingPipe(self._handle.path, self._handle.new_channel())
                self._pipes[purpose] = pipe
                self._handle.pipes.add(pipe)
            return self._pipes[purpose]

    def open(self) -> None:
        """Make the group, or check that it works as this handle says."""
        self._request("asking", OpenGroup, *self._fields)

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
        self._request("draining", AwaitDrained, self.name, last)

    def wait_exhausted(self, owner: int) -> list[Exhausted]:
        return exhausted_of(self._request("rejecting", AwaitCondemned, self.name, owner))

    def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        letter = letter_of_death(self._handle, self.name, exhausted.seq_no, report)
        self._request("asking", Bury, self.name, 0, exhausted.seq_no, letter)

    def dismiss(self, member_id: int) -> None:
        self._request("asking", Dismiss, self.name, member_id)

    def excuse(self, owner: int) -> None:
        self._request("leaving", Excuse, owner)

    def dead_letters(self) -> list[DeadLetter]:
        return read_dead_letters(self._handle.path, self.name)

    def close(self) -> None:
        self._known.close()
        if self._handle.generation != forks.generation:
            return
        with self._lock:
            self._is_closed = True
        for pipe in self._pipes.values():
            self._handle.pipes.discard(pipe)
            pipe.close()
