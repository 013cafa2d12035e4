"""A group of a log in memory: the reference for every engine's groups. Pure: no clock, no I/O.

Invariants:

1. Every event up to `position` is done, but for those in `again`; every one in `done` is above it.
2. An event that is not done is in one of these at most: a lease (`holders`), `waiting` for its
   backoff, or `exhausted`; in none of them, it may be taken.
3. With key order, no event is taken while an earlier one of its key is held, waits, or is
   exhausted; a lease may have several events of one key, in their order.
4. A suspect, which was begun beside others when their member ended, is leased alone.

A delivery is counted when it has ended without success: `failures[n]` of them did, and the next
attempt is one more. When a member ends with several events begun, nobody knows which one was at
fault: each has failed, but none gets further than one below `max_deliveries` by that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

from eventlog.api.group import Exhausted, GroupReport, MemberReport
from eventlog.memory.letters import Letter, Letters

KeyOf = Callable[[int], str | None]
DueOf = Callable[[int], int]
FORMER_KEPT: Final = 64


@dataclass(slots=True, eq=False)
class Held:
    """What one lease has left."""

    member_id: int
    todo: deque[int]
    out: set[int] = field(default_factory=set)
    """Its member has them, and has not begun them."""
    begun: dict[int, int] = field(default_factory=dict)
    """When each of them began, in nanoseconds."""
    returned: set[int] = field(default_factory=set)
    """Those begun whose handlers have returned, and whose results are not stored yet."""
    is_lost: bool = False

    @property
    def open(self) -> list[int]:
        """All of them."""
        return [*self.begun, *self.out, *self.todo]


@dataclass(slots=True)
class Seat:
    """One member, and its counts."""

    member_id: int
    owner: int
    pid: int
    handled: int = 0
    failed: int = 0
    retried: int = 0


class GroupModel:
    """The model of one group."""

    def __init__(
        self, name: str, ordering: str | None, max_deliveries: int, position: int, letters: Letters
    ) -> None:
        self.name = name
        self.ordering = ordering
        self.max_deliveries = max_deliveries
        self.position = position
        self.letters = letters
        self.members: dict[int, Seat] = {}
        self.former: dict[int, MemberReport] = {}
        """Members that have ended lately."""
        self.excused: set[int] = set()
        """Owners that end their members: what those have begun has not failed."""
        self.done: set[int] = set()
        self.again: set[int] = set()
        """Dead letters, at or below the position, that are to be tried once more."""
        self.failures: dict[int, int] = {}
        self.holders: dict[int, Held] = {}
        self.waiting: dict[int, int] = {}
        """When each of them may be tried again, in nanoseconds."""
        self.postponed: dict[int, int] = {}
        """When each of them is due, in nanoseconds since 1970: events that came too early."""
        self.looked_to = position
        """The last event whose due time was looked at."""
        self.exhausted: dict[int, Exhausted] = {}
        self.suspects: set[int] = set()

    def is_drained(self, seq_no: int) -> bool:
        """Whether everything up to the number is done, or is a dead letter."""
        return self.position >= seq_no and not self.again

    def attempt_of(self, seq_no: int) -> int:
        """Which delivery the next one is, or the one that goes on."""
        return self.failures.get(seq_no, 0) + 1

    # --- handing out -------------------------------------------------------------------------

    def take(self, member_id: int, count: int, least: int, last: int, key_of: KeyOf) -> Held | None:
        """A lease of events up to `last`; `None` if there is none to take.

        It is this member's share beside others that have nothing, but up to `least` events.
        """
        idle = max(len(self.members) - len(self.busy_members()), 1)
        free = list(islice(self._free(last, key_of), count * idle))
        share = max(-(-len(free) // idle), least)
        taken = self._without_neighbours(free[: min(count, share)])
        if not taken:
            return None
        held = Held(member_id, deque(taken))
        self.holders.update(dict.fromkeys(taken, held))
        return held

    def busy_members(self) -> set[int]:
        """Those that have events."""
        return {held.member_id for held in self.holders.values()}

    def _free(self, last: int, key_of: KeyOf) -> Iterator[int]:
        busy_keys: set[str | None] = set()
        for seq_no in chain(sorted(self.again), range(self.position + 1, last + 1)):
            if seq_no in self.done:
                continue
            key = key_of(seq_no) if self.ordering == "key" else None
            is_busy = seq_no in self.holders or seq_no in self.waiting or seq_no in self.exhausted
            is_busy = is_busy or seq_no in self.postponed
            if is_busy and key is not None:
                busy_keys.add(key)
            elif not is_busy and (key is None or key not in busy_keys):
                yield seq_no

    def _without_neighbours(self, numbers: list[int]) -> list[int]:
        """The first event if it is a suspect, and else those before the first suspect."""
        if numbers and numbers[0] in self.suspects:
            return numbers[:1]
        place = next((i for i, n in enumerate(numbers) if n in self.suspects), len(numbers))
        return numbers[:place]

    def recall(self, member_id: int) -> bool:
        """Give back half of what the largest lease of others has not begun; whether there was any.

        A member that has no other event keeps one at least.
        """
        others = {id(one): one for one in self.holders.values() if one.member_id != member_id}
        largest = max(others.values(), key=lambda held: len(held.todo), default=None)
        if largest is None:
            return False
        has_more = bool(largest.begun or largest.out)
        keeps = (len(largest.todo) if has_more else len(largest.todo) + 1) // 2
        recalled = [largest.todo.pop() for _ in range(len(largest.todo) - keeps)]
        self._put_back(recalled)
        return bool(recalled)

    def _put_back(self, numbers: list[int]) -> None:
        for seq_no in numbers:
            self.holders.pop(seq_no, None)

    def resume(self, now_ns: int) -> None:
        """Let events go whose wait is over."""
        self.waiting = {n: due for n, due in self.waiting.items() if due > now_ns}

    def next_due_ns(self) -> int | None:
        """When the next wait ends."""
        return min(self.waiting.values(), default=None)

    def postpone(self, last: int, due_of: DueOf, now_ns: int) -> None:
        """Keep events up to `last` that are not due, and let those go that are; by the log's time.

        An event that somebody has, or had, came in its time.
        """
        self.postponed = {n: due for n, due in self.postponed.items() if due > now_ns}
        for seq_no in range(max(self.looked_to, self.position) + 1, last + 1):
            is_new = seq_no not in self.holders and seq_no not in self.failures
            if is_new and seq_no not in self.done and (due := due_of(seq_no)) > now_ns:
                self.postponed[seq_no] = due
        self.looked_to = max(self.looked_to, last)

    # --- what becomes of a delivery ----------------------------------------------------------

    def holds(self, held: Held, seq_no: int) -> bool:
        """Whether the event is the lease's; what is said of it does not count otherwise."""
        return self.holders.get(seq_no) is held

    def finish(self, held: Held, seq_no: int) -> None:
        """A delivery has succeeded."""
        self._release(held, seq_no)
        self.letters.settle(seq_no)
        self._settle(seq_no)
        if held.member_id in self.members:
            self.members[held.member_id].handled += 1

    def fail(self, held: Held, seq_no: int, due_ns: int, *, is_final: bool, key_of: KeyOf) -> bool:
        """A delivery has failed; whether it was the last, so that the event is to be buried."""
        self._release(held, seq_no)
        self.failures[seq_no] = self.attempt_of(seq_no)
        self.suspects.discard(seq_no)  # its member has outlived it
        is_dead = is_final or self.failures[seq_no] >= self.max_deliveries
        seat = self.members.get(held.member_id)
        if seat is not None:
            seat.failed += 1
            seat.retried += not is_dead
        if not is_dead:
            self.waiting[seq_no] = due_ns
            self._give_back_key(held, seq_no, key_of)
        return is_dead

    def _give_back_key(self, held: Held, seq_no: int, key_of: KeyOf) -> None:
        """With key order, the later events of its key wait for the one that failed."""
        key = key_of(seq_no) if self.ordering == "key" else None
        if key is not None:
            later = {n for n in [*held.out, *held.todo] if key_of(n) == key}
            held.todo = deque(n for n in held.todo if n not in later)
            held.out -= later
            self._put_back(list(later))

    def bury(self, seq_no: int, letter: Letter) -> None:
        """The event is a dead letter now."""
        self.letters.add(seq_no, letter)
        self._settle(seq_no)

    def give_back(self, held: Held) -> None:
        """Whatever the lease has not begun goes to others."""
        self._put_back([*held.out, *held.todo])
        held.todo.clear()
        held.out.clear()

    def begin(self, held: Held, seq_no: int, now_ns: int) -> None:
        """The event's handler begins."""
        held.out.discard(seq_no)
        held.begun[seq_no] = now_ns

    def _release(self, held: Held, seq_no: int) -> None:
        del self.holders[seq_no]
        held.out.discard(seq_no)
        held.begun.pop(seq_no, None)
        held.returned.discard(seq_no)

    def _settle(self, seq_no: int) -> None:
        """The event needs no handling any more."""
        self.failures.pop(seq_no, None)
        self.waiting.pop(seq_no, None)
        self.postponed.pop(seq_no, None)
        self.exhausted.pop(seq_no, None)
        self.suspects.discard(seq_no)
        self.again.discard(seq_no)
        self.note_done(seq_no, seq_no)

    def note_done(self, first: int, last: int) -> None:
        """These events are done: handled, or this group's own results."""
        self.done.update(range(max(first, self.position + 1), last + 1))
        while self.position + 1 in self.done:
            self.position += 1
            self.done.discard(self.position)

    # --- members -----------------------------------------------------------------------------

    def end(self, member_id: int) -> None:
        """A member has left, or died: what it has goes to others, and what it has begun failed."""
        seat = self.members.get(member_id)
        if seat is None:
            return
        self.former[member_id] = self._report_of(seat)
        if len(self.former) > FORMER_KEPT:
            del self.former[next(iter(self.former))]
        del self.members[member_id]
        for held in self._leases():
            if held.member_id == member_id:
                self._end_lease(held, seat.owner)

    def _end_lease(self, held: Held, owner: int) -> None:
        begun = [n for n in held.begun if n not in held.returned]
        self._put_back(held.open)
        held.is_lost = True
        held.todo.clear()
        if owner in self.excused:
            return
        is_shared = len(begun) > 1
        for seq_no in begun:
            limit = self.max_deliveries - 1 if is_shared else self.max_deliveries
            before = self.failures.get(seq_no, 0)
            self.failures[seq_no] = max(min(before + 1, limit), before)
            self.suspects.add(seq_no)
            if self.failures[seq_no] >= self.max_deliveries:
                self.exhausted[seq_no] = Exhausted(
                    seq_no=seq_no,
                    deliveries=self.failures[seq_no],
                    member_id=held.member_id,
                    owner=owner,
                )

    def exhausted_for(self, owner: int) -> list[Exhausted]:
        """Those that the owner is to reject: not those of others that still have members."""
        others = {seat.owner for seat in self.members.values()} - {owner}
        return [one for one in self.exhausted.values() if not one.owner or one.owner not in others]

    def _leases(self) -> list[Held]:
        return list({id(held): held for held in self.holders.values()}.values())

    def member_report(self, member_id: int) -> MemberReport | None:
        """One of them, also if it has ended lately."""
        seat = self.members.get(member_id)
        return self.former.get(member_id) if seat is None else self._report_of(seat)

    def member_reports(self) -> list[MemberReport]:
        """One for each member."""
        return [self._report_of(seat) for seat in self.members.values()]

    def _report_of(self, seat: Seat) -> MemberReport:
        begun = [
            began
            for held in self._leases()
            if held.member_id == seat.member_id
            for began in held.begun.values()
        ]
        return MemberReport(
            member_id=seat.member_id,
            owner=seat.owner,
            pid=seat.pid,
            handled=seat.handled,
            failed=seat.failed,
            retried=seat.retried,
            in_flight=len(begun),
            busy_since_ns=min(begun, default=None),
        )

    def report(self, last: int) -> GroupReport:
        """The group, with the number of the log's last event."""
        return GroupReport(
            name=self.name,
            ordering=self.ordering,
            max_deliveries=self.max_deliveries,
            position=self.position,
            lag=max(last - self.position - len(self.done), 0) + len(self.again),
            in_flight=len(self.holders),
            members=len(self.members),
            redeliveries=len(self.failures),
            dead_letters=len(self.letters.listed()),
        )

    # --- the group as a consumer -------------------------------------------------------------

    def seek(self, position: int) -> None:
        """Begin anew after `position`: what is leased now is nobody's any more."""
        self.position = position
        for held in self._leases():
            held.is_lost = True
            held.todo.clear()
        for state in (self.holders, self.failures, self.waiting, self.exhausted, self.postponed):
            state.clear()
        self.looked_to = position
        for numbers in (self.done, self.again, self.suspects, self.letters.retried):
            numbers.clear()

    def skip(self, position: int) -> None:
        """Everything up to `position` is done, whoever has it."""
        for seq_no in [n for n in self.holders if n <= position]:
            held = self.holders[seq_no]
            self._release(held, seq_no)
            if seq_no in held.todo:
                held.todo.remove(seq_no)
        known = {*self.failures, *self.waiting, *self.exhausted, *self.suspects, *self.again}
        known |= self.postponed.keys()
        for seq_no in [n for n in known if n <= position]:
            self._settle(seq_no)
        self.letters.retried = {n for n in self.letters.retried if n > position}
        self.note_done(self.position + 1, position)

    def pass_deleted(self, first_available: int) -> int:
        """Retention ran past: what is gone needs no handling; how many events that were.

        What members have is theirs, and a dead letter that is retried has a copy.
        """
        gone = range(self.position + 1, first_available)
        lost = [n for n in gone if n not in self.done and self._is_lost(n)]
        for seq_no in lost:
            self._settle(seq_no)
        return len(lost)

    def _is_lost(self, seq_no: int) -> bool:
        return seq_no not in self.holders and seq_no not in self.letters.retried

    def retry(self, seq_nos: set[int]) -> int:
        """Hand dead letters out again, as if for the first time; how many there were."""
        numbers = [n for n in self.letters.stored if n in seq_nos - self.letters.retried]
        for seq_no in numbers:
            self.letters.retried.add(seq_no)
            if seq_no <= self.position:
                self.again.add(seq_no)
            else:
                self.done.discard(seq_no)
        return len(numbers)
