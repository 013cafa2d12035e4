"""Columns straight from the bytes of packed events that are alike. Pure.

Most events of a log are maps of the same fields in the same order, or of a few such kinds. numpy
walks the bytes of all events of a kind at once, field by field: where the value begins in each
event, of which kind it is, how long it is. No value becomes an object of Python, which takes a
fifth of the time that `rows` takes.

What comes out are the very columns that `rows` makes. Where that is in doubt it is `NotAlike`: many
kinds of events, lists, arrays, values of several kinds, whole numbers beyond 64 bits with a sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from eventlog.arrow.types import MOMENT, NAMES_MAX, TEXT
from eventlog.event.payload import UUID_EXTENSION

FIELDS_MAX: Final = 256
"""Fields of an event: of more, rows are as fast."""
DEPTH_MAX: Final = 8
"""Maps within maps."""
SHARE_MIN: Final = 1 / 16
"""Part of the events that are left: with smaller groups, there are too many of them."""
NAME_BYTES_MAX: Final = 120
"""Bytes of a field's name."""
WORD_BYTES: Final = 8

Numbers = np.ndarray[Any, Any]
"""An array of numpy with a number, or a truth, for each event."""


class NotAlike(Exception):
    """The events have to be taken one by one."""


class Kind(IntEnum):
    """What a value is, by its first byte."""

    OTHER = 0
    NIL = 1
    BOOL = 2
    WHOLE = 3
    FLOAT = 4
    TEXT = 5
    BYTES = 6
    TIME = 7
    UUID = 8
    MAP = 9


TIME_EXTENSION: Final = 0xFF
_TRUE, _UINT_64, _INT_8, _FLOAT, _TIME_64, _MAP_16 = 0xC3, 0xCF, 0xD0, 0xCB, 0xD7, 0xDE
_KINDS: Final = np.zeros(256, np.uint8)
_WIDTHS: Final = np.zeros(256, np.int64)
"""Bytes of the number that follows the first byte: the value itself, or the size of a text."""
_SHORTS: Final = np.zeros(256, np.int64)
"""The number that is in the first byte itself, where none follows."""


def _note(kind: Kind, first: int, *widths: int) -> None:
    for tag, width in enumerate(widths, first):
        _KINDS[tag], _WIDTHS[tag] = kind, width


_note(Kind.WHOLE, 0x00, *[0] * 0x80)
_note(Kind.MAP, 0x80, *[0] * 0x10)
_note(Kind.TEXT, 0xA0, *[0] * 0x20)
_note(Kind.NIL, 0xC0, 0)
_note(Kind.BOOL, 0xC2, 0, 0)
_note(Kind.BYTES, 0xC4, 1, 2, 4)
_note(Kind.FLOAT, _FLOAT, 8)
_note(Kind.WHOLE, 0xCC, *(1, 2, 4, 8), *(1, 2, 4, 8))
_note(Kind.TIME, 0xD6, 4, 8)
_note(Kind.UUID, 0xD8, 16)
_note(Kind.TEXT, 0xD9, 1, 2, 4)
_note(Kind.MAP, _MAP_16, 2)
_note(Kind.WHOLE, 0xE0, *[0] * 0x20)
_SHORTS[0x00:0x80] = range(0x80)
_SHORTS[0xA0:0xC0] = range(0x20)
_SHORTS[0xE0:] = range(-0x20, 0)
_HEX: Final = np.array([f"{byte:02x}" for byte in range(256)], "S2")
_DASHES: Final = (8, 13, 18, 23)
_DIGITS: Final = [place for place in range(36) if place not in _DASHES]


class Values(NamedTuple):
    """One value of each event."""

    places: Numbers
    """Where they begin."""
    tags: Numbers
    """Their first bytes."""
    is_null: Numbers | None
    """Which of them are nil; `None` if none is."""


class Packed:
    """The bytes of many events, one after the other."""

    def __init__(self, payloads: Sequence[Any]) -> None:
        # What is read as words may begin at the last byte.
        packed = b"".join([*payloads, bytes(NAME_BYTES_MAX + 2 * WORD_BYTES)])
        self.buffer = pa.py_buffer(packed)
        self.packed = packed
        self.bytes: Numbers = np.frombuffer(packed, np.uint8)
        places = len(packed) - WORD_BYTES + 1
        self._words: Numbers = np.ndarray(places, ">u8", packed, strides=(1,))

    def words(self, places: Numbers) -> Numbers:
        """The eight bytes at each place, as one number without a sign."""
        return self._words[places].astype(np.uint64)

    def have(self, places: Numbers, wanted: bytes) -> Numbers:
        """At which of the places these bytes are."""
        found = np.ones(len(places), bool)
        for start in range(0, len(wanted), WORD_BYTES):
            part = wanted[start : start + WORD_BYTES]
            other_bits = 8 * (WORD_BYTES - len(part))
            found &= self.words(places + start) >> other_bits == int.from_bytes(part, "big")
        return found

    def lengths(self, one: Values) -> tuple[Numbers, Numbers]:
        """The lengths that follow first bytes, or are in them; and the bytes that they take."""
        widths = _WIDTHS[one.tags]
        shorts = _SHORTS[one.tags]
        if not widths.any():
            return shorts, widths
        words = self.words(one.places + 1) >> _shifts(widths)
        return np.where(widths == 0, shorts, words.astype(np.int64)), widths


