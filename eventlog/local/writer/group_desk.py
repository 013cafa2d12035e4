"""What members and pools of groups are told, and when; no trio, no sockets.

a member asks -----> leased at once, or kept in `_asking` until events are there
a member is gone --> its page says what it had begun: counted, done, or given back
nothing is left ---> the largest lease is revoked: its owner gives back what it has not begun
used up ------------> condemned: a pool is told, and buries it
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eventlog.api.positions import check_name, check_seq_no
from eventlog.config import MAX_DELIVERIES_LIMIT
from eventlog.errors import EventLogError, GroupMismatch, InvalidArgument, ProtocolError
from eventlog.local.groups.acks import Acks, unpack_acks
from eventlog.local.groups.state import GroupState
from eventlog.local.storage.log import WritableLog
from eventlog.local.storage.members import STATES_BESIDE_LEASE, pool_of
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Counted,
    Dismiss,
    DropDead,
    Excuse,
    FailDelivery,
    Join,
    Joined,
    Lease,
    Leave,
    Nack,
    OpenGroup,
    Release,
    RetryDead,
    Settle,
)
from eventlog.local.wire.messages import Append, Done, Request
from eventlog.local.writer.group_failures import end_failed
from eventlog.local.writer.group_leases import GroupLeases, Seat, checked, failures_of
from eventlog.local.writer.group_store import GroupStore
from eventlog.local.writer.group_watches import GroupWatches

if TYPE_CHECKING:
    from eventlog.local.writer.actor import Peer

logger = logging.getLogger("eventlog.writer")
TRY_AGAIN_NS = 1_000_000_000
"""How soon to try again what found no room."""


class GroupDesk:
    """The groups' side of the actor. `on_due` is called when an earlier wait was added."""

    def __init__(
        self,
        log: WritableLog,
        on_due: Callable[[], None],
        on_position: Callable[[], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._log = log
        self._on_due = on_due
        self._on_position = on_position
        self._clock = clock
        self.store = GroupStore(log)
        self._seats: dict[Peer, Seat] = {}
        self._watches = GroupWatches()
        self._ending: list[tuple[GroupState, int]] = []
        """Members that are gone, and for whose end there was no room in the journal."""
        self._leases = GroupLeases(log, self.store, self._seats, self._moved)
        self._first_seen = 0
        """The first event that was stored when groups were last held against retention."""
        self._leaving: deque[int] = deque(maxlen=1024)
        """Pools that end their own members; each pool is left once."""

    def handle(self, peer: Peer, message: Request) -> None:
        """Carry out a message that is about groups.

        Raises:
            EventLogError: it is refused.
        """
        handlers: dict[type, Callable[[Peer, Any], None]] = {
            OpenGroup: self._open_group,
            Join: self._join,
            Lease: self._ask,
            Settle: self._settle,
            Release: self._release,
            Nack: self._end_failed,
            Bury: self._bury,
            FailDelivery: self._end_failed,
            Leave: self._leave,
            AwaitCondemned: self._await_condemned,
            AwaitDrained: self._await_drained,
            RetryDead: self._retry_dead,
            DropDead: self._drop_dead,
            Dismiss: self._dismiss,
            Excuse: self._excuse,
        }
        handlers[type(message)](peer, message)

    # --- groups and members ------------------------------------------------------------------

    def _known(self, name: str) -> GroupState:
        state = self.store.groups.get(check_name(name))
        if state is None:
            raise InvalidArgument(
                f"the log {self._log.directory} has no group {name!r}; a pool makes it",
                path=self._log.directory,
                consumer=name,
            )
        return state

    def _open_group(self, peer: Peer, message: OpenGroup) -> None:
        name = check_name(message.group)
        if message.ordering not in ("", "key"):
            raise ProtocolError(f"an ordering {message.ordering!r}")
        if not 1 <= message.max_deliveries <= MAX_DELIVERIES_LIMIT:
            raise ProtocolError(f"a group with {message.max_deliveries} deliveries")
        known = self.store.groups.get(name)
        wanted = (message.ordering, message.max_deliveries)
        if known and known.members and (known.ordering, known.max_deliveries) != wanted:
            raise GroupMismatch(
                f"the group {name!r} of the log {self._log.directory} has members that work with"
                f" ordering={known.ordering or None!r} and max_deliveries={known.max_deliveries};"
                " give the same, or wait until they have left",
                path=self._log.directory,
                consumer=name,
            )
        position = check_seq_no(message.position, consumer=name)
        offset = self._log.offsets.find(name)
        if offset is not None:
            position = offset.position
        self.store.open_group(name, *wanted, min(position, self._log.last_seq_no))
        peer.say(Done(message.request_id))

    def _join(self, peer: Peer, message: Join) -> None:
        state = self._known(message.group)
        if peer in self._seats:
            raise ProtocolError("a pipe that joins twice")
        if not 0 < message.pid < 2**31 or not 0 < message.member_id < 2**64:
            raise ProtocolError("a member that is no process")
        member = state.members.get(message.member_id)
        if member is None:
            slot = self.store.free_slot()
            self.store.pages.make(slot)
            fields = (message.member_id, message.pid, message.start, slot)
            self.store.commit(state, "member", *fields)
            member = state.members[message.member_id]
        seat = Seat(state, message.member_id)
        for other in [one for one, known in self._seats.items() if known == seat]:
            # Its older pipe broke, and we have not seen the end of it yet.
            self._leases.stop_asking(other, state)
            del self._seats[other]
        self._seats[peer] = seat
        leases = [one for one in state.leases.values() if one.member_id == message.member_id]
        lease_id, given = (leases[-1].lease_id, leases[-1].given) if leases else (0, ())
        failures = failures_of(state, list(given))
        peer.say(Joined(message.request_id, member.slot, lease_id, given, failures))

    def _leave(self, peer: Peer, message: Leave) -> None:
        seat = self._seats.pop(peer, None)
        if seat is not None:
            self._leases.stop_asking(peer, seat.state)
            self.end_member(seat.state, seat.member_id)
        peer.say(Done(message.request_id))

    def _dismiss(self, peer: Peer, message: Dismiss) -> None:
        state = self._known(message.group)
        seat = Seat(state, message.member_id)
        for other in [one for one, known in self._seats.items() if known == seat]:
            self._leases.stop_asking(other, state)
            del self._seats[other]
        self.end_member(state, message.member_id)
        peer.say(Done(message.request_id))

    def _excuse(self, peer: Peer, message: Excuse) -> None:
        self._leaving.append(message.pool_id)
        peer.say(Done(message.request_id))

    def _seat(self, peer: Peer) -> Seat:
        seat = self._seats.get(peer)
        if seat is None:
            raise ProtocolError("a peer that is no member speaks as one")
        return seat

    def forget_peer(self, peer: Peer) -> None:
        """The pipe is closed: whoever it belonged to is gone."""
        self._watches.forget_peer(peer)
        seat = self._seats.pop(peer, None)
        if seat is not None:
            self._leases.stop_asking(peer, seat.state)
            self.end_member(seat.state, seat.member_id)

    def end_member(self, state: GroupState, member_id: int) -> None:
        """Give the leases of a member that is gone to others, as its page says."""
        try:
            self._end_member(state, member_id)
        except EventLogError as error:
            logger.warning("the end of a member of %r is tried again: %s", state.name, error)
            self._ending.append((state, member_id))
            self._on_due()

    def _end_member(self, state: GroupState, member_id: int) -> None:
        member = state.members.get(member_id)
        if member is None or self.store.groups.get(state.name) is not state:
            return
        page = self.store.pages.read(member.slot)
        states = page.states if self._log.is_same_boot else page.states[:STATES_BESIDE_LEASE]
        is_excused = pool_of(member_id) in self._leaving
        for lease in [one for one in state.leases.values() if one.member_id == member_id]:
            is_of_lease = (page.lease_id, page.member_id) == (lease.lease_id, member_id)
            left = states if is_of_lease else b""
            self._leases.end(state, lease, left, now_ns=self._clock(), is_excused=is_excused)
        self.store.commit(state, "gone", member_id)
        self._leases.pass_deleted(state)
        self.resume_due()
        self._changed(state)

    def absent(self) -> list[tuple[GroupState, int, int, int]]:
        """Members of before a restart that have not come back: group, id, pid and start."""
        present = {(seat.state.name, seat.member_id) for seat in self._seats.values()}
        return [
            (state, member_id, state.members[member_id].pid, state.members[member_id].start)
            for state, member_id in self.store.members()
            if (state.name, member_id) not in present
        ]

    # --- leases ------------------------------------------------------------------------------

    def _ask(self, peer: Peer, message: Lease) -> None:
        self._leases.ask(peer, self._seat(peer), message)

    def _settle(self, peer: Peer, message: Settle) -> None:
        self._close_part(peer, "done", message)

    def _release(self, peer: Peer, message: Release) -> None:
        self._leases.is_shared(message.lease_id)
        self._close_part(peer, "back", message)

    def _close_part(self, peer: Peer, kind: str, message: Settle | Release) -> None:
        seat = self._seat(peer)
        ranges = checked(message.ranges)
        if ranges:
            self._leases.holds(seat.state, message.lease_id, seat.member_id, ranges)
            # What was said before, by a pipe that was lost, is not said again.
            still = seat.state.still_open(message.lease_id, ranges)
            if still:
                self.store.commit(seat.state, kind, message.lease_id, still)
                self._changed(seat.state)
        peer.say(Done(message.request_id))

    def _end_failed(self, peer: Peer, said: FailDelivery | Nack) -> None:
        """A handler failed; members of earlier releases say `Nack`, and decide by themselves."""
        letter, is_final = b"", False
        if isinstance(said, FailDelivery):
            letter, is_final = said.letter, bool(said.is_final)
        state, member_id = self._seat(peer)
        if self._leases.holds(state, said.lease_id, member_id, [(said.seq_no, said.seq_no)]):
            end = (said.lease_id, said.seq_no, letter, self._clock() + said.delay_ns)
            if end_failed(self.store, state, *end, is_final=is_final):
                self._on_due()
            self._changed(state)
        peer.say(Done(said.request_id))

    def _bury(self, peer: Peer, message: Bury) -> None:
        state, seq_no = self._known(message.group), message.seq_no
        if message.lease_id:
            member_id = self._seat(peer).member_id
            is_open = self._leases.holds(state, message.lease_id, member_id, [(seq_no, seq_no)])
        else:
            is_open = seq_no in state.condemned
        if is_open:
            self.store.bury(state, message.lease_id, seq_no, message.letter)
            self._changed(state)
        peer.say(Done(message.request_id))

    # --- dead letters ------------------------------------------------------------------------

    def _await_condemned(self, peer: Peer, message: AwaitCondemned) -> None:
        state = self._known(message.group)
        self._watches.await_condemned(peer, state, message.pool_id, message.request_id)

    def _await_drained(self, peer: Peer, message: AwaitDrained) -> None:
        state = self._known(message.group)
        self._leases.pass_deleted(state)
        self._watches.await_drained(peer, state, message.seq_no, message.request_id)

    def _retry_dead(self, peer: Peer, message: RetryDead) -> None:
        state = self.store.groups.get(check_name(message.group))
        if state is None:
            raise InvalidArgument(
                f"there is no group {message.group!r} in the log {self._log.directory} (any more),"
                " so nobody would be handed these events; start a pool of that group first, or drop"
                " its dead letters",
                path=self._log.directory,
                consumer=message.group,
            )
        number = self.store.retry_dead(state, checked(message.ranges))
        peer.say(Counted(message.request_id, number))
        self._leases.serve(state)

    def _drop_dead(self, peer: Peer, message: DropDead) -> None:
        number = self.store.drop_dead(check_name(message.group), checked(message.ranges))
        peer.say(Counted(message.request_id, number))

    # --- results -----------------------------------------------------------------------------

    def acks_of(self, message: Append) -> Acks | None:
        """What a batch of results acknowledges, if it is the members' to acknowledge.

        Raises:
            StaleLease: it is not any more; the batch is not to be stored.
            LogFull, StorageFailed: nor is it, without room to note that in the group.
            ProtocolError: the batch makes no sense.
        """
        if not message.acks_bytes:
            return None
        before = 4 * message.count if message.flags & 1 else 0
        acks = unpack_acks(message.payload[before : before + message.acks_bytes])
        state = self._known(acks.group)
        if acks.ranges:
            self._leases.holds(state, acks.lease_id, acks.member_id, acks.ranges)
        self.store.reserve_results(message.acks_bytes)
        return acks

    def take_acks(self, acks: Acks, base_seq_no: int, last_seq_no: int) -> None:
        """The batch is stored, so the events are done, and the results are not for the group."""
        state = self._known(acks.group)
        if base_seq_no > state.replayed_to:
            self.store.commit_results(state, acks, base_seq_no, last_seq_no)
            self._changed(state)

    # --- positions ---------------------------------------------------------------------------

    def take_ack(self, consumer: str, seq_no: int) -> bool:
        """A consumer's position was acknowledged; whether the consumer is a group."""
        state = self.store.groups.get(consumer)
        if state is None:
            return False
        self.store.commit(state, "skip", seq_no)
        self._changed(state)
        return True

    def take_seek(self, consumer: str, position: int) -> bool:
        """A consumer's position was set; whether the consumer is a group."""
        state = self.store.groups.get(consumer)
        if state is None:
            return False
        self.store.commit(state, "seek", min(position, self._log.last_seq_no))
        self._changed(state)
        return True

    def forget(self, consumer: str) -> None:
        """Remove a group, if the consumer is one.

        Raises:
            InvalidArgument: it has members.
        """
        state = self.store.groups.get(consumer)
        if state is None:
            return
        if state.members:
            raise InvalidArgument(
                f"the group {consumer!r} of the log {self._log.directory} has"
                f" {len(state.members)} members at work; stop its pools first",
                path=self._log.directory,
                consumer=consumer,
            )
        self.store.forget(state)

    # --- who is told -------------------------------------------------------------------------

    def on_published(self) -> None:
        """There are new events."""
        self.on_retired()
        self._leases.serve_all()

    def on_retired(self) -> None:
        """Events were deleted, perhaps."""
        first = self._log.control.first_available
        if first == self._first_seen:
            return
        try:
            for state in list(self.store.groups.values()):
                self._leases.pass_deleted(state)
            self._first_seen = first
        except EventLogError as error:
            logger.warning("groups that retention ran past are moved on later: %s", error)

    def next_due(self) -> int | None:
        """When the next backoff ends, by the monotonic clock; `None` without one."""
        times = [state.next_due() for state in self.store.groups.values()]
        if self._ending:
            times.append(self._clock() + TRY_AGAIN_NS)
        return min((due for due in times if due is not None), default=None)

    def resume_due(self) -> None:
        """Hand out what waited for its backoff long enough."""
        now = self._clock()
        ending, self._ending = self._ending, []
        for one in ending:
            self.end_member(*one)
        for state in self.store.groups.values():
            if state.resume_due(now):
                self._leases.serve(state)

    def _changed(self, state: GroupState) -> None:
        self._leases.serve(state)
        self._moved(state)

    def _moved(self, state: GroupState) -> None:
        self._watches.on_change(state)
        self._on_position()
