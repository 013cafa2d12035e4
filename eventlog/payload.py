"""Payloads as MessagePack: what a user's value becomes in a batch, and back.

Beside MessagePack's own types, `datetime` (aware; the standard timestamp extension) and `UUID`
(extension type 1, 16 bytes) survive the trip. Tuples come back as lists, except where only a tuple
can stand: as the key of a dict.

A `msgspec.Struct` or a dataclass is stored as the map (or array) that msgspec makes of it; who
reads with `type=` gets it back, everybody else the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgpack
import msgspec
import ormsgpack

UUID_EXTENSION: Final = 1

pack_plain: Final = ormsgpack.packb
"""`pack_plain(value, None, PLAIN_OPTIONS)` packs most values in a half to a third of the time that
msgpack takes, and to the same bytes. It raises `TypeError` for whatever msgpack would pack
otherwise or not at all: only `new_packer` knows whether such a value can be carried. (It knows an
`Ext` of its own; nobody has one who does not import ormsgpack.)"""
PLAIN_OPTIONS: Final = (
    ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
"""Nothing becomes something else in silence. Keys are strings only: with `OPT_NON_STR_KEYS`, one
that is a UUID or a time would be stored as a string."""


def new_packer() -> Callable[[Any], bytes]:
    """A function that packs one value; not to be shared between threads.

    It raises whatever msgpack raises (`TypeError`, `ValueError`, `OverflowError`); callers turn
    that into `InvalidEvent`.
    """
    packer = msgpack.Packer(default=_pack_extension, datetime=True, use_bin_type=True)
    pack: Callable[[Any], bytes] = packer.pack
    return pack


def unpack(data: bytes | memoryview) -> Any:
    """The value that `data` holds.

    msgspec reads MessagePack in 0.6 of the time that msgpack takes (it makes each key of a dict
    once). It is not used for packing: it would store sets, enums and dataclasses as something else
    without saying so, and UUIDs as strings (see `pack_plain`).

    Raises:
        ValueError: `data` is not one whole MessagePack value.
    """
    try:
        return _decode(data)
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError):
        return _unpack_odd(data)


def _unpack_odd(data: bytes | memoryview) -> Any:
    """What the fast way refuses: times outside of `datetime`'s years, odd keys; or nonsense."""
    try:
        return _unpack_pairs(data, timestamp=3)
    except (TypeError, OverflowError, RecursionError):
        pass  # a time that `datetime` cannot hold
    try:
        return _unpack_pairs(data, timestamp=0)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _unpack_pairs(data: bytes | memoryview, *, timestamp: int) -> Any:
    return msgpack.unpackb(
        data,
        strict_map_key=False,
        timestamp=timestamp,
        ext_hook=unpack_extension,
        object_pairs_hook=_map_of_pairs,
    )


def _pack_extension(value: Any) -> Any:
    if isinstance(value, UUID):
        return msgpack.ExtType(UUID_EXTENSION, value.bytes)
    if isinstance(value, msgspec.Struct) or (is_dataclass(value) and not isinstance(value, type)):
        # As msgspec writes it, so that msgspec reads it back as the same type.
        return msgspec.to_builtins(value, builtin_types=(bytes, bytearray, datetime))
    if isinstance(value, int):
        raise TypeError("MessagePack has no whole numbers outside of -2**63 to 2**64 - 1")
    if isinstance(value, datetime):
        raise TypeError("MessagePack has no times without a time zone")
    raise TypeError(f"MessagePack has no {type(value).__qualname__}")


def unpack_extension(code: int, data: bytes | memoryview) -> Any:
    """The value of an extension: a UUID, or what nobody here knows."""
    if code == UUID_EXTENSION and len(data) == 16:
        return UUID(bytes=bytes(data))
    return msgpack.ExtType(code, bytes(data))


def _map_of_pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_hashable(key): value for key, value in pairs}


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


_decode = msgspec.msgpack.Decoder(ext_hook=unpack_extension).decode
