"""Reading a range of events, all or those that a filter wants.

Where a filter names keys, indexes by key tell where their events are: of a full segment its file,
of the active one what `ActiveKeys` knows. What is missing of either is made on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from eventlog.errors import EventLogError
from eventlog.event.envelope import EventEnvelope
from eventlog.event.filters import EventFilter
from eventlog.event.record_batch import Decode, decode_any
from eventlog.local.storage.active_keys import ActiveKeys
from eventlog.local.storage.make_key_index import make_key_index
from eventlog.local.storage.reading.batch_reader import BatchReader, trimmed
from eventlog.local.storage.reading.reader import LogReader

WALKED_EVENTS: Final = 4096
"""The last events of a range: looking at their batches takes less than getting to know the keys of
a whole segment."""


def read_range(
    log: LogReader,
    start: int,
    stop: int | None,
    wanted: EventFilter | None = None,
    *,
    makes_index: bool = False,
    decode: Decode = decode_any,
) -> Iterator[list[EventEnvelope]]:
    """The events from `start` to before `stop`, or to the last one stored at the call, as lists.

    With a filter only those that it wants. An empty list says that some were left out: whoever
    shares a thread with others lets them run. With `makes_index` it makes the indexes by key that
    are missing, for itself and all that come after it.

    Raises (from the iterator):
        EventsTruncated: `start` was deleted by retention.
    """
    end = log.last_seq_no + 1 if stop is None else min(stop, log.last_seq_no + 1)
    return _batches_between(log, start or log.first_available, end, wanted, makes_index, decode)


def _batches_between(
    log: LogReader,
    first: int,
    end: int,
    wanted: EventFilter | None,
    makes_index: bool,
    decode: Decode,
) -> Iterator[list[EventEnvelope]]:
    reader = log.batches(first)
    search = None if wanted is None else _Search(log, reader, wanted, end, makes_index)
    try:
        while reader.next_seq_no < end:
            if search is not None:
                yield from search.to_next()
            batch = reader.next_batch() if reader.next_seq_no < end else None
            if batch is None:
                return
            envelopes = batch.envelopes(log.directory, decode, wanted)
            yield trimmed(envelopes, batch.header, first, end)
    finally:
        reader.close()


class _Search:
    """What goes to the events that a filter wants, before event `end`."""

    def __init__(
        self, log: LogReader, reader: BatchReader, wanted: EventFilter, end: int, makes_index: bool
    ) -> None:
        self._log = log
        self._reader = reader
        self._wanted = wanted
        self._end = end
        self._makes_index = makes_index
        """Whether it makes indexes of full segments that have none: until there is no room."""
        self._may_save = makes_index
        self._looks_through = len(wanted.key_hashes) == 1
        """Whether it gets to know the active segment, when it gets there."""

    def to_next(self) -> Iterator[list[EventEnvelope]]:
        """Go past batches that are not wanted, at most some; an empty list after each step."""
        reader, wanted = self._reader, self._wanted
        if self._makes_index and (base := reader.unindexed(wanted)) is not None:
            yield from self._make_index(base)
        if self._looks_through and (base := self._active_segment()) is not None:
            self._looks_through = False
            yield from self._look_through(base)
        reader.pass_over(wanted)

    def _make_index(self, base: int) -> Iterator[list[EventEnvelope]]:
        # What is wrong with the segment is told by whoever reads it.
        with suppress(FileNotFoundError, EventLogError):
            for _ in make_key_index(self._log.directory, base, self._log.files):
                yield []
        self._reader.index_made()
        self._makes_index = self._reader.unindexed(self._wanted) is None

    def _active_segment(self) -> int | None:
        """The active segment, if the next event and many others of the range are in it."""
        seq_no = self._reader.next_seq_no
        if self._end - seq_no <= WALKED_EVENTS or self._log.full_segment_of(seq_no) is not None:
            return None
        # By names that may be old: it may be full by now.
        active = self._log.segment_bases()[-1:]
        return active[0] if active and active[0] <= seq_no else None

    def _look_through(self, base: int) -> Iterator[list[EventEnvelope]]:
        log = self._log
        segment = self._reader.enter(base)
        if segment is None:
            return
        keys = log.active_keys
        if keys is None or keys.base_seq_no != base:
            keys = log.active_keys = ActiveKeys.load(segment, log.files)
        for _ in keys.look_through(segment, self._end - 1):
            yield []
        if self._may_save and keys.is_to_be_saved:
            keys.save(log.directory, log.files)
