"""What a stream of a log in memory reads next; the same for both kinds."""

from __future__ import annotations

from collections.abc import Iterator

from eventlog.api.positions import SeekPosition
from eventlog.api.refusals import closed, mixed_use, never_synced
from eventlog.api.statistics import Counters, StreamStatistics
from eventlog.api.stream_options import StreamOptions
from eventlog.errors import EventsTruncated, EventTypeMismatch
from eventlog.event.envelope import EventEnvelope
from eventlog.event.filters import EventFilter
from eventlog.event.record_batch import Decode
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
        self._consumer = consumer
        self.state: bytes | None = None
        """The consumer's, of the moment at which its position was the start."""
        if consumer and position.kind == "last_acknowledged":
            start, self.state = handle.log.resume(consumer)
        else:
            start = handle.log.resolve(position, consumer or "")
        self._start = self.next_seq_no = start
        self._handed = 0
        """The last event that was handed out; 0 if none was."""
        self._filter = options.filter
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
        try:
            return self._next_batch()
        except (EventsTruncated, EventTypeMismatch) as error:
            error.consumer = self._consumer
            raise

    def check_open(self) -> None:
        """Pass if stream and handle are open.

        Raises:
            LogClosed, ForkedHandle, WrongEventLoop: they are not.
        """
        path = self._handle.log.path
        if self.is_closed:
            raise closed("stream", path)

    def _next_batch(self) -> list[EventEnvelope] | None:
        self.check_open()
        log = self._log
        if self._skips and self.next_seq_no < log.first_available:
            self.counters.skipped += log.first_available - self.next_seq_no
            self.next_seq_no = log.first_available
        while not self.is_finished and (batch := log.batch_of(self.next_seq_no)) is not None:
            end = batch.last_seq_no + 1 if self._end is None else self._end
            envelopes = batch.envelopes(log.path, self._decode, self._filter)
            events = _between(envelopes, self.next_seq_no, end)
            self.next_seq_no = min(batch.last_seq_no + 1, end)
            self.counters.add_read(len(events), len(batch.packed.payload))
            if events:
                self._handed = events[-1].seq_no or 0
                return events
        self._ack_refused()
        return None

    def _ack_refused(self) -> None:
        """Move the consumer to the end, past what its filter left out.

        It must have acknowledged all that it was given, and all before the feed's begin.
        """
        if self._filter is None or self._consumer is None:
            return
        log, last = self._log, self.next_seq_no - 1
        position = log.position_of(self._consumer)
        behind = position if self._handed else max(position, log.first_available - 1)
        if behind >= (self._handed or self._start - 1) and last > position:
            log.ack(self._consumer, last, keeps_state=True)


def batches_between(
    log: MemoryLog, start: int, stop: int, wanted: EventFilter | None, decode: Decode
) -> Iterator[list[EventEnvelope]]:
    """The events from `start`, or the first one stored, to before `stop`, which is there."""
    seq_no = start or log.first_available
    while seq_no < stop and (batch := log.batch_of(seq_no)) is not None:
        yield _between(batch.envelopes(log.path, decode, wanted), seq_no, stop)
        seq_no = batch.last_seq_no + 1


def _between(envelopes: list[EventEnvelope], start: int, stop: int) -> list[EventEnvelope]:
    """Those with numbers from `start` to before `stop`."""
    return [one for one in envelopes if start <= (one.seq_no or 0) < stop]
