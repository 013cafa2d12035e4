"""Packing events into record batches: what producers do (see `record_batch` for the bytes)."""

from __future__ import annotations

import struct
import sys
import time
from array import array
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgpack

from eventlog.config import BATCH_EVENTS_LIMIT
from eventlog.errors import EventTooLarge, InvalidEvent
from eventlog.event.arrays import ARRAY_EXTENSION, PackedArray, is_plain_bytes, packed_array
from eventlog.event.bad_values import bad_place
from eventlog.event.cause import (
    ROW_BYTES,
    SOURCE_OVERHEAD_BYTES,
    Cause,
    pack_causes,
    source_of,
)
from eventlog.event.due import DUE_BYTES, Due, pack_due
from eventlog.event.envelope import TIMESTAMP_BYTES, Columns, Row
from eventlog.event.ids import ID_BYTES, new_id
from eventlog.event.large_payloads import (
    LARGE_BYTES,
    head_of_bytes,
    head_of_extension,
    is_head_of_large,
    joined,
)
from eventlog.event.payload import (
    BYTES,
    DELETION,
    PLAIN_OPTIONS,
    PackedPayload,
    new_event_packer,
    new_packer,
    pack_plain,
)
from eventlog.event.record_batch import (
    FIVE_COLUMNS,
    FLAG_CAUSED,
    FLAG_DUE,
    FLAG_KEYED,
    SIX_COLUMNS,
    BatchParts,
    PackedBatch,
)
from eventlog.event.text_columns import KEY_HASH_BYTES, TextColumns, array_header
from eventlog.event.texts import Headers

EVENT_OVERHEAD_BYTES: Final = TIMESTAMP_BYTES + ID_BYTES + KEY_HASH_BYTES + 6
"""What an event costs in a batch, at most, beside its payload, key and headers: one with a key or
an id of its own makes a column for all, and the 6 bytes are the length of a key (5) and nil for
headers. Counted for every event, so that no batch outgrows its segment."""
_REFUSALS: Final = (TypeError, ValueError, OverflowError, RecursionError, BufferError)
"""What the packers raise for a value that they cannot pack."""
_ARRAY_32: Final = struct.Struct(">BI")


