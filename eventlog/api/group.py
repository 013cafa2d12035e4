"""Groups as every engine has them, in both colours: what pools of workers stand on.

::

    Group   consumers that share one position
      `-- Member   one process's (or task's) part: it asks for leases
            `-- Lease   events in its hands: begin, then done, done_with or failed; give_back

A member says *failed*; whether the event is tried again or becomes a dead letter is decided by the
group alone. What is said of a lease is not waited for: `flush` waits.

A lease is used in the same way in both colours, for none of its methods waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from eventlog.errors import EventLogError
from eventlog.event.arrays import picklable, rebuilt
from eventlog.event.envelope import EventEnvelope


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReport:
    """One group at one moment.

    `position`: everything up to this event is done. `lag`: events that are not done. `in_flight`:
    those that members work on. `members`: of all programs. `redeliveries`: events that failed
    and are to be tried again. `dead_letters`: those that are listed.
    """

    name: str
    ordering: str | None
    max_deliveries: int
    position: int
    lag: int
    in_flight: int
    members: int
    redeliveries: int
    dead_letters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that used up its deliveries, with what its last one ended in.

    `event`: `None` also if retention had deleted it before its worker died (see `keep_unacked`).
    `error`: as `ValueError: no such size`, or `the worker was killed by SIGSEGV`. `traceback`: of
    the last exception; `None` if the process died. `deliveries`: how often it was handed out.
    `failed_at`: when the last delivery ended. Of a process that died, else `None` or empty:
    `exit_code` (negative: by that signal), `peak_rss_bytes` (the most memory that it had) and
    `log_lines` (the last that it logged).
    """

    event: Any
    key: str | None
    seq_no: int
    error: str
    traceback: str | None
    deliveries: int
    group: str
    headers: dict[str, str] | None
    exit_code: int | None
    peak_rss_bytes: int | None
    log_lines: tuple[str, ...]
    failed_at: datetime

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle arrays in the event too."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return rebuilt, (DeadLetter, picklable(fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberReport:
    """One member at one moment; the counts are its own, since it joined."""

    member_id: int
    owner: int
    """Which pool looks after it; 0 for a member without a pool."""
    pid: int
    handled: int
    """Events that it said were done."""
    failed: int
    """Deliveries that it said had failed."""
    retried: int
    """Those of them after which the event is tried again."""
    in_flight: int
    """Events that it has begun and said nothing of yet."""
    busy_since_ns: int | None
    """When the oldest of those began, by the monotonic clock; `None` if there is none, and of a
    member on a server that another process has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a delivery failed, and what the member would do about it."""

    error: str
    """One line, as `ValueError: no such size`."""
    traceback: str | None = None
    delay_s: float = 0.0
    """How long the event waits before it is tried again, if it is."""
    is_final: bool = False
    """Trying again is of no use: the event becomes a dead letter at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """How a member's process ended."""

    error: str
    """One line, as `the worker was killed by SIGSEGV`."""
    exit_code: int | None = None
    """Negative: killed by that signal; `None` if it is not known."""
    peak_rss_bytes: int | None = None
    log_lines: tuple[str, ...] = ()
    """The last lines that it logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhausted:
    """An event that used up its deliveries by deaths of its members; `Group.reject` it."""

    seq_no: int
    deliveries: int
    member_id: int
    """The last member that had it."""
    owner: int
    """The pool that looked after that member; 0 for a member without a pool."""


OnRefused = Callable[[EventEnvelope, int, EventLogError], Failure]
"""What a member says of an event, at that attempt, whose results the output has refused later."""


def described(error: EventLogError) -> str:
    """The error in one line, as the last one of a traceback."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}: {error}"


def failed_by_refusal(_envelope: EventEnvelope, _attempt: int, error: EventLogError) -> Failure:
    """The default of `on_refused`: the delivery has failed, and is tried again without delay."""
    return Failure(error=described(error))


class Lease(ABC):
    """Events that one member works on; iterate over it for `(attempt, envelope)`.

    Each event that comes out is the caller's: `begin` it before its handler runs, and then say what
    became of it. The iteration ends early when the lease is lost, or when others that are idle were
    given the rest. No method waits for events or for the group; results are stored on the way. The
    member's next `lease` ends this one, as `give_back` does. For one thread at a time, which need
    not be that of the member's event loop.
    """

    @property
    @abstractmethod
    def count(self) -> int:
        """How many events it had at first."""

    @property
    @abstractmethod
    def is_lost(self) -> bool:
        """Whether the events are somebody else's by now; what is said of them does not count."""

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[int, EventEnvelope]]:
        """The events that were not begun, each with its attempt (1 is the first)."""

    @abstractmethod
    def begin(self, envelope: EventEnvelope) -> bool:
        """Note, where this process's death cannot take it, that the event's handler begins.

        False: the event is not the caller's any more, so leave it. It was given back behind one of
        its key that failed, or the lease is lost.
        """

    @abstractmethod
    def done(self, envelope: EventEnvelope) -> None:
        """The event is handled."""

    @abstractmethod
    def done_with(self, envelope: EventEnvelope, results: Collection[Any]) -> None:
        """The event is handled, and these are its results, for the member's output.

        With the group's own log as output, the results are stored and the event is done in one
        step; else the results are stored first. Without an output they are dropped.

        Raises:
            InvalidEvent, EventTooLarge: no log can store a result; the event is still the caller's.
        """

    @abstractmethod
    def failed(self, envelope: EventEnvelope, failure: Failure) -> None:
        """The delivery failed: the group tries it again later, or makes it a dead letter.

        With key order, if it is to be tried again, the later events of its key are given back.
        """

    @abstractmethod
    def give_back(self) -> None:
        """Give back all that was not begun; no delivery is counted."""


