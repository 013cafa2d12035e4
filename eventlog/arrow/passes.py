"""A first pass over the events that learns the columns, and a second one where that is not enough.

Types are known when all events have been seen. What the first pass makes meanwhile is kept, as long
as it is small, and is all there is to do if no batch turns out to lack a column or to have another
type than the whole. Otherwise the events are read again, with everything known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pyarrow as pa

from eventlog.arrow.columns import Fields, TooManyFields, ValuesNeeded
from eventlog.arrow.decoding import PackedDecoder, RowDecoder
from eventlog.arrow.rows import Rows
from eventlog.arrow.shape import Shape
from eventlog.config import MIB
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode

Read = Callable[[Decode], Iterator[list[EventEnvelope]]]
"""Reads a range from its begin; an engine that decodes batches itself uses the decoder."""
ROWS_MAX: Final = 8192
"""Events of a record batch, or somewhat more: of many, the first ones would have to be read from
memory again."""
FIRST_ROWS: Final = 1024
"""The same of the first one: what it teaches makes the others cheaper."""
ROWS_UNSIZED_MAX: Final = 4096
"""The same where nobody says how large events are: those of servers are mostly small."""
CELLS_MAX: Final = 4_000_000
"""Events times fields of a record batch."""
PACKED_BYTES_MAX: Final = 32 * MIB
"""Bytes of the events of a record batch, as they are stored."""
KEPT_BYTES_MAX: Final = 64 * MIB
"""What a first pass for a stream keeps."""


class Gathering:
    """Events of small batches, on their way into one record batch."""

    def __init__(self, shape: Shape, rows_max: int = ROWS_MAX) -> None:
        self.shape = shape
        self.decoder = PackedDecoder()
        self._values = RowDecoder()
        self._rows_max = rows_max
        self._begin_rows()

    def _begin_rows(self) -> None:
        self._rows = Rows(self._values, as_wholes=self.shape.is_of_wholes)
        self._decoded_before = self.decoder.decoded_bytes

    def add(self, batch: Sequence[EventEnvelope]) -> bool:
        """Take the events of a batch; whether there are enough of them now."""
        if batch:
            self._rows.add(batch)
        decoded = self.decoder.decoded_bytes
        most = self._rows_max if decoded else min(self._rows_max, ROWS_UNSIZED_MAX)
        return (
            len(self._rows) >= min(most, CELLS_MAX // (len(self.shape.fields) or 1))
            or decoded - self._decoded_before >= PACKED_BYTES_MAX
        )

    def _build(self, fields: Fields) -> pa.RecordBatch:
        beside = self._rows.beside()
        try:
            return self.shape.build(beside, fields)
        except ValuesNeeded:
            return self.shape.build(beside, self._rows.fields_of_values())


class FirstPass(Gathering):
    """Learns the columns, and keeps what it makes meanwhile if that is little."""

    def __init__(self, kept_bytes_max: int | None) -> None:
        super().__init__(Shape(), FIRST_ROWS)
        self._kept: list[pa.RecordBatch] | None = []
        self._room = kept_bytes_max
        self._known: list[str] = []
        """The fields that the decoder knows."""

    @property
    def is_over(self) -> bool:
        """Whether it knows all before the last event."""
        return self.shape.is_of_wholes

    def take(self) -> None:
        """Learn from the events that were gathered."""
        fields = self._fields()
        if fields is None:
            self._kept = None
            return
        self.shape.learn(fields)
        if self._kept is not None:
            self._keep(self._build(fields))
        names = [*self.shape.fields]
        if names != self._known:
            self._values.learn(names)
            self._known = names
        self._rows_max = ROWS_MAX
        self._begin_rows()

    def _fields(self) -> Fields | None:
        """The events that were gathered, in columns; `None` if those are too many."""
        try:
            fields = self._rows.fields()
        except TooManyFields:
            self.shape.take_wholes()
            return None
        self.shape.see(fields.columns)
        return None if self.is_over else fields

    def _keep(self, batch: pa.RecordBatch) -> None:
        assert self._kept is not None
        self._kept.append(batch)
        if self._room is not None:
            self._room -= batch.nbytes
            if self._room < 0:
                self._kept = None

    def end(self) -> list[pa.RecordBatch] | None:
        """All record batches, if there is no need of a second pass."""
        if len(self._rows) and not self.is_over:
            self.take()
        self.shape.settle()
        schema = self.shape.schema
        is_whole = self._kept is not None and all(one.schema.equals(schema) for one in self._kept)
        return self._kept if is_whole else None


class SecondPass(Gathering):
    """Makes record batches whose columns are known."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._values.learn([*shape.fields])

    def take(self) -> pa.RecordBatch:
        """The events that were gathered."""
        batch = self._build(self._rows.fields())
        self._begin_rows()
        return batch

    def end(self) -> list[pa.RecordBatch]:
        """The rest of them."""
        return [self.take()] if len(self._rows) else []


class RecordBatches:
    """The events of a range, all of which were seen once, in record batches of bounded size."""

    def __init__(self, read: Read, kept_bytes_max: int | None = KEPT_BYTES_MAX) -> None:
        first = FirstPass(kept_bytes_max)
        for batch in read(first.decoder):
            if first.add(batch):
                first.take()
                if first.is_over:
                    break
        self._read = read
        self._kept = first.end()
        self._shape = first.shape
        self.schema: pa.Schema = first.shape.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """From the first one on."""
        return self._again() if self._kept is None else iter(self._kept)

    def _again(self) -> Iterator[pa.RecordBatch]:
        second = SecondPass(self._shape)
        for batch in self._read(second.decoder):
            if second.add(batch):
                yield second.take()
        yield from second.end()
