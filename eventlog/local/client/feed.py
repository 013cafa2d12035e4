"""What a subscription reads next: the part of a stream that never waits, for all shells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from eventlog.api.positions import SeekPosition
from eventlog.api.refusals import mixed_use, never_synced
from eventlog.api.statistics import Counters, StreamStatistics
from eventlog.api.stream_options import StreamOptions
from eventlog.errors import (
    EventLogError,
    EventsTruncated,
    EventTypeMismatch,
)
from eventlog.event.envelope import EventEnvelope
from eventlog.local.client.calls import PAUSE, Ask, Call
from eventlog.local.client.requests import Requests
from eventlog.local.storage.formats.format import HEADER_BYTES
from eventlog.local.storage.reading.batch_reader import trimmed
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.wire.messages import Ack, AckState, AwaitSynced, Park

EVENTS_AT_ONCE: Final = 512
"""Small batches are handed to an iterating consumer together, so that one check for cancellation
serves many events."""
LARGE_EVENT_BYTES: Final = 4096
"""Events larger than this in the mean are handed out batch by batch and let go as soon as may be:
there are too few of them to interest the collector, and memory that is free again at once is given
to the next ones, instead of fresh pages that the kernel has to clear."""


class Feed:
    """The events of a log from a position on, as far as they are published."""

    def __init__(
        self,
        log: LogReader,
        consumer: str | None,
        position: SeekPosition,
        options: StreamOptions,
    ) -> None:
        if options.durable_only and log.options.durability == "memory":
            raise never_synced(log.directory)
        self._log = log
        self.consumer = consumer
        self.options = options
        self.state: bytes | None = None
        """The consumer's, of the moment at which its position was the start."""
        if consumer and position.kind == "last_acknowledged":
            start, self.state = log.resume(consumer)
        else:
            start = log.resolve(position, consumer or "")
        self._reader = log.batches(
            start,
            verify=options.verify,
            durable_only=options.durable_only,
        )
        self._start = self._reader.next_seq_no
        self._end = None if options.follow else self._reader.last_readable + 1
        self._handed = 0
        """The last event that was handed out; 0 if none was."""
        self._mode: str | None = None
        self.counters = Counters(StreamStatistics)
        self._last: list[EventEnvelope] = []
        """The batch that was handed out last. Its objects are let go right after those of the next
        one are made: to the garbage collector, which counts both, nothing has happened then. Else
        it would walk each new batch, for a fifth of a consumer's time."""
        self._has_large = False
        """Whether that batch was one of large events."""

    @property
    def next_seq_no(self) -> int:
        """The number of the event that comes next."""
        return self._reader.next_seq_no

    @property
    def is_finished(self) -> bool:
        """A stream that does not follow has handed out all that there was when it was opened."""
        return self._end is not None and self._reader.next_seq_no >= self._end

    @property
    def has_more(self) -> bool:
        """Whether the next event is there already; a load from shared memory, nothing else."""
        return self._reader.next_seq_no <= self._reader.last_readable

    def statistics(self, *, is_open: bool) -> StreamStatistics:
        """What was counted, and how far it is behind while the log is mapped."""
        last = self._reader.last_readable if is_open else 0
        return self.counters.statistics(lag=max(last - self._reader.next_seq_no + 1, 0))

    def use_as(self, mode: str) -> None:
        """Fix how the stream is used, by its first use.

        Raises:
            InvalidArgument: it is already used the other way.
        """
        if self._mode not in (None, mode):
            raise mixed_use()
        self._mode = mode

    def next_batch(self) -> list[EventEnvelope] | None:
        """The events of the next batch; `None` if there is nothing yet, or nothing any more.

        With a filter only those that it wants. An empty list says that it refused some, and that
        there may be more.

        Raises:
            EventsTruncated, CorruptLog, LogDeleted: see `storage.reading.reader`.
            EventTypeMismatch: the batch holds an event of another type; the feed stays before it.
        """
        if self.is_finished:
            return None
        wanted = self.options.filter
        if wanted is not None:
            self._reader.pass_over(wanted)
        first = self._reader.next_seq_no
        try:
            batch = self._reader.next_batch()
        except EventsTruncated as error:
            if self.options.on_truncated != "skip" or error.first_available is None:
                error.consumer = self.consumer
                raise
            self.counters.skipped += error.first_available - self._reader.next_seq_no
            self._reader.next_seq_no = error.first_available
            return self.next_batch()
        if batch is None:
            return None
        try:
            envelopes = batch.envelopes(self._log.directory, self.options.decode, wanted)
        except EventTypeMismatch as error:
            error.consumer = self.consumer
            self._reader.close()
            self._reader.next_seq_no = first
            raise
        self._has_large = batch.header.length > LARGE_EVENT_BYTES * batch.header.count
        self._last = [] if self._has_large else envelopes
        end = batch.header.last_seq_no + 1 if self._end is None else self._end
        events = trimmed(envelopes, batch.header, first, end)
        if events:
            self._handed = events[-1].seq_no or 0
        self.counters.add_read(len(events), batch.header.length - HEADER_BYTES)
        return events

    def next_events(self) -> list[EventEnvelope] | None:
        """As `next_batch`, with small batches put together."""
        end = self._reader.next_seq_no + EVENTS_AT_ONCE
        events = self.next_batch()
        while events is not None and self._reader.next_seq_no < end and not self._has_large:
            try:
                more = self.next_batch()
            except EventLogError:
                break  # first what came before it; the next call meets it again
            if more is None:
                break
            events = events + more
        return events

    def ack_of_refused(self) -> Ask | None:
        """The request that moves the consumer to the end, past what the filter left out.

        For a feed that has come to the end. The consumer must have acknowledged all that it was
        given, and all before the feed's begin: nobody here knows of what came before that.
        """
        if self.options.filter is None or not self.consumer:
            return None
        next_seq_no = self._reader.next_seq_no
        last = (next_seq_no if self._end is None else min(next_seq_no, self._end)) - 1
        position, state = self._log.position_and_state(self.consumer)
        behind = position if self._handed else max(position, self._log.first_available - 1)
        is_all_acked = behind >= (self._handed or self._start - 1)
        if not is_all_acked or last <= position:
            return None
        if state is None:
            return Ask(Ack, (self.consumer, last))
        return Ask(AckState, (self.consumer, last, None))  # the state says the same of it

    def close(self) -> None:
        """Unmap; may be called twice."""
        self._last = []
        self._reader.close()


