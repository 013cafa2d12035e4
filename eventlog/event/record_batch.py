"""The contents of a record batch: packed by producers, stored as they are, unpacked by readers.

The writer never looks into it. What it needs to know stands in the batch's header (see
`storage.formats.format`) and in the areas before the body::

    +------------------+-------------------+-----------------+----------------------------------+
    | key hashes       | due times         | acks            | body: one MessagePack array of   |
    | 4 bytes an event | 16 bytes an event | `acks_bytes`    | five, or six if CAUSED is set:   |
    | if KEYED is set  | if DUE is set     | (`groups.acks`) | [ids, timestamps, keys, headers, |
    |                  | (see `due`)       |                 | events, causes]                  |
    +------------------+-------------------+-----------------+----------------------------------+

    ids         bytes: 16 for each event, or 16 in all (row i's id is derived, see `envelope`)
    timestamps  bytes: 8 for each event, little-endian nanoseconds since 1970
    keys        array of str or nil, or nil if no event has a key
    headers     array of map or nil, or nil if no event has headers; as all texts here, in
                MessagePack's shortest form: filters look for their bytes
    events      array of payloads
    causes      array of four (see `cause`); left out if no event has a cause

Columns, because then one C call unpacks a whole batch without making a list for each event, and
most events have neither key nor headers: packing is 20 % and unpacking 25 % cheaper than rows.

A key's hash is the CRC-32 of its UTF-8 (0 if there is no key), so that groups can keep key order
without decoding; any language can compute it.
"""

from __future__ import annotations

import gc
import re
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from eventlog.errors import (
    EventTypeMismatch,
    InvalidArgumentType,
)
from eventlog.event.arrays import as_array
from eventlog.event.cause import Column, causes_of
from eventlog.event.due import DUE_BYTES
from eventlog.event.envelope import (
    PACKED_DELETION,
    TIMESTAMP_BYTES,
    Columns,
    EventEnvelope,
    TextColumn,
    envelopes_of,
)
from eventlog.event.ids import ID_BYTES
from eventlog.event.payload import (
    DELETION,
    Deletions,
    lend_extension,
    unpack,
    unpack_extension,
)
from eventlog.event.text_columns import KEY_HASH_BYTES, NIL, array_header, is_column_of

FLAG_KEYED: Final = 1
"""The batch has an area of key hashes."""
FLAG_CAUSED: Final = 2
"""The body has a sixth column, of causes: releases before it refuse the batch, naming the flag."""
FLAG_DUE: Final = 4
"""The batch has an area of due times: releases before it refuse the batch, naming the flag."""
FLAGS_KNOWN: Final = FLAG_KEYED | FLAG_CAUSED | FLAG_DUE
FIVE_COLUMNS: Final = b"\x95"
"""How a body begins: MessagePack's array of so many."""
SIX_COLUMNS: Final = b"\x96"
BEFORE_EVENTS: Final = FIVE_COLUMNS + b"\xc4\x00\xc4\x00\xc0\xc0"
"""The columns of a body before its events, all empty: a decoder of bodies takes what follows."""
_PLACE: Final = re.compile(r"`\$\[4\]\[(\d+)\]")
"""Where in a body msgspec found a payload of another type."""


class PackedBatch(NamedTuple):
    """A batch as it travels to the writer: opaque bytes, and what the header says of them."""

    count: int  # type: ignore[assignment]  # hides tuple.count, of no use here
    flags: int
    acks_bytes: int
    payload: bytes | memoryview


class BatchParts(NamedTuple):
    """The same, its bytes not yet put together: large payloads stay the caller's own objects."""

    count: int  # type: ignore[assignment]  # as above
    flags: int
    acks_bytes: int
    parts: Sequence[bytes | memoryview]

    @property
    def size(self) -> int:
        """The bytes of all the parts."""
        return sum(map(len, self.parts))


def key_hash(key: str | None) -> int:
    """The 32 bits by which a group keeps events of one key in order; 0 for no key."""
    return 0 if key is None else zlib.crc32(key.encode())


def areas_bytes(count: int, flags: int, acks_bytes: int) -> int:
    """The size of what stands before the body."""
    of_event = (KEY_HASH_BYTES if flags & FLAG_KEYED else 0) + (
        DUE_BYTES if flags & FLAG_DUE else 0
    )
    return count * of_event + acks_bytes


