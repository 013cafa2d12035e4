"""What a stream of a log in memory reads next; the same for both kinds."""

from __future__ import annotations

from collections.abc import Iterator

from eventlog.api.positions import SeekPosition
from eventlog.api.refusals import closed, mixed_use, never_synced
from eventlog.api.statistics import Counters, StreamStatistics
from eventlog.api.stream_options import StreamOptions
from eventlog.event.envelope import EventEnvelope
from eventlog.memory.handle import MemoryHandle
from eventlog.memory.model import MemoryLog


class MemoryFeed:
    """Where a stream is, and what it reads next; the same for both kinds."""

    def __init__(
        self,
        handle: MemoryHandle,
        consumer: str | None,
        position: SeekPosition,
        options: StreamOptions,
    ) -> None:
        if options.durable_only:
            raise never_synced(handle.log.path)
        self._handle = handle
        self._log = handle.log
        self.next_seq_no = handle.log.resolve(position, consumer or "")
        self._end = None if options.follow else handle.log.last + 1
        self._skips = options.on_truncated == "skip"
        self._decode = options.decode
        self._mode: str | None = None
        self.is_closed = False
        self.counters = Counters(StreamStatistics)

    def use_as(self, mode: str) -> None:
        """Fix how the stream is used, by its first use."""
        if self._mode not in (None, mode):
            raise mixed_use()
        self._mode = mode

    def statistics(self) -> StreamStatistics:
        """What was counted, and how far it is behind while it is open."""
        is_open = self._handle.is_open and not self.is_closed
        last = self._log.last if is_open else 0
        return self.counters.statistics(lag=max(last - self.next_seq_no + 1, 0))

    @property
    def is_finished(self) -> bool:
        """Whether a stream that does not follow is at its end."""
        return self._end is not None and self.next_seq_no >= self._end

    def next_batch(self) -> list[EventEnvelope] | None:
        """The next events; `None` if there are none yet, or none any more."""
        log = self._handle.log
        if self.is_closed:
            raise closed("stream", log.path)
        if self._skips and self.next_seq_no < log.first_available:
            self.counters.skipped += log.first_available - self.next_seq_no
            self.next_seq_no = log.first_available
        if self.is_finished:
            return None
        batch = log.batch_of(self.next_seq_no)
        if batch is None:
            return None
        events = batch.envelopes(log.path, self._decode)[self.next_seq_no - batch.base_seq_no :]
        if self._end is not None:
            events = events[: self._end - self.next_seq_no]
        self.next_seq_no += len(events)
        self.counters.add_read(len(events), len(batch.packed.payload))
        return events


def batches_between(log: MemoryLog, start: int, stop: int) -> Iterator[list[EventEnvelope]]:
    """The events from `start`, or the first one stored, to before `stop`, which is there."""
    seq_no = start or log.first_available
    while seq_no < stop:
        events = (log.next_batch(seq_no) or [])[: stop - seq_no]
        yield events
        seq_no += len(events)
