"""Packing events into record batches: what producers do (see `record_batch` for the bytes)."""

from __future__ import annotations

import struct
import sys
import time
from array import array
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby
from typing import Any, Final

from eventlog.config import BATCH_EVENTS_LIMIT
from eventlog.errors import EventTooLarge, InvalidEvent
from eventlog.event.bad_values import bad_place
from eventlog.event.cause import (
    ROW_BYTES,
    SOURCE_OVERHEAD_BYTES,
    Cause,
    pack_causes,
    source_of,
)
from eventlog.event.envelope import (
    ID_BYTES,
    TIMESTAMP_BYTES,
    Columns,
    Row,
    check_headers,
    check_key,
    new_id,
)
from eventlog.event.payload import (
    PLAIN_OPTIONS,
    PackedPayload,
    new_event_packer,
    new_packer,
    pack_plain,
)
from eventlog.event.record_batch import (
    FIVE_COLUMNS,
    FLAG_CAUSED,
    FLAG_KEYED,
    KEY_HASH_BYTES,
    SIX_COLUMNS,
    BatchParts,
    PackedBatch,
    key_hash,
)

EVENT_OVERHEAD_BYTES: Final = TIMESTAMP_BYTES + ID_BYTES + KEY_HASH_BYTES + 6
"""What an event costs in a batch, at most, beside its payload, key and headers: one with a key or
an id of its own makes a column for all, and the 6 bytes are the length of a key (5) and nil for
headers. Counted for every event, so that no batch outgrows its segment."""
LARGE_BYTES: Final = 64 * 1024
"""Payloads of bytes that are not worth a copy on their way into a batch. From this size on,
MessagePack writes the length of bytes in four bytes."""
_BIN_32: Final = struct.Struct(">BI")
_REFUSALS: Final = (TypeError, ValueError, OverflowError, RecursionError, BufferError)
"""What the packers raise for a value that they cannot pack."""
_ARRAY_32: Final = struct.Struct(">BI")


