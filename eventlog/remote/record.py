"""Records: what an engine over a server stores of one event.

A record is the body of a batch of one event (see `event.record_batch`), so type, causes, keys and
headers are those of every engine. Its number and the time of storing are the server's.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final, cast

import msgspec

from eventlog.api.refusals import no_due_times
from eventlog.config import BATCH_EVENTS_LIMIT
from eventlog.errors import CorruptLog, EventTooLarge
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.envelope import TIMESTAMP_BYTES, Columns, EventEnvelope, Row
from eventlog.event.filters import EventFilter
from eventlog.event.ids import ID_BYTES, RANDOM_BITS, id_of
from eventlog.event.many_events import Packing
from eventlog.event.payload import DELETION, PLAIN_OPTIONS, pack_plain
from eventlog.event.record_batch import (
    FIVE_COLUMNS,
    FLAG_DUE,
    Decode,
    areas_bytes,
    columns_of,
    decoder_for,
    mismatch,
    packed_columns,
    text_column,
    unpack_body,
)
from eventlog.event.text_columns import is_column_of
from eventlog.event.texts import check_key
from eventlog.remote.driver import Stored
from eventlog.remote.pages import page_of, page_unpacker

RANDOM_MASK: Final = (1 << RANDOM_BITS) - 1
NIL: Final = b"\xc0"
_BEFORE_ID: Final = FIVE_COLUMNS + b"\xc4\x10"
_BEFORE_TIME: Final = b"\xc4\x08"
_BEFORE_EVENT: Final = NIL + b"\x91"
"""No headers, and an array of one event."""
_record: Final[Any] = itemgetter(Stored._fields.index("record"))
_BY_BUILDER: Final = frozenset({Row, bytes, memoryview})
"""Types of events that are packed the long way."""
_REFUSALS: Final = (TypeError, ValueError, OverflowError, RecursionError, BufferError)
"""What the fast packer raises for a value that is not for it."""


class Limits:
    """What a log takes: of one event, and of a batch that is stored whole or not at all."""

    def __init__(
        self, max_event_bytes: int, record_bytes_max: int, batch_bytes: int, batch_events: int
    ) -> None:
        self.max_event_bytes = max_event_bytes
        self.record_bytes_max = record_bytes_max
        self.batch_bytes = batch_bytes
        self.batch_events = min(batch_events, BATCH_EVENTS_LIMIT)


class RecordBuilder:
    """Packs events into records, as `BatchBuilder` packs them into batches."""

    def __init__(self, limits: Limits, path: str) -> None:
        self._limits = limits
        self._path = path
        self._builder = BatchBuilder(limits.max_event_bytes, path)
        self._records: list[bytes] = []
        self._random = int.from_bytes(os.urandom(10), "big") & RANDOM_MASK
        """The random part of the last id; the next id has one more."""
        self._plain_bytes_max = min(limits.max_event_bytes, limits.record_bytes_max - 64)
        self.bytes = 0
        """The size of all records that were added since `build`."""

    def __len__(self) -> int:
        return len(self._records)

    @property
    def is_full(self) -> bool:
        """No other record may be added."""
        return len(self._records) >= self._limits.batch_events

    def pack(
        self, event: Any, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The record of one event.

        Raises:
            InvalidEvent, EventTooLarge, InvalidArgument, InvalidArgumentType: it can have none.
            NotSupported: it has due times.
        """
        kind = type(event)
        if headers is None and kind not in _BY_BUILDER:
            record = self._plain(event, key)
            if record is not None:
                return record
        if len(self._builder):
            self._builder.clear()  # an interrupt came in between
        self._builder.add(event, key, headers)
        count, flags, acks_bytes, payload = self._builder.build()
        if flags & FLAG_DUE:
            raise no_due_times(self._path)
        record = bytes(payload[areas_bytes(count, flags, acks_bytes) :])
        if len(record) > self._limits.record_bytes_max:
            raise EventTooLarge(
                f"the event takes {len(record)} bytes in the log {self._path}, whose server takes"
                f" {self._limits.record_bytes_max}: store large data elsewhere, or raise the"
                " server's limit",
                path=self._path,
            )
        return record

    def _plain(self, event: Any, key: str | None) -> bytes | None:
        """The record of most events, in a third of the time; `None` for any other one."""
        try:
            payload = pack_plain(event, None, PLAIN_OPTIONS)
        except _REFUSALS:
            return None
        keys, size = NIL, len(payload)
        if key is not None:
            keys = pack_plain([check_key(key)], None, PLAIN_OPTIONS)
            size += len(keys)
        if size > self._plain_bytes_max:
            return None
        now_ns = time.time_ns()
        self._random = (self._random + 1) & RANDOM_MASK
        return b"".join(
            (
                _BEFORE_ID,
                id_of(now_ns, self._random),
                _BEFORE_TIME,
                now_ns.to_bytes(TIMESTAMP_BYTES, "little"),
                keys,
                _BEFORE_EVENT,
                payload,
            )
        )

    def add(
        self, event: Any, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        """Pack one event; its row in the batch.

        Raises:
            InvalidEvent, EventTooLarge, InvalidArgument, InvalidArgumentType: it was not added.
        """
        record = self.pack(event, key, headers)
        self._records.append(record)
        self.bytes += len(record)
        return len(self._records) - 1

    def add_all(self, events: list[Any], limit_bytes: int) -> list[list[bytes]]:
        """Pack many events, and give the batches that are full; the rest waits for `build`.

        Raises:
            InvalidEvent, EventTooLarge: none of these events was added.
        """
        full = []
        for record in [self.pack(event) for event in events]:
            self._records.append(record)
            self.bytes += len(record)
            if self.bytes >= limit_bytes or self.is_full:
                full.append(self.build())
        return full

    def build(self) -> list[bytes]:
        """All records that were added since the last call."""
        records, self._records, self.bytes = self._records, [], 0
        return records


class ManyRecords(Packing[list[bytes]]):
    """Packs the events of one `append_many` as batches of records."""

    def __init__(self, limits: Limits, path: str, keys: Any = None, headers: Any = None) -> None:
        super().__init__(
            lambda: RecordBuilder(limits, path), limits.batch_bytes, path, keys, headers
        )


class Unpacker:
    """What makes events of what a driver read; payloads are of one type (`None`: of any).

    With a filter, of those records that it wants.
    """

    def __init__(self, kind: Any = None, wanted: EventFilter | None = None) -> None:
        self._decode = decoder_for(kind)
        self._unpack_page = page_unpacker(kind)
        self._filter = wanted

    def envelopes_of(self, stored: Sequence[Stored], path: str) -> list[EventEnvelope]:
        """The events.

        Raises:
            EventTypeMismatch: a payload is not of the type.
            CorruptLog: a record is none.
        """
        if self._filter is not None:
            stored = [one for one in stored if is_wanted(one, self._filter)]
        was_collecting = gc.isenabled()
        gc.disable()  # once for all of them: see `unpack_body`
        try:
            found = page_of(stored, self._unpack_page) if len(stored) > 1 else None
            return found or [_envelope_of(one, path, self._decode) for one in stored]
        finally:
            if was_collecting:
                gc.enable()


ANY: Final = Unpacker()
"""For events of any type."""


def envelope_of(stored: Stored, path: str) -> EventEnvelope:
    """The event of one record.

    Raises:
        CorruptLog: it is none.
    """
    return next(iter(ANY.envelopes_of([stored], path)))


def readable(stored: Stored, path: str) -> EventEnvelope | None:
    """The event, for a dead letter; `None` for a record that is none."""
    try:
        return envelope_of(stored, path)
    except CorruptLog:
        return None


def is_wanted(stored: Stored, wanted: EventFilter) -> bool:
    """Whether a filter wants the event of the record; one that is none is met when it is unpacked.

    Its payload stays packed: it may be of another type than the reader's.
    """
    with suppress(ValueError):
        _, columns = columns_of(stored.record, 1, stored.seq_no, packed_columns)
        return bool(wanted.rows(columns, 1))
    return True


def _envelope_of(stored: Stored, path: str, decode: Decode) -> EventEnvelope:
    seq_no, stored_ns, record = stored
    try:
        envelope = _plain_envelope_of(stored, decode)
        if envelope is None:
            [envelope] = unpack_body(record, 1, seq_no, decode, stored_ns)
    except RecursionError as error:
        raise mismatch(error, seq_no, path) from error
    except msgspec.ValidationError as error:
        if "`$[4]" not in str(error):
            raise _not_ours(seq_no, path) from error
        raise mismatch(error, seq_no, path) from error
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        raise _not_ours(seq_no, path) from error
    return envelope


def _plain_envelope_of(stored: Stored, decode: Decode) -> EventEnvelope | None:
    """The event of most records, in a third of the time; `None` for any other one."""
    seq_no, stored_ns, record = stored
    if record[:1] != FIVE_COLUMNS:
        return None
    columns = decode(record)
    if not isinstance(columns, list | tuple) or len(columns) != 5:
        return None
    ids, timestamps, keys, headers, events = columns
    keys, headers = text_column(keys), text_column(headers)
    if (
        type(ids) is bytes
        and len(ids) == ID_BYTES
        and type(timestamps) is bytes
        and len(timestamps) == TIMESTAMP_BYTES
        and type(events) is list
        and len(events) == 1
        and events[0] is not DELETION
        and headers is None
        and is_column_of(keys, 1)
    ):
        row = Row(events[0], seq_no, Columns(seq_no, ids, timestamps, keys, None, stored_ns))
        return cast("EventEnvelope", row)
    return None


def bytes_in(stored: Sequence[Stored]) -> int:
    """The size of what a driver read."""
    return sum(map(len, map(_record, stored)))


def _not_ours(seq_no: int, path: str) -> CorruptLog:
    return CorruptLog(
        f"event {seq_no} of the log {path} was not written by eventlog; read on after it, and keep"
        " other programs from writing there",
        path=path,
        seq_no=seq_no,
        last_seq_no=seq_no,
    )


def bytes_of(records: Iterable[bytes]) -> int:
    """Their size together."""
    return sum(map(len, records))
