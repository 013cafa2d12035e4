"""The columns of some events: of objects of Python, or made without them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from eventlog.arrow.types import FLOAT, LARGE_WHOLE, WHOLE, array_of, joined, type_of

FIELDS_MAX: Final = 1000
"""Events with more different fields are no records: the column `event` has them, as JSON."""


class TooManyFields(Exception):
    """The events have more different fields than a table takes."""


class ValuesNeeded(Exception):
    """A column can be had of objects of Python alone."""


class Column(Protocol):
    """The values of one column."""

    @property
    def type(self) -> pa.DataType:
        """The narrowest type that holds them."""

    def array(self, kind: pa.DataType) -> pa.Array:
        """They as a column of a type that holds them.

        Raises:
            ValuesNeeded: that needs the values themselves.
        """


class Values:
    """The values of one column, as they come in parts."""

    __slots__ = ("_count", "_kinds", "_parts")

    def __init__(self) -> None:
        self._parts: list[Sequence[Any]] = []
        self._count = 0
        self._kinds: set[type] = set()

    def extend(self, values: Sequence[Any]) -> None:
        """Add some."""
        self._kinds.update(map(type, values))
        self._parts.append(values)
        self._count += len(values)

    def pad(self, count: int) -> Values:
        """Itself, with nothing in the last places of so many."""
        if self._count < count:
            self.extend([None] * (count - self._count))
        return self

    @property
    def type(self) -> pa.DataType:
        """The narrowest type that holds them."""
        return type_of(self._all(), self._kinds)

    def array(self, kind: pa.DataType) -> pa.Array:
        """They as a column of a type that holds them."""
        return array_of(self._all(), kind)

    def _all(self) -> Sequence[Any]:
        if len(self._parts) != 1:
            self._parts = [[*chain.from_iterable(self._parts)]]
        return self._parts[0]


class Ready(NamedTuple):
    """A column that was never objects of Python."""

    column: pa.Array

    @property
    def type(self) -> pa.DataType:
        """The narrowest type that holds its values."""
        return self.column.type

    def array(self, kind: pa.DataType) -> pa.Array:
        """It as a column of a type that holds its values.

        Raises:
            ValuesNeeded: that needs the values themselves.
        """
        if self.type.equals(kind):
            return self.column
        if pa.types.is_null(self.type):
            return pa.nulls(len(self.column), kind)
        if self.type.equals(WHOLE) and kind in (FLOAT, LARGE_WHOLE):
            return self.column.cast(kind, safe=False)
        raise ValuesNeeded


class Fields(NamedTuple):
    """Events in columns: one for each field, and one for the events that are no dicts by names."""

    count: int  # type: ignore[assignment]  # hides tuple.count, of no use here
    columns: dict[str, Column]
    whole: Column

    def column(self, name: str) -> Column:
        """The values of a field, `None` where an event has none."""
        return self.columns.get(name) or nothing(self.count)


def nothing(count: int) -> Column:
    """The column of so many events that have nothing there."""
    return Ready(pa.nulls(count))


def interleaved(rows: Sequence[Any], groups: Sequence[Fields]) -> Fields:
    """The events of all groups, each in its row; `rows` has an array of numpy for each group.

    Raises:
        ValuesNeeded: columns of a field have types that go together in objects of Python alone.
    """
    if len(groups) == 1:
        return groups[0]
    order = pa.array(np.argsort(np.concatenate(rows)))

    def together(columns: Sequence[Column]) -> Column:
        kind = reduce(joined, (column.type for column in columns))
        return Ready(pa.concat_arrays([column.array(kind) for column in columns]).take(order))

    names = dict.fromkeys(chain.from_iterable(group.columns for group in groups))
    columns = {name: together([group.column(name) for group in groups]) for name in names}
    return Fields(len(order), columns, together([group.whole for group in groups]))
