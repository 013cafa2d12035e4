"""`eventlog.blocking` in the clothes of the asynchronous interface: each test is written once.

Every call goes to a worker thread and is awaited there. A cancelled call abandons its thread, which
ends when the handle, stream or publisher that it waits in is closed.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar, cast

import anyio
import anyio.to_thread

import eventlog.blocking
from eventlog import AppendHandle, EventLog, EventStream, LogStatus, ManyHandle, Publisher
from eventlog.api.arguments import Bounds, PublisherOptions
from eventlog.api.event_stream import EventRange
from eventlog.api.group import (
    BlockingGroup,
    BlockingMember,
    DeadLetter,
    Exhausted,
    ExitReport,
    Group,
    GroupReport,
    Lease,
    Member,
    MemberReport,
    OnRefused,
)
from eventlog.api.operated import Trimmed
from eventlog.api.positions import ConsumerState, SeekPosition
from eventlog.api.statistics import LogStatistics, PublisherStatistics, StreamStatistics
from eventlog.api.stream_options import StreamOptions
from eventlog.config import (
    FLUSH_S_DEFAULT,
    MAX_IN_FLIGHT_DEFAULT,
    PUBLISHER_BATCH_BYTES_DEFAULT,
    LogOptions,
)
from eventlog.errors import LogClosed
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode
from eventlog.event.texts import Headers, Keys

T = TypeVar("T")
P = ParamSpec("P")

THREADS_MAX: Final = 500
"""More than any test has calls waiting at once: a call must never wait for another one's thread."""
_END: Final = object()


class Threads:
    """Runs blocking calls, each in a worker thread."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(THREADS_MAX)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of the call, or its exception."""
        return await anyio.to_thread.run_sync(
            partial(call, *args, **kwargs), abandon_on_cancel=True, limiter=self._limiter
        )

    @asynccontextmanager
    async def entered(self, manager: AbstractContextManager[T]) -> AsyncIterator[T]:
        """A blocking context manager as an asynchronous one."""
        value = await self.run(manager.__enter__)
        try:
            yield value
        except BaseException as error:
            if not await self._leave(manager, type(error), error, error.__traceback__):
                raise
        else:
            await self._leave(manager, None, None, None)

    async def _leave(self, manager: AbstractContextManager[Any], *exception: Any) -> bool:
        is_swallowed: bool | None = False
        with anyio.CancelScope(shield=True):
            is_swallowed = await self.run(manager.__exit__, *exception)
        return bool(is_swallowed)


class ThreadedIterator(AsyncIterator[T]):
    """A blocking iterator, one thread hop for each item."""

    def __init__(self, threads: Threads, iterator: Iterator[T]) -> None:
        self._threads = threads
        self._iterator = iterator

    async def __anext__(self) -> T:
        item = await self._threads.run(next, self._iterator, _END)
        if item is _END:
            raise StopAsyncIteration
        return cast("T", item)


class ThreadedRange(EventRange):
    """What `read` gave."""

    def __init__(self, threads: Threads, events: eventlog.blocking.EventRange) -> None:
        self._threads = threads
        self._events = events

    def __aiter__(self) -> AsyncIterator[EventEnvelope]:
        return ThreadedIterator(self._threads, self._events)

    async def to_list(self) -> list[EventEnvelope]:
        return await self._threads.run(list, self._events)

    def _decoded(self, decode: Decode) -> AsyncIterator[list[EventEnvelope]]:
        return ThreadedIterator(self._threads, self._events._read(decode))


class ThreadedStream(EventStream):
    """A stream; `blocking` is the real one."""

    def __init__(self, threads: Threads, stream: eventlog.blocking.EventStream) -> None:
        self._threads = threads
        self.blocking = stream

    def __aiter__(self) -> AsyncIterator[EventEnvelope]:
        return ThreadedIterator(self._threads, iter(self.blocking))

    async def __anext__(self) -> EventEnvelope:
        return await anext(ThreadedIterator(self._threads, self.blocking))

    def batches(self) -> AsyncIterator[list[EventEnvelope]]:
        return ThreadedIterator(self._threads, self.blocking.batches())

    def statistics(self) -> StreamStatistics:
        return self.blocking.statistics()

    async def ack(self, event: EventEnvelope | int, state: bytes | None = None) -> None:
        await self._threads.run(self.blocking.ack, event, state)

    @property
    def state(self) -> bytes | None:
        return self.blocking.state


class ThreadedAppendHandle(AppendHandle):
    """An event on its way."""

    def __init__(self, threads: Threads, handle: eventlog.blocking.AppendHandle) -> None:
        self._threads = threads
        self._handle = handle

    @property
    def seq_no(self) -> int | None:
        return self._handle.seq_no

    async def result(self) -> int:
        return await self._threads.run(self._handle.result)


