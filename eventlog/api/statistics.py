"""What a log, its streams, its publishers and its writer have counted.

A counter is declared here, as a field with a value to begin with, and counted where the thing
happens: `counters.batches += 1`. It then goes by itself to whoever asks: the writer sends all of
its fields by name, a client takes those that it knows, and `eventlog status` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherStatistics:
    """What a publisher, or any other producer, has done since it was made."""

    appended: int = 0
    """Events that are stored."""
    bytes: int = 0
    """The size of their batches, packed."""
    batches: int = 0
    """Batches that are stored."""
    refused: int = 0
    """Events that were not stored; their handles have the error."""
    repeated: int = 0
    """Batches that were sent again, because the writer ended before it answered."""
    in_flight: int = 0
    """Batches, now, that are on their way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """What a stream has done since it was opened."""

    events: int = 0
    """Events that were read for it; a loop may be a few hundred behind."""
    bytes: int = 0
    """The size of the batches that were read, packed."""
    batches: int = 0
    """Batches that were read."""
    wake_ups: int = 0
    """How often it waited until there was something new."""
    skipped: int = 0
    """Events that retention deleted before it came to them (`on_truncated="skip"`)."""
    lag: int = 0
    """Events, now, that are stored and not read yet; 0 once the stream is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterStatistics:
    """What the process that serves a log has done since it started."""

    uptime_s: float = 0.0
    """How long ago that was."""
    appended: int = 0
    """Events that it stored."""
    bytes: int = 0
    """The size of their batches, packed."""
    batches: int = 0
    """Batches that it stored."""
    repeated: int = 0
    """Batches that it was sent again, after it, or one before it, had stored them."""
    waiting: int = 0
    """Batches, now, that wait for room."""
    positions: int = 0
    """How often a consumer's position was set or removed: `ack`, `seek`, `forget`."""
    wake_ups: int = 0
    """How often somebody was woken who waited for an event."""
    parked: int = 0
    """Streams, now, that wait for an event."""
    unsynced: int = 0
    """Answers, now, that wait for a sync."""
    syncs: int = 0
    """How often events were synced to the disk."""
    sync_s: float = 0.0
    """How long all these syncs took together."""
    longest_sync_s: float = 0.0
    """How long the longest took."""
    leased: int = 0
    """Events that were handed out to members of groups."""
    redelivered: int = 0
    """Those of them that had failed before."""
    in_flight: int = 0
    """Events, now, that members work on."""
    postponed: int = 0
    """Events, now, that a group has come to and that are not due yet; once for each group."""
    connections: int = 0
    """Pipes, now, from all processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStatistics(PublisherStatistics):
    """What `append` and `append_many` of a handle have done, and what the log's writer has.

    Publishers and streams count for themselves.
    """

    writer: WriterStatistics | None = None
    """`None` if no writer may be asked, or it is of a release that counts nothing."""


def log_statistics(own: PublisherStatistics, writer: WriterStatistics | None) -> LogStatistics:
    """Both together."""
    counted = {field.name: getattr(own, field.name) for field in fields(own)}
    return LogStatistics(**counted, writer=writer)


class Counters(Generic[S]):
    """A number for each field of a class of statistics, to be counted up: plain attributes."""

    def __init__(self, kind: type[S]) -> None:
        self._kind = kind
        vars(self).update({field.name: field.default for field in fields(kind)})  # type: ignore[arg-type]  # a dataclass

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def add_batch(self, events: int, size: int) -> None:
        """Count a batch that is stored now, of that many bytes."""
        self.batches += 1
        self.appended += events
        self.bytes += size

    def add_read(self, events: int, size: int) -> None:
        """Count events of a batch, of that many bytes, that was read."""
        self.batches += 1
        self.events += events
        self.bytes += size

    def statistics(self, **now: Any) -> S:
        """The numbers as they are; `now` has those that are no counters."""
        numbers = {name: value for name, value in vars(self).items() if name != "_kind"}
        return self._kind(**{**numbers, **now})


def numbers_of(statistics: WriterStatistics) -> dict[str, int | float]:
    """What the writer says of itself, by name."""
    return {field.name: getattr(statistics, field.name) for field in fields(statistics)}


def statistics_of(numbers: Mapping[str, Any]) -> WriterStatistics:
    """What a writer said: names that this release does not know are left out."""
    known = {field.name for field in fields(WriterStatistics)}
    return WriterStatistics(
        **{
            name: value
            for name, value in numbers.items()
            if name in known and type(value) in (int, float)
        }
    )
