"""What a caller gets of a range: streams of record batches, or all of them as a table."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from eventlog.arrow.passes import Read, RecordBatches
from eventlog.errors import EventLogError


class Stream:
    """A range as a stream for each that asks for one; they are told alike, and read once."""

    def __init__(self, read: Read) -> None:
        self._batches = RecordBatches(read)
        self.error: EventLogError | None = None
        """What ended a stream too early: whoever reads it makes an error of its own of that."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A stream of Arrow's C interface."""
        reader = pa.RecordBatchReader.from_batches(self._batches.schema, self._told())
        capsule: object = reader.__arrow_c_stream__(requested_schema)
        return capsule

    def _told(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        except EventLogError as error:
            self.error = error
            raise


def table_of(read: Read) -> pa.Table:
    """The range as one table in memory."""
    batches = RecordBatches(read, kept_bytes_max=None)
    return pa.Table.from_batches(iter(batches), batches.schema)
