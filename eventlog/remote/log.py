"""`RemoteEventLog`: a log on a server, for trio and asyncio; a shell around a driver."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import anyio

from eventlog.api import engines, forks
from eventlog.api.arguments import Bounds, PublisherOptions
from eventlog.api.batches import ManyBatches
from eventlog.api.event_stream import EventRange, EventStream
from eventlog.api.expectation import Expectation, check_one_batch
from eventlog.api.log import EventLog
from eventlog.api.operated import Trimmed
from eventlog.api.positions import (
    ConsumerState,
    SeekPosition,
    check_name,
    check_position,
    check_seq_no,
    check_state,
)
from eventlog.api.publisher import Publisher
from eventlog.api.publisher_block import publisher_block
from eventlog.api.refusals import (
    beyond_the_last,
    closed,
    never_synced,
    no_operation,
    not_opened,
    not_supported,
)
from eventlog.api.statistics import LogStatistics, log_statistics
from eventlog.api.status import LogStatus
from eventlog.api.stream_options import StreamOptions
from eventlog.api.streams import RangeOfBatches
from eventlog.config import MAX_IN_FLIGHT_DEFAULT, AskedOptions, LogOptions
from eventlog.errors import SequenceOutOfRange
from eventlog.event.moments import datetime_of
from eventlog.event.scheduled import scheduled
from eventlog.event.texts import Headers, Keys
from eventlog.remote.driver import Driver
from eventlog.remote.group import GroupsOfRemote
from eventlog.remote.handle import RemoteHandle, open_handle
from eventlog.remote.pipeline import deliver_all, in_a_row
from eventlog.remote.producing import Batch, Producer, deliver
from eventlog.remote.publisher import RemotePublisher
from eventlog.remote.record import ManyRecords
from eventlog.remote.stream import RemoteStream, read_from
from eventlog.remote.trimming import trim


class RemoteEventLog(GroupsOfRemote, EventLog):
    """See `EventLog`. Each opening has a driver of its own."""

    def __init__(
        self, address: str, asked: AskedOptions, make_driver: Callable[[], Driver]
    ) -> None:
        self._address = address
        self._asked = asked
        self._make_driver = make_driver
        self._path = make_driver().path
        self._handle: RemoteHandle | None = None
        self._opening: anyio.Lock | None = None
        self._was_opened = False
        self._reopens = False
        """Unpickled in another process: the first use opens it, with or without `async with`."""

    def __repr__(self) -> str:
        """The path, and whether the handle is open."""
        return f"<EventLog {self.path!r} {'closed' if self._handle is None else 'open'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets a handle that opens there."""
        return (_reopened, (self._address, self._asked))

    @property
    def path(self) -> str:
        return self._path

    def opening(self) -> tuple[str, dict[str, Any]]:
        return self._address, self._asked.of_handles()

    async def open(self) -> None:
        if self._is_open_here():
            return
        self._opening = opening = self._opening or anyio.Lock()
        async with opening:
            if not self._is_open_here():
                self._reopens = False
                self._handle = await open_handle(self._make_driver, self._asked)
                self._was_opened = True

    def _is_open_here(self) -> bool:
        """Whether it is open in this process; it is an error if that is in another event loop."""
        handle = self._handle
        if handle is None or handle.generation != forks.generation:
            return False
        handle.check_place()
        return True

    async def aclose(self) -> None:
        handle = self._handle
        if handle is None or handle.generation != forks.generation:
            return
        is_over = handle.loop.is_over()
        if not is_over:
            handle.loop.check(self.path)
        self._handle = self._opening = None
        self._reopens = False
        if not is_over:
            await handle.close()

    async def ready(self) -> RemoteHandle:
        """The open handle.

        Raises:
            LogClosed, ForkedHandle, WrongEventLoop: it is of no use here.
        """
        if self._reopens:
            await self.open()
        return self._opened()

    def _opened(self) -> RemoteHandle:
        if self._handle is None:
            raise closed("handle", self.path) if self._was_opened else not_opened(self.path)
        self._handle.check_place()
        return self._handle

    # --- producing ---------------------------------------------------------------------------

    async def append(
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
        handle = await self.ready()
        event = scheduled(event, not_before, expires)
        expected = Expectation.of_event(event, key, expect, expect_last)
        if expected is not None:
            each = ManyRecords(handle.limits, self.path, [key], [headers])
            return (await self._append_expecting(each.pack([event]), expected))[0]
        return await handle.appends.append(event, key, headers)

    async def append_many(
        self,
        events: Iterable[Any] | AsyncIterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
        expect: Mapping[str, int] | None = None,
        expect_last: int | None = None,
    ) -> tuple[int, int]:
        handle = await self.ready()
        expected = Expectation.of_events(expect, expect_last)
        packed = await ManyRecords(handle.limits, self.path, keys, headers).pack_any(events)
        if expected is not None:
            return await self._append_expecting(packed, expected)
        many = ManyBatches(in_a_row(packed))
        await deliver_all(handle.store, many.batches, MAX_IN_FLIGHT_DEFAULT)
        return many.result()

    async def _append_expecting(
        self, packed: list[list[bytes]], expected: Expectation
    ) -> tuple[int, int]:
        """Store one batch, of one producer, if the log ends where it is expected to."""
        if expected.of_keys:
            engine, _, _ = self.path.partition(":")
            error = not_supported(engine, "expect", self.path, "use a directory, or expect_last=")
            error.stored = 0
            raise error
        check_one_batch(packed, self.path)
        batch = Batch(packed[0], expected.last)
        await deliver((await self.ready()).store, batch, Producer())
        return ManyBatches([batch]).result()

    @asynccontextmanager
    async def _publisher(self, options: PublisherOptions) -> AsyncIterator[Publisher]:
        handle = await self.ready()
        publisher = RemotePublisher(handle, options)
        tasks = publisher.run_sealer, publisher.run_pipeline
        async with publisher_block(publisher, *tasks):
            yield publisher

    # --- consuming ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _subscribe(
        self, consumer: str | None, position: SeekPosition, options: StreamOptions
    ) -> AsyncIterator[EventStream]:
        handle = await self.ready()
        if options.durable_only:
            await self.synced()  # refuses, where nothing ever is
        start, kept = await handle.start_of(position, consumer or "")
        last = (await handle.state()).last
        end = None if options.follow else last + 1
        stream = RemoteStream(self, handle, start, end, options, consumer, state=kept)
        try:
            yield stream
        finally:
            await stream.aclose()

    def _read(self, bounds: Bounds) -> EventRange:
        if not self._reopens:
            self._opened()
        return RangeOfBatches(read_from(self, bounds))

    async def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        check_name(consumer)
        seq_no = check_seq_no(seq_no, consumer=consumer)
        check_state(state, consumer)
        handle = await self.ready()
        if seq_no > handle.store.last and seq_no > (last := (await handle.state()).last):
            raise beyond_the_last(self.path, consumer, seq_no, last)
        if state is None:
            await self._move(handle, consumer, seq_no, is_ack=True)
        else:
            await handle.ack_state(consumer, seq_no, state)

    async def seek(self, consumer: str, position: SeekPosition) -> None:
        check_name(consumer)
        check_position(position)
        handle = await self.ready()
        match position.kind:
            case "last_acknowledged":
                return
            case "beginning":
                number = 0
            case "sequence":
                number = max(position.value - 1, 0)
            case _:
                number = await handle.resolve(position) - 1
        await self._move(handle, consumer, number, is_ack=False)

    async def _move(
        self, handle: RemoteHandle, consumer: str, position: int, *, is_ack: bool
    ) -> None:
        await handle.calls.repeated(lambda: handle.driver.move(consumer, position, is_ack=is_ack))

    async def forget(self, consumer: str) -> None:
        check_name(consumer)
        handle = await self.ready()
        await handle.calls.repeated(lambda: handle.driver.forget(consumer))

    async def consumers(self) -> list[ConsumerState]:
        handle = await self.ready()
        found = await handle.calls.repeated(handle.driver.positions)
        state = await handle.state()
        return [
            ConsumerState(
                name=name,
                last_acked=one.position or None,
                lag=max(state.last - max(one.position, state.first - 1), 0),
                last_seen=datetime_of(one.last_seen_ns),
                state=one.state,
            )
            for name, one in sorted(found.items())
        ]

    # --- operating ---------------------------------------------------------------------------

    async def _configure(self, asked: AskedOptions) -> LogOptions:
        if asked.given:
            raise no_operation("configure", self.path)
        return (await self.ready()).options

    async def _trim(self, position: SeekPosition, *, force: bool) -> Trimmed:
        return await trim(await self.ready(), position, force=force)

    # --- the log itself ----------------------------------------------------------------------

    async def synced(self, seq_no: int | None = None) -> None:
        handle = await self.ready()
        if seq_no is not None:
            await self._check_stored(handle, check_seq_no(seq_no))
        match handle.options.durability:
            case "memory":
                raise never_synced(self.path)
            case "disk":
                await handle.calls.repeated(handle.driver.synced)

    async def _check_stored(self, handle: RemoteHandle, seq_no: int) -> None:
        last = (await handle.state()).last
        if seq_no > last:
            raise SequenceOutOfRange(
                f"event {seq_no} of the log {self.path} cannot be waited for: the last one is"
                f" {last}",
                path=self.path,
                seq_no=seq_no,
                last_seq_no=last,
            )

    async def last_seq_no(self) -> int | None:
        return (await (await self.ready()).state()).last or None

    async def status(self) -> LogStatus:
        handle = await self.ready()
        state = await handle.state()
        durability = handle.options.durability
        return LogStatus(
            path=self.path,
            log_id=handle.opened.log_id,
            writer_pid=None,
            synced_seq_no=(state.last or None) if durability == "sync" else None,
            first_seq_no=state.first if state.first <= state.last else None,
            last_seq_no=state.last or None,
            bytes=state.bytes,
            segments=1,
            durability=durability,
            events_per_s=None,
            connections=1,
            max_event_bytes=handle.options.max_event_bytes,
        )

    async def statistics(self) -> LogStatistics:
        counted = (await self.ready()).store.counters.statistics()
        return log_statistics(counted, None)


def _reopened(address: str, asked: AskedOptions) -> EventLog:
    log = engines.open_log(address, asked)
    assert isinstance(log, RemoteEventLog)
    log._reopens = True
    return log
