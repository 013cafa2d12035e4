"""What an engine over a server knows of a consumer, and of the group of its name. Pure.

The rules of a group are those of `memory.groups`, which explains them. What differs: the server is
not told which events a member has begun, so a member that dies has begun all that it had, and
several of them are all suspects.

Times are nanoseconds since 1970 by the server's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec
from msgspec.structs import replace

from eventlog.api.group import Exhausted, GroupReport, MemberReport
from eventlog.config import GroupOrdering
from eventlog.remote import numbers
from eventlog.remote.numbers import Range


class Options(msgspec.Struct, frozen=True):
    """How the members of a group work."""

    ordering: GroupOrdering
    max_deliveries: int


FORMER_KEPT: Final = 16


class Seat(msgspec.Struct, omit_defaults=True):
    """One member."""

    owner: int
    pid: int
    """0: it has ended."""
    until_ns: int
    """It is dead then, unless something is heard of it before."""
    has: list[int] = []
    said: list[int] = []
    """What it settled last: that is not somebody else's when it is settled again."""
    handled: int = 0
    failed: int = 0
    retried: int = 0


class Used(msgspec.Struct, frozen=True):
    """An event that used up its deliveries by ends of its members."""

    deliveries: int
    member: int
    owner: int


class Consumer(msgspec.Struct, omit_defaults=True):
    """A consumer, and the group of its name if it has one."""

    position: int
    options: Options | None = None
    """Options of the group; `None`: a consumer alone."""
    members: dict[int, Seat] = {}
    former: dict[int, Seat] = {}
    """Pools' members that have ended lately, for their counts."""
    done: list[Range] = []
    """Above the position."""
    again: list[int] = []
    """Dead letters, at or below the position, that are to be tried once more."""
    failures: dict[int, int] = {}
    waiting: dict[int, int] = {}
    """When each of them may be tried again."""
    exhausted: dict[int, Used] = {}
    suspects: list[int] = []
    retried: list[int] = []
    """Dead letters that are handed out again, and not listed while they are."""
    keys: dict[int, str] = {}
    """With key order: the digest of the key of each event that keeps others of its key waiting."""

    def settling(self) -> Iterable[int]:
        """Events that no member has any more and that are not done yet, in an engine that has any.

        They are settled in more than one step.
        """
        return ()

    # --- handing out -------------------------------------------------------------------------

    def attempt_of(self, seq_no: int) -> int:
        """Which delivery the next one is, or the one that goes on."""
        return self.failures.get(seq_no, 0) + 1

    def free(self, last: int) -> Iterator[int]:
        """The events up to `last` that nobody has and that do not wait, in order."""
        busy = {*self.waiting, *self.exhausted, *self.settling()}
        for seat in self.members.values():
            busy.update(seat.has)
        yield from (n for n in sorted(self.again) if n not in busy)
        for seq_no in numbers.others(self.done, self.position + 1, last):
            if seq_no not in busy:
                yield seq_no

    def share(self, count: int, least: int, last: int) -> int:
        """How many events a member gets beside others that have nothing."""
        idle = max(sum(not seat.has for seat in self.members.values()), 1)
        there = sum(1 for _ in islice(self.free(last), count * idle))
        return min(count, max(-(-there // idle), least))

    def hold(self, member: int, seq_no: int, key: str | None) -> None:
        """Give the event to the member."""
        seat = self.members[member]
        seat.has.append(seq_no)
        if seq_no in seat.said:
            seat.said.remove(seq_no)
        if key is not None:
            self.keys[seq_no] = key

    def resume(self, now_ns: int) -> None:
        """Let events go whose wait is over."""
        self._let_go([n for n, due in self.waiting.items() if due <= now_ns])

    def _let_go(self, seq_nos: Iterable[int]) -> None:
        for seq_no in seq_nos:
            self.waiting.pop(seq_no, None)
            self.keys.pop(seq_no, None)

    def next_due_ns(self) -> int | None:
        """When something is to be done though nobody says anything."""
        ends = (seat.until_ns for seat in self.members.values())
        return min((*self.waiting.values(), *ends), default=None)

    # --- what becomes of a delivery ----------------------------------------------------------

    def finish(self, seq_no: int) -> None:
        """The event needs no handling any more."""
        for seat in self.members.values():
            if seq_no in seat.has:
                seat.has.remove(seq_no)
        for state in (self.failures, self.waiting, self.exhausted, self.keys):
            state.pop(seq_no, None)
        for listed in (self.suspects, self.again):
            if seq_no in listed:
                listed.remove(seq_no)
        self.note_done(seq_no, seq_no)

    def fail(self, member: int, seq_no: int, due_ns: int, *, is_final: bool) -> bool:
        """A delivery of the member has failed; whether it was the last, so that it is to be dead.

        Whoever calls it makes the dead letter, and calls `finish`.
        """
        assert self.options is not None
        seat = self.members[member]
        deliveries = self.attempt_of(seq_no)
        if seq_no in self.suspects:
            self.suspects.remove(seq_no)  # its member has outlived it
        is_dead = is_final or deliveries >= self.options.max_deliveries
        seat.failed += 1
        if is_dead:
            return True
        seat.retried += 1
        seat.has.remove(seq_no)
        self.failures[seq_no] = deliveries
        self.waiting[seq_no] = due_ns
        key = self.keys.get(seq_no)
        if key is not None:
            self.give_back(seat, [n for n in seat.has if n > seq_no and self.keys.get(n) == key])
        return False

    def give_back(self, seat: Seat, seq_nos: Iterable[int]) -> None:
        """Events that were not begun go to others."""
        for seq_no in seq_nos:
            seat.has.remove(seq_no)
            self.keys.pop(seq_no, None)

    def note_done(self, first: int, last: int) -> None:
        """These events are done: handled, or this group's own results."""
        numbers.add(self.done, max(first, self.position + 1), last)
        if self.done and self.done[0][0] == self.position + 1:
            self.position = self.done[0][1]
            del self.done[0]

    def is_drained(self, seq_no: int) -> bool:
        """Whether everything up to the number is done, or is a dead letter."""
        return self.position >= seq_no and not self.again

    # --- members -----------------------------------------------------------------------------

    def end_dead(self, now_ns: int) -> None:
        """End the members that nothing was heard of for too long."""
        for member in [m for m, seat in self.members.items() if seat.until_ns <= now_ns]:
            self.end(member, has_failed=True)

    def end(self, member: int, *, has_failed: bool) -> None:
        """A member has left, or died: what it has goes to others."""
        seat = self.members.pop(member, None)
        if seat is None:
            return
        self._note_former(member, seat)
        assert self.options is not None
        most = self.options.max_deliveries - (len(seat.has) > 1)
        for seq_no in seat.has:
            if has_failed:
                before = self.failures.get(seq_no, 0)
                self.failures[seq_no] = max(min(before + 1, most), before)
                self.suspects += [] if seq_no in self.suspects else [seq_no]
            if has_failed and self.failures[seq_no] >= self.options.max_deliveries:
                used = Used(self.failures[seq_no], member, seat.owner)
                self.exhausted[seq_no] = used
            else:
                self.keys.pop(seq_no, None)

    def _note_former(self, member: int, seat: Seat) -> None:
        if seat.owner:
            self.former[member] = replace(seat, pid=0, until_ns=0, has=[], said=[])
            for oldest in list(self.former)[:-FORMER_KEPT]:
                del self.former[oldest]

    def exhausted_for(self, owner: int) -> list[Exhausted]:
        """Those that the owner is to reject: not those of others that still have members."""
        others = {seat.owner for seat in self.members.values()} - {owner}
        return [
            Exhausted(
                seq_no=seq_no, deliveries=used.deliveries, member_id=used.member, owner=used.owner
            )
            for seq_no, used in self.exhausted.items()
            if not used.owner or used.owner not in others
        ]

    def reports(self) -> list[MemberReport]:
        """One for each member, behind those that have ended lately."""
        return [
            MemberReport(
                member_id=member,
                owner=seat.owner,
                pid=seat.pid,
                handled=seat.handled,
                failed=seat.failed,
                retried=seat.retried,
                in_flight=len(seat.has),
                busy_since_ns=None,  # a clock of another machine says nothing here
            )
            for member, seat in [*self.former.items(), *self.members.items()]
        ]

    def report(self, name: str, options: Options, last: int, dead_letters: int) -> GroupReport:
        """The group, with the number of the log's last event."""
        in_flight = sum(len(seat.has) for seat in self.members.values())
        lag = max(last - self.position - numbers.count(self.done), 0)
        return GroupReport(
            name=name,
            ordering=options.ordering,
            max_deliveries=options.max_deliveries,
            position=self.position,
            lag=lag + len(self.again),
            in_flight=in_flight + len([*self.settling()]),
            members=len(self.members),
            redeliveries=len(self.failures),
            dead_letters=dead_letters,
        )

    # --- the group as a consumer -------------------------------------------------------------

    def seek(self, position: int) -> None:
        """Begin anew after `position`: what members have is nobody's any more."""
        self.position = position
        for seat in self.members.values():
            seat.has, seat.said = [], []
        self.done, self.again, self.suspects, self.retried = [], [], [], []
        self.failures, self.waiting, self.exhausted = {}, {}, {}
        self.keys = {}

    def skip(self, position: int) -> None:
        """Everything up to `position` is done, whoever has it."""
        if not self.options:
            self.position = position
            return
        known = {*self.failures, *self.waiting, *self.exhausted, *self.keys, *self.settling()}
        known |= {*self.suspects, *self.again}
        for seat in self.members.values():
            known.update(seat.has)
        for seq_no in [n for n in known if n <= position]:
            self.finish(seq_no)
        self.retried = [n for n in self.retried if n > position]
        self.note_done(self.position + 1, position)

    def pass_deleted(self, first_available: int) -> None:
        """Retention ran past: what is gone needs no handling.

        What members have is theirs, and a dead letter that is retried has a copy.
        """
        kept = {*self.retried, *self.settling()}
        for seat in self.members.values():
            kept.update(seat.has)
        kept = {n for n in kept if self.position < n < first_available}
        gone = {*self.failures, *self.waiting, *self.exhausted, *self.suspects} - kept
        for seq_no in [n for n in gone if self.position < n < first_available]:
            self.finish(seq_no)
        begin = self.position + 1
        for seq_no in [*sorted(kept), first_available]:
            self.note_done(begin, seq_no - 1)
            begin = seq_no + 1

    def retry(self, seq_nos: Iterable[int]) -> int:
        """Hand dead letters out again, as if for the first time; how many there were."""
        found = [n for n in seq_nos if n not in self.retried]
        for seq_no in found:
            self.retried.append(seq_no)
            if seq_no <= self.position:
                self.again.append(seq_no)
            else:
                numbers.remove(self.done, seq_no)
        return len(found)
