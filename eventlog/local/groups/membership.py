"""Which pipe is which member: who has joined, who has come back, and whose process is gone."""

from __future__ import annotations

from typing import NamedTuple

from eventlog.errors import ProtocolError
from eventlog.local.groups import records
from eventlog.local.groups.holders import Member
from eventlog.local.groups.state import GroupState
from eventlog.local.groups.store import GroupStore
from eventlog.local.wire.connection import Peer
from eventlog.local.wire.group_messages import Join


class Membership(NamedTuple):
    """What a pipe is that has joined."""

    state: GroupState
    member_id: int


class Absent(NamedTuple):
    """A member of before the writer's start that has not come back: with pid and start time."""

    state: GroupState
    member_id: int
    pid: int
    start: int


class Memberships:
    """The pipes of all members of all groups."""

    def __init__(self, store: GroupStore) -> None:
        self._store = store
        self._of: dict[Peer, Membership] = {}

    def of(self, peer: Peer) -> Membership:
        """The member that speaks through this pipe.

        Raises:
            ProtocolError: it is no member's.
        """
        known = self._of.get(peer)
        if known is None:
            raise ProtocolError("a peer that is no member speaks as one")
        return known

    def pipe_of(self, membership: Membership) -> Peer | None:
        """The pipe of a member; `None` while it has none."""
        return next((peer for peer, known in self._of.items() if known == membership), None)

    def join(self, peer: Peer, state: GroupState, message: Join) -> tuple[Member, Peer | None]:
        """Make the pipe a member's; the member, and its older pipe, whose end we have not seen yet.

        Raises:
            ProtocolError: the pipe is a member's already, or that is no process.
        """
        if peer in self._of:
            raise ProtocolError("a pipe that joins twice")
        if not 0 < message.pid < 2**31 or not 0 < message.member_id < 2**64:
            raise ProtocolError("a member that is no process")
        if message.member_id not in state.members:
            self._add(state, message)
        membership = Membership(state, message.member_id)
        older = self.pipe_of(membership)
        if older is not None:
            del self._of[older]
        self._of[peer] = membership
        return state.members[message.member_id], older

    def _add(self, state: GroupState, message: Join) -> None:
        slot = self._store.free_slot()
        self._store.pages.make(slot)
        fields = (message.member_id, message.pid, message.start, slot)
        self._store.commit(records.Joined(state.name, *fields))

    def leave(self, peer: Peer) -> Membership | None:
        """The pipe is a member's no more; whose it was, if it was one's."""
        return self._of.pop(peer, None)

    def absent(self) -> list[Absent]:
        """Members of before a restart that have not come back."""
        present = {(known.state.name, known.member_id) for known in self._of.values()}
        return [
            Absent(state, member_id, state.members[member_id].pid, state.members[member_id].start)
            for state, member_id in self._store.members()
            if (state.name, member_id) not in present
        ]
