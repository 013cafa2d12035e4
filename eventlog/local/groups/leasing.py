"""Leases: who asks for events, who gets which, who is asked to share, and how each event ends.

::

    a member asks -----> leased at once, or kept in `asking` until events are there
    nothing is left ---> the largest lease is revoked: its owner gives back what it has not begun
    a handler failed --> handed out again later; a dead letter; or exhausted, for a pool to reject
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from eventlog.api.positions import SEQ_NO_MAX
from eventlog.errors import EventLogError, EventsTruncated, ProtocolError, StaleLease
from eventlog.local.groups import records
from eventlog.local.groups.endings import begun_in, lost_before, settlement
from eventlog.local.groups.holders import Lease as HeldLease
from eventlog.local.groups.membership import Membership, Memberships
from eventlog.local.groups.ranges import Range, RangeSet
from eventlog.local.groups.state import GroupState
from eventlog.local.groups.store import GroupStore
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.members import LEASE_EVENTS_MAX
from eventlog.local.wire.connection import Peer
from eventlog.local.wire.group_messages import Lease, Leased, Passed, Ranges, Revoke
from eventlog.local.wire.messages import failed

logger = logging.getLogger("eventlog.writer")


class Asking(NamedTuple):
    """A member that waits for a lease."""

    peer: Peer
    membership: Membership
    request_id: int
    count: int  # type: ignore[assignment]
    least: int


class Leasing:
    """The leases of all groups.

    `on_passed` is called when retention has moved a group on, `on_due` when events were found that
    are to be handed out later.
    """

    def __init__(
        self,
        log: WritableLog,
        store: GroupStore,
        memberships: Memberships,
        on_passed: Callable[[GroupState], None],
        on_due: Callable[[], None],
    ) -> None:
        self._log = log
        self._on_due = on_due
        self._on_passed = on_passed
        self._lost: dict[str, RangeSet] = {}
        """By group: deleted events of which no member was told yet."""
        self._store = store
        self._memberships = memberships
        self.asking: dict[str, deque[Asking]] = {}
        """By group: who waits for a lease, in the order in which they asked."""
        self._revoked: set[int] = set()
        self._next_lease = log.control.epoch << 32

    # --- handing out -------------------------------------------------------------------------

    def ask(self, peer: Peer, message: Lease) -> None:
        """Lease to a member, now or when there are events.

        Raises:
            ProtocolError: it is no member, or waits for a lease already.
        """
        membership = self._memberships.of(peer)
        asking = self.asking.setdefault(membership.state.name, deque())
        if any(one.peer is peer for one in asking):
            raise ProtocolError("a member that asks twice")
        count = min(max(message.count, 1), LEASE_EVENTS_MAX)
        asking.append(Asking(peer, membership, message.request_id, count, message.least))
        self.serve(membership.state)

    def serve(self, state: GroupState) -> None:
        """Lease to those who ask, in the order in which they did."""
        asking = self.asking.get(state.name)
        while asking:
            try:
                if not self._lease_to(asking[0]):
                    self._revoke_for(asking[0])
                    return
            except EventLogError as error:
                asking[0].peer.say(failed(asking[0].request_id, error))
            asking.popleft()

    def _lease_to(self, asking: Asking) -> bool:
        state, member_id = asking.membership
        high_water = self._log.last_seq_no
        self.pass_deleted(state)
        count = min(asking.count, max(state.fair_share(high_water), asking.least))
        try:
            ranges = self._take(state, member_id, count, high_water)
        except EventsTruncated:
            return False
        if not ranges:
            return False
        self._next_lease += 1
        try:
            self._store.commit(records.Leased(state.name, self._next_lease, member_id, ranges))
        except EventLogError:
            state.untake(ranges)
            raise
        self._tell_lost(asking.peer, state)
        failures = failures_of(state, ranges)
        self._store.counters.leased += sum(last - first + 1 for first, last in ranges)
        self._store.counters.redelivered += len(failures)
        asking.peer.say(Leased(asking.request_id, self._next_lease, tuple(ranges), failures))
        return True

    def _take(self, state: GroupState, member_id: int, count: int, high_water: int) -> list[Range]:
        """Events that are due; a long run of others is looked through until some are found."""
        if not self._log.control.due_from:  # no event of the log has a time
            return state.take(member_id, count, high_water)
        while True:
            if state.postpone(high_water, self._log.clock.now()):
                self._on_due()
            looked_to = min(state.postponed.looked_to, high_water)
            ranges = state.take(member_id, count, looked_to)
            if ranges or looked_to == high_water:
                return ranges

    def _revoke_for(self, asking: Asking) -> None:
        """Somebody is idle: ask the owner of the largest lease to share it."""
        state, member_id = asking.membership
        lease = state.largest_lease(member_id)
        if lease is None or lease.lease_id in self._revoked:
            return
        owner = self._memberships.pipe_of(Membership(state, lease.member_id))
        if owner is not None:
            self._revoked.add(lease.lease_id)
            owner.say(Revoke(0, lease.lease_id))

    def stop_asking(self, peer: Peer, state: GroupState) -> None:
        """The peer is gone."""
        asking = self.asking.get(state.name, deque())
        self.asking[state.name] = deque(one for one in asking if one.peer is not peer)

    # --- what members say of their events ----------------------------------------------------

    def settle(self, membership: Membership, lease_id: int, ranges: list[Range]) -> bool:
        """These events are done; whether anything has changed.

        Raises:
            StaleLease: they are, or were, somebody else's.
        """
        return self._close_part(records.Done, membership, lease_id, ranges)

    def release(self, membership: Membership, lease_id: int, ranges: list[Range]) -> bool:
        """These events were not begun; whether anything has changed.

        Raises:
            StaleLease: they are, or were, somebody else's.
        """
        self._revoked.discard(lease_id)  # the owner has answered; it may be asked again
        return self._close_part(records.GivenBack, membership, lease_id, ranges)

    def _close_part(
        self,
        kind: type[records.Done | records.GivenBack],
        membership: Membership,
        lease_id: int,
        ranges: list[Range],
    ) -> bool:
        state = membership.state
        if not ranges:
            return False
        self.holds(membership, lease_id, ranges)
        # What was said before, by a pipe that was lost, is not said again.
        still = state.still_open(lease_id, ranges)
        if still:
            self._store.commit(kind(state.name, lease_id, still))
        return bool(still)

    def fail(
        self, state: GroupState, lease_id: int, seq_no: int, letter: bytes, *, is_final: bool
    ) -> bool:
        """Make the event a dead letter, or keep it; whether it is to be tried again, after a wait.

        The one place where that is decided. An event that used up its deliveries without a letter
        is exhausted, and a pool rejects it.

        Raises:
            ProtocolError: a last failure without a letter.
        """
        if is_final and not letter:
            raise ProtocolError("a last failure without a dead letter")
        if letter and (is_final or state.is_last_delivery(seq_no)):
            self._store.letters.reject(state, lease_id, seq_no, letter)
            return False
        self._store.commit(records.Failed(state.name, lease_id, seq_no))
        state.suspects.discard(seq_no)  # its worker has outlived it
        return seq_no not in state.exhausted

    def holds(self, membership: Membership, lease_id: int, ranges: list[Range]) -> bool:
        """Whether the member has these events; false if it said what became of them before.

        Raises:
            StaleLease: they are, or were, somebody else's.
        """
        state, member_id = membership
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

    # --- what nobody says: members that are gone, and events that are ------------------------

    def end(
        self, state: GroupState, lease: HeldLease, page: bytes, *, now_ns: int, is_excused: bool
    ) -> None:
        """End the lease of a member that is gone and has left that page.

        Raises:
            LogFull, StorageFailed: it has not ended, or in part.
        """
        if not is_excused:
            state.suspects.update(begun_in(lease, page))
        for record in settlement(state, lease, page, is_excused=is_excused):
            self._store.commit(record)
            if isinstance(record, records.Failed) and record.seq_no not in state.exhausted:
                state.delay(record.seq_no, now_ns)
        self._revoked.discard(lease.lease_id)

    def pass_deleted(self, state: GroupState) -> None:
        """Retention ran past the group: what is not there any more needs no handling.

        Dead letters that are retried do: their letters have a copy.

        Raises:
            LogFull, StorageFailed: there is no room to note it.
        """
        first = self._log.control.first_available
        if first <= state.position + 1 and (state.again.lowest or first) >= first:
            return
        retried = self._store.letters.numbers.retried.get(state.name, RangeSet())
        lost = lost_before(state, first, retried)
        if not lost:
            return
        self._store.commit(records.Done(state.name, 0, lost))
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
