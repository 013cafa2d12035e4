"""Reading a local log without an event loop; the twin of `local_stream`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from eventlog.api import forks
from eventlog.api.arguments import check_stream_ack
from eventlog.api.blocking_log import EventStream
from eventlog.api.refusals import closed
from eventlog.api.statistics import StreamStatistics
from eventlog.event.envelope import EventEnvelope
from eventlog.local.client.feed import Feed
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.threads import BlockingPipe
from eventlog.local.wire.messages import AwaitSynced, Park

if TYPE_CHECKING:
    from eventlog.local.blocking_log import BlockingLocalEventLog


class BlockingLocalStream(EventStream):
    """See `eventlog.blocking.EventStream`."""

    def __init__(
        self, log: BlockingLocalEventLog, handle: LocalHandle, feed: Feed, consumer: str | None
    ) -> None:
        self._log = log
        self._handle = handle
        self._feed = feed
        self._consumer = consumer
        self._pipe = handle.adopt(BlockingPipe(handle.path, handle.new_channel()))
        self._events: Iterator[EventEnvelope] = iter(())
        self._is_closed = False

    def __repr__(self) -> str:
        """Where the stream is."""
        return f"<EventStream of {self._handle.path!r} before event {self._feed.next_seq_no}>"

    def __iter__(self) -> Iterator[EventEnvelope]:
        self._feed.use_as("events")
        # From one event to the next without a line of Python.
        return chain.from_iterable(self._runs())

    def _runs(self) -> Iterator[Iterator[EventEnvelope]]:
        """What an earlier loop, or another one, has left, and all that comes."""
        run: Iterator[EventEnvelope] | None = None
        while True:
            if run is not self._events:
                run = self._events
                yield run
            elif (events := self._next(self._feed.next_events)) is None:
                return
            else:
                self._events = iter(events)
                del events  # large ones are let go before the next ones are read

    def __next__(self) -> EventEnvelope:
        for envelope in self._events:
            return envelope
        self._feed.use_as("events")
        events = self._next(self._feed.next_events)
        if events is None:
            raise StopIteration
        self._events = iter(events)
        return next(self._events)

    def batches(self) -> Iterator[list[EventEnvelope]]:
        self._feed.use_as("batches")
        return iter(lambda: self._next(self._feed.next_batch), None)

    def ack(self, event: EventEnvelope | int) -> None:
        self._log.ack(*check_stream_ack(self._consumer, event, self._handle.path))

    def _next(self, read: Callable[[], list[EventEnvelope] | None]) -> list[EventEnvelope] | None:
        """The next events, waiting for them if need be; `None` at the end."""
        try:
            return self._find_next(read)
        except Exception as error:
            # Another thread may have closed the stream, or the log, under this one's feet.
            if self._is_closed:
                raise closed("stream", self._handle.path) from error
            self._handle.check_open()
            raise

    def _find_next(
        self, read: Callable[[], list[EventEnvelope] | None]
    ) -> list[EventEnvelope] | None:
        while True:
            if self._is_closed:
                raise closed("stream", self._handle.path)
            self._handle.check_open()
            events = read()
            if events is not None or self._feed.is_finished:
                return events
            if self._feed.options.spin and self._spin():
                continue
            with self._pipe.lock:
                # The writer answers at once if the number is published by now: looking again
                # after it has taken note is what makes a lost wake-up impossible.
                kind = AwaitSynced if self._feed.options.durable_only else Park
                self._pipe.run(self._pipe.channel.request(kind, self._feed.next_seq_no))
            self._feed.counters.wake_ups += 1

    def _spin(self) -> bool:
        """Look for the next event, again and again, for as long as was asked for."""
        end = time.perf_counter() + self._feed.options.spin
        while time.perf_counter() < end:
            if self._is_closed or not self._handle.is_open or self._feed.has_more:
                return True
        return False

    def statistics(self) -> StreamStatistics:
        return self._feed.statistics(is_open=not self._is_closed and self._handle.is_open)

    def close(self) -> None:
        """Give pipe and maps back."""
        self._is_closed = True
        self._events = iter(())
        if self._handle.generation == forks.generation:
            self._handle.pipes.discard(self._pipe)
            self._pipe.close()
            self._feed.close()