def upcoming(
    feed: Feed, requests: Requests[Any], read: Callable[[], list[EventEnvelope] | None]
) -> Call[list[EventEnvelope] | None]:
    """What `read` gives, waiting for it if need be; `None` at the end."""
    while True:
        requests.check_open()
        events = read()
        if events:
            return events
        if events is not None:  # the filter refused them all
            yield PAUSE
            continue
        yield from _ack_refused(feed, requests)
        if feed.is_finished:
            return None
        if feed.options.spin and (yield from _spin(feed, requests)):
            continue
        # The writer answers at once if the number is published by now: looking again after it has
        # taken note is what makes a lost wake-up impossible.
        yield Ask(AwaitSynced if feed.options.durable_only else Park, (feed.next_seq_no,))
        feed.counters.wake_ups += 1


def _ack_refused(feed: Feed, requests: Requests[Any]) -> Call[None]:
    """Move the consumer to the end, past what its filter left out."""
    ask = feed.ack_of_refused()
    if ask is not None and requests.handle.can_ask:
        yield ask


def _spin(feed: Feed, requests: Requests[Any]) -> Call[bool]:
    """Look for the next event, again and again, for as long as was asked for."""
    end_s = time.perf_counter() + feed.options.spin
    while time.perf_counter() < end_s:
        yield PAUSE
        requests.check_open()
        if feed.has_more:
            return True
    return False
