"""Leases: who asks for events, who gets which, and who is asked to share."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from eventlog.errors import EventLogError, EventsTruncated, ProtocolError
from eventlog.groups.ranges import Range
from eventlog.groups.state import GroupState
from eventlog.storage.log import WritableLog
from eventlog.storage.members import LEASE_EVENTS_MAX
from eventlog.wire.group_messages import Lease, Leased, Ranges, Revoke
from eventlog.wire.messages import failed
from eventlog.writer.group_store import GroupStore

if TYPE_CHECKING:
    from eventlog.writer.actor import Peer


class Seat(NamedTuple):
    """The member that a pipe belongs to."""

    state: GroupState
    member_id: int


class Asking(NamedTuple):
    """A member that waits for a lease."""

    peer: Peer
    seat: Seat
    request_id: int
    count: int  # type: ignore[assignment]
    least: int


class GroupLeases:
    """The leases of all groups. `seats` says which pipe is whose, and is kept by the desk."""

    def __init__(self, log: WritableLog, store: GroupStore, seats: dict[Peer, Seat]) -> None:
        self._log = log
        self._store = store
        self._seats = seats
        self._asking: dict[str, deque[Asking]] = {}
        self._revoked: set[int] = set()
        self._next_lease = log.control.epoch << 32

    def ask(self, peer: Peer, seat: Seat, message: Lease) -> None:
        """Lease to a member, now or when there are events.

        Raises:
            ProtocolError: it waits for a lease already.
        """
        asking = self._asking.setdefault(seat.state.name, deque())
        if any(one.peer is peer for one in asking):
            raise ProtocolError("a member that asks twice")
        count = min(max(message.count, 1), LEASE_EVENTS_MAX)
        asking.append(Asking(peer, seat, message.request_id, count, message.least))
        self.serve(seat.state)

    def serve(self, state: GroupState) -> None:
        """Lease to those who ask, in the order in which they did."""
        asking = self._asking.get(state.name)
        while asking:
            try:
                if not self._lease_to(asking[0]):
                    self._revoke_for(asking[0])
                    return
            except EventLogError as error:
                asking[0].peer.say(failed(asking[0].request_id, error))
            asking.popleft()

    def _lease_to(self, asking: Asking) -> bool:
        state, member_id = asking.seat
        high_water = self._log.last_seq_no
        first = self._log.control.first_available
        if first > state.position + 1 or (state.again.lowest or first) < first:
            # Retention ran past the group: what is not there any more needs no handling.
            self._store.commit(state, "skip", self._log.control.first_available - 1)
        count = min(asking.count, max(state.fair_share(high_water), asking.least))
        try:
            ranges = state.take(member_id, count, high_water)
        except EventsTruncated:
            return False
        if not ranges:
            return False
        self._next_lease += 1
        try:
            self._store.commit(state, "lease", self._next_lease, member_id, ranges)
        except EventLogError:
            state.untake(ranges)
            raise
        failures = failures_of(state, ranges)
        asking.peer.say(Leased(asking.request_id, self._next_lease, tuple(ranges), failures))
        return True

    def _revoke_for(self, asking: Asking) -> None:
        """Somebody is idle: ask the owner of the largest lease to share it."""
        lease = asking.seat.state.largest_lease(asking.seat.member_id)
        if lease is None or lease.lease_id in self._revoked:
            return
        seat = Seat(asking.seat.state, lease.member_id)
        owner = next((peer for peer, known in self._seats.items() if known == seat), None)
        if owner is not None:
            self._revoked.add(lease.lease_id)
            owner.say(Revoke(0, lease.lease_id))

    def serve_all(self) -> None:
        """There are new events: lease them to whoever waits."""
        for name, asking in self._asking.items():
            if asking and name in self._store.groups:
                self.serve(self._store.groups[name])

    def stop_asking(self, peer: Peer, state: GroupState) -> None:
        """The peer is gone."""
        asking = self._asking.get(state.name, deque())
        self._asking[state.name] = deque(one for one in asking if one.peer is not peer)

    def is_shared(self, lease_id: int) -> None:
        """The owner has answered the revocation; it may be asked again."""
        self._revoked.discard(lease_id)


def failures_of(state: GroupState, ranges: list[Range]) -> Ranges:
    """How often each of these events has failed, for those that have."""
    if not state.deliveries:
        return ()
    return tuple(
        (seq_no, state.deliveries[seq_no])
        for first, last in ranges
        for seq_no in range(first, last + 1)
        if seq_no in state.deliveries
    )
