"""Payloads as MessagePack: what a user's value becomes in a batch, and back.

Beside MessagePack's own types, `datetime` (aware; the standard timestamp extension), `UUID`
(extension type 1, 16 bytes) and arrays (extension type 2, see `arrays`) survive the trip. Extension
type 3, without data, is the payload of an event that marks its key as deleted. What else changes on
its way, and how:

=========================================  ====================================================
given                                      read
=========================================  ====================================================
a tuple, a named one too                   a list; where only a tuple can stand, as the key of
                                           a dict, a tuple
`bytearray`, a `memoryview` of bytes       bytes
an array of `numpy` or `array`, another    a `memoryview` with its format and sizes; a
object with the buffer protocol            `numpy.ndarray` where the type says so
a `memoryview` of other values inside of   bytes
another value
an object of a class of its own that is    the plain one: of `IntEnum` and `StrEnum`, of
an int, float, str, bytes, list or dict    `OrderedDict`, of `numpy.float64`
a `datetime` of another time zone, or of   a `datetime` in UTC
a class of its own
`msgpack.Timestamp`                        a `datetime`, without the nanoseconds below 1,000
`msgspec.Raw`                              the value that it holds
a `msgspec.Struct` or a dataclass          the map (or array) that msgspec makes of it: inside,
                                           sets are lists, and UUIDs, decimals, dates and enums
                                           their texts or values; who reads with `type=` gets
                                           everything back
=========================================  ====================================================

Everything else is refused, such as sets, enums, decimals and dates outside of a dataclass, numpy's
other scalars, `NaT`, and times with nanoseconds: nothing else changes in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from datetime import UTC, datetime
from operator import is_
from typing import Any, Final
from uuid import UUID

import msgpack
import msgspec
import ormsgpack

from eventlog.event.arrays import ARRAY_EXTENSION, array_view, packed_array
from eventlog.event.bad_values import not_packed, type_name

UUID_EXTENSION: Final = 1
DELETION_EXTENSION: Final = 3
DELETION: Final = msgpack.ExtType(DELETION_EXTENSION, b"")
"""What is appended to mark a key as deleted, and what a decoder makes of it, this very object."""
LEVELS_AROUND: Final = 4
"""Levels around an event, of the 1024 that MessagePack's libraries nest: a batch has two, a dead
letter and an exported record one."""
_FAR_TIME: Final = b"\xc7\x0c\xff"
"""What a time before 1970 or after 2514 begins with; so may a few other bytes."""

_KEPT: Final = (bytes, bytearray, memoryview, datetime)
"""Types inside of a dataclass or Struct that MessagePack has: msgspec need not change them."""

BYTES: Final = (bytes, bytearray, memoryview)
"""What MessagePack stores as bytes, a view only if its values are bytes."""
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


class Deletions:
    """Whether decoders came upon `DELETION`: who looks before and after need not look at events."""

    last: object = None
    """Another object each time, whichever thread it was in."""


class PackedPayload(bytes):
    """A payload that a log has stored before, as MessagePack: it is appended as it is."""

    __slots__ = ()


def new_packer() -> Callable[[Any], bytes]:
    """A function that packs one value; not to be shared between threads.

    It raises whatever msgpack raises (`TypeError`, `ValueError`, `OverflowError`); callers turn
    that into `InvalidEvent`.
    """
    pack: Callable[[Any], bytes] = _packer(_pack_extension).pack
    return pack


def _packer(default: Callable[[Any], Any]) -> Any:
    """A packer whose buffer is small at first: fresh memory of 256 KiB takes longer than a list."""
    return msgpack.Packer(  # type: ignore[call-arg]  # the stubs do not know of a size
        default=default, datetime=True, use_bin_type=True, buf_size=1024
    )


def new_event_packer() -> Callable[..., bytes]:
    """As `new_packer`, for events: what it packs can be read back as it was, from within a batch.

    The function takes the event and, if it is a list of several, `events`, that same list.
    """
    typed: list[Any] = []

    def default(value: Any) -> Any:
        if type(value).__hash__ is not None and _is_typed(value):
            typed.append(value)
        return _pack_extension(value)

    pack = _packer(default).pack

    def pack_event(event: Any, events: Sequence[Any] | None = None) -> bytes:
        typed.clear()
        packed: bytes = pack([[[[event]]]])[LEVELS_AROUND:]
        # What can be hashed may be a key. Whole events are none, which is nearly always all.
        wholes = (event,) if events is None else events
        if typed and not (len(typed) == len(wholes) and all(map(is_, typed, wholes))):
            _check_readable(packed)
        if _FAR_TIME in packed:
            msgpack.packb(event, default=_check_times)
        return packed

    return pack_event


def _is_typed(value: Any) -> bool:
    return isinstance(value, msgspec.Struct) or (
        is_dataclass(value) and not isinstance(value, type)
    )


def _check_times(value: Any) -> Any:
    """Refuse a time that would be read as another type than it had."""
    if not isinstance(value, datetime):
        return _pack_extension(value)
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"the time {value} is outside of the years 1 to 9999 in UTC") from None
    return None


def _check_readable(packed: bytes) -> None:
    try:
        unpack(packed)
    except ValueError as error:
        raise TypeError(
            "a key of a dict is or holds a dataclass or Struct, which becomes a map, and a map is"
            f" no key ({error})"
        ) from error


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


def with_packed_arrays(value: Any) -> Any:
    """The value with each array in it as an extension, which packers do not take for bytes."""
    try:
        return _pack_arrays(value)
    except RecursionError:  # as deep as a value can be: no array is looked for
        return value


def _pack_arrays(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _pack_arrays(inner) for key, inner in value.items()}
    if kind is list:
        return [_pack_arrays(inner) for inner in value]
    if kind is memoryview and (packed := packed_array(value)) is not None:
        return msgpack.ExtType(ARRAY_EXTENSION, b"".join(packed))
    return value


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
    value = msgpack.unpackb(
        data,
        strict_map_key=False,
        timestamp=timestamp,
        ext_hook=unpack_extension,
        list_hook=_list_of if timestamp == 0 else None,
        object_pairs_hook=_map_of_pairs,
    )
    return _time_of(value)


def _pack_extension(value: Any) -> Any:
    if isinstance(value, UUID):
        return msgpack.ExtType(UUID_EXTENSION, value.bytes)
    if _is_typed(value):
        return _plain_fields(value)
    if isinstance(value, int):
        raise TypeError("MessagePack has no whole numbers outside of -2**63 to 2**64 - 1")
    if isinstance(value, datetime):
        return _plain_time(value)
    return _extension_of(value)


def _value_in(packed: msgspec.Raw) -> Any:
    try:
        return with_packed_arrays(unpack(packed))
    except ValueError as error:
        raise ValueError("a msgspec.Raw has not one whole MessagePack value") from error


def _plain_fields(value: Any) -> Any:
    """A dataclass or Struct as msgspec writes it, so that it reads it back as the same type."""
    stand_ins: dict[int, tuple[memoryview, Any]] = {}

    def unknown(inner: Any) -> Any:
        if isinstance(inner, datetime):
            return _plain_time(inner)
        if isinstance(inner, float):  # of a class of its own, as numpy's
            return float(inner)
        # msgspec has no builtin for an extension: a view stands for it, and is taken out below.
        view = memoryview(b"")
        stand_ins[id(view)] = view, _extension_of(inner)
        return view

    plain = msgspec.to_builtins(value, builtin_types=_KEPT, enc_hook=unknown)
    return _without(stand_ins, plain) if stand_ins else plain


def _extension_of(value: Any) -> Any:
    if type(value) is msgspec.Raw:
        return _value_in(value)
    packed = packed_array(value)
    if packed is None:
        raise not_packed(value)
    return msgpack.ExtType(ARRAY_EXTENSION, b"".join(packed))


def _without(stand_ins: dict[int, tuple[memoryview, Any]], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(stand_ins, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without(stand_ins, inner) for inner in value]
    return stand_ins[id(value)][1] if id(value) in stand_ins else value


def _plain_time(value: datetime) -> datetime:
    """A time of a class of its own, such as pandas' and pendulum's, as a `datetime`."""
    if value != value:  # noqa: PLR0124 - as NaN, pandas' NaT is not itself
        raise TypeError(f"MessagePack has no {type_name(value)}")
    if value.utcoffset() is None:
        raise TypeError("MessagePack has no times without a time zone")
    if getattr(value, "nanosecond", 0):
        raise TypeError(
            f"the time {value} has nanoseconds, and would be read with microseconds; round it"
        )
    return datetime.combine(value.date(), value.time(), value.tzinfo)


def unpack_extension(code: int, data: bytes | memoryview) -> Any:
    """The value of an extension: a UUID, an array, copied, or what nobody here knows."""
    if code == UUID_EXTENSION and len(data) == 16:
        return UUID(bytes=bytes(data))
    if code == DELETION_EXTENSION and len(data) == 0:
        Deletions.last = object()
        return DELETION
    copied = bytes(data)
    return msgpack.ExtType(code, copied) if code != ARRAY_EXTENSION else _array_in(copied)


def lend_extension(code: int, data: memoryview) -> Any:
    """As `unpack_extension`; an array is a view of `data`, not a copy."""
    return unpack_extension(code, data) if code != ARRAY_EXTENSION else _array_in(data)


def _array_in(data: bytes | memoryview) -> Any:
    try:
        return array_view(memoryview(data))
    except ValueError:
        return msgpack.ExtType(ARRAY_EXTENSION, bytes(data))


def _map_of_pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {hashable(_time_of(key)): _time_of(value) for key, value in pairs}


def _list_of(values: list[Any]) -> list[Any]:
    return [_time_of(value) for value in values]


def _time_of(value: Any) -> Any:
    """A `datetime` of MessagePack's own time, if there is one; anything else as it is."""
    if type(value) is msgpack.Timestamp:
        with suppress(OverflowError, ValueError):
            return value.to_datetime()
    return value


def hashable(key: Any) -> Any:
    """The key of a dict, where a list can only have been a tuple.

    Without recursion: keys may be nested as deep as values, whatever called this.
    """
    if not isinstance(key, list):
        return key
    top = [key]
    places: list[tuple[list[Any], int]] = [(top, 0)]
    for holder, place in places:  # grows meanwhile
        value = holder[place]
        if isinstance(value, list):
            places += [(value, inner) for inner in range(len(value))]
    for holder, place in reversed(places):
        if isinstance(holder[place], list):
            holder[place] = tuple(holder[place])
    return top[0]


_decode = msgspec.msgpack.Decoder(ext_hook=unpack_extension).decode
