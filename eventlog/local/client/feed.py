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
from eventlog.local.storage.format import HEADER_BYTES
from eventlog.local.storage.reader import LogReader, trimmed
from eventlog.local.wire.messages import AwaitSynced, Park

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
        self.options = options
        self._reader = log.batches(
            log.resolve(position, consumer or ""),
            verify=options.verify,
            durable_only=options.durable_only,
        )
        self._end = None if options.follow else self._reader.last_readable + 1
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

        Raises:
            EventsTruncated, CorruptLog, LogDeleted: see `storage.reader`.
            EventTypeMismatch: the batch holds an event of another type; the feed stays before it.
        """
        if self.is_finished:
            return None
        first = self._reader.next_seq_no
        try:
            batch = self._reader.next_batch()
        except EventsTruncated as error:
            if self.options.on_truncated != "skip" or error.first_available is None:
                raise
            self.counters.skipped += error.first_available - self._reader.next_seq_no
            self._reader.next_seq_no = error.first_available
            return self.next_batch()
        if batch is None:
            return None
        try:
            envelopes = batch.envelopes(self._log.directory, self.options.decode)
        except EventTypeMismatch:
            self._reader.close()
            self._reader.next_seq_no = first
            raise
        self._has_large = batch.header.length > LARGE_EVENT_BYTES * len(envelopes)
        self._last = [] if self._has_large else envelopes
        end = batch.header.last_seq_no + 1 if self._end is None else self._end
        events = trimmed(envelopes, batch.header.base_seq_no, first, end)
        self.counters.add_read(len(events), batch.header.length - HEADER_BYTES)
        return events

    def next_events(self) -> list[EventEnvelope] | None:
        """As `next_batch`, with small batches put together."""
        events = self.next_batch()
        while events is not None and len(events) < EVENTS_AT_ONCE and not self._has_large:
            try:
                more = self.next_batch()
            except EventLogError:
                break  # first what came before it; the next call meets it again
            if more is None:
                break
            events = events + more
        return events

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
        if events is not None or feed.is_finished:
            return events
        if feed.options.spin and (yield from _spin(feed, requests)):
            continue
        # The writer answers at once if the number is published by now: looking again after it has
        # taken note is what makes a lost wake-up impossible.
        yield Ask(AwaitSynced if feed.options.durable_only else Park, (feed.next_seq_no,))
        feed.counters.wake_ups += 1


def _spin(feed: Feed, requests: Requests[Any]) -> Call[bool]:
    """Look for the next event, again and again, for as long as was asked for."""
    end_s = time.perf_counter() + feed.options.spin
    while time.perf_counter() < end_s:
        yield PAUSE
        requests.check_open()
        if feed.has_more:
            return True
    return False