class ThreadedManyHandle(ManyHandle):
    """A list of events on its way."""

    def __init__(self, threads: Threads, handle: eventlog.blocking.ManyHandle) -> None:
        self._threads = threads
        self._handle = handle

    @property
    def seq_nos(self) -> tuple[int, int] | None:
        return self._handle.seq_nos

    async def result(self) -> tuple[int, int]:
        return await self._threads.run(self._handle.result)


class ThreadedPublisher(Publisher):
    """A publisher; `blocking` is the real one."""

    def __init__(self, threads: Threads, publisher: eventlog.blocking.Publisher) -> None:
        self._threads = threads
        self.blocking = publisher

    async def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        handle = await self._threads.run(self.blocking.send, event, key=key, headers=headers)
        return ThreadedAppendHandle(self._threads, handle)

    async def send_many(
        self,
        events: Iterable[Any] | AsyncIterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
    ) -> ManyHandle:
        some = cast("Iterable[Any]", events)
        return ThreadedManyHandle(
            self._threads,
            await self._threads.run(self.blocking.send_many, some, keys=keys, headers=headers),
        )

    async def flush(self) -> None:
        await self._threads.run(self.blocking.flush)

    def statistics(self) -> PublisherStatistics:
        return self.blocking.statistics()


class ThreadedMember(Member):
    """A member; its leases are used as they are."""

    def __init__(self, threads: Threads, member: BlockingMember) -> None:
        self._threads = threads
        self._member = member

    @property
    def member_id(self) -> int:
        return self._member.member_id

    async def lease(self, count: int = 1, least: int = 1) -> Lease | None:
        return await self._threads.run(self._member.lease, count, least)

    def stop(self) -> None:
        self._member.stop()

    async def flush(self) -> None:
        await self._threads.run(self._member.flush)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._threads.run(self._member.close)


class ThreadedGroup(Group):
    """A group."""

    def __init__(self, threads: Threads, group: BlockingGroup) -> None:
        self._threads = threads
        self._group = group

    @property
    def name(self) -> str:
        return self._group.name

    async def open_member(
        self, owner: int = 0, output: str | None = None, on_refused: OnRefused | None = None
    ) -> Member:
        member = await self._threads.run(self._group.open_member, owner, output, on_refused)
        return ThreadedMember(self._threads, member)

    def members(self) -> list[MemberReport]:
        return self._group.members()

    def member(self, member_id: int) -> MemberReport | None:
        return self._group.member(member_id)

    def lag(self) -> int:
        return self._group.lag()

    async def wait_drained(self, seq_no: int | None = None) -> None:
        await self._threads.run(self._group.wait_drained, seq_no)

    async def refresh(self) -> None:
        await self._threads.run(self._group.refresh)

    async def wait_exhausted(self, owner: int) -> list[Exhausted]:
        return await self._threads.run(self._group.wait_exhausted, owner)

    async def wait_lost(self, owner: int) -> set[int]:
        await anyio.sleep_forever()
        raise AssertionError

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        await self._threads.run(self._group.reject, exhausted, report)

    async def dismiss(self, member_id: int) -> None:
        await self._threads.run(self._group.dismiss, member_id)

    async def excuse(self, owner: int) -> None:
        await self._threads.run(self._group.excuse, owner)

    async def dead_letters(self) -> list[DeadLetter]:
        return await self._threads.run(self._group.dead_letters)


class ThreadedTable(Mapping[str, Any]):
    """A table; `blocking` is the real one."""

    def __init__(self, threads: Threads, table: eventlog.blocking.Table) -> None:
        self._threads = threads
        self.blocking = table
        self.seq_no_of = table.seq_no_of
        self.items = table.items  # type: ignore[method-assign]
        self.values = table.values  # type: ignore[method-assign]

    @property
    def seq_no(self) -> int:
        return self.blocking.seq_no

    def __getitem__(self, key: str) -> Any:
        return self.blocking[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.blocking)

    def __len__(self) -> int:
        return len(self.blocking)

    async def caught_up(self) -> None:
        await self._threads.run(self.blocking.caught_up)

    async def changed(self) -> list[str]:
        return await self._threads.run(self.blocking.changed)