class BatchBuilder:
    """Packs events one by one; an event that cannot be packed leaves the batch as it was.

    Not to be shared between threads without a lock.
    """

    __slots__ = (
        "_causes",
        "_events",
        "_has_large",
        "_ids",
        "_is_plain",
        "_max_event_bytes",
        "_pack",
        "_pack_event",
        "_path",
        "_rows",
        "_sources",
        "_timestamps",
        "bytes",
    )

    def __init__(self, max_event_bytes: int, path: str | None = None) -> None:
        self._path = path
        """The log, for what errors say."""
        self._pack = new_packer()
        self._pack_event = new_event_packer()
        self._max_event_bytes = max_event_bytes
        self._has_large = False
        self.clear()

    def clear(self) -> None:
        """Begin an empty batch."""
        self._events: list[bytes] = []
        """Packed payloads; one element may hold several, one after the other."""
        self._timestamps: list[int] = []
        self._rows: dict[int, tuple[str | None, dict[str, str] | None]] = {}
        self._ids: dict[int, bytes] = {}
        self._causes: dict[int, Cause] = {}
        self._sources: set[tuple[bytes, str]] = set()
        """Logs and groups of the causes: those that are counted in `bytes`."""
        self._is_plain = True
        """`pack_plain` has packed all events of this batch so far. The events of a producer are
        alike: after one that it refuses, it is not tried again before the next batch."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._timestamps)

    def truncate(self, rows: int) -> None:
        """Drop what stands behind the first events: one that an interrupt left half added.

        For events that were added one by one.
        """
        end = 0
        for _ in range(rows):
            end += 2 if _is_head_of_large(self._events[end]) else 1
        del self._events[end:]
        del self._timestamps[rows:]
        self._rows = {row: columns for row, columns in self._rows.items() if row < rows}
        self._ids = {row: one for row, one in self._ids.items() if row < rows}
        self._causes = {row: one for row, one in self._causes.items() if row < rows}
        self._sources = set(map(source_of, self._causes.values()))

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
        kind = type(event)
        if key is not None or headers is not None or kind is Row:
            return self._add_with_columns(event, key, headers)
        if kind is bytes and len(event) >= LARGE_BYTES:
            return self._add_large(event)
        # As `_packed` and `_take`, written out: this runs for every event.
        try:
            if kind is bytes:  # msgpack is faster with these
                packed = self._pack(event)
            elif self._is_plain:
                packed = pack_plain(event, None, PLAIN_OPTIONS)
            else:
                packed = self._pack_event(event)
        except _REFUSALS:
            packed = self._packed_otherwise(event)
        size = len(packed)
        if size > self._max_event_bytes:
            raise self._too_large(size)
        timestamps = self._timestamps
        self._events.append(packed)
        timestamps.append(time.time_ns())
        self.bytes += size + EVENT_OVERHEAD_BYTES
        return len(timestamps) - 1

    def _packed(self, event: Any, events: list[Any] | None = None) -> bytes:
        """One event, or the list `events` as if it was one."""
        if self._is_plain:
            with suppress(*_REFUSALS):
                return pack_plain(event, None, PLAIN_OPTIONS)
        return self._packed_otherwise(event, events)

    def _packed_otherwise(self, event: Any, events: list[Any] | None = None) -> bytes:
        """What was refused, by msgpack, which has the last word on what can be carried."""
        self._is_plain = False
        try:
            return self._pack_event(event, events)
        except _REFUSALS as error:
            # Of a list it matters only that one of its events is bad; which one is told later.
            place = bad_place(event, self._pack_event, error) if events is None else ""
            raise self._invalid(error, place) from error

    def _add_large(self, event: bytes) -> int:
        """As `add`, without a copy: bytes never change."""
        row = self._take(_BIN_32.pack(0xC6, len(event)), time.time_ns(), payload_bytes=len(event))
        self._events.append(event)
        self._has_large = True
        return row

    def _take(
        self,
        packed: bytes,
        timestamp_ns: int,
        *,
        payload_bytes: int = 0,
        key_bytes: int = 0,
        headers_bytes: int = 0,
    ) -> int:
        """Add a packed event; `payload_bytes` more of it are added by the caller."""
        size = len(packed) + payload_bytes + key_bytes + headers_bytes
        if size > self._max_event_bytes:
            raise self._too_large(size, key_bytes, headers_bytes)
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
            together = self._packed(events, events)
            packed = []
        except InvalidEvent:
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
            raise self._too_large(max(map(len, packed)))
        full = []
        for one in packed:
            self._take(one, now)
            if self.bytes >= limit_bytes or self.is_full:
                full.append(self.build())
        return full

    def _pack_each(self, events: list[Any]) -> list[bytes]:
        return list(map(self._packed, events))

    def _add_with_columns(
        self, event: Any, key: str | None, headers: Mapping[str, str] | None
    ) -> int:
        """The long way, for an event that has more than a payload."""
        envelope = event if type(event) is Row else None
        timestamp_ns = time.time_ns()
        if envelope is not None:
            event, timestamp_ns = envelope.event, envelope.timestamp_ns
            key = envelope.key if key is None else key
            headers = envelope.headers if headers is None else headers
        key_bytes, headers_bytes = self._check_row(key, headers)
        packed = event if type(event) is PackedPayload else self._packed(event)
        row = self._take(packed, timestamp_ns, key_bytes=key_bytes, headers_bytes=headers_bytes)
        if key is not None or headers is not None:
            self._rows[row] = (key, None if headers is None else dict(headers))
        if envelope is not None:
            self._ids[row] = envelope.id_bytes
            if (cause := envelope.cause) is not None:
                self._add_cause(row, cause)
        return row

    def note_result(self, row: int, id_bytes: bytes, cause: Cause) -> None:
        """Give the event that was just added in that row an id and a cause."""
        self._ids[row] = id_bytes
        self._add_cause(row, cause)

    def _add_cause(self, row: int, cause: Cause) -> None:
        self._causes[row] = cause
        source = source_of(cause)
        if source not in self._sources:
            self._sources.add(source)
            self.bytes += SOURCE_OVERHEAD_BYTES + len(cause.group.encode())
        self.bytes += ROW_BYTES

    def _check_row(self, key: str | None, headers: Mapping[str, str] | None) -> tuple[int, int]:
        """The bytes that the key adds, and those that the headers add."""
        key_bytes = 0 if key is None else len(check_key(key).encode())
        return key_bytes, 0 if headers is None else len(self._pack(check_headers(headers)))

    def _invalid(self, error: Exception, place: str) -> InvalidEvent:
        at = f"{place}: " if place else ""
        return InvalidEvent(
            f"the event cannot be stored{self._where}: {at}{error}; give values that MessagePack"
            " can carry",
            path=self._path,
        )

    def _too_large(self, size: int, key_bytes: int = 0, headers_bytes: int = 0) -> EventTooLarge:
        columns_bytes = key_bytes + headers_bytes
        of_them, advice = "", "store large data elsewhere"
        if columns_bytes:
            of_them = f" ({key_bytes} of them its key, {headers_bytes} its headers)"
        if size - columns_bytes <= self._max_event_bytes:
            advice = "shorten the key or the headers"
        return EventTooLarge(
            f"the event takes {size} bytes{of_them}, {self._max_event_bytes} are allowed"
            f"{self._where}: {advice}, or make the log with a larger max_event_bytes",
            path=self._path,
        )

    @property
    def _where(self) -> str:
        return "" if self._path is None else f" in the log {self._path}"

    def build(self) -> PackedBatch:
        """The batch of all events added since the last call; at least one."""
        count, flags, acks_bytes, parts = self.build_parts()
        return PackedBatch(count, flags, acks_bytes, b"".join(parts))

    def build_parts(self) -> BatchParts:
        """The same, with large payloads as they are."""
        count = len(self._timestamps)
        assert count, "an empty batch has no place in a log"
        keys, headers, hashes = self._columns_of_rows(count)
        parts = [
            hashes,
            SIX_COLUMNS if self._causes else FIVE_COLUMNS,
            self._pack(self._id_column(count)),
            self._pack(_packed_timestamps(self._timestamps)),
            self._pack(keys),
            self._pack(headers),
            _ARRAY_32.pack(0xDD, count),
            *self._events,
        ]
        flags = FLAG_KEYED if hashes else 0
        if self._causes:
            parts.append(self._pack(pack_causes(self._causes)))
            flags |= FLAG_CAUSED
        has_large, self._has_large = self._has_large, False
        self.clear()
        joined = _joined(parts) if has_large else [b"".join(parts)]
        return BatchParts(count, flags, 0, joined)

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
        made = Columns(0, base, _packed_timestamps(self._timestamps), None, None)
        return b"".join(self._ids.get(row) or made.id_bytes(row) for row in range(count))


def _is_head_of_large(packed: bytes) -> bool:
    """Whether it announces a large payload that is kept apart (see `_add_large`)."""
    return len(packed) == _BIN_32.size and packed[0] == 0xC6


def _joined(parts: list[bytes]) -> list[bytes]:
    """The same bytes in few parts: the large ones, and what is between them."""
    joined: list[bytes] = []
    for is_large, group in groupby(parts, lambda part: len(part) >= LARGE_BYTES):
        run = list(group)
        joined += run if is_large else [b"".join(run)]
    return joined


def _array_header_bytes(count: int) -> int:
    """What MessagePack puts before the elements of an array."""
    return 1 if count < 16 else 3 if count < 65_536 else 5


def _packed_timestamps(timestamps: list[int]) -> bytes:
    column = array("q", timestamps)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()
