"""Groups as every engine has them, in both colours: what pools of workers stand on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from eventlog.event.envelope import EventEnvelope


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReport:
    """One group at one moment."""

    name: str
    ordering: str | None
    max_deliveries: int
    position: int
    """Everything up to this event is done."""
    lag: int
    """Events that are not done."""
    in_flight: int
    """Events that members work on."""
    members: int
    redeliveries: int
    """Events that failed and are to be tried again."""
    dead_letters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that used up its deliveries, with what its last one ended in."""

    event: Any
    key: str | None
    seq_no: int
    error: str
    """As `ValueError: no such size`, or `the worker was killed by SIGSEGV`."""
    traceback: str | None
    """Of the last exception; `None` if the process died."""
    deliveries: int
    group: str
    headers: dict[str, str] | None
    exit_code: int | None
    """Of the process that died, negative for a signal; `None` after an exception."""
    peak_rss_bytes: int | None
    """The most memory that the process had, if it died."""
    log_lines: tuple[str, ...]
    """The last lines that the process logged, if it died."""
    failed_at: datetime


class Group(ABC):
    """Consumers that share one position: what pools of workers stand on.

    Each event goes to one member at a time, which leases it. The group is also a consumer of its
    name: `consumers()` lists it, `ack`, `seek` and `forget` mean all of its members.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The group's, and the consumer's."""

    @abstractmethod
    async def wait_drained(self, seq_no: int | None = None) -> None:
        """Wait until everything up to `seq_no` (default: the last event now) is done, or dead."""

    @abstractmethod
    async def wait_condemned(self, pool_id: int) -> list[tuple[int, int, int]]:
        """Wait for events that used up their deliveries by deaths of their members.

        Each is (number, deliveries, id of the last member); those of other pools that are still
        connected are not among them. `bury` them.
        """

    @abstractmethod
    async def bury(self, seq_no: int, letter: bytes) -> None:
        """Make a condemned event a dead letter (see `eventlog.local.groups.stored.pack_letter`)."""

    @abstractmethod
    async def dismiss(self, member_id: int) -> None:
        """Say that a member's process has ended: what it had in its hands goes to others."""

    @abstractmethod
    async def excuse(self, pool_id: int) -> None:
        """Say that a pool is left and ends its members: what they have begun has not failed."""

    @property
    @abstractmethod
    def letter_bytes_max(self) -> int:
        """The largest dead letter that `bury` can take."""

    @abstractmethod
    def copy_in_letter(self, seq_no: int) -> EventEnvelope | None:
        """The copy of an event in its dead letter, also while that is retried."""

    @abstractmethod
    def dead_letters(self) -> list[DeadLetter]:
        """Those stored now, in the order in which they died."""


class BlockingGroup(ABC):
    """See `eventlog.Group`; a context manager, whose end closes the handle."""

    def __enter__(self) -> Self:
        """The group itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close this handle; the group stays."""
        self.close()

    @property
    @abstractmethod
    def name(self) -> str:
        """The group's, and the consumer's."""

    @abstractmethod
    def join(self, pool_id: int = 0) -> Any:
        """Become a member, in this process; `pool_id` says which pool looks after it."""

    @abstractmethod
    def wait_drained(self, seq_no: int | None = None) -> None:
        """Wait until everything up to `seq_no` (default: the last event now) is done, or dead."""

    @abstractmethod
    def dead_letters(self) -> list[DeadLetter]:
        """Those stored now, in the order in which they died."""

    @abstractmethod
    def close(self) -> None:
        """Close this handle; may be called twice."""
