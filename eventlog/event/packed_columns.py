"""Keys and headers of a packed body, found without a look at its events. Pure.

They stand before the events (see `record_batch`), behind two columns that tell their size::

    array of five or six | ids: bin | timestamps: bin | keys | headers | events ...
"""

from __future__ import annotations

from typing import Final

import msgpack

from eventlog.event.record_batch import FIVE_COLUMNS, SIX_COLUMNS
from eventlog.event.text_columns import NIL, unpacked

TEXT_BYTES_GUESSED: Final = 48
"""What the keys and headers of an event take, mostly; where they take more, it is tried again."""
_SIZE_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""How many bytes tell the size of a MessagePack bin, by its first byte."""


def columns_in(body: bytes | memoryview, count: int) -> tuple[bytes, bytes]:
    """The packed columns of keys and of headers of a body of `count` events.

    Raises:
        ValueError: it does not begin as a body does.
    """
    if body[:1] not in (FIVE_COLUMNS, SIX_COLUMNS):
        raise ValueError("the body is neither five columns nor six")
    start = _after_bin(body, _after_bin(body, 1))
    if bytes(body[start : start + 2]) == NIL + NIL:
        return NIL, NIL
    size = 64 + TEXT_BYTES_GUESSED * count
    while True:
        part = bytes(body[start : start + size])
        unpacker = msgpack.Unpacker(max_buffer_size=len(part))
        unpacker.feed(part)
        try:
            unpacker.skip()
            keys_end = unpacker.tell()
            unpacker.skip()
            return part[:keys_end], part[keys_end : unpacker.tell()]
        except msgpack.OutOfData:
            if start + size >= len(body):
                raise ValueError("the keys or headers end too early") from None
            size *= 8


def keys_in(body: bytes | memoryview, count: int, base_seq_no: int) -> list[str | None]:
    """The key of each event of a body; an empty list if none has one.

    Raises:
        ValueError: it does not begin as a body does.
        CorruptLog: its producer has packed something else than keys.
    """
    keys, _ = columns_in(body, count)
    return [] if keys == NIL else unpacked(keys, base_seq_no)


def _after_bin(body: bytes | memoryview, place: int) -> int:
    """Where the bin at that place ends."""
    size_bytes = _SIZE_BYTES.get(body[place]) if place < len(body) else None
    if size_bytes is None:
        raise ValueError("the ids or timestamps are no bytes")
    start = place + 1 + size_bytes
    return start + int.from_bytes(body[place + 1 : start], "big")
