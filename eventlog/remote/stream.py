"""Reading a log on a server on trio and asyncio: streams that wait for events, and ranges."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from eventlog.api.arguments import Bounds
from eventlog.api.refusals import closed, mixed_use
from eventlog.api.statistics import Counters, StreamStatistics
from eventlog.api.stream_options import StreamOptions
from eventlog.api.streams import NextBatch, StartOfRange, StreamOfBatches
from eventlog.errors import CorruptLog, EventsTruncated, EventTypeMismatch
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode
from eventlog.remote.driver import Reader, Stored, Unreachable
from eventlog.remote.handle import CLOSE_S, RemoteHandle
from eventlog.remote.record import Unpacker, bytes_in

if TYPE_CHECKING:
    from eventlog.remote.log import RemoteEventLog

EVENTS_AT_ONCE: Final = 512
"""Events that one call reads."""


class RemoteStream(StreamOfBatches):
    """See `EventStream`. It reads what it waits for from a reader of the driver."""

    def __init__(
        self,
        log: RemoteEventLog,
        handle: RemoteHandle,
        next_seq_no: int,
        end: int | None,
        options: StreamOptions,
        consumer: str | None,
        *,
        state: bytes | None,
    ) -> None:
        super().__init__(log, consumer, state)
        self._handle = handle
        self._next_seq_no = next_seq_no
        self._end = end
        """The number before which a stream ends that does not follow."""
        self._options = options
        self._unpacker = Unpacker(options.type, options.filter)
        self._start = next_seq_no
        self._handed = 0
        """The last event that was handed out; 0 if none was."""
        self._reader: Reader | None = None
        self._mode: str | None = None
        self._is_closed = False
        self._scope: anyio.CancelScope | None = None
        """The scope of the task that waits; `aclose` cancels it."""
        self._turn_to_read = anyio.Lock(fast_acquire=True)
        self._last: Stored | None = None
        """The last event that was read."""
        self._is_unsure = False
        """The server may have been another since then, or have lost events."""
        self._rest: list[Stored] = []
        """What was read and not handed out: it begins with a bad event."""
        self._counters = Counters(StreamStatistics)

    def __repr__(self) -> str:
        """Where the stream is."""
        return f"<EventStream of {self._handle.path!r} before event {self._next_seq_no}>"

    def use_as(self, mode: str) -> None:
        if self._mode not in (None, mode):
            raise mixed_use()
        self._mode = mode

    def statistics(self) -> StreamStatistics:
        is_open = not self._is_closed and not self._handle.calls.is_closed
        last = self._handle.store.last if is_open else 0
        return self._counters.statistics(lag=max(last - self._next_seq_no + 1, 0))

    async def next_batch(self) -> list[EventEnvelope] | None:
        self.check_open()
        await checkpoint()
        async with self._turn_to_read:
            self.check_open()
            with anyio.CancelScope() as self._scope:
                return await self._next()
        raise closed("stream", self._handle.path)

    def check_open(self) -> None:
        self._handle.check_place()
        if self._is_closed:
            raise closed("stream", self._handle.path)

    async def _next(self) -> list[EventEnvelope] | None:
        """The next events; of a stream with a filter, the first page that has some."""
        while not self._is_finished:
            if self._next_seq_no > self._handle.store.last:
                await self._ack_refused()
            try:
                stored = await self._read()
            except EventsTruncated as error:
                first = error.first_available
                if self._options.on_truncated != "skip" or first is None:
                    error.consumer = self._consumer
                    raise
                self._counters.skipped += first - self._next_seq_no
                self._next_seq_no = first
                continue
            self._handle.store.note_last(stored[-1].seq_no)
            events, self._rest = self._decoded(stored)
            good = stored[: len(stored) - len(self._rest)]
            self._last = good[-1]
            self._next_seq_no = self._last.seq_no + 1
            self._counters.add_read(len(events), bytes_in(good))
            if events:
                self._handed = events[-1].seq_no or 0
                return events
        await self._ack_refused()
        return None

    @property
    def _is_finished(self) -> bool:
        """Whether a stream that does not follow is at its end."""
        return self._end is not None and self._next_seq_no >= self._end

    async def _ack_refused(self) -> None:
        """Move the consumer to the end, past what its filter left out.

        It must have acknowledged all that it was given, and all before the stream's begin.
        """
        consumer, last = self._consumer, self._next_seq_no - 1
        if self._options.filter is None or consumer is None:
            return
        if last < self._start or last == self._handed:  # none was left out
            return
        state = await self._handle.state()
        if not self._is_finished and last < state.last:
            return
        position, _, kept = await self._handle.position_of(consumer)
        behind = position if self._handed else max(position, state.first - 1)
        if behind >= (self._handed or self._start - 1) and last > position:
            await self._log.ack(consumer, last, kept)  # the state says the same of it

    def _decoded(self, stored: list[Stored]) -> tuple[list[EventEnvelope], list[Stored]]:
        """The events before the first bad one, and the rest, which is met at the next call."""
        path, unpacker = self._handle.path, self._unpacker
        try:
            return unpacker.envelopes_of(stored, path), []
        except (EventTypeMismatch, CorruptLog) as error:
            good = (error.seq_no or 0) - stored[0].seq_no
            if good <= 0:
                self._rest = stored
                error.consumer = self._consumer
                raise
            return unpacker.envelopes_of(stored[:good], path), stored[good:]

    async def _read(self) -> list[Stored]:
        """The next events, without a gap; at least one."""
        if self._rest:
            return self._rest
        pauses = self._handle.calls.pauses()
        while True:
            try:
                stored = await self._read_once()
            except Unreachable as error:
                self._is_unsure = True
                await pauses.pause(error)
            else:
                if stored and stored[0].seq_no == self._next_seq_no:
                    return stored
                await self._drop_reader()
                pauses.reset()

    async def _read_once(self) -> list[Stored]:
        calls, driver, seq_no = self._handle.calls, self._handle.driver, self._next_seq_no
        if self._is_unsure:
            await calls.until_closed(self._check_last)
        if self._end is not None:
            count = min(self._end - seq_no, EVENTS_AT_ONCE)
            return await calls.until_closed(lambda: driver.read(seq_no, count))
        is_waiting = seq_no > self._handle.store.last
        if self._reader is None:
            self._reader = driver.reader(seq_no)
        try:
            stored = await calls.until_closed(self._reader.next)
        except BaseException:
            await self._drop_reader()
            raise
        self._counters.wake_ups += is_waiting
        return stored

    async def _check_last(self) -> None:
        """See that what was read last is what the server has: else it has lost its latest events.

        Others have their numbers by now, or will have.
        """
        last, driver = self._last, self._handle.driver
        if last is not None and last.seq_no == self._next_seq_no - 1:
            found = [last]
            with suppress(EventsTruncated, CorruptLog):  # nobody can tell; what follows is read
                found = await driver.read(last.seq_no, 1)
            if not found or found[0].record != last.record:
                raise lost(self._handle.path, last.seq_no)
        self._is_unsure = False

    async def _drop_reader(self) -> None:
        """Nobody knows what it would give next."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await reader.aclose()

    async def aclose(self) -> None:
        """Give the reader back; whoever waits gets `LogClosed`."""
        self._is_closed = True
        self.drop_events()
        if self._scope is not None:
            self._scope.cancel()
        async with self._turn_to_read:
            await self._drop_reader()


