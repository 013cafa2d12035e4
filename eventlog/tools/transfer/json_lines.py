"""Events as JSON lines: to be read by people and by other programs, without any loss; pure.

A line is one object, in UTF-8::

    {"seq_no": 7, "id": "0190163d-8694-739b-aea5-966c26f8ad91",
     "timestamp": "2026-01-31T12:00:00.123456789Z", "key": "k", "headers": {"h": "v"},
     "cause": {"log_id": "5c1a3f0e-...", "seq_no": 3, "group": "resize"}, "event": ...}

`key`, `headers`, `cause`, `not_before` and `expires` (times, as `timestamp`) are left out where an
event has none. What JSON has (null, true, numbers, strings, arrays, objects with string keys)
stands in `event` as it is; integers may have 64 bits. What it does not have is an object with a
single name, which begins with `$`:

==================================  =======================================================
in the line                         in the log
==================================  =======================================================
`{"$bytes": "AP8="}`                bytes, in base64
`{"$datetime": "2026-01-31T..."}`   a time (aware), in UTC
`{"$uuid": "0190163d-..."}`         a UUID
`{"$float": "nan"}`                 a float that JSON has no number for: nan, inf, -inf; another
                                    NaN than Python's is its 8 bytes as 16 hexadecimal digits
`{"$map": [[key, value], ...]}`     a map with other keys than strings, or with one that begins
                                    with `$`; an array as a key is a tuple
`{"$timestamp": [s, ns]}`           a MessagePack timestamp outside of the years 1 to 9999
`{"$array": ["<f8", [2], "AP8="]}`  an array: dtype, sizes, and its values in base64
`{"$ext": [code, "AP8="]}`          any other extension type of MessagePack; `[3, ""]` as the event
                                    marks the key as deleted
==================================  =======================================================
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgpack

from eventlog.errors import InvalidArgument, InvalidArgumentType, InvalidEvent
from eventlog.event import arrays
from eventlog.event.cause import packed_cause
from eventlog.event.envelope import EventEnvelope
from eventlog.event.moments import timestamp_ns_of
from eventlog.event.payload import DELETION, hashable
from eventlog.tools.transfer.records import TIMES, check_fields, envelope_from

_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str).encode
_UNSAFE: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What JSON may hold as it is, and a terminal, a line reader or UTF-8 takes badly."""
_DOUBLE: Final = struct.Struct(">d")
_SECOND_NS: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION: Final = re.compile(r"\.(\d{1,9})(?=Z|[+-]|$)")
_PLAIN: Final = (str, int, type(None))
"""Types, `bool` among them, that JSON has and that need no look at their value."""


def encode(value: Any) -> str:
    """One line of strict JSON, with escapes for whatever a terminal would obey.

    Times and paths in it, such as reports have, become their text.
    """
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", _encode(value))


def line_of(envelope: EventEnvelope) -> str:
    """An event as one line, without its end."""
    return encode(fields_of(envelope))


def fields_of(envelope: EventEnvelope) -> dict[str, Any]:
    """The fields of such a line, as JSON has them."""
    fields: dict[str, Any] = {
        "seq_no": envelope.seq_no,
        "id": str(envelope.id),
        "timestamp": _text_of_ns(envelope.timestamp_ns),
    }
    if envelope.key is not None:
        fields["key"] = envelope.key
    if envelope.headers is not None:
        fields["headers"] = envelope.headers
    if (cause := envelope.cause) is not None:
        fields["cause"] = packed_cause(cause) | {"log_id": str(cause.log_id)}
    if any(due := envelope.due):
        fields |= {name: _text_of_ns(ns) for name, ns in zip(TIMES, due, strict=True) if ns}
    fields["event"] = to_plain(DELETION if envelope.is_deletion else envelope.event)
    return fields


def envelope_of_line(line: str | bytes) -> EventEnvelope:
    """The event of a line.

    Raises:
        InvalidEvent: the line is not one; the message says why.
    """
    try:
        record = check_fields(json.loads(line))
        identity, moment = record.get("id"), record.get("timestamp")
        return envelope_from(
            {
                **record,
                **{name: _ns_of_text(_text(record[name])) for name in TIMES if name in record},
                "cause": _cause_of(record),
                "event": from_plain(record["event"]),
            },
            None if identity is None else UUID(_text(identity)).bytes,
            None if moment is None else _ns_of_text(_text(moment)),
        )
    except InvalidEvent:
        raise
    except (InvalidArgument, InvalidArgumentType) as error:
        raise InvalidEvent(str(error)) from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidEvent(f"it cannot be read: {error}") from error


