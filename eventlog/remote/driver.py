"""What an engine over a server has to do: a driver. The shell makes a log of it.

All calls of one driver are made in one event loop (trio or asyncio; `Driver.LOOPS` says which it
can), from several tasks at once, and each may be cancelled. A call that the server did not answer
raises `Unreachable`; the shell makes it again, with the same arguments, until `retry_s` is over, so
every call can be repeated. Refusals that repeating does not change are errors of `eventlog.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from eventlog.api.group import DeadLetter, Exhausted, ExitReport, Failure, GroupReport, MemberReport
from eventlog.config import GroupOrdering, LogOptions


class Unreachable(Exception):
    """Nobody answered in time, or the connection is gone; whether it was done is not known."""


class OutOfTurn(Exception):
    """A batch of this producer with a smaller number is not stored, so this one was not either."""


class GivenUp(Exception):
    """The group has given the member up, since it has not heard of it for too long."""


class Stored(NamedTuple):
    """An event as the server has it."""

    seq_no: int
    stored_ns: int
    """When it was stored, nanoseconds since 1970, by the server's clock."""
    record: bytes | memoryview
    """What `remote.record` packed."""


class State(NamedTuple):
    """A log on its server, now."""

    first: int
    """The oldest event still stored; one past `last` if there is none."""
    last: int
    """The last event ever stored; 0 if there was none."""
    bytes: int


class Position(NamedTuple):
    """A consumer: the last number behind it, when that was set, and the state it left there."""

    position: int
    last_seen_ns: int
    state: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What `Driver.open` found or made."""

    log_id: UUID
    options: LogOptions
    """The options that the log was made with; durability is what the server is set to."""
    record_bytes_max: int
    """The largest record that the server takes."""
    atomic_events_max: int
    """So many records are stored whole or not at all; 1 if each is on its own."""
    atomic_bytes_max: int


class Reader(Protocol):
    """Reads on from one number; a stream has one."""

    async def next(self) -> list[Stored]:
        """Wait for the next events: at least one, without a gap; with what is there, many.

        Once a call was cancelled or has failed, the shell closes the reader and makes another one.

        Raises:
            EventsTruncated: the next one was deleted.
            CorruptLog: a number is missing, or a record is nobody's of ours.
            Unreachable
        """

    async def aclose(self) -> None:
        """Give everything back, without waiting long; also when the connection is gone."""


class Driver(Protocol):
    """One log on a server, through one handle."""

    @property
    def path(self) -> str:
        """The address as errors may show it: without user, password and token."""

    async def open(self) -> Opened:
        """Connect; make the log if there is none, check one that is there.

        Raises:
            Unreachable; NotALog: something else is at the address; NotSupported: the server is too
            old, or set so that numbers would have gaps (the message names the setting);
            PermissionDenied: user, password or token are wrong, or may not do what is needed.
        """

    async def aclose(self) -> None:
        """Give everything back; the shell has ended all calls before. May be called twice."""

    # --- events ------------------------------------------------------------------------------

    async def append(
        self,
        producer_id: int,
        producer_seq: int,
        records: Sequence[bytes],
        expect_last: int | None = None,
    ) -> int:
        """Store records (at most `atomic_events_max`) in order; the number of the first one.

        A batch that this producer has stored under this `producer_seq` is not stored again; the
        answer is that of the first time. A producer counts from 1, without gaps, and may have
        several batches on their way at once: they are stored in the order of their numbers, and
        their calls begin in that order (up to the first wait of each). After a batch that was not
        stored, and after a cancelled one, the shell makes another producer. With `expect_last` the
        records are stored only if the last event, of all, has that number.

        Raises:
            WrongExpectation: it has another one; NotSupported: the server cannot do that.
            Unreachable; EventTooLarge; LogDeleted: the stream is gone or another one.
            LogFull: `is_by_retention` if an `ack` makes room; the shell then tries again, or not.
            OutOfTurn: one of a smaller number is not stored.
        """

    async def state(self) -> State:
        """First, last and size."""

    async def read(self, seq_no: int, count: int) -> list[Stored]:
        """Up to `count` events from `seq_no` on, of those stored now; it may be fewer.

        Raises:
            EventsTruncated, CorruptLog, Unreachable.
        """

    def reader(self, seq_no: int) -> Reader:
        """For a stream that follows from `seq_no` on."""

    async def synced(self) -> None:
        """Wait until what is stored now is on the disk; only asked with durability "disk".

        Raises:
            NotSupported: the server does not tell.
        """

    async def find_time(self, time_ns: int) -> int:
        """The first event stored at or after that time; one past the last if there is none."""

    # --- consumers ---------------------------------------------------------------------------

    async def positions(self) -> Mapping[str, Position]:
        """All consumers, groups too."""

    async def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        """Set a consumer's position; as an `ack`, forward only, whoever else does so at the time.

        Its state is dropped, but by an `ack` that does not move it. A group of that name goes on
        from there too.
        """

    async def forget(self, consumer: str) -> None:
        """Remove a consumer, and the group of its name."""


class DriverThatTrims(Driver, Protocol):
    """A driver that can delete the oldest events."""

    async def trim(self, before: int) -> None:
        """Delete the events before that one, which is there or the next one to come."""


class DriverOfStates(Driver, Protocol):
    """A driver that keeps states of consumers."""

    async def ack_state(self, consumer: str, position: int, state: bytes) -> None:
        """As `move` by an `ack`, with the state in the same step; a group has none.

        For the position that the consumer has, it replaces the state.

        Raises:
            InvalidArgument: the consumer is a group.
        """


# --- groups ----------------------------------------------------------------------------------


class Delivery(NamedTuple):
    """An event in a member's hands; `attempt` counts from 1, and counts this one."""

    event: Stored
    attempt: int


