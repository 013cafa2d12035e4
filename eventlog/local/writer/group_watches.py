"""Who waits for a group to be done, and who buries the events that it cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from eventlog.local.groups.state import GroupState
from eventlog.local.storage.members import pool_of
from eventlog.local.wire.group_messages import Condemned
from eventlog.local.wire.messages import Done

if TYPE_CHECKING:
    from eventlog.local.writer.actor import Peer

EVENTS_AT_ONCE = 1024


class _Waiting(NamedTuple):
    """A peer that waits until everything up to a number is done."""

    peer: Peer
    state: GroupState
    seq_no: int
    request_id: int


class _Watch(NamedTuple):
    """A pool that buries; `request_id` is 0 while it waits for no answer, being at work."""

    state: GroupState
    pool_id: int
    request_id: int


class GroupWatches:
    """Peers that are told when a group has come so far."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._watches: dict[Peer, _Watch] = {}

    def await_drained(self, peer: Peer, state: GroupState, seq_no: int, request_id: int) -> None:
        """Answer once everything up to `seq_no` is done, or dead."""
        self._waiting.append(_Waiting(peer, state, seq_no, request_id))
        self._tell_waiting()

    def await_condemned(self, peer: Peer, state: GroupState, pool_id: int, request_id: int) -> None:
        """Answer once there is an event for this pool to bury."""
        self._watches[peer] = _Watch(state, pool_id, request_id)
        self._tell_watches()

    def on_change(self, state: GroupState) -> None:
        """The group has moved."""
        self._tell_waiting()
        if state.condemned:
            self._tell_watches()

    def forget_peer(self, peer: Peer) -> None:
        """The pipe is closed: what was this pool's to bury is now anybody's."""
        self._waiting = [one for one in self._waiting if one.peer is not peer]
        if self._watches.pop(peer, None) is not None:
            self._tell_watches()

    def _tell_waiting(self) -> None:
        still = []
        for one in self._waiting:
            if one.state.is_drained(one.seq_no):
                one.peer.say(Done(one.request_id))
            else:
                still.append(one)
        self._waiting = still

    def _tell_watches(self) -> None:
        for peer, watch in list(self._watches.items()):
            if not watch.request_id:
                continue
            others = {one.pool_id for one in self._watches.values()} - {watch.pool_id}
            state = watch.state
            events = tuple(
                (seq_no, state.deliveries.get(seq_no, 0), member_id)
                for seq_no, member_id in state.condemned.items()
                if pool_of(member_id) not in others
            )
            if events:
                peer.say(Condemned(watch.request_id, events[:EVENTS_AT_ONCE]))
                self._watches[peer] = watch._replace(request_id=0)
