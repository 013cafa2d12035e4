"""A member of a group in memory, as both colours have it, and its leases. Nothing here waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from eventlog.api.arguments import check_count
from eventlog.api.group_new import Failure, Lease
from eventlog.config import AskedOptions
from eventlog.errors import EventLogError
from eventlog.event.envelope import EventEnvelope
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
    """See the module; `is_own_output`: results go to the group's own log."""

    def __init__(self, groups: Groups, name: str, owner: int, *, is_own_output: bool) -> None:
        self.groups = groups
        self.name = name
        self.is_own_output = is_own_output
        self.has_output = is_own_output
        self.is_stopped = False
        self.member_id = groups.join(name, owner).member_id
        self.pending: list[Pending] = []

    def __repr__(self) -> str:
        """Which member, of which group."""
        return f"<Member {self.member_id:#x} of {self.name!r}>"

    def take(self, count: int, least: int) -> MemoryLease | None:
        """A lease, if there is one now."""
        held = self.groups.take(
            self.name, self.member_id, check_count("count", count), check_count("least", least)
        )
        return None if held is None else MemoryLease(self, held)

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

    @property
    def count(self) -> int:
        return self._count

    @property
    def is_lost(self) -> bool:
        return self._held.is_lost

    def __iter__(self) -> Iterator[tuple[int, EventEnvelope]]:
        """The events that were not begun, each with its attempt."""
        while (found := self._groups.next_of(self._name, self._held, self._unpacked)) is not None:
            yield found

    def begin(self, envelope: EventEnvelope) -> None:
        self._groups.begin(self._name, self._held, envelope.seq_no or 0)

    def done(self, envelope: EventEnvelope) -> None:
        self._groups.done(self._name, self._held, envelope.seq_no or 0)

    def done_with(self, envelope: EventEnvelope, results: list[Any]) -> None:
        if self._member.is_own_output:
            self._groups.done_with(self._name, self._held, envelope.seq_no or 0, results)
        elif self._member.has_output and results:
            self._groups.returned(self._name, self._held, envelope.seq_no or 0)
            self._member.pending.append(Pending(self, envelope, results))
        else:
            self.done(envelope)

    def failed(self, envelope: EventEnvelope, failure: Failure) -> None:
        self._groups.failed(self._name, self._held, envelope.seq_no or 0, failure)

    def refused(self, envelope: EventEnvelope, error: EventLogError) -> None:
        """The output did not take the event's results."""
        self.failed(envelope, Failure(error=f"{type(error).__name__}: {error}"))

    def give_back(self) -> None:
        self._groups.give_back(self._name, self._held)
