"""The contents of a record batch: packed by producers, stored as they are, unpacked by readers.

The writer never looks into it. What it needs to know stands in the batch's header (see
`storage.format`) and in the areas before the body::

    +------------------+-----------------+-------------------------------------------+
    | key hashes       | acks            | body: one MessagePack array of five       |
    | 4 bytes an event | `acks_bytes`    | [ids, timestamps, keys, headers, events]  |
    | if KEYED is set  | (reserved)      |                                           |
    +------------------+-----------------+-------------------------------------------+

    ids         bytes: 16 for each event, or 16 in all (row i's id is derived, see `envelope`)
    timestamps  bytes: 8 for each event, little-endian nanoseconds since 1970
    keys        array of str or nil, or nil if no event has a key
    headers     array of map or nil, or nil if no event has headers
    events      array of payloads

Columns, because then one C call unpacks a whole batch without making a list for each event, and
most events have neither key nor headers: packing is 20 % and unpacking 25 % cheaper than rows.

A key's hash is the CRC-32 of its UTF-8 (0 if there is no key), so that groups can keep key order
without decoding; any language can compute it.
"""

from __future__ import annotations

import gc
import re
import struct
import sys
import time
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from eventlog.config import BATCH_EVENTS_LIMIT
from eventlog.envelope import (
    ID_BYTES,
    TIMESTAMP_BYTES,
    Columns,
    EventEnvelope,
    check_headers,
    check_key,
    envelopes_of,
    new_id,
)
from eventlog.errors import (
    EventTooLarge,
    EventTypeMismatch,
    InvalidArgumentType,
    InvalidEvent,
)
from eventlog.payload import new_packer, unpack, unpack_extension

FLAG_KEYED: Final = 1
"""The batch has an area of key hashes."""
FLAGS_KNOWN: Final = FLAG_KEYED
KEY_HASH_BYTES: Final = 4
EVENT_OVERHEAD_BYTES: Final = TIMESTAMP_BYTES + ID_BYTES + KEY_HASH_BYTES + 6
"""What an event costs in a batch, at most, beside its payload, key and headers: one with a key or
an id of its own makes a column for all, and the 6 bytes are the length of a key (5) and nil for
headers. Counted for every event, so that no batch outgrows its segment."""

CHUNK_EVENTS: Final = 256
_REFUSALS: Final = (TypeError, ValueError, OverflowError, RecursionError)
"""What msgpack raises for a value that it cannot pack."""
_FIVE_COLUMNS: Final = b"\x95"
_ARRAY_32: Final = struct.Struct(">BI")


class PackedBatch(NamedTuple):
    """A batch as it travels to the writer: opaque bytes, and what the header says of them."""

    count: int  # type: ignore[assignment]  # hides tuple.count, of no use here
    flags: int
    acks_bytes: int
    payload: bytes | memoryview


