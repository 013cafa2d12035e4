"""A log as every engine has it, for processes that run no event loop: `log` without `async`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from eventlog.api.arguments import Bounds, GroupOptions, PublisherOptions, check_follow
from eventlog.api.blocking_range import EventRange
from eventlog.api.data import BlockingLogOfData
from eventlog.api.group import BlockingGroup as Group
from eventlog.api.group import BlockingMember as Member
from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.latest import blocking_latest_of, filter_of_key
from eventlog.api.log import EventLog as AsyncEventLog
from eventlog.api.log_of_tables import BlockingLogOfTables
from eventlog.api.operated import OperatedBlockingLog
from eventlog.api.positions import ConsumerState, SeekPosition, check_name, check_position
from eventlog.api.refusals import no_groups, no_operation, no_statistics
from eventlog.api.statistics import LogStatistics, PublisherStatistics, StreamStatistics
from eventlog.api.status import LogStatus
from eventlog.api.stream_options import OnTruncated, StreamOptions
from eventlog.config import (
    FLUSH_S_DEFAULT,
    MAX_DELIVERIES_DEFAULT,
    MAX_IN_FLIGHT_DEFAULT,
    PUBLISHER_BATCH_BYTES_DEFAULT,
    GroupOrdering,
)
from eventlog.event.envelope import EventEnvelope
from eventlog.event.payload import DELETION
from eventlog.event.texts import Headers, Keys, check_key

PUBLISHER_LINGER_S_DEFAULT = 0.002
"""Without an event loop nobody notices that a producer pauses, so a thread looks after it."""


class AppendHandle(ABC):
    """An event that a publisher has queued."""

    __slots__ = ()

    @property
    @abstractmethod
    def seq_no(self) -> int | None:
        """The event's number; `None` until the writer has answered."""

    @abstractmethod
    def result(self) -> int:
        """Wait for the event's number; raises the error if it was not stored."""


class ManyHandle(ABC):
    """A list of events that a publisher has queued."""

    __slots__ = ()

    @property
    @abstractmethod
    def seq_nos(self) -> tuple[int, int] | None:
        """The first and the last number; `None` until all are stored."""

    @abstractmethod
    def result(self) -> tuple[int, int]:
        """Wait for the first and the last number.

        Raises:
            EventLogError: only the first `error.stored` events were stored.
        """


