"""Rows: events on their way from batches as they are stored to batches as Arrow has them.

Most events of a log are dicts of a few fields. Once these are known, they are decoded to rows: one
object with the values of the fields, which takes two thirds of the time that a dict takes. What
does not fit is decoded as always, so that nothing depends on what was known.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import msgspec.structs
import pyarrow as pa

from eventlog.arrow.beside import Beside
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode, decode_any, plain_decoder_for

ROW_FIELDS_MAX: Final = 64
"""Rows have a place for each field that is known: with many, most of them would be empty."""
MISSES_MAX: Final = 16
"""Batches that do not fit, after which none is tried until more fields are known."""
ROWS_AT_ONCE: Final = 16_384
"""Rows that are turned into columns at once: while a processor has them at hand."""
NAMES_OF_ROW: Final = "__struct_encode_fields__"
_NAMES: Final = {str}


@contextmanager
def collected_later() -> Iterator[None]:
    """A block that makes many objects which live equally long: see `record_batch.unpack_body`."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


class RowDecoder:
    """Decodes bodies of batches: to rows, where events have no other fields than those known."""

    def __init__(self) -> None:
        self._decode: Decode | None = None
        self._misses = 0
        self.decoded_bytes = 0
        """Bytes of all bodies so far; 0 where an engine decodes by itself."""

    def learn(self, names: Sequence[str]) -> None:
        """Decode to rows of these fields from now on."""
        self._decode, self._misses = None, 0
        if 0 < len(names) <= ROW_FIELDS_MAX:
            fields = {f"field_{place}": name for place, name in enumerate(names)}
            try:
                row = msgspec.defstruct(
                    "Row",
                    [(place, Any, None) for place in fields],
                    rename=fields,
                    forbid_unknown_fields=True,
                    gc=False,
                )
            except ValueError:  # a name with a quote or a line end is none for a struct
                return
            self._decode = plain_decoder_for(row)

    def __call__(self, body: bytes | memoryview) -> Any:
        """The columns of a body; see `record_batch.Decode`."""
        self.decoded_bytes += len(body)
        if self._decode is not None and self._misses < MISSES_MAX:
            try:
                return self._decode(body)
            except (ValueError, TypeError, OverflowError, RecursionError):
                self._misses += 1
        return decode_any(body)


class Values:
    """The values of one column, as they come in parts."""

    __slots__ = ("_count", "_parts", "kinds")

    def __init__(self) -> None:
        self._parts: list[Sequence[Any]] = []
        self._count = 0
        self.kinds: set[type] = set()
        """Their types."""

    def extend(self, values: Sequence[Any]) -> None:
        """Add some."""
        self.kinds.update(map(type, values))
        self._parts.append(values)
        self._count += len(values)

    def pad(self, count: int) -> Values:
        """Itself, with nothing in the last places of so many."""
        if self._count < count:
            self.extend([None] * (count - self._count))
        return self

    def all(self) -> Sequence[Any]:
        """All of them together."""
        if len(self._parts) != 1:
            self._parts = [[*chain.from_iterable(self._parts)]]
        return self._parts[0]


class Rows:
    """The events of some batches, in columns; their fields too, unless they are taken as wholes."""

    def __init__(self, *, as_wholes: bool = False) -> None:
        self._as_wholes = as_wholes
        self._beside = Beside()
        self._count = 0
        self._fields: dict[str, Values] = {}
        self._wholes = Values()

    def __len__(self) -> int:
        """How many events there are."""
        return self._count

    def add(self, batch: Sequence[EventEnvelope]) -> Iterable[str]:
        """Take the events of a batch; the names of their fields."""
        with collected_later():
            return self._add(batch)

    def _add(self, batch: Sequence[EventEnvelope]) -> Iterable[str]:
        self._beside.add(batch)
        events = [envelope.event for envelope in batch]
        kinds = set(map(type, events))
        row = type(events[0])
        if self._as_wholes:
            self._wholes.extend(events)
        elif hasattr(row, NAMES_OF_ROW) and len(kinds) == 1:
            self._add_records(events, getattr(row, NAMES_OF_ROW), msgspec.structs.astuple)
        else:
            records, wholes = _told_apart(events, are_dicts=kinds == {dict})
            names = dict.fromkeys(chain.from_iterable(dict.fromkeys(map(tuple, records))))
            self._add_records(records, [*names], _values_of([*names]))
            self._wholes.pad(self._count).extend(wholes)
        self._count += len(batch)
        return self._fields

    def _add_records(
        self, records: list[Any], names: Sequence[str], values_of: Callable[[Any], Sequence[Any]]
    ) -> None:
        fields = [self._field(name) for name in names]
        for start in range(0, len(records), ROWS_AT_ONCE):
            values = map(values_of, records[start : start + ROWS_AT_ONCE])
            for field, of_field in zip(fields, zip(*values, strict=True), strict=False):
                field.extend(of_field)

    def _field(self, name: str) -> Values:
        if name not in self._fields:
            self._fields[name] = Values()
        return self._fields[name].pad(self._count)

    def column(self, name: str) -> Values:
        """The values of a field, `None` where an event has none."""
        return self._fields.get(name, Values()).pad(self._count)

    def wholes(self) -> Values:
        """The events that are no dicts by names, each in its place among `None`."""
        return self._wholes.pad(self._count)

    def beside(self) -> list[pa.Array]:
        """What stands beside the events: number, times, key and headers."""
        return self._beside.arrays()


def _told_apart(events: list[Any], *, are_dicts: bool) -> tuple[list[Any], list[Any]]:
    """The dicts by names, and the other events, each in its place among `{}` or `None`."""
    if are_dicts and set(map(type, chain.from_iterable(events))) <= _NAMES:
        return events, []
    is_record = [type(one) is dict and set(map(type, one)) <= _NAMES for one in events]
    both = [*zip(events, is_record, strict=True)]
    return (
        [one if is_one else {} for one, is_one in both],
        [None if is_one else one for one, is_one in both],
    )


def _values_of(names: Sequence[str]) -> Callable[[dict[str, Any]], Sequence[Any]]:
    return lambda record: [*map(record.get, names)]