class _GroupBase(ABC):
    """What both colours have."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The group's, and the consumer's."""

    @abstractmethod
    def members(self) -> list[MemberReport]:
        """The members as far as is known here, without asking anybody."""

    @abstractmethod
    def member(self, member_id: int) -> MemberReport | None:
        """One of them, also for a while after its end; `None` if nothing is known of it."""

    @abstractmethod
    def lag(self) -> int:
        """How many events of the log are after the group's position, without asking anybody."""


class Member(ABC):
    """A task's part in a group, for trio and asyncio; `async with` leaves the group at its end."""

    @property
    @abstractmethod
    def member_id(self) -> int:
        """Names the member; random."""

    @abstractmethod
    async def lease(self, count: int = 1, least: int = 1) -> Lease | None:
        """Wait for at most `count` events; `None` after `stop`.

        While others might do some of them it is a share of what there is, but up to `least`.

        Raises:
            InvalidArgument, InvalidArgumentType: a number is none, or less than 1.
            EventLogError: the log cannot be reached.
        """

    @abstractmethod
    def stop(self) -> None:
        """Make `lease` return `None`, now and from now on; callable from any thread."""

    @abstractmethod
    async def flush(self) -> None:
        """Wait until everything that was said of leases is stored.

        Raises:
            EventLogError: the log cannot be reached.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Leave the group, and give everything back; may be called twice."""

    async def __aenter__(self) -> Self:
        """The member itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave the group."""
        await self.aclose()


class Group(_GroupBase):
    """Consumers that share one position: what pools of workers stand on.

    Each event goes to one member at a time, which leases it. The group is also a consumer of its
    name: `consumers()` lists it, `ack`, `seek` and `forget` mean all of its members.
    """

    @abstractmethod
    async def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> Member:
        """Become a member; `owner` says which pool looks after it, `output` where results go.

        `on_refused` is called when an output refuses results of events that were `done_with`; by
        default such a delivery has failed without delay.

        Raises:
            InvalidArgument, InvalidArgumentType: no pool can have that number.
        """

    async def refresh(self) -> None:
        """Have `members`, `member` and `lag` know what is so now, where they would have to ask.

        Raises:
            EventLogError: the log cannot be reached.
        """

    @abstractmethod
    async def wait_drained(self, seq_no: int | None = None) -> None:
        """Wait until everything up to `seq_no` (default: the last event now) is done, or dead."""

    @abstractmethod
    async def wait_exhausted(self, owner: int) -> list[Exhausted]:
        """Wait for events that used up their deliveries by deaths of their members.

        Those of other pools that are still connected are not among them.
        """

    @abstractmethod
    async def wait_lost(self, owner: int) -> set[int]:
        """Wait for members of this owner whose processes live, and whose events others have.

        Only a group on a server gives such members up: it has not heard of them for `lease_s`.
        """

    @abstractmethod
    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        """Make an exhausted event a dead letter."""

    @abstractmethod
    async def dismiss(self, member_id: int) -> None:
        """Say that a member's process has ended: what it had in its hands goes to others."""

    @abstractmethod
    async def excuse(self, owner: int) -> None:
        """Say that a pool is left and ends its members: what they have begun has not failed."""

    @abstractmethod
    async def dead_letters(self) -> list[DeadLetter]:
        """Those stored now, in the order in which they died."""


class BlockingMember(ABC):
    """A thread's part in a group, the same without `async`; close it, or use a `with` block."""

    @property
    @abstractmethod
    def member_id(self) -> int:
        """Names the member; random."""

    @abstractmethod
    def lease(self, count: int = 1, least: int = 1) -> Lease | None:
        """Wait for at most `count` events; `None` after `stop`; see `Member.lease`."""

    @abstractmethod
    def stop(self) -> None:
        """Make `lease` return `None`, now and from now on; callable from any thread."""

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything that was said of leases is stored."""

    @abstractmethod
    def close(self) -> None:
        """Leave the group, and give everything back; may be called twice."""

    def __enter__(self) -> Self:
        """The member itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the group."""
        self.close()


class BlockingGroup(_GroupBase):
    """See `Group`; a context manager, whose end closes the handle."""

    def __enter__(self) -> Self:
        """The group itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close this handle; the group stays."""
        self.close()

    @abstractmethod
    def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> BlockingMember:
        """Become a member; see `Group.open_member`."""

    def refresh(self) -> None:
        """Have `members`, `member` and `lag` know what is so now; see `Group.refresh`."""

    @abstractmethod
    def wait_drained(self, seq_no: int | None = None) -> None:
        """Wait until everything up to `seq_no` (default: the last event now) is done, or dead."""

    @abstractmethod
    def wait_exhausted(self, owner: int) -> list[Exhausted]:
        """Wait for events that used up their deliveries by deaths; see `Group.wait_exhausted`."""

    @abstractmethod
    def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        """Make an exhausted event a dead letter."""

    @abstractmethod
    def dismiss(self, member_id: int) -> None:
        """Say that a member's process has ended: what it had in its hands goes to others."""

    @abstractmethod
    def excuse(self, owner: int) -> None:
        """Say that a pool is left and ends its members: what they have begun has not failed."""

    @abstractmethod
    def dead_letters(self) -> list[DeadLetter]:
        """Those stored now, in the order in which they died."""

    @abstractmethod
    def close(self) -> None:
        """Close this handle; may be called twice."""
