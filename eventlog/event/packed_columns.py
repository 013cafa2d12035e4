"""The columns of a packed body, found without unpacking its events. Pure.

They stand before the events (see `record_batch`), behind two that tell their size::

    array of five or six | ids: bin | timestamps: bin | keys | headers | events ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgpack

from eventlog.event.record_batch import FIVE_COLUMNS, SIX_COLUMNS
from eventlog.event.text_columns import NIL, array_header, unpacked

TEXT_BYTES_GUESSED: Final = 48
"""What the keys and headers of an event take, mostly; where they take more, it is tried again."""
_ID_AND_ONE_KEY: Final = (0xC4, 16, 0x91)
"""How the bin of one id begins, and, behind that and a time, the array of one key."""
_SIZE_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""How many bytes tell the size of a MessagePack bin, by its first byte."""


class PackedColumns(NamedTuple):
    """What stands before the events."""

    ids: bytes
    timestamps: bytes
    keys: bytes
    headers: bytes
    events: int
    """Where in the body the events begin."""


def columns_in(body: bytes | memoryview, count: int) -> PackedColumns:
    """The packed columns of a body of `count` events.

    Raises:
        ValueError: it does not begin as a body does.
    """
    if body[:1] not in (FIVE_COLUMNS, SIX_COLUMNS):
        raise ValueError("the body is neither five columns nor six")
    ids, end_of_ids = _bin_at(body, 1)
    timestamps, start = _bin_at(body, end_of_ids)
    if bytes(body[start : start + 2]) == NIL + NIL:
        return PackedColumns(ids, timestamps, NIL, NIL, start + 2)
    size = 64 + TEXT_BYTES_GUESSED * count
    while True:
        part = bytes(body[start : start + size])
        unpacker = msgpack.Unpacker(max_buffer_size=len(part))
        unpacker.feed(part)
        try:
            unpacker.skip()
            keys_end = unpacker.tell()
            unpacker.skip()
        except msgpack.OutOfData:
            if start + size >= len(body):
                raise ValueError("the keys or headers end too early") from None
            size *= 8
            continue
        end = unpacker.tell()
        return PackedColumns(ids, timestamps, part[:keys_end], part[keys_end:end], start + end)


def payloads_at(body: bytes | memoryview, events: int, rows: Sequence[int]) -> list[bytes]:
    """The packed payloads of some rows, in order; the events begin at that place of the body.

    Raises:
        ValueError: there are no such rows.
    """
    packed = bytes(body[events:])
    place = 1 if packed[:1] < b"\xa0" else 3 if packed[:1] == b"\xdc" else 5
    found, row = [], 0
    try:
        for wanted in rows:
            if wanted > row:  # those in between are skipped as one array, by one call
                place = _end_of(array_header(wanted - row), packed, place)
            end = _end_of(b"", packed, place)
            found.append(packed[place:end])
            place, row = end, wanted + 1
    except msgpack.OutOfData:
        raise ValueError("the events end too early") from None
    return found


def _end_of(header: bytes, packed: bytes, place: int) -> int:
    """Where the value ends that begins with that header, and goes on at that place."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(header) + len(packed))
    unpacker.feed(header)
    unpacker.feed(memoryview(packed)[place:])
    unpacker.skip()
    end: int = unpacker.tell()
    return place + end - len(header)


def keys_in(body: bytes | memoryview, count: int, base_seq_no: int) -> list[str | None]:
    """The key of each event of a body; an empty list if none has one.

    Raises:
        ValueError: it does not begin as a body does.
        CorruptLog: its producer has packed something else than keys.
    """
    if count == 1 and len(body) > 30 and (body[1], body[2], body[29]) == _ID_AND_ONE_KEY:
        size = body[30] ^ 0xA0  # of a short text
        if size < 32:
            return [str(body[31 : 31 + size], "utf-8")]
    keys = columns_in(body, count).keys
    values = [] if keys == NIL else unpacked(keys, base_seq_no)
    if not isinstance(values, list):
        raise ValueError("the keys are no array")
    return values


def _bin_at(body: bytes | memoryview, place: int) -> tuple[bytes, int]:
    """The bytes of the bin at that place, and where it ends."""
    size_bytes = _SIZE_BYTES.get(body[place]) if place < len(body) else None
    if size_bytes is None:
        raise ValueError("the ids or timestamps are no bytes")
    start = place + 1 + size_bytes
    end = start + int.from_bytes(body[place + 1 : start], "big")
    return bytes(body[start:end]), end
