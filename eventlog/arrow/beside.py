"""What stands beside an event: number, times, key and headers, as columns."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from eventlog.arrow.types import MOMENT, TEXT
from eventlog.event.envelope import TIMESTAMP_BYTES, Columns, EventEnvelope

HEADERS: Final = pa.map_(pa.string(), pa.string())
BESIDE: Final = (
    pa.field("seq_no", pa.int64()),
    pa.field("timestamp", MOMENT),
    pa.field("stored_at", MOMENT),
    pa.field("key", TEXT),
    pa.field("headers", HEADERS),
)
"""The columns that every log has."""


class Beside:
    """The columns of events that are taken batch by batch, mostly as the batches have them."""

    def __init__(self) -> None:
        self._runs: list[range] = []
        """The numbers of the events."""
        self._times_ns = bytearray()
        self._stored_us = array("q")
        self._keys = Texts()
        self._headers = Texts()

    def add(self, batch: Sequence[EventEnvelope]) -> None:
        """Take what stands beside the events of a batch."""
        columns, count = batch[0].columns, len(batch)
        is_whole = batch[-1].columns is columns and (
            len(columns.timestamps) == count * TIMESTAMP_BYTES
        )
        if is_whole and type(columns) is Columns:
            first = columns.base_seq_no
            self._add_run(range(first, first + count))
            self._times_ns += columns.timestamps
            self._stored_us += array("q", [(columns.stored_ns or 0) // 1000]) * count
            self._keys.add(columns.keys, count)
            self._headers.add(columns.headers, count)
            return
        for envelope in batch:
            columns, seq_no = envelope.columns, envelope.seq_no or 0
            self._add_run(range(seq_no, seq_no + 1))
            self._times_ns += envelope.timestamp_ns.to_bytes(TIMESTAMP_BYTES, "little")
            stored_ns = columns.stored_ns_of(seq_no - columns.base_seq_no) or 0
            self._stored_us.append(stored_ns // 1000)
            self._keys.add([envelope.key], 1)
            self._headers.add([envelope.headers], 1)

    def _add_run(self, run: range) -> None:
        if self._runs and self._runs[-1].stop == run.start:
            run = range(self._runs.pop().start, run.stop)
        self._runs.append(run)

    def arrays(self) -> list[pa.Array]:
        """The columns, as `BESIDE` has them."""
        return [
            _numbers(self._runs),
            _moments(self._times_ns),
            pa.Array.from_buffers(
                MOMENT, len(self._stored_us), [None, pa.py_buffer(self._stored_us)]
            ),
            self._keys.array(TEXT),
            self._headers.array(HEADERS),
        ]


class Texts:
    """Keys or headers of events, most of which may have none."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._count = 0

    def add(self, values: Sequence[Any] | None, count: int) -> None:
        """Take those of some more events, which may have none."""
        if values is not None:
            self._values += [None] * (self._count - len(self._values))
            self._values += values
        self._count += count

    def array(self, kind: pa.DataType) -> pa.Array:
        """The column of all of them."""
        if not self._values:
            return pa.nulls(self._count, kind)
        values = self._values + [None] * (self._count - len(self._values))
        if kind is HEADERS:
            values = [None if one is None else [*one.items()] for one in values]
        return pa.array(values, kind)


def _numbers(runs: Sequence[range]) -> pa.Array:
    if len(runs) == 1:  # in a tenth of the time
        ones = pa.repeat(pa.scalar(1, pa.int64()), len(runs[0]))
        return pc.cumulative_sum(ones, start=runs[0].start - 1)
    return pa.array(array("q", chain.from_iterable(runs)), pa.int64())


def _moments(times_ns: bytearray) -> pa.Array:
    buffer = pa.py_buffer(times_ns)
    given = pa.Array.from_buffers(pa.uint64(), buffer.size // TIMESTAMP_BYTES, [None, buffer])
    return pc.divide(given, pa.scalar(1000, pa.uint64())).cast(pa.int64()).cast(MOMENT)
