"""Leases: who asks for events, who gets which, and who is asked to share."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from eventlog.api.positions import SEQ_NO_MAX
from eventlog.errors import EventLogError, EventsTruncated, ProtocolError, StaleLease
from eventlog.local.groups.endings import begun_in, lost_before, settlement
from eventlog.local.groups.ranges import Range, RangeSet
from eventlog.local.groups.state import GroupState
from eventlog.local.groups.state import Lease as HeldLease
from eventlog.local.storage.log import WritableLog
from eventlog.local.storage.members import LEASE_EVENTS_MAX
from eventlog.local.wire.group_messages import Lease, Leased, Passed, Ranges, Revoke
from eventlog.local.wire.messages import failed
from eventlog.local.writer.group_store import GroupStore

if TYPE_CHECKING:
    from eventlog.local.writer.actor import Peer

logger = logging.getLogger("eventlog.writer")


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
    """The leases of all groups. `seats` says which pipe is whose, and is kept by the desk.

    `on_passed` is called when retention has moved a group on.
    """

    def __init__(
        self,
        log: WritableLog,
        store: GroupStore,
        seats: dict[Peer, Seat],
        on_passed: Callable[[GroupState], None],
    ) -> None:
        self._log = log
        self._on_passed = on_passed
        self._lost: dict[str, RangeSet] = {}
        """By group: deleted events of which no member was told yet."""
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
        self.pass_deleted(state)
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
        self._tell_lost(asking.peer, state)
        failures = failures_of(state, ranges)
        self._store.counters.leased += sum(last - first + 1 for first, last in ranges)
        self._store.counters.redelivered += len(failures)
        asking.peer.say(Leased(asking.request_id, self._next_lease, tuple(ranges), failures))
        return True

    def end(
        self, state: GroupState, lease: HeldLease, page: bytes, *, now_ns: int, is_excused: bool
    ) -> None:
        """End the lease of a member that is gone and has left that page.

        Raises:
            LogFull, StorageFailed: it has not ended, or in part.
        """
        if not is_excused:
            state.suspects.update(begun_in(lease, page))
        for kind, *fields in settlement(state, lease, page, is_excused=is_excused):
            self._store.commit(state, kind, *fields)
            if kind == "failed" and fields[1] not in state.condemned:
                state.delay(fields[1], now_ns)
        self.is_shared(lease.lease_id)

    def pass_deleted(self, state: GroupState) -> None:
        """Retention ran past the group: what is not there any more needs no handling.

        Dead letters that are retried do: their letters have a copy.

        Raises:
            LogFull, StorageFailed: there is no room to note it.
        """
        first = self._log.control.first_available
        if first <= state.position + 1 and (state.again.lowest or first) >= first:
            return
        lost = lost_before(state, first, self._store.letters.retried.get(state.name, RangeSet()))
        if not lost:
            return
        self._store.commit(state, "done", 0, lost)
        known = self._lost.setdefault(state.name, RangeSet())
        for one in lost:
            known.add(*one)
        self._on_passed(state)

    def _tell_lost(self, peer: Peer, state: GroupState) -> None:
        """Once for each time that retention ran past: a member's process logs it."""
        lost = self._lost.pop(state.name, None)
        if lost is None:
            return
        numbers = list(lost)
        first, last = numbers[0][0], numbers[-1][1]
        logger.warning(
            "retention deleted %d events (%d to %d) before the group %r handled them",
            *(lost.count, first, last, state.name),
        )
        peer.say(Passed(0, lost.count, first, last))

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

    def holds(self, state: GroupState, lease_id: int, member_id: int, ranges: list[Range]) -> bool:
        """Whether the member has these events; false if it said what became of them before.

        Raises:
            StaleLease: they are, or were, somebody else's.
        """
        try:
            return state.holds(lease_id, member_id, ranges)
        except KeyError:
            raise StaleLease(
                f"event {ranges[0][0]} was given to another member of the group {state.name!r}"
                f" of the log {self._log.directory} meanwhile; this delivery does not count",
                path=self._log.directory,
                consumer=state.name,
                seq_no=ranges[0][0],
            ) from None

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


def checked(ranges: Ranges) -> list[Range]:
    """The ranges, as what a peer says may be taken for them.

    Raises:
        ProtocolError: they are no numbers of events.
    """
    if not all(1 <= first <= last <= SEQ_NO_MAX for first, last in ranges):
        raise ProtocolError("a message about what are no events")
    return [(first, last) for first, last in ranges]