class BatchBuilder:
    """Packs events one by one; an event that cannot be packed leaves the batch as it was.

    Not to be shared between threads without a lock.
    """

    __slots__ = (
        "_causes",
        "_due",
        "_events",
        "_has_large",
        "_ids",
        "_is_plain",
        "_lists",
        "_max_event_bytes",
        "_overhead_bytes",
        "_pack",
        "_pack_event",
        "_path",
        "_sources",
        "_texts",
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
        self._texts = TextColumns()
        self.clear()

    def clear(self) -> None:
        """Begin an empty batch."""
        self._texts.clear()
        self._events: list[bytes | memoryview] = []
        """Packed payloads; one element may hold several, one after the other."""
        self._lists: dict[int, int] = {}
        """Number of payloads in each of those elements, by its place."""
        self._timestamps: list[int] = []
        self._ids: dict[int, bytes] = {}
        self._causes: dict[int, Cause] = {}
        self._due: dict[int, Due] = {}
        self._overhead_bytes = EVENT_OVERHEAD_BYTES
        """As that, and the times of an event if the batch has any."""
        self._sources: set[tuple[bytes, str]] = set()
        """Logs and groups of the causes: those that are counted in `bytes`."""
        self._is_plain = True
        """`pack_plain` has packed all events of this batch so far. The events of a producer are
        alike: after one that it refuses, it is not tried again before the next batch."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._timestamps)

    def truncate(self, rows: int) -> None:
        """Drop what stands behind the first events, be it one that an interrupt left half added."""
        if not rows:
            self.clear()
            return
        end = row = 0
        while row < rows:
            row += self._lists.get(end, 1)
            end += 2 if is_head_of_large(self._events[end]) else 1
        del self._events[end:]
        del self._timestamps[rows:]
        self._texts.truncate(rows)
        self._lists = {place: count for place, count in self._lists.items() if place < end}
        self._ids = {row: one for row, one in self._ids.items() if row < rows}
        self._causes = {row: one for row, one in self._causes.items() if row < rows}
        self._due = {row: one for row, one in self._due.items() if row < rows}
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
        if kind is Row:
            return self._add_envelope(event, key, headers)
        if kind is bytes and len(event) >= LARGE_BYTES:
            return self._add_large(head_of_bytes(len(event)), event, key, headers)
        if kind is memoryview and not is_plain_bytes(event):
            return self._add_array(self._array_of(event), key, headers)
        # As `_packed` and `_take`, written out: this runs for every event.
        try:
            if kind is bytes:  # msgpack is faster with these
                packed = self._pack(event)
            elif self._is_plain:
                packed = pack_plain(event, None, PLAIN_OPTIONS)
            else:
                packed = self._pack_event(event)
        except _REFUSALS:
            with suppress(TypeError):  # told below
                if not isinstance(event, BYTES) and (array := packed_array(event)) is not None:
                    return self._add_array(array, key, headers)
            packed = self._packed_otherwise(event)
        size = len(packed)
        timestamps = self._timestamps
        if key is not None or headers is not None:
            room = self._max_event_bytes - size
            size += self._texts.add(len(timestamps), key, headers, room)
        if size > self._max_event_bytes:
            raise self._too_large(size, key, headers)
        self._events.append(packed)
        timestamps.append(time.time_ns())
        self.bytes += size + self._overhead_bytes
        return len(timestamps) - 1

    def _packed(self, event: Any, events: list[Any] | None = None) -> bytes:
        """One event, or the list `events` as if it was one."""
        if type(event) is memoryview and not is_plain_bytes(event):
            array = self._array_of(event)
            return self._pack(msgpack.ExtType(ARRAY_EXTENSION, b"".join(array)))
        if self._is_plain:
            try:
                return pack_plain(event, None, PLAIN_OPTIONS)
            except _REFUSALS:
                pass  # told by msgpack, if it cannot pack it either
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

    def _add_large(
        self, head: bytes, event: bytes, key: str | None, headers: Mapping[str, str] | None
    ) -> int:
        """As `add`, of bytes that never change, without a copy; `head` stands before them."""
        size = self._add_texts(key, headers, len(head) + len(event))
        row = self._take(head, time.time_ns(), size)
        self._events.append(event)
        self._has_large = True
        return row

    def _add_array(
        self, array: PackedArray, key: str | None, headers: Mapping[str, str] | None
    ) -> int:
        if len(array.values) >= LARGE_BYTES:
            head = head_of_extension(array.size, ARRAY_EXTENSION) + array.header
            return self._add_large(head, array.values, key, headers)
        packed = self._pack(msgpack.ExtType(ARRAY_EXTENSION, b"".join(array)))
        size = self._add_texts(key, headers, len(packed))
        return self._take(packed, time.time_ns(), size)

    def _array_of(self, view: memoryview) -> PackedArray:
        """A view of other values than bytes, which the packers would store as bytes."""
        try:
            array = packed_array(view)
        except TypeError as error:
            raise self._invalid(error, "") from error
        assert array is not None, "a view is an array, or refused"
        return array

    def _add_texts(
        self, key: str | None, headers: Mapping[str, str] | None, payload_bytes: int
    ) -> int:
        """Add the key and the headers of the next event; its size with them.

        Raises:
            EventTooLarge, InvalidArgument, InvalidArgumentType: nothing was added.
        """
        room = self._max_event_bytes - payload_bytes
        size = payload_bytes + self._texts.add(len(self._timestamps), key, headers, room)
        if size > self._max_event_bytes:
            raise self._too_large(size, key, headers)
        return size

    def _take(self, packed: bytes, timestamp_ns: int, size: int) -> int:
        """Add a packed event, whose key and headers are added already; its row."""
        self._events.append(packed)
        self._timestamps.append(timestamp_ns)
        self.bytes += size + self._overhead_bytes
        return len(self._timestamps) - 1

    def add_list(
        self,
        events: list[Any],
        limit_bytes: int,
        keys: list[str | None] | None = None,
        headers: Headers = None,
    ) -> bool:
        """Pack events as one, all at one time, if there is room for them; else none was added.

        None is added either if one is bad, or as deep as can be: one by one tells which. `headers`
        are those of all events, or of each.
        """
        rows, count = len(self), len(events)
        try:
            if self.bytes + len(self._packed(events[0])) * count >= limit_bytes:
                return False  # most likely, and not worth packing them all
            together = self._packed(events, events)
            size = len(together) + self._texts.add_list(rows, count, keys, headers)
        except (InvalidEvent, *_REFUSALS):
            self._texts.truncate(rows)
            return False
        whole = size + self._overhead_bytes * count
        has_room = self.bytes + whole < limit_bytes and rows + count < BATCH_EVENTS_LIMIT
        if not has_room or size > self._max_event_bytes:
            self._texts.truncate(rows)
            return False
        self._lists[len(self._events)] = count
        self._events.append(memoryview(together)[len(array_header(count)) :])
        self._timestamps += [time.time_ns()] * count
        self.bytes += whole
        return True

    def add_all(self, events: list[Any], limit_bytes: int) -> list[PackedBatch]:
        """Pack many events, all at one time, and return the batches that reached the limit.

        Raises:
            InvalidEvent, EventTooLarge: none of these events was added.
        """
        if self.add_list(events, limit_bytes):
            return []
        packed = list(map(self._packed, events))
        if max(map(len, packed)) > self._max_event_bytes:
            raise self._too_large(max(map(len, packed)))
        full = []
        now = time.time_ns()
        for one in packed:
            self._take(one, now, len(one))
            if self.bytes >= limit_bytes or self.is_full:
                full.append(self.build())
        return full

    def _add_envelope(
        self, envelope: Row, key: str | None, headers: Mapping[str, str] | None
    ) -> int:
        """An event with an id and a time of its own, and perhaps a cause."""
        event = DELETION if envelope.is_deletion else envelope.event
        key = envelope.key if key is None else key
        headers = envelope.headers if headers is None else headers
        packed = event if type(event) is PackedPayload else self._packed(event)
        size = self._add_texts(key, headers, len(packed))
        row = self._take(packed, envelope.timestamp_ns, size)
        self._ids[row] = envelope.id_bytes
        if (cause := envelope.cause) is not None:
            self._add_cause(row, cause)
        if envelope.columns.due is not None and any(due := envelope.due):
            self._add_due(row, due)
        return row

    def _add_due(self, row: int, due: Due) -> None:
        """The first event with times makes room for those of all the others."""
        if not self._due:
            self.bytes += DUE_BYTES * len(self)
            self._overhead_bytes = EVENT_OVERHEAD_BYTES + DUE_BYTES
        self._due[row] = due

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

    def _invalid(self, error: Exception, place: str) -> InvalidEvent:
        at = f"{place}: " if place else ""
        return InvalidEvent(
            f"the event cannot be stored{self._where}: {at}{error}; give values that MessagePack"
            " can carry",
            path=self._path,
        )

    def _too_large(
        self, size: int, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> EventTooLarge:
        key_bytes = 0 if key is None else len(key.encode())
        headers_bytes = 0 if headers is None else len(self._pack(dict(headers)))
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
        hashes, keys, headers = self._texts.build(count)
        parts: list[bytes | memoryview] = [
            hashes,
            pack_due(self._due, count) if self._due else b"",
            SIX_COLUMNS if self._causes else FIVE_COLUMNS,
            self._pack(self._id_column(count)),
            self._pack(self._packed_timestamps()),
            keys,
            headers,
            _ARRAY_32.pack(0xDD, count),
            *self._events,
        ]
        flags = (FLAG_KEYED if hashes else 0) | (FLAG_DUE if self._due else 0)
        if self._causes:
            parts.append(self._pack(pack_causes(self._causes)))
            flags |= FLAG_CAUSED
        has_large, self._has_large = self._has_large, False
        self.clear()
        return BatchParts(count, flags, 0, joined(parts) if has_large else [b"".join(parts)])

    def _packed_timestamps(self) -> bytes:
        column = array("q", self._timestamps)
        if sys.byteorder == "big":
            column.byteswap()
        return column.tobytes()

    def _id_column(self, count: int) -> bytes:
        base = new_id(self._timestamps[0])
        if not self._ids:
            return base
        made = Columns(0, base, self._packed_timestamps(), None, None)
        return b"".join(self._ids.get(row) or made.id_bytes(row) for row in range(count))
