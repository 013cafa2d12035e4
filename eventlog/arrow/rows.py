"""Rows: events on their way from batches as they are stored to batches as Arrow has them.

They are gathered packed, and taken apart together: all at once where they are alike (see `alike`).
Others are decoded batch by batch: to one object with the values of the fields that are known, which
takes two thirds of the time that a dict takes, or else as always, so that nothing depends on what
was known.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, Final

import msgspec
import pyarrow as pa

from eventlog.arrow.alike import Group, NotAlike, groups_in
from eventlog.arrow.beside import Beside
from eventlog.arrow.columns import (
    FIELDS_MAX,
    Fields,
    Ready,
    TooManyFields,
    Values,
    ValuesNeeded,
    interleaved,
    nothing,
)
from eventlog.arrow.decoding import RowDecoder
from eventlog.event.envelope import EventEnvelope

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


class Rows:
    """The events of some batches, until there are enough of them."""

    def __init__(self, decoder: RowDecoder, *, as_wholes: bool = False) -> None:
        self._decoder = decoder
        self._as_wholes = as_wholes
        self._beside = Beside()
        self._batches: list[Sequence[EventEnvelope]] = []
        self._count = 0

    def __len__(self) -> int:
        """How many events there are."""
        return self._count

    def add(self, batch: Sequence[EventEnvelope]) -> None:
        """Take the events of a batch, which has some."""
        self._beside.add(batch)
        self._batches.append(batch)
        self._count += len(batch)

    def beside(self) -> list[pa.Array]:
        """What stands beside the events: number, times, key and headers."""
        return self._beside.arrays()

    def fields(self) -> Fields:
        """The events in columns.

        Raises:
            TooManyFields: they are not to be taken apart.
            CorruptLog: one cannot be decoded.
        """
        if not self._as_wholes and all(map(_is_packed, self._batches)):
            with suppress(NotAlike, ValuesNeeded):
                groups = groups_in([one.event for one in chain.from_iterable(self._batches)])
                return interleaved([group.rows for group in groups], [*map(_fields_of, groups)])
        return self.fields_of_values()

    def fields_of_values(self) -> Fields:
        """The same, of objects of Python.

        Raises:
            TooManyFields: they are not to be taken apart.
            CorruptLog: one cannot be decoded.
        """
        taken = _Taken(as_wholes=self._as_wholes)
        with collected_later():
            for batch in self._batches:
                events = [envelope.event for envelope in batch]
                if _is_packed(batch):
                    events = self._decoder.decode(events, batch[0])
                taken.add(events)
            return taken.end()


def _is_packed(batch: Sequence[EventEnvelope]) -> bool:
    """Whether the payloads of a batch are packed: all of them are, or none is."""
    return type(batch[0].event) is msgspec.Raw


def _fields_of(group: Group) -> Fields:
    """The fields of events that are alike."""
    count, column = len(group.rows), group.column
    if not pa.types.is_struct(column.type):
        return Fields(count, {}, Ready(column))
    parts = zip(column.type, column.flatten(), strict=True)
    return Fields(count, {field.name: Ready(part) for field, part in parts}, nothing(count))


class _Taken:
    """Decoded events that are taken apart, unless they are taken as wholes."""

    def __init__(self, *, as_wholes: bool) -> None:
        self._as_wholes = as_wholes
        self._count = 0
        self._fields: dict[str, Values] = {}
        self._wholes = Values()

    def add(self, events: list[Any]) -> None:
        """Take the events of a batch."""
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
        self._count += len(events)

    def _add_records(
        self, records: list[Any], names: Sequence[str], values_of: Callable[[Any], Sequence[Any]]
    ) -> None:
        if len(self._fields.keys() | names) > FIELDS_MAX:
            raise TooManyFields
        columns = zip(*map(values_of, records), strict=True)
        for name, values in zip(names, columns, strict=True):
            self._fields.setdefault(name, Values()).pad(self._count).extend(values)

    def end(self) -> Fields:
        """All of them."""
        columns = {name: values.pad(self._count) for name, values in self._fields.items()}
        return Fields(self._count, {**columns}, self._wholes.pad(self._count))


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