# --- payloads -----------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """A payload as JSON has it; see the module's table."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: to_plain(item) for key, item in value.items()}
        return {"$map": [[to_plain(key), to_plain(item)] for key, item in value.items()]}
    if isinstance(value, msgpack.ExtType):  # a tuple too
        return {"$ext": [value.code, _text_of_bytes(value.data)]}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return _odd_to_plain(value)


def _odd_to_plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": _text_of_float(value)}
    if isinstance(value, bytes):
        return {"$bytes": _text_of_bytes(value)}
    if isinstance(value, memoryview):
        dtype, sizes, values = arrays.fields_of(value)
        return {"$array": [dtype, sizes, _text_of_bytes(values)]}
    if isinstance(value, datetime):
        return {"$datetime": value.astimezone(UTC).isoformat().replace("+00:00", "Z")}
    if isinstance(value, UUID):
        return {"$uuid": str(value)}
    if isinstance(value, msgpack.Timestamp):
        return {"$timestamp": [value.seconds, value.nanoseconds]}  # type: ignore[attr-defined]
    raise InvalidEvent(f"no event holds a {type(value).__qualname__}")


def from_plain(value: Any, *, strict: bool = True) -> Any:
    """The inverse of `to_plain`; not `strict`, an object of other names with `$` is a map.

    Raises:
        ValueError, TypeError: an object whose name begins with `$` is none of the table.
    """
    if isinstance(value, list):
        return [from_plain(item, strict=strict) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((name for name in value if name.startswith("$")), None)
    if tag is not None and len(value) == 1 and tag in _TAGS:
        return _TAGS[tag](value[tag])
    if tag is not None and strict:
        known = ", ".join(_TAGS)
        raise ValueError(f"{tag!r} is no name for a type; known, alone in its object, are {known}")
    return {key: from_plain(item, strict=strict) for key, item in value.items()}


def _map_of(pairs: Any) -> dict[Any, Any]:
    return {hashable(from_plain(key)): from_plain(item) for key, item in pairs}


def _cause_of(record: dict[str, Any]) -> Any:
    """The cause of a line as MessagePack has it; what is wrong with it is found there."""
    cause = record.get("cause")
    if not isinstance(cause, dict) or "log_id" not in cause:
        return cause
    return cause | {"log_id": UUID(_text(cause["log_id"])).bytes}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no text")
    return value


def _text_of_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes_of(text: Any) -> bytes:
    try:
        return base64.b64decode(_text(text), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text!r:.60} is no base64: {error}") from None


def _text_of_float(value: float) -> str:
    bits = _DOUBLE.pack(value)
    return bits.hex() if math.isnan(value) and bits != _DOUBLE.pack(math.nan) else str(value)


def _float_of(text: Any) -> float:
    if text in ("nan", "inf", "-inf"):
        return float(text)
    if len(_text(text)) != 2 * _DOUBLE.size:
        raise ValueError(f"{text!r:.60} is not nan, inf or -inf")
    value: float = _DOUBLE.unpack(bytes.fromhex(text))[0]
    return value


def _datetime_of(text: Any) -> datetime:
    moment = datetime.fromisoformat(_text(text))
    if moment.tzinfo is None:
        raise ValueError(f"the time {text!r:.60} has no time zone, such as Z at its end")
    return moment


def _extension_of(parts: Any) -> msgpack.ExtType:
    code, data = parts
    return msgpack.ExtType(code, _bytes_of(data))


def _array_of(parts: Any) -> Any:
    dtype, sizes, text = parts
    data = arrays.array_data(_text(dtype), sizes, _bytes_of(text))
    arrays.check(data)
    return msgpack.ExtType(arrays.ARRAY_EXTENSION, data)  # a view within a dict would be bytes


_TAGS: Final[dict[str, Callable[[Any], Any]]] = {
    "$bytes": _bytes_of,
    "$datetime": _datetime_of,
    "$uuid": lambda text: UUID(_text(text)),
    "$float": _float_of,
    "$map": _map_of,
    "$timestamp": lambda parts: msgpack.Timestamp(*parts),
    "$array": _array_of,
    "$ext": _extension_of,
}


# --- times in nanoseconds -----------------------------------------------------------------------


def _text_of_ns(ns: int) -> str:
    seconds, rest = divmod(ns, _SECOND_NS)
    whole = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest:09d}Z" if rest else f"{whole}Z"


def _ns_of_text(text: str) -> int:
    """Nanoseconds since 1970 of an ISO time with up to nine digits after the second."""
    found = _FRACTION.search(text)
    whole = text if found is None else text[: found.start()] + text[found.end() :]
    rest = 0 if found is None else int(found[1].ljust(9, "0"))
    return timestamp_ns_of(_datetime_of(whole)) + rest