def due_area(flags: int, count: int, buffer: bytes | memoryview, start: int = 0) -> bytes | None:
    """The due times of a batch whose areas begin at `start`; `None` if it has none."""
    if not flags & FLAG_DUE:
        return None
    start += count * KEY_HASH_BYTES if flags & FLAG_KEYED else 0
    return bytes(buffer[start : start + count * DUE_BYTES])


def note_due(envelopes: Sequence[EventEnvelope], area: bytes | None) -> None:
    """Give the events of one batch, or some of them, the due times that its area has."""
    if area is not None and envelopes:
        envelopes[0].columns.due = area


Decode = Callable[[bytes | memoryview], Any]
"""Turns a body into its columns; raises `ValueError` for what is none."""


def decoder_for(kind: Any) -> Decode:
    """The decoder of bodies whose payloads are of this type; `None` is whatever they are.

    Any type that msgspec can decode: a `Struct`, a dataclass, a `TypedDict`, `dict[str, int]`.
    Without copying, so that they keep the segment mapped: `memoryview` for payloads that are
    bytes, `numpy.ndarray` for arrays, also as a field, `msgspec.Raw` for packed ones. One C call
    makes all the objects of a batch.

    Raises:
        InvalidArgumentType: msgspec cannot decode to it.
    """
    if kind is None:
        return decode_any
    try:
        decode = _decoder_of(kind, lend_extension)
    except (TypeError, NameError) as error:
        raise InvalidArgumentType(f"type={kind!r} cannot be decoded to: {error}") from error

    def decode_typed(body: bytes | memoryview) -> Any:
        try:
            return decode(body)
        except msgspec.ValidationError:
            columns = _around_deletions(body, decode)
            if columns is None:
                raise
            return columns

    return decode_typed


def _decoder_of(kind: Any, extension: Callable[[int, memoryview], Any]) -> Decode:
    columns = tuple[bytes, bytes, msgspec.Raw, msgspec.Raw, list[kind]]
    caused = tuple[bytes, bytes, msgspec.Raw, msgspec.Raw, list[kind], Column]
    new = partial(msgspec.msgpack.Decoder, ext_hook=extension, dec_hook=as_array)
    decode, decode_caused = new(columns).decode, new(caused).decode
    return lambda body: (decode_caused if body[:1] == SIX_COLUMNS else decode)(body)


def _around_deletions(body: bytes | memoryview, decode: Decode) -> list[Any] | None:
    """The columns of a body with keys that were deleted, which no type has; `None` without any."""
    columns = list(_decode_packed(body))
    payloads = columns[4]
    marks = {row for row, packed in enumerate(payloads) if bytes(packed) == PACKED_DELETION}
    if not marks:
        return None
    others = [row for row in range(len(payloads)) if row not in marks]
    values = iter(decode_some([payloads[row] for row in others], others, decode))
    columns[4] = [DELETION if row in marks else next(values) for row in range(len(payloads))]
    Deletions.last = object()
    return columns


def decode_some(payloads: Sequence[Any], rows: Sequence[int], decode: Decode) -> list[Any]:
    """The values of packed payloads, which stand in these rows of a batch.

    Raises:
        msgspec.ValidationError: one is not of the decoder's type; it names the row in the batch.
        RecursionError, ValueError: as `unpack_body`.
    """
    if not rows:
        return []
    packed = b"".join(payloads)
    try:
        values: list[Any] = decode(BEFORE_EVENTS + array_header(len(rows)) + packed)[4]
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        if place is None:
            raise
        at = f"`$[4][{rows[int(place[1])]}]"
        raise msgspec.ValidationError(_PLACE.sub(at, str(error), count=1)) from error
    return values


def packed_columns(body: bytes | memoryview) -> Any:
    """The columns of a body, each payload as `msgspec.Raw`.

    Raises:
        ValueError: it has no columns.
    """
    try:
        return _decode_packed(body)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


def plain_decoder_for(kind: Any) -> Decode:
    """As `decoder_for`, but what is no type of MessagePack is as without a type, and copied.

    It raises `ValueError` for whatever does not fit, deletions too.
    """
    return _decoder_of(kind, unpack_extension)