class Done(NamedTuple):
    """Handled. With `results` (records for the group's own log) stored in the same step."""

    seq_no: int
    results: Sequence[bytes] = ()


class Failed(NamedTuple):
    """The delivery failed; the driver decides: again after the delay, or a dead letter."""

    seq_no: int
    failure: Failure


class GivenBack(NamedTuple):
    """Not begun; it counts as no delivery."""

    seq_no: int


Outcome = Done | Failed | GivenBack


class GroupDriver(Protocol):
    """One group, through one handle; a driver that has groups has `group` and what stands below.

    A member that no call was made for in `lease_s` (an option of `open`) is dead: what it had goes
    to others, each as a failed delivery if it was begun or is not known. The shell calls `keep` for
    its members in time.
    """

    async def join(self, member_id: int, owner: int, pid: int) -> None:
        """Add a member."""

    async def take(self, member_id: int, count: int, least: int) -> list[Delivery]:
        """Wait for events for the member: at least one.

        A call may be cancelled, or get no answer, after the server has given the member events: the
        next `take` for it gives them again, as the same attempts.

        Raises:
            GivenUp: the group has no such member any more; the shell ends it and joins again.

        With key order no event is handed out while one of its key is in anybody's hands, or waits
        to be tried again.
        """

    async def settle(self, member_id: int, outcomes: Sequence[Outcome]) -> set[int]:
        """Say what became of deliveries; the numbers that were somebody else's by then.

        Repeatable: what was said already changes nothing, and is somebody else's for none of it.
        Results are settled by calls of one outcome, which may raise `LogFull` and `EventTooLarge`:
        then nothing has changed. With key order, a failed event's later
        ones of the same key in this member's hands are given back by it.
        """

    async def keep(self, member_ids: Sequence[int]) -> set[int]:
        """These members live; those that the group has given up meanwhile."""

    async def end(self, member_id: int, *, has_failed: bool) -> None:
        """The member has left, or its process has ended: what it had goes to others at once.

        `has_failed`: what it had begun counts as a failed delivery.
        """

    async def exhausted(self, owner: int) -> list[Exhausted]:
        """Wait for events that used up their deliveries by ends of this owner's members."""

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        """Make one a dead letter."""

    async def drained(self, seq_no: int) -> None:
        """Wait until everything up to the number is done, or dead."""

    async def members(self) -> list[MemberReport]:
        """Those that live; before them those of pools that have ended lately, whose pid is 0."""


class DriverOfGroups(Driver, Protocol):
    """A driver that has groups."""

    async def group(
        self, name: str, ordering: GroupOrdering, max_deliveries: int, position: int
    ) -> GroupDriver:
        """Make the group, from after `position`, or find it.

        Raises:
            GroupMismatch: it has members that work with other options.
            NotSupported: the engine has no such ordering.
        """

    async def groups(self) -> list[GroupReport]:
        """All groups, by name."""

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        """Those of a group, in the order in which they died."""

    async def retry_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        """Hand them out again; how many of the numbers were some.

        Raises:
            InvalidArgument: there is no such group, or an event is deleted and has no copy.
        """

    async def drop_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        """Forget them; how many of the numbers were some."""