def read_from(log: RemoteEventLog, bounds: Bounds) -> StartOfRange:
    """What `RangeOfBatches` starts: the bounds are resolved at the first batch."""
    unpacker = Unpacker(wanted=bounds.filter)
    numbers: tuple[int, int] | None = None

    def start(_: Decode) -> NextBatch:  # records are unpacked by the page, not as batches
        place: tuple[int, int] | None = None

        async def next_batch() -> list[EventEnvelope] | None:
            nonlocal place, numbers
            handle = await log.ready()
            numbers = numbers or await handle.numbers_of(bounds)
            seq_no, stop = place or numbers
            if seq_no >= stop:
                return None
            count = min(stop - seq_no, EVENTS_AT_ONCE)
            stored = await handle.calls.repeated(lambda: handle.driver.read(seq_no, count))
            if not stored:  # it was there when the range began
                raise lost(handle.path, seq_no)
            place = stored[-1].seq_no + 1, stop
            return unpacker.envelopes_of(stored, handle.path)

        return next_batch

    return start


def lost(path: str, seq_no: int) -> CorruptLog:
    """The error of whoever has read an event that is no more, or another one."""
    return CorruptLog(
        f"event {seq_no} of the log {path} is not there any more, or is another one by now: its"
        " server has lost its latest events, as one may that does not sync each of them before it"
        " answers; subscribe again, and take what comes for new",
        path=path,
        seq_no=seq_no,
    )