_decode_packed: Final = _decoder_of(msgspec.Raw, lend_extension)
_decode_any: Final = _decoder_of(Any, unpack_extension)
_lend_any: Final = _decoder_of(Any, lend_extension)


def decode_any(body: bytes | memoryview, decode: Decode = _decode_any) -> Any:
    """The columns of a body, whatever its payloads are.

    Raises:
        ValueError: it has no columns.
    """
    try:
        return decode(body)
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError):
        return unpack(body)


def lend_any(body: bytes | memoryview) -> Any:
    """As `decode_any`; arrays are views of the body, not copies."""
    return decode_any(body, _lend_any)


def mismatch(error: Exception, base_seq_no: int, path: str) -> EventTypeMismatch:
    """The error for a payload of another type; msgspec says where, as in "at `$[4][17].price`"."""
    place = _PLACE.search(str(error))
    seq_no = base_seq_no + int(place[1]) if place else base_seq_no
    return EventTypeMismatch(
        f"event {seq_no} of the log {path} is not of the type that was asked for: {error}; read it"
        " without a type, or go on after it",
        path=path,
        seq_no=seq_no,
    )


def unpack_body(
    body: bytes | memoryview,
    count: int,
    base_seq_no: int,
    decode: Decode = decode_any,
    stored_ns: int | None = None,
) -> list[EventEnvelope]:
    """The envelopes of one batch, which was stored at `stored_ns`.

    Raises:
        msgspec.ValidationError: a payload is not of the decoder's type (see `mismatch`).
        RecursionError: a payload is nested deeper than the decoder of that type can go.
        ValueError: the bytes are no body of `count` events, although their checksum may be right.
    """
    # All the objects of a batch live as long as the batch, so collecting while they are made finds
    # nothing, and moves them on to the older generations, whose collections walk the whole process:
    # a third of a consumer's time, measured.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        return envelopes_of(*columns_of(body, count, base_seq_no, decode, stored_ns))
    finally:
        if was_collecting:
            gc.enable()


def columns_of(
    body: bytes | memoryview,
    count: int,
    base_seq_no: int,
    decode: Decode = decode_any,
    stored_ns: int | None = None,
) -> tuple[list[Any], Columns]:
    """The payloads of one batch, and all else that it has of its events.

    Raises:
        msgspec.ValidationError, RecursionError, ValueError: as `unpack_body`.
    """
    last_deletion = Deletions.last
    columns = decode(body)
    if not isinstance(columns, list | tuple) or len(columns) not in (5, 6):
        raise ValueError("the body is neither five columns nor six")
    ids, timestamps, keys, headers, events, *rest = columns
    keys, headers = text_column(keys), text_column(headers)
    if not isinstance(events, list) or len(events) != count:
        raise ValueError(f"the body does not hold {count} events")
    check_columns(ids, timestamps, keys, headers, count)
    causes = causes_of(rest[0], count) if rest else None
    made = Columns(base_seq_no, ids, timestamps, keys, headers, stored_ns, causes=causes)
    if Deletions.last is not last_deletion:
        made.deletions = take_deletions(events)
    return events, made


def take_deletions(events: list[Any]) -> list[int]:
    """Put `None` in the place of each mark of a deleted key; the rows of these."""
    rows = [row for row, event in enumerate(events) if event is DELETION]
    for row in rows:
        events[row] = None
    return rows


def check_columns(
    ids: object, timestamps: object, keys: TextColumn, headers: TextColumn, count: int
) -> None:
    """Pass if these are columns of `count` events.

    Of another length, they would make an index error of whoever asks for a key, much later.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(ids, bytes) or len(ids) not in (ID_BYTES, ID_BYTES * count):
        raise ValueError("the ids have another length")
    if not isinstance(timestamps, bytes) or len(timestamps) != TIMESTAMP_BYTES * count:
        raise ValueError("the timestamps have another length")
    if not is_column_of(keys, count) or not is_column_of(headers, count):
        raise ValueError("the keys or headers have another length")


def text_column(column: Any) -> TextColumn:
    """Keys or headers as a decoder gave them; packed ones are copied, and keep nothing mapped.

    Raises:
        ValueError: they are no column.
    """
    if type(column) is msgspec.Raw:
        packed = bytes(column)
        return None if packed == NIL else packed
    if column is not None and not isinstance(column, list):
        raise ValueError("the keys or headers are no array")
    return column
