"""The columns of a table: what stands beside each event, and its fields, learned from events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from eventlog.arrow.beside import BESIDE
from eventlog.arrow.columns import FIELDS_MAX, Fields
from eventlog.arrow.types import JSON_TEXT, joined, settled

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
            self.take_wholes()

    def take_wholes(self) -> None:
        """Take no event apart: they have too many fields."""
        self.is_of_wholes, self.fields, self.whole = True, {}, JSON_TEXT

    def learn(self, rows: Fields) -> None:
        """Take the values of the rows into account."""
        for name, kind in self.fields.items():
            self.fields[name] = joined(kind, rows.column(name).type)
        self.whole = joined(self.whole, rows.whole.type)

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

    def build(self, beside: Sequence[pa.Array], rows: Fields) -> pa.RecordBatch:
        """The rows, all of which it has learned, and what stands beside them.

        Raises:
            ValuesNeeded: a column has to be made of its values.
        """
        arrays = [*beside]
        arrays += [rows.column(name).array(kind) for name, kind in self.fields.items()]
        if not pa.types.is_null(self.whole):
            arrays.append(rows.whole.array(self.whole))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def column_of(field: str) -> str:
    """The column of a field: its name, behind `event_` if a column of every log has that name."""
    return f"event_{field}" if _TAKEN.fullmatch(field) else field
