"""The columns of a table: what stands beside each event, and its fields, learned from events."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from eventlog.arrow.beside import BESIDE
from eventlog.arrow.rows import Rows, Values
from eventlog.arrow.types import JSON_TEXT, array_of, joined, settled, type_of

FIELDS_MAX: Final = 1000
"""Events with more different fields are no records: the column `event` has them, as JSON."""
WHOLE: Final = "event"
_TAKEN: Final = re.compile(f"(event_)*({'|'.join([*(field.name for field in BESIDE), WHOLE])})")


class Shape:
    """Which columns there are, and their types: those of the rows that it was shown."""

    def __init__(self) -> None:
        self.fields: dict[str, pa.DataType] = {}
        self.whole: pa.DataType = pa.null()
        """Type of the events that are no dicts by names."""
        self.is_of_wholes = False
        """Whether no event is taken apart, because they have too many fields."""

    def see(self, names: Iterable[str]) -> None:
        """Note that there are fields with these names."""
        for name in names:
            self.fields.setdefault(name, pa.null())
        if len(self.fields) > FIELDS_MAX:
            self.is_of_wholes, self.fields, self.whole = True, {}, JSON_TEXT

    def learn(self, rows: Rows) -> None:
        """Take the values of the rows into account."""
        for name, kind in self.fields.items():
            self.fields[name] = joined(kind, _type_of(rows.column(name)))
        self.whole = joined(self.whole, _type_of(rows.wholes()))

    def settle(self) -> None:
        """Fix the types: there are no more rows."""
        self.fields = {name: settled(kind) for name, kind in self.fields.items()}
        self.whole = settled(self.whole)

    @property
    def schema(self) -> pa.Schema:
        """The columns as Arrow names them."""
        fields = [pa.field(column_of(name), kind) for name, kind in self.fields.items()]
        if not pa.types.is_null(self.whole):
            fields.append(pa.field(WHOLE, self.whole))
        return pa.schema([*BESIDE, *fields])

    def build(self, rows: Rows) -> pa.RecordBatch:
        """The rows, all of which it has learned."""
        arrays = rows.beside()
        arrays += [array_of(rows.column(name).all(), kind) for name, kind in self.fields.items()]
        if not pa.types.is_null(self.whole):
            arrays.append(array_of(rows.wholes().all(), self.whole))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _type_of(column: Values) -> pa.DataType:
    return type_of(column.all(), column.kinds)


def column_of(field: str) -> str:
    """The column of a field: its name, behind `event_` if a column of every log has that name."""
    return f"event_{field}" if _TAKEN.fullmatch(field) else field
