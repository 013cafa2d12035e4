"""Peers that wait for a group to be drained, or for the events that it has exhausted."""

from __future__ import annotations

from typing import NamedTuple

from eventlog.local.groups.state import GroupState
from eventlog.local.storage.members import pool_of
from eventlog.local.wire.connection import Peer
from eventlog.local.wire.group_messages import Condemned
from eventlog.local.wire.messages import Done

EVENTS_AT_ONCE = 1024


class _ForDrained(NamedTuple):
    """A peer that waits until everything up to a number is done."""

    peer: Peer
    state: GroupState
    seq_no: int
    request_id: int


class _ForExhausted(NamedTuple):
    """A pool that rejects events; `request_id` is 0 while it is at work and waits for nothing."""

    state: GroupState
    pool_id: int
    request_id: int


class Waiting:
    """Peers that are told when a group has come so far."""

    def __init__(self) -> None:
        self._for_drained: list[_ForDrained] = []
        self._for_exhausted: dict[Peer, _ForExhausted] = {}

    def await_drained(self, peer: Peer, state: GroupState, seq_no: int, request_id: int) -> None:
        """Answer once everything up to `seq_no` is done, or dead."""
        self._for_drained.append(_ForDrained(peer, state, seq_no, request_id))
        self._tell_drained()

    def await_exhausted(self, peer: Peer, state: GroupState, pool_id: int, request_id: int) -> None:
        """Answer once there is an event for this pool to reject."""
        self._for_exhausted[peer] = _ForExhausted(state, pool_id, request_id)
        self._tell_exhausted()

    def on_change(self, state: GroupState) -> None:
        """The group has moved."""
        self._tell_drained()
        if state.exhausted:
            self._tell_exhausted()

    def forget_peer(self, peer: Peer) -> None:
        """The pipe is closed: what was this pool's to reject is now anybody's."""
        self._for_drained = [one for one in self._for_drained if one.peer is not peer]
        if self._for_exhausted.pop(peer, None) is not None:
            self._tell_exhausted()

    def _tell_drained(self) -> None:
        still = []
        for one in self._for_drained:
            if one.state.is_drained(one.seq_no):
                one.peer.say(Done(one.request_id))
            else:
                still.append(one)
        self._for_drained = still

    def _tell_exhausted(self) -> None:
        for peer, waiting in list(self._for_exhausted.items()):
            if not waiting.request_id:
                continue
            others = {one.pool_id for one in self._for_exhausted.values()} - {waiting.pool_id}
            state = waiting.state
            events = tuple(
                (seq_no, state.deliveries.get(seq_no, 0), member_id)
                for seq_no, member_id in state.exhausted.items()
                if pool_of(member_id) not in others
            )
            if events:
                peer.say(Condemned(waiting.request_id, events[:EVENTS_AT_ONCE]))
                self._for_exhausted[peer] = waiting._replace(request_id=0)