class BatchBuilder:
    """Packs events one by one; an event that cannot be packed leaves the batch as it was.

    Not to be shared between threads without a lock.
    """

    __slots__ = ("_events", "_ids", "_max_event_bytes", "_pack", "_rows", "_timestamps", "bytes")

    def __init__(self, max_event_bytes: int) -> None:
        self._pack = new_packer()
        self._max_event_bytes = max_event_bytes
        self._start()

    def _start(self) -> None:
        self._events: list[bytes] = []
        """Packed payloads; one element may hold several, one after the other."""
        self._timestamps: list[int] = []
        self._rows: dict[int, tuple[str | None, dict[str, str] | None]] = {}
        self._ids: dict[int, bytes] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._timestamps)

    @property
    def is_full(self) -> bool:
        """Another event would make it larger than what a reader should decode at once."""
        return len(self._timestamps) >= BATCH_EVENTS_LIMIT

    def add(
        self, event: Any, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        """Pack one event, or an `EventEnvelope` with its own id and time; its row in the batch.

        Raises:
            InvalidEvent: MessagePack cannot carry it.
            EventTooLarge: it is larger than the log allows.
            InvalidArgument: the key or a header is no valid text.
            InvalidArgumentType: the key or the headers have another type.
        """
        if key is not None or headers is not None or type(event) is EventEnvelope:
            return self._add_with_columns(event, key, headers)
        try:
            packed = self._pack(event)
        except _REFUSALS as error:
            raise _invalid(error) from error
        # As `_take`, written out: this runs for every event.
        size = len(packed)
        if size > self._max_event_bytes:
            raise _too_large(size, self._max_event_bytes)
        timestamps = self._timestamps
        self._events.append(packed)
        timestamps.append(time.time_ns())
        self.bytes += size + EVENT_OVERHEAD_BYTES
        return len(timestamps) - 1

    def _take(self, packed: bytes, columns_bytes: int, timestamp_ns: int) -> int:
        size = len(packed) + columns_bytes
        if size > self._max_event_bytes:
            raise _too_large(size, self._max_event_bytes)
        self._events.append(packed)
        self._timestamps.append(timestamp_ns)
        self.bytes += size + EVENT_OVERHEAD_BYTES
        return len(self._timestamps) - 1

    def add_all(self, events: list[Any], limit_bytes: int) -> list[PackedBatch]:
        """Pack many events, all at one time, and return the batches that reached the limit.

        Raises:
            InvalidEvent, EventTooLarge: none of these events was added.
        """
        try:
            together = self._pack(events)
            packed = []
        except _REFUSALS:
            # One of them is bad, or as deep as can be: one by one tells which.
            together = b""
            packed = self._pack_each(events)
        size = len(together) + EVENT_OVERHEAD_BYTES * len(events)
        now = time.time_ns()
        has_room = self.bytes + size < limit_bytes and len(self) + len(events) < BATCH_EVENTS_LIMIT
        if together and has_room and len(together) <= self._max_event_bytes:
            self._events.append(together[_array_header_bytes(len(events)) :])
            self._timestamps += [now] * len(events)
            self.bytes += size
            return []
        packed = packed or self._pack_each(events)
        if max(map(len, packed)) > self._max_event_bytes:
            raise _too_large(max(map(len, packed)), self._max_event_bytes)
        full = []
        for one in packed:
            self._take(one, 0, now)
            if self.bytes >= limit_bytes or self.is_full:
                full.append(self.build())
        return full

    def _pack_each(self, events: list[Any]) -> list[bytes]:
        try:
            return list(map(self._pack, events))
        except _REFUSALS as error:
            raise _invalid(error) from error

    def _add_with_columns(
        self, event: Any, key: str | None, headers: Mapping[str, str] | None
    ) -> int:
        """The long way, for an event that has more than a payload."""
        envelope = event if type(event) is EventEnvelope else None
        timestamp_ns = time.time_ns()
        if envelope is not None:
            event, timestamp_ns = envelope.event, envelope.timestamp_ns
            key = envelope.key if key is None else key
            headers = envelope.headers if headers is None else headers
        columns_bytes = self._check_row(key, headers)
        try:
            packed = self._pack(event)
        except _REFUSALS as error:
            raise _invalid(error) from error
        row = self._take(packed, columns_bytes, timestamp_ns)
        if key is not None or headers is not None:
            self._rows[row] = (key, None if headers is None else dict(headers))
        if envelope is not None:
            self._ids[row] = envelope.id.bytes
        return row

    def _check_row(self, key: str | None, headers: Mapping[str, str] | None) -> int:
        """The bytes that key and headers add."""
        size = 0
        if key is not None:
            size += len(check_key(key).encode())
        if headers is not None:
            size += len(self._pack(check_headers(headers)))
        return size

    def build(self) -> PackedBatch:
        """The batch of all events added since the last call; at least one."""
        count = len(self._timestamps)
        assert count, "an empty batch has no place in a log"
        keys, headers, hashes = self._columns_of_rows(count)
        payload = b"".join(
            (
                hashes,
                _FIVE_COLUMNS,
                self._pack(self._id_column(count)),
                self._pack(_packed_timestamps(self._timestamps)),
                self._pack(keys),
                self._pack(headers),
                _ARRAY_32.pack(0xDD, count),
                *self._events,
            )
        )
        self._start()
        return PackedBatch(count, FLAG_KEYED if hashes else 0, 0, payload)

    def _columns_of_rows(
        self, count: int
    ) -> tuple[list[str | None] | None, list[dict[str, str] | None] | None, bytes]:
        if not self._rows:
            return None, None, b""
        rows = [self._rows.get(row, (None, None)) for row in range(count)]
        keys = [key for key, _ in rows]
        headers = [header for _, header in rows]
        has_keys = any(key is not None for key in keys)
        has_headers = any(header is not None for header in headers)
        hashes = struct.pack(f"<{count}I", *map(key_hash, keys)) if has_keys else b""
        return (keys if has_keys else None), (headers if has_headers else None), hashes

    def _id_column(self, count: int) -> bytes:
        base = new_id(self._timestamps[0])
        if not self._ids:
            return base
        made = Columns(base, _packed_timestamps(self._timestamps), None, None)
        return b"".join(self._ids.get(row) or made.id_bytes(row) for row in range(count))


def pack_batches(
    events: Iterable[Any], max_event_bytes: int, batch_bytes_max: int
) -> list[PackedBatch]:
    """All the events, in as many batches as the limit asks for; a bad event raises before any."""
    builder = BatchBuilder(max_event_bytes)
    batches = []
    for chunk in _chunks(events):
        if EventEnvelope not in set(map(type, chunk)):
            batches += builder.add_all(chunk, batch_bytes_max)
            continue
        for event in chunk:
            builder.add(event)
            if builder.bytes >= batch_bytes_max or builder.is_full:
                batches.append(builder.build())
    if len(builder):
        batches.append(builder.build())
    return batches


def _chunks(events: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of some events each: what is packed at once."""
    try:
        source = iter(events)
    except TypeError:
        raise InvalidArgumentType(f"{events!r:.80} is no iterable of events; give a list") from None
    while chunk := list(islice(source, CHUNK_EVENTS)):
        yield chunk


def _array_header_bytes(count: int) -> int:
    """What MessagePack puts before the elements of an array."""
    return 1 if count < 16 else 3 if count < 65_536 else 5


def _invalid(error: Exception) -> InvalidEvent:
    return InvalidEvent(
        f"the event cannot be stored: {error}; give values that MessagePack can carry"
    )


def _too_large(size: int, limit: int) -> EventTooLarge:
    return EventTooLarge(
        f"the event takes {size} bytes and this log allows {limit}: store large data elsewhere, or"
        " make the log with a larger max_event_bytes"
    )


def key_hash(key: str | None) -> int:
    """The 32 bits by which a group keeps events of one key in order; 0 for no key."""
    return 0 if key is None else zlib.crc32(key.encode())


def areas_bytes(count: int, flags: int, acks_bytes: int) -> int:
    """The size of what stands before the body."""
    return (count * KEY_HASH_BYTES if flags & FLAG_KEYED else 0) + acks_bytes


Decode = Callable[[bytes | memoryview], Any]
"""Turns a body into its five columns; raises `ValueError` for what is none."""


def decoder_for(kind: Any) -> Decode:
    """The decoder of bodies whose payloads are of this type; `None` is whatever they are.

    Any type that msgspec can decode: a `Struct`, a dataclass, a `TypedDict`, `dict[str, int]`.
    Without copying, so that they keep the segment mapped: `memoryview` for payloads that are
    bytes, `msgspec.Raw` for packed ones. One C call makes all the objects of a batch.

    Raises:
        InvalidArgumentType: msgspec cannot decode to it.
    """
    if kind is None:
        return unpack
    try:
        columns = tuple[
            bytes, bytes, list[str | None] | None, list[dict[str, str] | None] | None, list[kind]
        ]
        return msgspec.msgpack.Decoder(columns, ext_hook=unpack_extension).decode
    except (TypeError, NameError) as error:
        raise InvalidArgumentType(f"type={kind!r} cannot be decoded to: {error}") from error


def mismatch(error: msgspec.ValidationError, base_seq_no: int, path: str) -> EventTypeMismatch:
    """The error for a payload of another type; msgspec says where, as in "at `$[4][17].price`"."""
    place = re.search(r"`\$\[4\]\[(\d+)\]", str(error))
    seq_no = base_seq_no + int(place[1]) if place else base_seq_no
    return EventTypeMismatch(
        f"event {seq_no} of the log {path} is not of the type that was asked for: {error}; read it"
        " without a type, or go on after it",
        path=path,
        seq_no=seq_no,
    )


def unpack_body(
    body: bytes | memoryview, count: int, base_seq_no: int, decode: Decode = unpack
) -> list[EventEnvelope]:
    """The envelopes of one batch.

    Raises:
        msgspec.ValidationError: a payload is not of the decoder's type (see `mismatch`).
        ValueError: the bytes are no body of `count` events, although their checksum may be right.
    """
    # All the objects of a batch live as long as the batch, so collecting while they are made finds
    # nothing, and moves them on to the older generations, whose collections walk the whole process:
    # a third of a consumer's time, measured.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        columns = decode(body)
        if not isinstance(columns, list | tuple) or len(columns) != 5:
            raise ValueError("the body is not five columns")
        ids, timestamps, keys, headers, events = columns
        _check_columns(ids, timestamps, keys, headers, events, count)
        return envelopes_of(events, base_seq_no, Columns(ids, timestamps, keys, headers))
    finally:
        if was_collecting:
            gc.enable()


def _check_columns(
    ids: object, timestamps: object, keys: object, headers: object, events: object, count: int
) -> None:
    """Columns of other lengths would make an index error of whoever asks for a key, much later."""
    if not isinstance(events, list) or len(events) != count:
        raise ValueError(f"the body does not hold {count} events")
    if not isinstance(ids, bytes) or len(ids) not in (ID_BYTES, ID_BYTES * count):
        raise ValueError("the ids have another length")
    if not isinstance(timestamps, bytes) or len(timestamps) != TIMESTAMP_BYTES * count:
        raise ValueError("the timestamps have another length")
    for column in (keys, headers):
        if column is not None and not (isinstance(column, list) and len(column) == count):
            raise ValueError("the keys or headers have another length")


def _packed_timestamps(timestamps: list[int]) -> bytes:
    column = array("q", timestamps)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()
