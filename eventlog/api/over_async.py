"""A blocking log over an engine that has only the asynchronous one.

::

    a thread of the program          the portal's thread
    -----------------------          -------------------
    log.append(event)      --call--> await log.append(event)
                           <-------- number, or its error

One event loop in one thread serves a log and all its streams and publishers. A call that waits ends
when the log is closed, as it does in the asynchronous log; Ctrl-C cancels it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Literal

from eventlog.api import forks
from eventlog.api.arguments import Bounds, GroupOptions, PublisherOptions
from eventlog.api.blocking_log import AppendHandle, EventLog, EventStream, ManyHandle, Publisher
from eventlog.api.blocking_range import EventRange
from eventlog.api.event_stream import EventRange as AsyncEventRange
from eventlog.api.event_stream import EventStream as AsyncEventStream
from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.log import EventLog as AsyncEventLog
from eventlog.api.operated import Trimmed
from eventlog.api.over_async_groups import GroupOverAsync
from eventlog.api.portal import Portal
from eventlog.api.positions import ConsumerState, SeekPosition
from eventlog.api.publisher import AppendHandle as AsyncAppendHandle
from eventlog.api.publisher import ManyHandle as AsyncManyHandle
from eventlog.api.publisher import Publisher as AsyncPublisher
from eventlog.api.refusals import closed, mixed_use
from eventlog.api.statistics import LogStatistics, PublisherStatistics, StreamStatistics
from eventlog.api.status import LogStatus
from eventlog.api.stream_options import StreamOptions
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import LogClosed
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode
from eventlog.event.texts import Headers, Keys


class LogOverAsync(EventLog):
    """See `EventLog`; `make` gives the asynchronous log, in the portal's event loop."""

    def __init__(
        self,
        path: str,
        make: Callable[[], AsyncEventLog],
        loop: Literal["asyncio", "trio"] = "asyncio",
    ) -> None:
        self._portal = Portal(path, loop)
        self._leaving: Future[None] | None = None
        self._make = make
        try:
            self._portal.open()
            self._log: AsyncEventLog = self._portal.call(make)
            self._portal.call(self._log.open)
        except BaseException:
            self._portal.close()
            raise

    def __repr__(self) -> str:
        """The path, and whether the handle is open."""
        return f"<EventLog {self.path!r} {'open' if self._portal.is_open else 'closed'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets what the asynchronous handle becomes there."""
        return (_reopened, (self._log,))

    @property
    def path(self) -> str:
        return self._log.path

    def for_event_loop(self) -> AsyncEventLog:
        return self._make()

    def close(self) -> None:
        if self._portal.is_open and self._portal.generation == forks.generation:
            try:
                with suppress(LogClosed):  # by another thread meanwhile
                    self._portal.call(self._log.aclose)
            finally:
                self._portal.close()

    # --- producing ---------------------------------------------------------------------------

    def append(
        self,
        event: Any,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> int:
        number: int = self._portal.call(
            self._log.append, event, key=key, headers=headers, **options
        )
        return number

    def append_many(
        self,
        events: Iterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
        **expected: Any,
    ) -> tuple[int, int]:
        numbers: tuple[int, int] = self._portal.call(
            self._log.append_many, events, keys=keys, headers=headers, **expected
        )
        return numbers

    @contextmanager
    def _publisher(self, options: PublisherOptions) -> Iterator[Publisher]:
        manager = self._portal.call(self._log._publisher, options)
        with self._portal.entered(manager) as publisher:
            yield _Publisher(self._portal, publisher)

    # --- consuming ---------------------------------------------------------------------------

    @contextmanager
    def _subscribe(
        self, consumer: str | None, position: SeekPosition, options: StreamOptions
    ) -> Iterator[EventStream]:
        manager = self._portal.call(self._log._subscribe, consumer, position, options)
        with self._portal.entered(manager) as stream:
            over = _Stream(self._portal, stream)
            try:
                yield over
            finally:
                over.close()

    def _read(self, bounds: Bounds) -> EventRange:
        events: AsyncEventRange = self._portal.call(self._log._read, bounds)

        def read(decode: Decode) -> Iterator[list[EventEnvelope]]:
            batches = events._decoded(decode)
            return iter(lambda: self._portal.call(_next_of, batches), None)

        return EventRange(read)

    def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        self._portal.call(self._log.ack, consumer, seq_no, state)

    def seek(self, consumer: str, position: SeekPosition) -> None:
        self._portal.call(self._log.seek, consumer, position)

    def forget(self, consumer: str) -> None:
        self._portal.call(self._log.forget, consumer)

    # --- groups ------------------------------------------------------------------------------

    def groups(self) -> list[GroupReport]:
        reports: list[GroupReport] = self._portal.call(self._log.groups)
        return reports

    def dead_letters(self, group: str) -> list[DeadLetter]:
        letters: list[DeadLetter] = self._portal.call(self._log.dead_letters, group)
        return letters

    def _group(self, options: GroupOptions) -> GroupOverAsync:
        manager = self._portal.call(self._log._group, options)
        return GroupOverAsync(self._portal, manager)

    def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        number: int = self._portal.call(self._log.retry_dead, group, seq_nos)
        return number

    def retry_corrected(self, group: str, seq_no: int, event: Any) -> int:
        number: int = self._portal.call(self._log.retry_corrected, group, seq_no, event)
        return number

    def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        number: int = self._portal.call(self._log.drop_dead, group, seq_nos)
        return number

    # --- operating ---------------------------------------------------------------------------

    def _configure(self, asked: AskedOptions) -> LogOptions:
        options: LogOptions = self._portal.call(self._log._configure, asked)
        return options

    def _trim(self, position: SeekPosition, *, force: bool) -> Trimmed:
        trimmed: Trimmed = self._portal.call(self._log._trim, position, force=force)
        return trimmed

    # --- looking -----------------------------------------------------------------------------

    def last_seq_no(self) -> int | None:
        number: int | None = self._portal.call(self._log.last_seq_no)
        return number

    def synced(self, seq_no: int | None = None) -> None:
        self._portal.call(self._log.synced, seq_no)

    def consumers(self) -> list[ConsumerState]:
        states: list[ConsumerState] = self._portal.call(self._log.consumers)
        return states

    def status(self) -> LogStatus:
        status: LogStatus = self._portal.call(self._log.status)
        return status

    def statistics(self) -> LogStatistics:
        statistics: LogStatistics = self._portal.call(self._log.statistics)
        return statistics


class _Publisher(Publisher):
    """See `Publisher`."""

    def __init__(self, portal: Portal, publisher: AsyncPublisher) -> None:
        self._portal = portal
        self._publisher = publisher

    def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        handle = self._portal.call(self._publisher.send, event, key=key, headers=headers)
        return _AppendHandle(self._portal, handle)

    def send_many(
        self, events: Iterable[Any], *, keys: Keys = None, headers: Headers = None
    ) -> ManyHandle:
        handle = self._portal.call(self._publisher.send_many, events, keys=keys, headers=headers)
        return _ManyHandle(self._portal, handle)

    def flush(self) -> None:
        self._portal.call(self._publisher.flush)

    def statistics(self) -> PublisherStatistics:
        return self._publisher.statistics()


class _AppendHandle(AppendHandle):
    """See `AppendHandle`."""

    def __init__(self, portal: Portal, handle: AsyncAppendHandle) -> None:
        self._portal = portal
        self._handle = handle

    @property
    def seq_no(self) -> int | None:
        return self._handle.seq_no

    def result(self) -> int:
        number: int = self._portal.call(self._handle.result)
        return number


class _ManyHandle(ManyHandle):
    """See `ManyHandle`."""

    def __init__(self, portal: Portal, handle: AsyncManyHandle) -> None:
        self._portal = portal
        self._handle = handle

    @property
    def seq_nos(self) -> tuple[int, int] | None:
        return self._handle.seq_nos

    def result(self) -> tuple[int, int]:
        numbers: tuple[int, int] = self._portal.call(self._handle.result)
        return numbers


class _Stream(EventStream):
    """See `EventStream`. Events come by the batch: to cross to another thread costs more than they.

    So the stream below is always read in batches, and this one knows how it is used itself.
    """

    def __init__(self, portal: Portal, stream: AsyncEventStream) -> None:
        self._portal = portal
        self._stream = stream
        self._batches = stream.batches()
        self._mode: str | None = None
        self._events: Iterator[EventEnvelope] = iter(())
        self._is_closed = False

    def _use_as(self, mode: str) -> None:
        if self._mode not in (None, mode):
            raise mixed_use()
        self._mode = mode

    def _next_batch(self) -> list[EventEnvelope] | None:
        if self._is_closed:
            raise closed("stream", self._portal.path)
        events: list[EventEnvelope] | None = self._portal.call(_next_of, self._batches)
        return events

    def __iter__(self) -> Iterator[EventEnvelope]:
        """Event by event."""
        self._use_as("events")
        return self

    def __next__(self) -> EventEnvelope:
        """The next event, waiting for it."""
        self._use_as("events")
        while True:
            for envelope in self._events:
                return envelope
            events = self._next_batch()
            if events is None:
                raise StopIteration
            self._events = iter(events)

    def batches(self) -> Iterator[list[EventEnvelope]]:
        self._use_as("batches")
        return iter(self._next_batch, None)

    def ack(self, event: EventEnvelope | int, state: bytes | None = None) -> None:
        self._portal.call(self._stream.ack, event, state)

    @property
    def state(self) -> bytes | None:
        return self._stream.state

    def statistics(self) -> StreamStatistics:
        return self._stream.statistics()

    def close(self) -> None:
        """Hand nothing out any more."""
        self._is_closed = True
        self._events = iter(())


async def _next_of(iterator: Any) -> Any:
    """The next item, or `None`: a `StopAsyncIteration` would not cross to another thread."""
    try:
        return await iterator.__anext__()
    except StopAsyncIteration:
        return None


def _reopened(log: AsyncEventLog) -> LogOverAsync:
    return LogOverAsync(log.path, lambda: log)
