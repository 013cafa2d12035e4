"""Reading a local log without an event loop; the twin of `stream`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from eventlog.api import forks
from eventlog.api.arguments import check_stream_ack
from eventlog.api.blocking_log import EventStream
from eventlog.api.statistics import StreamStatistics
from eventlog.event.envelope import EventEnvelope
from eventlog.local.client.feed import Feed, upcoming
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.threads import BlockingRequests

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
        self._requests = BlockingRequests(handle, "stream")
        self._events: Iterator[EventEnvelope] = iter(())

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

    def ack(self, event: EventEnvelope | int, state: bytes | None = None) -> None:
        self._log.ack(*check_stream_ack(self._consumer, event, self._handle.path), state)

    @property
    def state(self) -> bytes | None:
        return self._feed.state

    def _next(self, read: Callable[[], list[EventEnvelope] | None]) -> list[EventEnvelope] | None:
        """The next events, waiting for them if need be; `None` at the end."""
        # What is there is not carried through a call's steps: the exception that ends them would be
        # made while the last batch still lives, which makes the garbage collector walk the new one.
        return self._requests.attempt(read) or self._requests.run(
            upcoming(self._feed, self._requests, read)
        )

    def statistics(self) -> StreamStatistics:
        is_open = not self._requests.is_closed and self._handle.is_open
        return self._feed.statistics(is_open=is_open)

    def close(self) -> None:
        """Give pipe and maps back."""
        self._events = iter(())
        self._requests.close()
        if self._handle.generation == forks.generation:
            self._feed.close()
