"""The groups in a ledger: what each command changes, and its answer. Pure.

A group's dead letters outlive it; each has a copy of its event if its sender had one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import Any, Final, NamedTuple

import msgspec

from eventlog.remote.driver import Position
from eventlog.remote.group_state import Consumer, Options, Seat

NO_GROUP: Final = "no group"
NO_MEMBER: Final = "no member"
LEASE_EVENTS_MAX: Final = 256


class LetterState(msgspec.Struct):
    """A dead letter."""

    report: bytes
    """An `ExitReport` or the failure, packed by whoever buried the event."""
    deliveries: int
    died_ns: int
    record: bytes | None
    """The event, for retries after retention has deleted it."""
    stored_ns: int


class _Call(NamedTuple):
    """Which group a command is for, and when it was stored."""

    name: str
    group: Consumer
    now_ns: int


class _Dump(msgspec.Struct):
    groups: dict[str, Consumer]
    letters: dict[str, dict[int, LetterState]]


class GroupsState:
    """The groups of one ledger; their positions are among those of all consumers."""

    def __init__(self, positions: dict[str, Position]) -> None:
        self._positions = positions
        self.groups: dict[str, Consumer] = {}
        self.letters: dict[str, dict[int, LetterState]] = {}
        self._commands: dict[str, Callable[..., Any]] = {
            "join": self._join,
            "take": self._take,
            "settle": self._settle,
            "keep": self._keep,
            "end": self._end,
            "reject": self._reject,
            "retry": self._retry,
            "deleted": self._deleted,
            "look": self._look,
        }

    def apply(self, command: str, arguments: Sequence[Any], now_ns: int) -> Any:
        """Note a command of a group; its answer."""
        name, *rest = arguments
        if command == "group":
            return self._open(now_ns, name, *rest)
        if command == "drop":
            return self._drop(name, *rest)
        change = self._commands.get(command)
        if change is None:
            return None
        group = self.groups.get(name)
        if group is None:
            return NO_GROUP
        group.end_dead(now_ns)
        group.resume(now_ns)
        answer = change(_Call(name, group, now_ns), *rest)
        self._note_position(name, group, now_ns)
        return answer

    def _note_position(self, name: str, group: Consumer, now_ns: int) -> None:
        known = self._positions.get(name)
        if known is None or known.position != group.position:
            self._positions[name] = Position(group.position, now_ns)

    # --- the group as a consumer -------------------------------------------------------------

    def moved(self, consumer: str, position: int, now_ns: int, *, is_ack: bool) -> None:
        """The consumer of that name was moved."""
        group = self.groups.get(consumer)
        if group is not None:
            if is_ack:
                group.skip(position)
            else:
                group.seek(position)
            self._note_position(consumer, group, now_ns)

    def forget(self, consumer: str) -> None:
        """The group goes; its dead letters stay until they are dropped."""
        self.groups.pop(consumer, None)

    def _open(
        self, now_ns: int, name: str, ordering: str | None, max_deliveries: int, position: int
    ) -> Any:
        """Make it, or find it; the options of one whose members work with others."""
        options = Options("key" if ordering == "key" else None, max_deliveries)
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Consumer(position, options)
        group.end_dead(now_ns)
        if group.options != options and group.members and group.options is not None:
            return [group.options.ordering, group.options.max_deliveries]
        group.options = options
        self._note_position(name, group, now_ns)
        return None

    # --- members -----------------------------------------------------------------------------

    def _join(self, call: _Call, member: int, owner: int, pid: int, lease_ns: int) -> None:
        seat = call.group.members.setdefault(member, Seat(owner, pid, 0))
        seat.until_ns = call.now_ns + lease_ns

    def _keep(self, call: _Call, members: list[int], lease_ns: int) -> list[int]:
        """The members that are given up."""
        seats = call.group.members
        for member in seats.keys() & set(members):
            seats[member].until_ns = call.now_ns + lease_ns
        return [member for member in members if member not in seats]

    def _end(self, call: _Call, member: int, has_failed: bool) -> None:
        call.group.end(member, has_failed=has_failed)

    def _look(self, _: _Call) -> None:
        """Only the time has come: members are dead, and events may be tried again."""

    def _deleted(self, call: _Call, first_available: int) -> None:
        call.group.pass_deleted(first_available)

    # --- events ------------------------------------------------------------------------------

    def _take(self, call: _Call, member: int, lease_ns: int, known: list[int], asked: Any) -> Any:
        """What the member gets, as number and attempt; first what it has and does not know of.

        `asked`: how many at most, and at least; the log's last event; with key order, the digests
        of the keys of those events that its sender has looked at.
        """
        group = call.group
        seat = group.members.get(member)
        if seat is None:
            return NO_MEMBER
        seat.until_ns = call.now_ns + lease_ns
        unknown = [n for n in seat.has if n not in known]
        if unknown:
            return [[n, group.attempt_of(n)] for n in unknown]
        count, least, last, keys = asked
        wanted = group.share(min(count, LEASE_EVENTS_MAX), least, last)
        taken = _pick(group, wanted, last, keys)
        for seq_no in taken:
            group.hold(member, seq_no, None if keys is None else keys[seq_no])
        return [[n, group.attempt_of(n)] for n in taken]

    def _settle(self, call: _Call, member: int, lease_ns: int, outcomes: list[Any]) -> list[int]:
        """The numbers that were somebody else's."""
        seat = call.group.members.get(member)
        if seat is None:
            return [outcome[1] for outcome in outcomes]
        seat.until_ns = call.now_ns + lease_ns
        stale = []
        for kind, seq_no, *rest in outcomes:
            if seq_no in seat.has:
                self._settle_one(call, member, kind, seq_no, *rest)
            elif seq_no not in seat.said:
                stale.append(seq_no)
        seat.said = [outcome[1] for outcome in outcomes]
        return stale

    def _settle_one(self, call: _Call, member: int, kind: str, seq_no: int, *rest: Any) -> None:
        name, group, now_ns = call
        seat = group.members[member]
        if kind == "done":
            first, count = rest
            if count:
                group.note_done(first, first + count - 1)
            seat.handled += 1
            group.finish(seq_no)
            self._settle_letter(name, group, seq_no)
        elif kind == "failed":
            delay_ns, is_final, report, record, stored_ns = rest
            deliveries = group.attempt_of(seq_no)
            if group.fail(member, seq_no, now_ns + delay_ns, is_final=is_final):
                letter = LetterState(report, deliveries, now_ns, record, stored_ns)
                self._bury(name, group, seq_no, letter)
        else:
            group.give_back(seat, [seq_no])

    def _bury(self, name: str, group: Consumer, seq_no: int, letter: LetterState) -> None:
        letters = self.letters.setdefault(name, {})
        before = letters.pop(seq_no, None)
        if letter.record is None and before is not None:
            letter.record, letter.stored_ns = before.record, before.stored_ns
        letters[seq_no] = letter
        if seq_no in group.retried:
            group.retried.remove(seq_no)
        group.finish(seq_no)

    def _settle_letter(self, name: str, group: Consumer, seq_no: int) -> None:
        """A retry has succeeded."""
        if seq_no in group.retried:
            group.retried.remove(seq_no)
            del self.letters[name][seq_no]

    # --- dead letters ------------------------------------------------------------------------

    def _reject(
        self, call: _Call, seq_no: int, report: bytes, record: bytes | None, stored_ns: int
    ) -> None:
        used = call.group.exhausted.get(seq_no)
        if used is not None:
            letter = LetterState(report, used.deliveries, call.now_ns, record, stored_ns)
            self._bury(call.name, call.group, seq_no, letter)

    def listed(self, name: str) -> dict[int, LetterState]:
        """The letters that nobody retries."""
        group = self.groups.get(name)
        retried = set() if group is None else set(group.retried)
        return {n: one for n, one in self.letters.get(name, {}).items() if n not in retried}

    def _retry(self, call: _Call, seq_nos: list[int]) -> int:
        listed = self.listed(call.name)
        return call.group.retry([n for n in seq_nos if n in listed])

    def _drop(self, name: str, seq_nos: list[int]) -> int:
        found = self.listed(name).keys() & set(seq_nos)
        for seq_no in found:
            del self.letters[name][seq_no]
        return len(found)

    # --- snapshots ---------------------------------------------------------------------------

    def dump(self) -> bytes:
        """All of it."""
        return msgspec.msgpack.encode(_Dump(self.groups, self.letters))

    def load(self, dumped: bytes) -> None:
        """The inverse of `dump`."""
        found = msgspec.msgpack.decode(dumped, type=_Dump)
        self.groups, self.letters = found.groups, found.letters


def _pick(group: Consumer, wanted: int, last: int, keys: dict[int, str | None] | None) -> list[int]:
    """The first events that may be handed out together; a suspect goes alone."""
    free = group.free(last)
    if keys is not None:
        # One that the sender has not looked at may be of any key: what comes after it waits.
        free = takewhile(keys.__contains__, free)
        busy = set(group.keys.values())
        free = (n for n in free if keys[n] is None or keys[n] not in busy)
    taken = list(islice(free, wanted))
    if taken and taken[0] in group.suspects:
        return taken[:1]
    place = next((i for i, n in enumerate(taken) if n in group.suspects), len(taken))
    return taken[:place]