class Group(NamedTuple):
    """Events that are alike."""

    rows: Numbers
    """Which of all events they are."""
    column: pa.Array
    """They as one column: a struct if they are maps."""
    ends: Numbers
    """Where they end."""


def groups_in(payloads: Sequence[Any]) -> list[Group]:
    """The events in groups, in the order of their first ones.

    Raises:
        NotAlike: there are too many groups, or something that is for `rows`.
    """
    ends = np.cumsum(np.fromiter(map(len, payloads), np.int64, len(payloads)))
    if ends[-1] >= 2**30:
        raise NotAlike
    packed = Packed(payloads)
    starts = np.append(0, ends[:-1])
    groups, left = [], np.arange(len(payloads))
    while left.size:
        try:
            found = _like_first(packed, starts[left], depth=0)
        except (IndexError, UnicodeDecodeError, pa.ArrowInvalid):  # what is wrong, others tell
            raise NotAlike from None
        group = found._replace(rows=left[found.rows])
        if group.rows.size < SHARE_MIN * left.size or (group.ends != ends[group.rows]).any():
            raise NotAlike
        groups.append(group)
        left = np.delete(left, found.rows)
    return groups


def _like_first(packed: Packed, places: Numbers, depth: int) -> Group:
    """Find the first of the values that begin there, and those that are like it."""
    rows = np.arange(len(places))
    is_map = _KINDS[packed.bytes[places]] == Kind.MAP
    if not is_map[0]:
        column, ends = _value(packed, places[~is_map], depth)
        return Group(rows[~is_map], column, ends)
    header = _header_at(packed, int(places[0]))
    rows, places = _with(packed, header, rows, places)
    columns: dict[str, tuple[pa.Array, Numbers]] = {}
    for _ in range(_count_in(header, NAMES_MAX if depth else FIELDS_MAX)):
        packed_name = _name_at(packed, int(places[0]))
        name = str(packed_name[1 + _WIDTHS[packed_name[0]] :], "utf-8")
        if name in columns:
            raise NotAlike
        rows, places = _with(packed, packed_name, rows, places)
        column, places = _value(packed, places, depth + 1)
        columns[name] = column, rows
    of_rows = [_among(column, its_rows, rows) for column, its_rows in columns.values()]
    return Group(rows, pa.StructArray.from_arrays(of_rows, [*columns]), places)


def _with(packed: Packed, wanted: bytes, rows: Numbers, places: Numbers) -> tuple[Numbers, Numbers]:
    """The rows that have these bytes at their places, and the places behind them."""
    is_there = packed.have(places, wanted)
    if is_there.all():
        return rows, places + len(wanted)
    return rows[is_there], places[is_there] + len(wanted)


def _header_at(packed: Packed, place: int) -> bytes:
    return packed.packed[place : place + (3 if packed.packed[place] == _MAP_16 else 1)]


def _count_in(header: bytes, most: int) -> int:
    count = int.from_bytes(header[1:], "big") if len(header) > 1 else header[0] & 0x0F
    if not 0 < count <= most:
        raise NotAlike
    return count


def _name_at(packed: Packed, place: int) -> bytes:
    """The name of a field, packed."""
    tag = packed.packed[place]
    start = place + 1 + int(_WIDTHS[tag])
    size = int.from_bytes(packed.packed[place + 1 : start], "big") or int(_SHORTS[tag])
    if _KINDS[tag] != Kind.TEXT or size > NAME_BYTES_MAX:
        raise NotAlike
    return packed.packed[place : start + size]


def _among(column: pa.Array, its_rows: Numbers, rows: Numbers) -> pa.Array:
    """The values of some of the column's rows."""
    if len(its_rows) == len(rows):
        return column
    return column.take(pa.array(np.searchsorted(its_rows, rows)))