class ThreadedEventLog(EventLog):
    """A log, opened with `eventlog.blocking.open` when the block is entered."""

    def __init__(self, path: Any, options: Mapping[str, Any]) -> None:
        self._path = path
        self._options = options
        self._log: eventlog.blocking.EventLog | None = None
        self._threads = Threads()

    async def open(self) -> None:
        self._log = await self._threads.run(eventlog.blocking.open, self._path, **self._options)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._threads.run(self.blocking.__exit__, None, None, None)

    @property
    def blocking(self) -> eventlog.blocking.EventLog:
        """The real one."""
        if self._log is None:
            raise LogClosed("a blocking log is opened by `open`; there is none before")
        return self._log

    @property
    def path(self) -> str:
        return self.blocking.path

    async def append(
        self,
        event: Any,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **expected: Any,
    ) -> int:
        return await self._threads.run(
            self.blocking.append, event, key=key, headers=headers, **expected
        )

    async def append_many(
        self,
        events: Iterable[Any] | AsyncIterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
        **expected: Any,
    ) -> tuple[int, int]:
        some = cast("Iterable[Any]", events)
        return await self._threads.run(
            self.blocking.append_many, some, keys=keys, headers=headers, **expected
        )

    def publisher(
        self,
        linger: float = eventlog.blocking.PUBLISHER_LINGER_S_DEFAULT,
        max_batch_bytes: int = PUBLISHER_BATCH_BYTES_DEFAULT,
        max_in_flight: int = MAX_IN_FLIGHT_DEFAULT,
        flush_s: float = FLUSH_S_DEFAULT,
    ) -> AbstractAsyncContextManager[Publisher]:
        publisher = self.blocking.publisher(linger, max_batch_bytes, max_in_flight, flush_s)
        return self._entered(publisher, ThreadedPublisher)

    def _publisher(self, _options: PublisherOptions) -> AbstractAsyncContextManager[Publisher]:
        raise AssertionError("the facade calls what users call")

    def _subscribe(
        self, consumer: str | None, position: SeekPosition, options: StreamOptions
    ) -> AbstractAsyncContextManager[EventStream]:
        stream = self.blocking._subscribe(consumer, position, options)
        return self._entered(stream, ThreadedStream)

    @asynccontextmanager
    async def _entered(
        self, manager: AbstractContextManager[Any], facade: Callable[[Threads, Any], T]
    ) -> AsyncIterator[T]:
        async with self._threads.entered(manager) as entered:
            yield facade(self._threads, entered)

    def _read(self, bounds: Bounds) -> EventRange:
        return ThreadedRange(self._threads, self.blocking._read(bounds))

    async def to_arrow(self, *numbers: Any, **bounds: Any) -> Any:
        return await self._threads.run(
            functools.partial(self.blocking.to_arrow, *numbers, **bounds)
        )

    async def latest(self, key: str) -> EventEnvelope | None:
        return await self._threads.run(self.blocking.latest, key)

    async def delete(self, key: str) -> int:
        return await self._threads.run(self.blocking.delete, key)

    def table(
        self,
        type: Any = None,  # noqa: A002 - its name
        *,
        snapshot: Any = None,
    ) -> AbstractAsyncContextManager[Any]:
        return self._entered(self.blocking.table(type, snapshot=snapshot), ThreadedTable)

    async def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        await self._threads.run(self.blocking.ack, consumer, seq_no, state)

    async def seek(self, consumer: str, position: SeekPosition) -> None:
        await self._threads.run(self.blocking.seek, consumer, position)

    async def groups(self) -> list[GroupReport]:
        return await self._threads.run(self.blocking.groups)

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        return await self._threads.run(self.blocking.dead_letters, group)

    async def last_seq_no(self) -> int | None:
        return await self._threads.run(self.blocking.last_seq_no)

    def group(self, name: str, **options: Any) -> AbstractAsyncContextManager[Group]:
        return self._opened_group(name, options)

    @asynccontextmanager
    async def _opened_group(self, name: str, options: dict[str, Any]) -> AsyncIterator[Group]:
        group: Any = await self._threads.run(self.blocking.group, name, **options)
        try:
            yield ThreadedGroup(self._threads, group)
        finally:
            with anyio.CancelScope(shield=True):
                await self._threads.run(group.close)

    async def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return await self._threads.run(self.blocking.retry_dead, group, seq_nos)

    async def retry_corrected(self, group: str, seq_no: int, event: Any) -> int:
        return await self._threads.run(self.blocking.retry_corrected, group, seq_no, event)

    async def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        return await self._threads.run(self.blocking.drop_dead, group, seq_nos)

    async def configure(self, **options: Any) -> LogOptions:
        return await self._threads.run(self.blocking.configure, **options)

    async def trim(self, before: int | datetime, *, force: bool = False) -> Trimmed:
        return await self._threads.run(self.blocking.trim, before, force=force)

    async def synced(self, seq_no: int | None = None) -> None:
        await self._threads.run(self.blocking.synced, seq_no)

    async def consumers(self) -> list[ConsumerState]:
        return await self._threads.run(self.blocking.consumers)

    async def forget(self, consumer: str) -> None:
        await self._threads.run(self.blocking.forget, consumer)

    async def status(self) -> LogStatus:
        return await self._threads.run(self.blocking.status)

    async def statistics(self) -> LogStatistics:
        return await self._threads.run(self.blocking.statistics)
