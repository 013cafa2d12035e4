"""What a caller gets of a range: a stream of record batches, or all of them as a table."""

from __future__ import annotations

import pyarrow as pa

from eventlog.arrow.passes import Read, record_batches


def reader_of(read: Read) -> pa.RecordBatchReader:
    """A reader of record batches of bounded size, for one use."""
    return pa.RecordBatchReader.from_batches(*record_batches(read))


def table_of(read: Read) -> pa.Table:
    """The range as one table in memory."""
    schema, batches = record_batches(read, kept_bytes_max=None)
    return pa.Table.from_batches(batches, schema)
