"""One group as the writer knows it. Pure: no clock, no file, no pipe.

Invariants:

1. Every event up to `position` is done, except those in `again`; every one in `done` is above it.
2. An event is in at most one lease. Leased, held and done are disjoint.
3. The state changes by `apply` alone, whose records (see `records`) are in the journal before:
   replaying them gives the same state, but for what only a running writer needs (waits for a
   backoff or for a due time, suspects).
4. A suspect, which was in a worker's hands when that died, is leased alone.
5. A postponed event is neither leased nor held nor done.

A delivery is counted when it has failed: `deliveries[n]` have begun and ended without success. That
is exact although nothing is written when a handler begins, because the member marks its page first
(see `storage.members`), and the page outlives it. When a worker dies with several events in its
hands, nobody knows which one killed it: each of them has failed, but none is exhausted by that. A
shared death counts up to one below `max_deliveries`, so that the next delivery, alone, decides.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

from eventlog.local.groups import records
from eventlog.local.groups.holders import Lease, Member
from eventlog.local.groups.order import FreeOrder, HashesOf, KeyOrder, Order
from eventlog.local.groups.postponed import Postponed, TimesOf, no_times
from eventlog.local.groups.ranges import Range, RangeSet, numbers_between
from eventlog.local.groups.records import GroupRecord, Ordering, SnapshotLease, SnapshotMember


class GroupState:
    """One group: its position, its members and leases, and how often its events have failed."""

    def __init__(self, name: str, hashes: HashesOf, times: TimesOf = no_times) -> None:
        self.name = name
        self._hashes = hashes
        self.ordering: Ordering = ""
        self.max_deliveries = 1
        self.position = 0
        self.done = RangeSet()
        self.again = RangeSet()
        """Dead letters, at or below the position, that are to be tried once more."""
        self.deliveries: dict[int, int] = {}
        self.exhausted: dict[int, int] = {}
        """Events that used up their deliveries, until they are rejected; with their last member."""
        self.members: dict[int, Member] = {}
        self.leases: dict[int, Lease] = {}
        self.replayed_to = 0
        """The last batch whose acknowledgements are known."""
        self.suspects: set[int] = set()
        """Events that were in the hands of a worker when it died."""
        self.postponed = Postponed(times)
        """Events that are not due yet."""
        self._delayed: list[tuple[int, int]] = []
        self._order: Order | None = None

    def __repr__(self) -> str:
        """The state in a line."""
        return (
            f"<GroupState {self.name!r} position={self.position} leases={len(self.leases)}"
            f" members={len(self.members)}>"
        )

    @property
    def in_flight(self) -> int:
        """How many events are leased."""
        return sum(lease.open.count for lease in self.leases.values())

    def is_done(self, seq_no: int) -> bool:
        """Whether the event needs no handling any more."""
        if seq_no <= self.position:
            return seq_no not in self.again
        return seq_no in self.done

    def is_drained(self, seq_no: int) -> bool:
        """Whether everything up to the number is done, or is a dead letter."""
        return self.position >= seq_no and not self.again

    def is_last_delivery(self, seq_no: int) -> bool:
        """Whether the event, once it fails again, has used up its deliveries."""
        return self.deliveries.get(seq_no, 0) + 1 >= self.max_deliveries

    # --- handing out -------------------------------------------------------------------------

    @property
    def order(self) -> Order:
        """What may be taken, worked out anew from the rest of the state when need be."""
        if self._order is None:
            held, leased, busy = self._taken()
            if self.ordering == "key":
                self._order = KeyOrder(self.position + 1, leased, held, self._hashes)
            else:
                self._order = FreeOrder(self.position + 1, RangeSet(busy))
            self._order.skip_to(self.position + 1)
            self._order.add((n, n) for n in self.again.numbers() if n not in busy)
            for seq_no in self.postponed.numbers():
                self._order.postpone(seq_no)
        # What is behind the position is never found as fresh; it comes again only if asked for.
        self._order.skip_to(self.position + 1)
        return self._order

    def _taken(self) -> tuple[RangeSet, list[tuple[int, RangeSet]], RangeSet]:
        """Events that are held, those that each member has, and all of them."""
        waiting = (seq_no for _, seq_no in self._delayed if not self.is_done(seq_no))
        held = RangeSet((seq_no, seq_no) for seq_no in (*self.exhausted, *waiting))
        leased = [(lease.member_id, lease.open) for lease in self.leases.values()]
        return held, leased, RangeSet([*held, *(one for _, ranges in leased for one in ranges)])

    def postpone(self, high_water: int, now_ns: int) -> bool:
        """Keep events until they are due, of the next not looked at; whether there were any.

        Call it before `take`, with the log's time; `postponed.looked_to` is as far as that may go.
        """
        found = self.postponed.look(self.position + 1, high_water, now_ns)
        if not found:
            return False
        order, (_, _, busy) = self.order, self._taken()
        for not_before_ns, seq_no in found:
            if seq_no not in busy and not self.is_done(seq_no):
                self.postponed.add(not_before_ns, seq_no)
                order.postpone(seq_no)
        return True

    def take(self, member_id: int, count: int, high_water: int) -> list[Range]:
        """Events for a member; follow it with the record `lease`, or with `untake`."""
        ranges = self.order.take(member_id, count, high_water, self.done)
        if not self.suspects or not ranges:
            return ranges
        given = self._without_neighbours(ranges)
        rest = RangeSet(ranges)
        for first, last in given:
            rest.remove(first, last)
        self.order.put_back(list(rest))
        return given

    def _without_neighbours(self, ranges: list[Range]) -> list[Range]:
        """The first event if it is a suspect, and else those before the first suspect."""
        taken = RangeSet(ranges)
        suspect = min((n for n in self.suspects if n in taken), default=None)
        if suspect is None:
            return ranges
        if suspect == taken.lowest:
            return [(suspect, suspect)]
        taken.remove(suspect, ranges[-1][1])
        return list(taken)

    def untake(self, ranges: list[Range]) -> None:
        """They were not handed out after all."""
        self.order.put_back(ranges)

    def fair_share(self, high_water: int) -> int:
        """What one member may take at most, so that no other that is idle now is left without."""
        idle = max(len(self.members) - len(self.leases), 1)
        return max(-(-self.order.available(high_water) // idle), 1)

    def largest_lease(self, not_of: int) -> Lease | None:
        """The lease with the most events that are not done; `None` if none has two."""
        others = (one for one in self.leases.values() if one.member_id != not_of)
        largest = max(others, key=lambda one: one.open.count, default=None)
        return largest if largest is not None and largest.open.count > 1 else None

    def delay(self, seq_no: int, due_ns: int) -> None:
        """Keep an event that has just failed until that time."""
        heapq.heappush(self._delayed, (due_ns, seq_no))

    def next_due(self) -> int | None:
        """When the next backoff ends; `None` without one."""
        return self._delayed[0][0] if self._delayed else None

    def resume_due(self, now_ns: int, log_ns: int) -> bool:
        """Let events go whose backoff is over, or that are due by the log's time; whether any."""
        order = self.order  # worked out before anything is taken from what it counts as held
        resumed = False
        while self._delayed and self._delayed[0][0] <= now_ns:
            _, seq_no = heapq.heappop(self._delayed)
            if not self.is_done(seq_no):
                order.resume(seq_no)
                resumed = True
        for seq_no in self.postponed.take_due(log_ns):
            order.come_due(seq_no)
            resumed = True
        return resumed

    # --- records -----------------------------------------------------------------------------

    def apply(self, record: GroupRecord) -> None:
        """Change the state by a record of this group."""
        _CHANGES[type(record)](self, record)

    def _set_options(self, record: records.Options) -> None:
        if record.ordering != self.ordering:
            self._order = None
        self.ordering, self.max_deliveries = record.ordering, record.max_deliveries

    def _seek(self, record: records.Sought) -> None:
        self.suspects.clear()
        self.position = record.position
        self.done, self.again = RangeSet(), RangeSet()
        self.deliveries.clear()
        self.exhausted.clear()
        self.leases.clear()
        self._delayed.clear()
        self.postponed.begin_after(self.position)
        self._order = None

    def _skip(self, record: records.Skipped) -> None:
        position = record.position
        if position > self.position:
            self.done.add(self.position + 1, position)
        self._advance()
        self.again.remove(1, position)
        self.deliveries = {n: times for n, times in self.deliveries.items() if n > position}
        self.exhausted = {n: who for n, who in self.exhausted.items() if n > position}
        self.suspects = {n for n in self.suspects if n > position}
        for lease in list(self.leases.values()):
            lease.open.remove(1, position)
            self._close_if_through(lease)
        self._delayed = sorted(one for one in self._delayed if one[1] > position)
        self.postponed.keep(lambda seq_no: seq_no > position)
        self._order = None

    def _add_member(self, record: records.Joined) -> None:
        member = Member(record.member_id, record.pid, record.start, record.slot)
        self.members[record.member_id] = member

    def _remove_member(self, record: records.Left) -> None:
        self.members.pop(record.member_id, None)

    def _add_lease(self, record: records.Leased) -> None:
        given = tuple(record.ranges)
        lease = Lease(record.lease_id, record.member_id, given, RangeSet(given))
        self.leases[record.lease_id] = lease

    def _end_done(self, record: records.Done | records.ResultsStored) -> None:
        lease_id, ranges = record.lease_id, record.ranges
        self._take_from(lease_id, ranges)
        if self._order is not None:
            (self.order.settle if lease_id else self.order.lose)(ranges)
        self._finish(ranges)
        if not lease_id:
            self._delayed = sorted(one for one in self._delayed if not self.is_done(one[1]))
            self.postponed.keep(lambda seq_no: not self.is_done(seq_no))

    def _store_results(self, record: records.ResultsStored) -> None:
        if record.first_result <= self.replayed_to:
            return
        self._end_done(record)
        if record.last_result > self.position:
            self.done.add(max(record.first_result, self.position + 1), record.last_result)
        self._advance()
        self.replayed_to = record.last_result

    def _give_back(self, record: records.GivenBack) -> None:
        self._take_from(record.lease_id, record.ranges)
        if self._order is not None:
            self.order.put_back(record.ranges)

    def _fail(self, record: records.Failed) -> None:
        """The event is held: follow it with `delay` (perhaps until now), or reject it."""
        seq_no = record.seq_no
        member_id = self.leases[record.lease_id].member_id
        self._take_from(record.lease_id, [(seq_no, seq_no)])
        is_last = self.is_last_delivery(seq_no)
        self.deliveries[seq_no] = self.deliveries.get(seq_no, 0) + 1
        if is_last:
            self.exhausted[seq_no] = member_id
        if self._order is not None:
            self.order.hold(seq_no)

    def _reject(self, record: records.Rejected) -> None:
        seq_no = record.seq_no
        if record.lease_id:
            self._end_done(records.Done(self.name, record.lease_id, [(seq_no, seq_no)]))
            return
        self.exhausted.pop(seq_no, None)
        if self._order is not None:
            self.order.drop(seq_no)
        self._finish([(seq_no, seq_no)])

    def _hand_out_again(self, record: records.HandedOutAgain) -> None:
        for seq_no in record.seq_nos:
            self.deliveries.pop(seq_no, None)
            if seq_no <= self.position:
                self.again.add(seq_no, seq_no)
            else:
                self.done.remove(seq_no, seq_no)
        if self._order is not None:
            self.order.add((seq_no, seq_no) for seq_no in record.seq_nos)

    def _take_from(self, lease_id: int, ranges: list[Range]) -> None:
        # A loss of power may leave an earlier lease of events in place of the one that is named.
        known = self.leases.get(lease_id)
        for lease in [known] if known is not None else list(self.leases.values()):
            for first, last in ranges:
                lease.open.remove(first, last)
            self._close_if_through(lease)

    def _close_if_through(self, lease: Lease) -> None:
        if not lease.open:
            del self.leases[lease.lease_id]
            member = self.members.get(lease.member_id)
            if member is not None:
                member.recent.append(lease.lease_id)

    def _finish(self, ranges: list[Range]) -> None:
        for first, last in ranges:
            if self.deliveries:
                for seq_no in numbers_between(self.deliveries, first, last):
                    del self.deliveries[seq_no]
            if self.suspects:
                self.suspects.difference_update(numbers_between(self.suspects, first, last))
            if self.again and first <= self.position:
                self.again.remove(first, min(last, self.position))
            if last > self.position:
                self.done.add(max(first, self.position + 1), last)
        self._advance()

    def _advance(self) -> None:
        """Move the position over what is done right behind it."""
        while self.done.lowest == self.position + 1:
            first, last = next(iter(self.done))
            self.position = last
            self.done.remove(first, last)

    # --- decisions ---------------------------------------------------------------------------

    def holds(self, lease_id: int, member_id: int, ranges: list[Range]) -> bool:
        """Whether the member has all these events; false if it said so before, by a lost pipe.

        Raises:
            KeyError: the delivery was superseded: the events are, or were, somebody else's.
        """
        lease = self.leases.get(lease_id)
        if lease is not None and lease.member_id == member_id:
            if all(lease.open.has_all(first, last) for first, last in ranges):
                return True
            given = RangeSet(lease.given)
            if all(given.has_all(first, last) for first, last in ranges):
                return False
        member = self.members.get(member_id)
        if member is not None and lease_id in member.recent:
            return False
        raise KeyError(lease_id)

    def still_open(self, lease_id: int, ranges: list[Range]) -> list[Range]:
        """What of the ranges the lease still has to do."""
        lease = self.leases.get(lease_id)
        if lease is None:
            return []
        closed = RangeSet(lease.given)
        for first, last in lease.open:
            closed.remove(first, last)
        still = RangeSet(ranges)
        for first, last in closed:
            still.remove(first, last)
        return list(still)

    # --- snapshots ---------------------------------------------------------------------------

    def snapshot(self) -> records.Snapshot:
        """The record that stands for all those before it."""
        return records.Snapshot(
            self.name,
            self.ordering,
            self.max_deliveries,
            self.position,
            list(self.done),
            list(self.again),
            list(self.deliveries.items()),
            list(self.exhausted.items()),
            [
                SnapshotMember(one.member_id, one.pid, one.start, one.slot, list(one.recent))
                for one in self.members.values()
            ],
            [
                SnapshotLease(one.lease_id, one.member_id, list(one.given), list(one.open))
                for one in self.leases.values()
            ],
            self.replayed_to,
        )

    def _restore(self, record: records.Snapshot) -> None:
        self._order = None
        self.postponed.begin_after(record.position)
        self.ordering, self.max_deliveries = record.ordering, record.max_deliveries
        self.position, self.replayed_to = record.position, record.replayed_to
        self.done, self.again = RangeSet(record.done), RangeSet(record.again)
        self.deliveries, self.exhausted = dict(record.deliveries), dict(record.exhausted)
        self.members = {}
        for member_id, pid, start, slot, recent in record.members:
            member = Member(member_id, pid, start, slot)
            member.recent.extend(recent)
            self.members[member_id] = member
        self.leases = {
            lease_id: Lease(lease_id, member_id, tuple(given), RangeSet(still))
            for lease_id, member_id, given, still in record.leases
        }


_CHANGES: Final[dict[type[GroupRecord], Callable[[GroupState, Any], None]]] = {
    records.Options: GroupState._set_options,
    records.Sought: GroupState._seek,
    records.Skipped: GroupState._skip,
    records.Joined: GroupState._add_member,
    records.Left: GroupState._remove_member,
    records.Leased: GroupState._add_lease,
    records.Done: GroupState._end_done,
    records.ResultsStored: GroupState._store_results,
    records.GivenBack: GroupState._give_back,
    records.Failed: GroupState._fail,
    records.Rejected: GroupState._reject,
    records.HandedOutAgain: GroupState._hand_out_again,
    records.Snapshot: GroupState._restore,
}
"""What each record changes; `Forgotten` ends the state, and is for whoever has the groups."""