class Publisher(ABC):
    """What `publisher()` gives inside its block, whose end flushes; see `eventlog.Publisher`."""

    @abstractmethod
    def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        """Queue an event; waits only while the window is full."""

    @abstractmethod
    def send_many(
        self, events: Iterable[Any], *, keys: Keys = None, headers: Headers = None
    ) -> ManyHandle:
        """Queue all the events, in order, as one list; see `eventlog.Publisher.send_many`."""

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything queued so far is stored."""

    def statistics(self) -> PublisherStatistics:
        """What it has done until now; also after its block."""
        raise no_statistics()


class EventStream(ABC):
    """See `eventlog.EventStream`; `for` over it, or over `batches()`, but not both."""

    @abstractmethod
    def __iter__(self) -> Iterator[EventEnvelope]:
        """Event by event. A later loop goes on where an earlier one ended, also with an error."""

    @abstractmethod
    def __next__(self) -> EventEnvelope:
        """The next event, waiting for it."""

    @abstractmethod
    def batches(self) -> Iterator[list[EventEnvelope]]:
        """The same events as lists, as they were batched."""

    @abstractmethod
    def ack(self, event: EventEnvelope | int, state: bytes | None = None) -> None:
        """Say that the stream's consumer has processed everything up to this event, or number.

        See `eventlog.EventStream.ack`.

        Raises:
            InvalidArgument: the stream has no consumer, or the envelope no number.
            SequenceOutOfRange: there is no such event yet.
        """

    @property
    def state(self) -> bytes | None:
        """The consumer's state at the stream's start; see `eventlog.EventStream.state`."""
        return None

    def statistics(self) -> StreamStatistics:
        """What it has done until now; also after its block."""
        raise no_statistics()


class EventLog(OperatedBlockingLog, BlockingLogOfTables, BlockingLogOfData):
    """See `eventlog.EventLog`: every method promises the same, and waits by blocking its thread."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Where the log is."""

    def __enter__(self) -> Self:
        """The log itself: `open` has opened it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close this handle; the log stays."""
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close this handle; may be called twice."""

    @abstractmethod
    def append(
        self,
        event: Any,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        expect: int | None = None,
        expect_last: int | None = None,
        not_before: datetime | None = None,
        expires: datetime | None = None,
    ) -> int:
        """Append one event and return its sequence number; see `eventlog.EventLog.append`."""

    @abstractmethod
    def append_many(
        self,
        events: Iterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
        expect: Mapping[str, int] | None = None,
        expect_last: int | None = None,
    ) -> tuple[int, int]:
        """Append all the events, in order; the first and the last number.

        `keys` and `headers`, and what an error says: see `eventlog.EventLog.append_many`.
        """

    def publisher(
        self,
        linger: float = PUBLISHER_LINGER_S_DEFAULT,
        max_batch_bytes: int = PUBLISHER_BATCH_BYTES_DEFAULT,
        max_in_flight: int = MAX_IN_FLIGHT_DEFAULT,
        flush_s: float = FLUSH_S_DEFAULT,
    ) -> AbstractContextManager[Publisher]:
        """A pipelined producer that batches by itself and keeps its order."""
        options = PublisherOptions(linger, max_batch_bytes, max_in_flight, flush_s)
        return self._publisher(options.checked(self.path))

    @abstractmethod
    def _publisher(self, options: PublisherOptions) -> AbstractContextManager[Publisher]:
        """The publisher of a block, whose options are checked."""

    def subscribe(
        self,
        consumer: str,
        position: SeekPosition = SeekPosition.LAST_ACKNOWLEDGED,
        *,
        follow: bool = True,
        on_truncated: OnTruncated = "error",
        type: Any = None,  # noqa: A002 - what it is
        spin: float = 0.0,
        verify: bool = True,
        durable_only: bool = False,
        keys: Collection[str] | None = None,
        key_prefix: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[EventStream]:
        """The stream of events from `position` on; see `eventlog.EventLog.subscribe`."""
        options = StreamOptions(
            follow=follow,
            on_truncated=on_truncated,
            type=type,
            spin=spin,
            verify=verify,
            durable_only=durable_only,
            keys=keys,
            key_prefix=key_prefix,
            headers=headers,
        )
        return self._subscribe(check_name(consumer), check_position(position), options)

    def follow(
        self,
        position: SeekPosition = SeekPosition.LATEST,
        *,
        on_truncated: OnTruncated = "error",
        type: Any = None,  # noqa: A002 - what it is
        spin: float = 0.0,
        verify: bool = True,
        durable_only: bool = False,
        keys: Collection[str] | None = None,
        key_prefix: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[EventStream]:
        """An endless stream without a consumer; see `eventlog.EventLog.follow`."""
        options = StreamOptions(
            on_truncated=on_truncated,
            type=type,
            spin=spin,
            verify=verify,
            durable_only=durable_only,
            keys=keys,
            key_prefix=key_prefix,
            headers=headers,
        )
        return self._subscribe(None, check_follow(position), options)

    @abstractmethod
    def _subscribe(
        self, consumer: str | None, position: SeekPosition, options: StreamOptions
    ) -> AbstractContextManager[EventStream]:
        """The same, with all arguments checked; without a consumer it is `follow`."""

    def read(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> EventRange:
        """The events from number `start` to before `stop`, or of times; see `eventlog.EventLog`.

        pandas, polars, DuckDB and pyarrow take the range as it is: see `EventRange`.

        Raises:
            InvalidArgument, InvalidArgumentType: a bound is none, or numbers and times are mixed.
            (from the iterator) EventsTruncated: retention deleted event `start`.
        """
        return self._read(Bounds.of(start, stop, since, until, key))

    @abstractmethod
    def _read(self, bounds: Bounds) -> EventRange:
        """The same, with all arguments checked."""

    def latest(self, key: str) -> EventEnvelope | None:
        """The last event of a key, or `None`; see `eventlog.EventLog.latest`."""
        wanted = filter_of_key(key)
        return blocking_latest_of(self._read, self.last_seq_no(), wanted)

    def delete(self, key: str) -> int:
        """Append an event that marks the key as deleted; see `eventlog.EventLog.delete`."""
        return self.append(DELETION, key=check_key(key))

    @abstractmethod
    def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        """Say that the consumer has processed everything up to and including `seq_no`.

        `state` is stored with the position in one step; see `eventlog.EventLog.ack`.
        """

    @abstractmethod
    def seek(self, consumer: str, position: SeekPosition) -> None:
        """Set where the consumer's next `LAST_ACKNOWLEDGED` subscription starts."""

    @abstractmethod
    def last_seq_no(self) -> int | None:
        """The number of the last event ever appended; `None` on an empty log."""

    @abstractmethod
    def synced(self, seq_no: int | None = None) -> None:
        """Return when event `seq_no`, and all before it, are on the disk."""

    @abstractmethod
    def consumers(self) -> list[ConsumerState]:
        """All consumers, by name."""

    @abstractmethod
    def forget(self, consumer: str) -> None:
        """Remove a consumer; an unknown one is none to remove."""

    @abstractmethod
    def status(self) -> LogStatus:
        """The log at this moment."""

    @abstractmethod
    def for_event_loop(self) -> AsyncEventLog:
        """A handle of the same log for trio and asyncio, not entered yet."""

    def statistics(self) -> LogStatistics:
        """What this handle has appended, and the log's writer done; see `eventlog.EventLog`."""
        raise no_statistics()

    def group(
        self,
        name: str,
        *,
        ordering: GroupOrdering = None,
        max_deliveries: int = MAX_DELIVERIES_DEFAULT,
        position: SeekPosition = SeekPosition.LAST_ACKNOWLEDGED,
    ) -> Group:
        """A group of this log, made if there is none of that name; see `eventlog.EventLog.group`.

        Raises:
            NotSupported: the engine has no groups.
            GroupMismatch: the group has members that work with other options.
        """
        return self._group(GroupOptions(name, ordering, max_deliveries, position).checked())

    def _group(self, _options: GroupOptions) -> Group:
        """The group, whose options are checked."""
        raise no_groups(self.path)

    @contextmanager
    def member(
        self,
        group: str,
        *,
        ordering: GroupOrdering = None,
        max_deliveries: int = MAX_DELIVERIES_DEFAULT,
        position: SeekPosition = SeekPosition.LAST_ACKNOWLEDGED,
        output: str | None = None,
    ) -> Iterator[Member]:
        """A member of a group for a program's own loop; see `eventlog.EventLog.member`."""
        asked = self.group(
            group, ordering=ordering, max_deliveries=max_deliveries, position=position
        )
        with asked as opened, opened.open_member(output=output) as member:
            yield member

    def groups(self) -> list[GroupReport]:
        """The groups of this log, by name; see `eventlog.EventLog.groups`."""
        raise no_groups(self.path)

    def dead_letters(self, group: str) -> list[DeadLetter]:
        """The dead letters of a group; see `eventlog.EventLog.dead_letters`."""
        raise no_groups(self.path)

    def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        """Hand dead letters of a group out again; how many of the numbers were some."""
        raise no_groups(self.path)

    def retry_corrected(self, group: str, seq_no: int, event: Any) -> int:
        """Hand a dead letter out again with another event in its place; see `eventlog.EventLog`."""
        raise no_operation("retry_corrected", self.path)

    def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        """Forget dead letters of a group; how many of the numbers were some."""
        raise no_groups(self.path)
