"""A range as a file: CSV, Parquet, or Arrow's own; in pieces that follow each other.

Nothing here writes: whoever does may be interrupted, or find his reader gone, between two pieces.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from eventlog.arrow.beside import HEADERS
from eventlog.arrow.passes import Read, RecordBatches
from eventlog.arrow.types import MOMENT, json_text
from eventlog.config import MIB
from eventlog.errors import InvalidArgument

GROUP_ROWS: Final = 65_536
"""Rows of a row group of Parquet: with fewer, its columns are too short to be packed well."""
GROUP_BYTES: Final = 64 * MIB


def table_pieces(read: Read, form: str, columns: Sequence[str] | None) -> Iterator[bytes]:
    """The file, piece by piece; `columns` are those that it has, else it has all.

    Raises:
        InvalidArgument: there is no such column.
    """
    found = RecordBatches(read)
    schema, batches = found.schema, iter(found)
    if columns is not None:
        schema = _chosen(schema, columns)
        batches = (batch.select(columns) for batch in found)
    writing = {"csv": _csv, "parquet": _parquet, "arrow": _arrow}[form]
    return writing(schema, batches)


def _chosen(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    for place, name in enumerate(columns):
        if name not in schema.names:
            raise InvalidArgument(
                f"there is no column {name!r} in these events; there are {', '.join(schema.names)}"
            )
        if name in columns[:place]:
            raise InvalidArgument(f"the column {name!r} is named twice; name it once")
    return pa.schema([schema.field(name) for name in columns])


class _Pieces(io.BytesIO):
    """A file that is taken away as it is written; its places go on."""

    def __init__(self) -> None:
        super().__init__()
        self._taken_bytes = 0

    def tell(self) -> int:
        """Where the next byte goes in the whole file."""
        return self._taken_bytes + super().tell()

    def take(self) -> bytes:
        """What was written since the last time."""
        piece = self.getvalue()
        self._taken_bytes += len(piece)
        self.seek(0)
        self.truncate()
        return piece


def _arrow(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    output = _Pieces()
    writer = pa.ipc.new_file(output, schema)
    for batch in batches:
        writer.write_batch(batch)
        yield output.take()
    writer.close()
    yield output.take()


def _parquet(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    from pyarrow import parquet

    output = _Pieces()
    writer = parquet.ParquetWriter(output, schema, compression="zstd")
    for group in _groups(batches):
        writer.write_table(pa.Table.from_batches(group), row_group_size=None)
        yield output.take()
    writer.close()
    yield output.take()


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _csv(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    from pyarrow import csv

    def text_of(columns: Sequence[pa.Array], *, has_header: bool = False) -> bytes:
        output = io.BytesIO()
        flat = pa.RecordBatch.from_arrays(columns, names=schema.names)
        csv.write_csv(flat, output, csv.WriteOptions(include_header=has_header))
        return output.getvalue()

    yield text_of([pa.nulls(0, pa.string())] * len(schema), has_header=True)
    for batch in batches:
        yield text_of([*map(_flat, batch)])


def _flat(column: pa.Array) -> pa.Array:
    """A column that CSV has: times as ISO 8601 says, bytes in base64, what is nested as JSON."""
    kind = column.type
    if kind.equals(MOMENT):
        from pyarrow import compute

        return compute.strftime(column.cast(pa.timestamp("us")), format="%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_binary(kind):
        return _texts(column, lambda value: base64.b64encode(value).decode())
    if kind.equals(HEADERS):
        return _texts(column, lambda pairs: json_text(dict(pairs)))
    return _texts(column, json_text) if pa.types.is_nested(kind) else column


def _texts(column: pa.Array, text_of: Any) -> pa.Array:
    values = column.to_pylist()
    return pa.array([None if one is None else text_of(one) for one in values], pa.string())
