"""A member of a group in memory, as both colours have it, and its leases. Nothing here waits."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from eventlog.api.arguments import check_count
from eventlog.api.group import Failure, Lease, OnRefused, failed_by_refusal
from eventlog.config import AskedOptions
from eventlog.errors import EventLogError
from eventlog.event.envelope import EventEnvelope
from eventlog.event.results import envelopes_of_results
from eventlog.memory.groups import Held

if TYPE_CHECKING:
    from eventlog.memory.coordinator import Groups

UNASKED = AskedOptions()


class Pending(NamedTuple):
    """A result that waits until it is stored in another log."""

    lease: MemoryLease
    envelope: EventEnvelope
    results: list[Any]


class MemberCore:
    """One member; with `is_own_output` its results go to the group's own log."""

    def __init__(
        self,
        groups: Groups,
        name: str,
        owner: int,
        on_refused: OnRefused | None,
        *,
        is_own_output: bool,
    ) -> None:
        self.groups = groups
        self.name = name
        self.is_own_output = is_own_output
        self.has_output = is_own_output
        self.is_stopped = False
        self.member_id = secrets.randbits(63) | 1
        groups.join(name, owner, self.member_id, os.getpid())
        self.pending: list[Pending] = []
        self._on_refused = on_refused or failed_by_refusal
        self._lease: MemoryLease | None = None

    def __repr__(self) -> str:
        """Which member, of which group."""
        return f"<Member {self.member_id:#x} of {self.name!r}>"

    def take(self, count: int, least: int) -> MemoryLease | None:
        """A lease, if there is one now."""
        count, least = check_count("count", count), check_count("least", least)
        if self._lease is not None:
            self._lease.give_back()
        held = self.groups.take(self.name, self.member_id, count, least)
        self._lease = None if held is None else MemoryLease(self, held)
        return self._lease

    def refused(self, pending: Pending, error: EventLogError) -> None:
        """The output did not take an event's results."""
        attempt = pending.lease.attempts[pending.envelope.seq_no or 0]
        pending.lease.failed(pending.envelope, self._on_refused(pending.envelope, attempt, error))

    def take_pending(self) -> list[Pending]:
        """What is to be stored in another log now."""
        pending, self.pending = self.pending, []
        return pending

    def leave(self) -> None:
        """Leave the group; may be said twice."""
        self.is_stopped = True
        self.groups.end(self.name, self.member_id)


class MemoryLease(Lease):
    """See `Lease`."""

    def __init__(self, member: MemberCore, held: Held) -> None:
        self._member = member
        self._groups = member.groups
        self._name = member.name
        self._held = held
        self._count = len(held.todo)
        self._unpacked: dict[int, EventEnvelope] = {}
        self.attempts: dict[int, int] = {}

    @property
    def count(self) -> int:
        return self._count

    @property
    def is_lost(self) -> bool:
        return self._held.is_lost

    def __iter__(self) -> Iterator[tuple[int, EventEnvelope]]:
        """The events that were not begun, each with its attempt."""
        while (found := self._groups.next_of(self._name, self._held, self._unpacked)) is not None:
            attempt, envelope = found
            seq_no = envelope.seq_no or 0
            self.attempts[seq_no] = attempt
            if attempt > 1:
                envelope.columns.note_attempt(seq_no, attempt)
            yield attempt, envelope

    def begin(self, envelope: EventEnvelope) -> bool:
        return self._groups.begin(self._name, self._held, envelope.seq_no or 0)

    def done(self, envelope: EventEnvelope) -> None:
        self._groups.done(self._name, self._held, envelope.seq_no or 0)

    def done_with(self, envelope: EventEnvelope, results: Collection[Any]) -> None:
        stored = list(envelopes_of_results(envelope, results, self._groups.log_id, self._name))
        if self._member.is_own_output:
            self._groups.done_with(self._name, self._held, envelope.seq_no or 0, stored)
        elif self._member.has_output and results:
            self._groups.returned(self._name, self._held, envelope.seq_no or 0)
            self._member.pending.append(Pending(self, envelope, stored))
        else:
            self.done(envelope)

    def failed(self, envelope: EventEnvelope, failure: Failure) -> None:
        self._groups.failed(self._name, self._held, envelope.seq_no or 0, failure)

    def give_back(self) -> None:
        self._groups.give_back(self._name, self._held)
