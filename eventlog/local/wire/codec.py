"""Messages as MessagePack, and back: nothing is believed that another process says."""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import itemgetter
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgpack

from eventlog.config import LEASE_RANGES_MAX
from eventlog.errors import ProtocolError
from eventlog.local.wire.messages import TYPES, Append, Message


def _type_of(hint: Any) -> type:
    """What MessagePack makes of a field; the first, if it has several types on its way there."""
    if get_origin(hint) is UnionType:
        return _type_of(get_args(hint)[0])
    kind: type = get_origin(hint) or hint
    return kind


def _numbers_of(types: tuple[type, ...]) -> Callable[[tuple[Any, ...]], tuple[int, ...]]:
    """What picks the fields that are numbers, in C: it runs for every message."""
    places = [place for place, kind in enumerate(types) if kind is int]
    if len(places) == 1:
        return itemgetter(slice(places[0], places[0] + 1))
    return itemgetter(*places)


def _rows_of(hints: tuple[Any, ...]) -> list[tuple[int, int]]:
    """The places of the fields that are rows of numbers, and how many each row has."""
    return [
        (place, len(get_args(get_args(hint)[0])))
        for place, hint in enumerate(hints)
        if get_origin(hint) is tuple
    ]


_NUMBERS: Final = {kind: number for number, kind in TYPES.items()}
_HINTS: Final = {kind: tuple(get_type_hints(kind).values()) for kind in _NUMBERS}
_FIELD_TYPES: Final = {kind: tuple(map(_type_of, hints)) for kind, hints in _HINTS.items()}
_NUMBERS_OF: Final = {kind: _numbers_of(types) for kind, types in _FIELD_TYPES.items()}
_ROWS_OF: Final = {kind: _rows_of(hints) for kind, hints in _HINTS.items()}
_BIN_32: Final = struct.Struct(">BI")
_LARGEST_INT: Final = 2**64


def pack_message(message: Message) -> bytes:
    """The message as one MessagePack array."""
    # A path that is no UTF-8 comes back as it was, inside an error.
    packed: bytes = msgpack.packb(
        (_NUMBERS[type(message)], *message), unicode_errors="surrogateescape"
    )
    return packed


def pack_append_head(message: Append, payload_bytes: int) -> bytes:
    """What `pack_message` gives up to a payload of that size, which ends it."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(1 + len(message))
    for field in (_NUMBERS[Append], *message[:-1]):
        packer.pack(field)
    return packer.bytes() + _BIN_32.pack(0xC6, payload_bytes)


def unpack_message(data: bytes | memoryview) -> Message:
    """The message that the bytes hold.

    Raises:
        ProtocolError: they hold none; whatever the bytes are, nothing else is raised.
    """
    try:
        fields = msgpack.unpackb(
            data, use_list=False, strict_map_key=True, unicode_errors="surrogateescape"
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a frame holds no MessagePack value: {error}") from error
    if not isinstance(fields, tuple) or not fields or not isinstance(fields[0], int):
        raise ProtocolError("a frame holds no message")
    kind = TYPES.get(fields[0])
    if kind is None:
        raise ProtocolError(f"a message of the unknown type {fields[0]}")
    values = fields[1:]
    types = _FIELD_TYPES[kind]
    if len(values) != len(types) or tuple(map(type, values)) != types:
        raise ProtocolError(f"a {kind.__name__} message with other fields than it has")
    # MessagePack itself has none above 2**64 - 1.
    if min(_NUMBERS_OF[kind](values)) < 0:
        raise ProtocolError(f"a {kind.__name__} message with a number out of range")
    for place, size in _ROWS_OF[kind]:
        _check_rows(values[place], size)
    return kind(*values)


def _check_rows(value: tuple[object, ...], size: int) -> None:
    """Pass if it is a bounded list of rows of that many numbers."""
    if len(value) > LEASE_RANGES_MAX:
        raise ProtocolError(f"a message with {len(value)} ranges; the limit is {LEASE_RANGES_MAX}")
    for one in value:
        if not isinstance(one, tuple) or len(one) != size:
            raise ProtocolError("a message with ranges that are none")
        if not all(type(number) is int and 0 <= number < _LARGEST_INT for number in one):
            raise ProtocolError("a message with ranges that hold no numbers")