def _value(packed: Packed, places: Numbers, depth: int) -> tuple[pa.Array, Numbers]:
    """The column of the values that begin there, and where they end."""
    tags = packed.bytes[places]
    kinds = _KINDS[tags]
    found = {Kind(int(kinds[0]))}
    if kinds.min() != kinds.max():
        found = {Kind(int(kind)) for kind in np.flatnonzero(np.bincount(kinds))}
    one = Values(places, tags, kinds == Kind.NIL if Kind.NIL in found else None)
    found.discard(Kind.NIL)
    if not found:
        return pa.nulls(len(places)), places + 1
    if found == {Kind.BOOL}:
        return pa.array(tags == _TRUE, mask=one.is_null), places + 1
    if found <= {Kind.WHOLE, Kind.FLOAT}:
        return _numbers(packed, one)
    if found == {Kind.TEXT}:
        texts, ends = _bytes(packed, one)
        return texts.cast(TEXT), ends
    if found == {Kind.BYTES}:
        return _bytes(packed, one)
    return _of_parts(packed, one, found, depth)


def _of_parts(
    packed: Packed, one: Values, found: set[Kind], depth: int
) -> tuple[pa.Array, Numbers]:
    if found == {Kind.TIME}:
        return _times(packed, one)
    if found == {Kind.UUID}:
        return _uuids(packed, one)
    if found != {Kind.MAP} or one.is_null is not None or depth >= DEPTH_MAX:
        raise NotAlike
    _, column, ends = group = _like_first(packed, one.places, depth)
    if len(group.rows) < len(one.places):
        raise NotAlike
    return column, ends


def _numbers(packed: Packed, one: Values) -> tuple[pa.Array, Numbers]:
    widths = _WIDTHS[one.tags]
    ends = one.places + 1 + widths
    shorts = _SHORTS[one.tags]
    if not widths.any():
        return pa.array(shorts, mask=one.is_null), ends
    words = packed.words(one.places + 1)
    floats = words.view(np.float64)
    is_float = one.tags == _FLOAT
    if is_float.all():
        return pa.array(floats), ends
    shifts = _shifts(widths)
    signed = words.view(np.int64) >> shifts.view(np.int64)
    unsigned = (words >> shifts).view(np.int64)
    if ((one.tags == _UINT_64) & (unsigned < 0)).any():
        raise NotAlike  # it is 2**63 or more
    wholes = np.where(widths == 0, shorts, np.where(one.tags < _INT_8, unsigned, signed))
    if is_float.any():
        wholes = np.where(is_float, floats, wholes.astype(np.float64))
    return pa.array(wholes, mask=one.is_null), ends


def _bytes(packed: Packed, one: Values) -> tuple[pa.Array, Numbers]:
    """Texts, or bytes: a column of them and of what is between them, without the latter."""
    lengths, widths = packed.lengths(one)
    starts = one.places + 1 + widths
    ends = starts + lengths
    bounds = np.empty(2 * len(starts), np.int32)
    bounds[::2], bounds[1::2] = starts, ends
    both = pa.Array.from_buffers(
        pa.binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), packed.buffer]
    )
    return both.take(pa.array(np.arange(0, len(bounds), 2), mask=one.is_null)), ends


def _times(packed: Packed, one: Values) -> tuple[pa.Array, Numbers]:
    ends = _end_of_extensions(packed, one, TIME_EXTENSION)
    words = packed.words(one.places + 2)
    is_long = one.tags == _TIME_64
    seconds = np.where(is_long, words & (2**34 - 1), words >> 32).astype(np.int64)
    nanoseconds = np.where(is_long, words >> 34, 0).astype(np.int64)
    if (nanoseconds % 1000).any() or nanoseconds.max() >= 10**9:
        raise NotAlike
    moments = seconds * 1_000_000 + nanoseconds // 1000
    return pa.array(moments, mask=one.is_null).cast(MOMENT), ends


def _uuids(packed: Packed, one: Values) -> tuple[pa.Array, Numbers]:
    ends = _end_of_extensions(packed, one, UUID_EXTENSION)
    if one.is_null is not None:
        raise NotAlike
    values = packed.bytes[one.places[:, None] + np.arange(2, 18)]
    texts = np.full((len(values), 36), ord("-"), np.uint8)
    texts[:, _DIGITS] = _HEX[values].view(np.uint8)
    bounds = np.arange(0, texts.size + 1, 36, dtype=np.int32)
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(texts)]
    return pa.Array.from_buffers(TEXT, len(values), buffers), ends


def _end_of_extensions(packed: Packed, one: Values, wanted: int) -> Numbers:
    is_wanted = packed.bytes[one.places + 1] == wanted
    ends = one.places + 2 + _WIDTHS[one.tags]
    if one.is_null is not None:
        is_wanted |= one.is_null
        ends[one.is_null] = one.places[one.is_null] + 1
    if not is_wanted.all():
        raise NotAlike
    return ends


def _shifts(widths: Numbers) -> Numbers:
    """How far a word is shifted so that so many bytes of it are left."""
    return (64 - 8 * widths).astype(np.uint64)
