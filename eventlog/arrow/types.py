"""The type of a column: found in its values, put together where batches differ. Pure.

=====================================  =========================================================
values                                 column
=====================================  =========================================================
whole numbers                          int64; decimals if one is 2**63 or more
floats, also beside whole numbers      double (a whole number beyond 2**53 is rounded)
bool, text, bytes                      bool, string, binary
times                                  timestamp in microseconds, UTC
UUIDs                                  string
lists, tuples, arrays                  list, of what they hold
dicts with up to 100 different names   struct: a missing name is null
`None`, and a field that is missing    null
values that do not agree, other dicts  large_string: the JSON of each value (`"7"`, `7`, `null`)
=====================================  =========================================================
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import datetime
from itertools import chain
from types import NoneType
from typing import Any, Final
from uuid import UUID

import msgspec
import pyarrow as pa

TEXT: Final = pa.string()
JSON_TEXT: Final = pa.large_string()
"""Values that do not agree, as JSON; another type than texts that were texts from the start."""
FLOAT: Final = pa.float64()
MOMENT: Final = pa.timestamp("us", "UTC")
WHOLE: Final = pa.int64()
LARGE_WHOLE: Final = pa.decimal128(20, 0)
NUMBERS: Final = (WHOLE, LARGE_WHOLE, FLOAT)
NAMES_MAX: Final = 100
"""A dict in an event with more different names is no record, but a map by some key."""
DEPTH_MAX: Final = 32

_SIMPLE: Final[dict[type, pa.DataType]] = {
    bool: pa.bool_(),
    bytes: pa.binary(),
    datetime: MOMENT,
    str: TEXT,
    UUID: TEXT,
}
_LISTS: Final = {list, tuple, memoryview}


def type_of(values: Sequence[Any], kinds: Set[type] | None = None, depth: int = 0) -> pa.DataType:
    """The narrowest type that holds all the values, which are of these types of Python."""
    kinds = (set(map(type, values)) if kinds is None else kinds) - {NoneType}
    if not kinds:
        return pa.null()
    if kinds <= {int, float}:
        return FLOAT if float in kinds else _whole(values)
    simple = {_SIMPLE.get(kind) for kind in kinds}
    if None not in simple:
        return simple.pop() if len(simple) == 1 else JSON_TEXT
    if depth < DEPTH_MAX and kinds <= _LISTS:
        return pa.list_(type_of([*chain.from_iterable(_lists(values))], depth=depth + 1))
    if depth < DEPTH_MAX and kinds == {dict}:
        return _record(values, depth)
    return JSON_TEXT


def _whole(values: Sequence[int | None]) -> pa.DataType:
    try:
        pa.array(values, WHOLE)
    except OverflowError:
        return LARGE_WHOLE
    return WHOLE


def _record(values: Sequence[dict[Any, Any] | None], depth: int) -> pa.DataType:
    names = dict.fromkeys(chain.from_iterable(one for one in values if one is not None))
    if len(names) > NAMES_MAX or not all(type(name) is str for name in names):
        return JSON_TEXT
    return pa.struct([(name, type_of(_inside(values, name), depth=depth + 1)) for name in names])


def joined(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The narrowest type that holds the values of both."""
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if one in NUMBERS and other in NUMBERS:
        return FLOAT if FLOAT in (one, other) else LARGE_WHOLE
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(joined(one.value_type, other.value_type))
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            fields[field.name] = joined(fields.get(field.name, pa.null()), field.type)
        return pa.struct([*fields.items()]) if len(fields) <= NAMES_MAX else JSON_TEXT
    return JSON_TEXT


def settled(kind: pa.DataType) -> pa.DataType:
    """The type once all values are known: a struct without fields, which few can read, is none."""
    if pa.types.is_list(kind):
        return pa.list_(settled(kind.value_type))
    if pa.types.is_struct(kind):
        fields = [(field.name, settled(field.type)) for field in kind]
        return pa.struct(fields) if fields else JSON_TEXT
    return kind


def array_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The values as a column of a type that holds them."""
    if kind.equals(JSON_TEXT):
        return pa.array([None if one is None else json_text(one) for one in values], JSON_TEXT)
    if pa.types.is_list(kind):
        return _array_of_lists([*_lists(values, None)], kind)
    if pa.types.is_struct(kind):
        missing = pa.array([one is None for one in values], pa.bool_())
        parts = [array_of(_inside(values, field.name), field.type) for field in kind]
        return pa.StructArray.from_arrays(parts, fields=[*kind], mask=missing)
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # see the module's table
        convert = float if kind.equals(FLOAT) else str
        return pa.array([None if one is None else convert(one) for one in values], kind)


def _array_of_lists(lists: Sequence[Sequence[Any] | None], kind: pa.DataType) -> pa.Array:
    offsets: list[int | None] = []
    end = 0
    for one in lists:
        offsets.append(None if one is None else end)
        end += len(one or ())
    items = [*chain.from_iterable(one for one in lists if one is not None)]
    return pa.ListArray.from_arrays(
        pa.array([*offsets, end], pa.int32()), array_of(items, kind.value_type), type=kind
    )


def json_text(value: Any) -> str:
    """A value as JSON; of what has none, such as a dict by tuples, how Python writes it."""
    try:
        return msgspec.json.encode(_without_arrays(value), enc_hook=repr).decode()
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _without_arrays(value: Any) -> Any:
    if isinstance(value, memoryview):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _without_arrays(inner) for name, inner in value.items()}
    return [*map(_without_arrays, value)] if isinstance(value, list) else value


def _inside(values: Sequence[dict[Any, Any] | None], name: str) -> list[Any]:
    return [None if one is None else one.get(name) for one in values]


def _lists(values: Sequence[Any], missing: Any = ()) -> list[Any]:
    """The values as lists; `missing` where there is none."""
    return [
        missing if one is None else one.tolist() if isinstance(one, memoryview) else one
        for one in values
    ]
