"""A range of stored events, for threads: to be iterated, or taken as an Arrow table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from eventlog.api.extras import check_extra
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode, decode_any


class EventRange(Iterator[EventEnvelope]):
    """What `read` gives: an iterator of its events, and a table for whoever reads Arrow.

    `polars.DataFrame(log.read(1))`, `pandas.DataFrame.from_arrow(...)`, `pyarrow.table(...)`, and
    DuckDB with the range as a variable in a statement take it as a table: without a copy, in record
    batches of some 8,000 events or 32 MiB, each time from its first event on.

    Columns: `seq_no`, `timestamp`, `stored_at`, `key`, `headers`, then a column for each field that
    an event has, and `event` for the events that are no dicts, if there are some. A field that is
    called as one of those columns is behind `event_`: `event_key`. Dicts inside are structs, arrays
    are lists. A field that an event lacks is null there. Values of a field that do not agree get
    the type that holds all of them: whole numbers beside floats are floats; all others are texts,
    the JSON of each value. So are dicts with more than a hundred different names, and whole events
    with more than a thousand.

    Types are known once all events were seen. What this first pass made is kept up to 64 MiB; of a
    longer range, or one whose fields appear later on, the events are read a second time.
    """

    def __init__(self, read: Callable[[Decode], Iterator[list[EventEnvelope]]]) -> None:
        self._read = read
        """Reads the range from its begin, each time."""
        self._events = chain.from_iterable(read(decode_any))

    def __iter__(self) -> Iterator[EventEnvelope]:
        """The events that were not handed out yet."""
        return self._events

    def __next__(self) -> EventEnvelope:
        """The next event."""
        return next(self._events)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The whole range as a stream of Arrow's C interface.

        Raises:
            NotSupported: pyarrow is not installed.
            EventsTruncated, CorruptLog, LogClosed: as iterating.
        """
        check_extra("arrow", "a range as a table needs")
        from eventlog.arrow.tables import Stream

        capsule: object = Stream(self._read).__arrow_c_stream__(requested_schema)
        return capsule
