"""What members and pools of groups are told, and when; no trio, no sockets.

::

    messages ---> Coordinator --- memberships    which pipe is which member
                       |------- leasing        who gets which events, and how each one ends
                       |------- waiting        who waits for a group, or to reject its events
                       '------- store          states, their journal, and the dead letters
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from eventlog.api.positions import check_name, check_seq_no
from eventlog.api.times import SETTLED_NS
from eventlog.config import MAX_DELIVERIES_LIMIT
from eventlog.errors import EventLogError, GroupMismatch, InvalidArgument, ProtocolError
from eventlog.event.record_batch import areas_bytes
from eventlog.local.groups import records
from eventlog.local.groups.acks import Acks, unpack_acks
from eventlog.local.groups.leasing import Leasing, checked, failures_of
from eventlog.local.groups.membership import Absent, Membership, Memberships
from eventlog.local.groups.state import GroupState
from eventlog.local.groups.store import GroupStore
from eventlog.local.groups.waiting import Waiting
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.members import STATES_BESIDE_LEASE, pool_of
from eventlog.local.wire.connection import Peer
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
    RetryCorrected,
    RetryDead,
    Settle,
)
from eventlog.local.wire.messages import Append, AppendIf, Done, Request

logger = logging.getLogger("eventlog.writer")
TRY_AGAIN_NS = 1_000_000_000
"""How soon to try again what found no room."""


class Coordinator:
    """The groups' side of the actor.

    `on_due` is called when an earlier wait was added, `on_position` when a group has moved.
    """

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
        self.memberships = Memberships(self.store)
        self._waiting = Waiting()
        self._leasing = Leasing(log, self.store, self.memberships, self._moved, on_due)
        self._ending: list[tuple[GroupState, int]] = []
        """Members that are gone, and for whose end there was no room in the journal."""
        self._first_seen = 0
        """The first event that was stored when groups were last held against retention."""
        self._excused: deque[int] = deque(maxlen=1024)
        """Pools that end their own members; each pool is left once."""
        self._handlers: dict[type, Callable[[Peer, Any], None]] = {
            OpenGroup: self._open_group,
            Join: self._join,
            Lease: self._leasing.ask,
            Settle: self._settle,
            Release: self._release,
            Nack: self._fail,
            Bury: self._reject,
            FailDelivery: self._fail,
            Leave: self._leave,
            AwaitCondemned: self._await_exhausted,
            AwaitDrained: self._await_drained,
            RetryDead: self._retry_dead,
            RetryCorrected: self._retry_corrected,
            DropDead: self._drop_dead,
            Dismiss: self._dismiss,
            Excuse: self._excuse,
        }

    def handle(self, peer: Peer, message: Request) -> None:
        """Carry out a message that is about groups.

        Raises:
            EventLogError: it is refused.
        """
        self._handlers[type(message)](peer, message)

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
        name, ordering = check_name(message.group), message.ordering
        if ordering not in ("", "key"):
            raise ProtocolError(f"an ordering {ordering!r}")
        if not 1 <= message.max_deliveries <= MAX_DELIVERIES_LIMIT:
            raise ProtocolError(f"a group with {message.max_deliveries} deliveries")
        known = self.store.groups.get(name)
        wanted = (ordering, message.max_deliveries)
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
        position = min(position, self._log.last_seq_no)
        self.store.open_group(name, "key" if ordering else "", message.max_deliveries, position)
        peer.say(Done(message.request_id))

    def _join(self, peer: Peer, message: Join) -> None:
        state = self._known(message.group)
        member, older = self.memberships.join(peer, state, message)
        if older is not None:
            self._leasing.stop_asking(older, state)
        leases = [one for one in state.leases.values() if one.member_id == member.member_id]
        lease_id, given = (leases[-1].lease_id, leases[-1].given) if leases else (0, ())
        failures = failures_of(state, list(given))
        peer.say(Joined(message.request_id, member.slot, lease_id, given, failures))

    def _leave(self, peer: Peer, message: Leave) -> None:
        self._end_of(peer)
        peer.say(Done(message.request_id))

    def _dismiss(self, peer: Peer, message: Dismiss) -> None:
        membership = Membership(self._known(message.group), message.member_id)
        pipe = self.memberships.pipe_of(membership)
        if pipe is not None:
            self._end_of(pipe)
        else:
            self.end_member(*membership)
        peer.say(Done(message.request_id))

    def _excuse(self, peer: Peer, message: Excuse) -> None:
        self._excused.append(message.pool_id)
        peer.say(Done(message.request_id))

    def forget_peer(self, peer: Peer) -> None:
        """The pipe is closed: whoever it belonged to is gone."""
        self._waiting.forget_peer(peer)
        self._end_of(peer)

    def _end_of(self, peer: Peer) -> None:
        """The member of that pipe, if it is one's, is no more."""
        membership = self.memberships.leave(peer)
        if membership is not None:
            self._leasing.stop_asking(peer, membership.state)
            self.end_member(*membership)

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
        is_excused = pool_of(member_id) in self._excused
        for lease in [one for one in state.leases.values() if one.member_id == member_id]:
            is_of_lease = (page.lease_id, page.member_id) == (lease.lease_id, member_id)
            left = states if is_of_lease else b""
            self._leasing.end(state, lease, left, now_ns=self._clock(), is_excused=is_excused)
        self.store.commit(records.Left(state.name, member_id))
        self._leasing.pass_deleted(state)
        self.resume_due()
        self._changed(state)

    def absent(self) -> list[Absent]:
        """Members of before a restart that have not come back."""
        return self.memberships.absent()

    # --- what members say of their events ----------------------------------------------------

    def _settle(self, peer: Peer, message: Settle) -> None:
        membership = self.memberships.of(peer)
        if self._leasing.settle(membership, message.lease_id, checked(message.ranges)):
            self._changed(membership.state)
        peer.say(Done(message.request_id))

    def _release(self, peer: Peer, message: Release) -> None:
        membership = self.memberships.of(peer)
        if self._leasing.release(membership, message.lease_id, checked(message.ranges)):
            self._changed(membership.state)
        peer.say(Done(message.request_id))

    def _fail(self, peer: Peer, said: FailDelivery | Nack) -> None:
        """A handler failed; members of earlier releases say `Nack`, and decide by themselves."""
        letter, is_final = b"", False
        if isinstance(said, FailDelivery):
            letter, is_final = said.letter, bool(said.is_final)
        membership, seq_no = self.memberships.of(peer), said.seq_no
        state = membership.state
        if self._leasing.holds(membership, said.lease_id, [(seq_no, seq_no)]):
            if self._leasing.fail(state, said.lease_id, seq_no, letter, is_final=is_final):
                state.delay(seq_no, self._clock() + said.delay_ns)
                self._on_due()
            self._changed(state)
        peer.say(Done(said.request_id))

    def _reject(self, peer: Peer, message: Bury) -> None:
        """An event is a dead letter, as its member says or a pool of one that is exhausted."""
        state, seq_no = self._known(message.group), message.seq_no
        if message.lease_id:
            membership = self.memberships.of(peer)._replace(state=state)
            is_open = self._leasing.holds(membership, message.lease_id, [(seq_no, seq_no)])
        else:
            is_open = seq_no in state.exhausted
        if is_open:
            self.store.letters.reject(state, message.lease_id, seq_no, message.letter)
            self._changed(state)
        peer.say(Done(message.request_id))

    # --- waiting, and dead letters -----------------------------------------------------------

    def _await_exhausted(self, peer: Peer, message: AwaitCondemned) -> None:
        state = self._known(message.group)
        self._waiting.await_exhausted(peer, state, message.pool_id, message.request_id)

    def _await_drained(self, peer: Peer, message: AwaitDrained) -> None:
        state = self._known(message.group)
        self._leasing.pass_deleted(state)
        self._waiting.await_drained(peer, state, message.seq_no, message.request_id)

    def _retry_dead(self, peer: Peer, message: RetryDead) -> None:
        state = self._to_retry(message.group)
        number = self.store.letters.retry(state, checked(message.ranges))
        peer.say(Counted(message.request_id, number))
        self._leasing.serve(state)

    def _retry_corrected(self, peer: Peer, message: RetryCorrected) -> None:
        state = self._to_retry(message.group)
        number = self.store.letters.retry_corrected(state, message.seq_no, message.letter)
        peer.say(Counted(message.request_id, number))
        self._leasing.serve(state)

    def _to_retry(self, name: str) -> GroupState:
        state = self.store.groups.get(check_name(name))
        if state is None:
            raise InvalidArgument(
                f"there is no group {name!r} in the log {self._log.directory} (any more),"
                " so nobody would be handed these events; start a pool of that group first, or drop"
                " its dead letters",
                path=self._log.directory,
                consumer=name,
            )
        return state

    def _drop_dead(self, peer: Peer, message: DropDead) -> None:
        number = self.store.letters.drop(check_name(message.group), checked(message.ranges))
        peer.say(Counted(message.request_id, number))

    # --- results -----------------------------------------------------------------------------

    def acks_of(self, message: Append | AppendIf) -> Acks:
        """What a batch of results acknowledges.

        Raises:
            StaleLease: it is not its member's to acknowledge; the batch is not to be stored.
            LogFull, StorageFailed: nor is it, without room to note that in the group.
            ProtocolError: the batch makes no sense.
        """
        before = areas_bytes(message.count, message.flags, 0)
        acks = unpack_acks(message.payload[before : before + message.acks_bytes])
        membership = Membership(self._known(acks.group), acks.member_id)
        if acks.ranges:
            self._leasing.holds(membership, acks.lease_id, acks.ranges)
        self.store.reserve_results(message.acks_bytes)
        return acks

    def take_acks(self, acks: Acks, base_seq_no: int, last_seq_no: int) -> None:
        """The batch is stored, so the events are done, and the results are not for the group."""
        state = self._known(acks.group)
        if base_seq_no > state.replayed_to:
            self.store.commit_results(acks, base_seq_no, last_seq_no)
            self._changed(state)

    # --- positions ---------------------------------------------------------------------------

    def take_ack(self, consumer: str, seq_no: int) -> bool:
        """A consumer's position was acknowledged; whether the consumer is a group."""
        return self._set_position(records.Skipped(consumer, seq_no))

    def take_seek(self, consumer: str, position: int) -> bool:
        """A consumer's position was set; whether the consumer is a group."""
        return self._set_position(records.Sought(consumer, min(position, self._log.last_seq_no)))

    def _set_position(self, record: records.Skipped | records.Sought) -> bool:
        state = self.store.groups.get(record.group)
        if state is None:
            return False
        self.store.commit(record)
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
        """There are new events: lease them to whoever waits."""
        self.on_retired()
        for name, asking in self._leasing.asking.items():
            if asking and name in self.store.groups:
                self._leasing.serve(self.store.groups[name])

    def on_retired(self) -> None:
        """Events were deleted, perhaps."""
        first = self._log.control.first_available
        if first == self._first_seen:
            return
        try:
            for state in list(self.store.groups.values()):
                self._leasing.pass_deleted(state)
            self._first_seen = first
        except EventLogError as error:
            logger.warning("groups that retention ran past are moved on later: %s", error)

    def next_due(self) -> int | None:
        """When the next backoff ends or event is due, by the monotonic clock; `None` without one.

        No later than a jump of the wall clock can count: nobody tells of one.
        """
        groups = self.store.groups.values()
        times = [state.next_due() for state in groups]
        moments = [one for state in groups if (one := state.postponed.next_due_ns()) is not None]
        if moments:
            wait_ns = min(max(min(moments) - self._log.clock.now(), 0), SETTLED_NS)
            times.append(self._clock() + wait_ns)
        if self._ending:
            times.append(self._clock() + TRY_AGAIN_NS)
        return min((due for due in times if due is not None), default=None)

    def resume_due(self) -> None:
        """Hand out what waited for its backoff long enough, and what is due."""
        now, log_ns = self._clock(), self._log.clock.now()
        ending, self._ending = self._ending, []
        for one in ending:
            self.end_member(*one)
        for state in self.store.groups.values():
            if state.resume_due(now, log_ns):
                self._leasing.serve(state)

    def _changed(self, state: GroupState) -> None:
        self._leasing.serve(state)
        self._moved(state)

    def _moved(self, state: GroupState) -> None:
        self._waiting.on_change(state)
        self._on_position()
