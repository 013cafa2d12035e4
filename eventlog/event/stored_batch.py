"""`StoredBatch`: events of one log on their way into another, their payloads as they are stored.

A mirror reads with `type=msgspec.Raw` and appends what it read. A whole batch is packed column by
column, without a look at its events; whatever takes events one by one finds envelopes whose
payloads are `PackedPayload`. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, cast

import msgpack
import msgspec

from eventlog.errors import InvalidArgumentType
from eventlog.event.cause import pack_causes
from eventlog.event.envelope import TIMESTAMP_BYTES, EventEnvelope, Row, TextColumn
from eventlog.event.payload import PackedPayload
from eventlog.event.record_batch import (
    FIVE_COLUMNS,
    FLAG_CAUSED,
    FLAG_DUE,
    FLAG_KEYED,
    SIX_COLUMNS,
    PackedBatch,
    key_hash,
)

_ARRAY_32: Final = struct.Struct(">BI")


class StoredBatch:
    """Events as a stream with `type=msgspec.Raw` hands them out, to be appended elsewhere."""

    def __init__(self, envelopes: Sequence[EventEnvelope]) -> None:
        if not envelopes or type(envelopes[0].event) is not msgspec.Raw:
            raise InvalidArgumentType("a stored batch is made of events read as msgspec.Raw")
        self._envelopes = envelopes

    def __len__(self) -> int:
        return len(self._envelopes)

    def __iter__(self) -> Iterator[EventEnvelope]:
        """The envelopes, each with a payload that is appended as it is."""
        for one in self._envelopes:
            row = Row(PackedPayload(one.event), one.seq_no, one.columns)
            yield cast("EventEnvelope", row)

    def fits(self, event_bytes_max: int) -> bool:
        """Whether none of its events is larger than that, as a log counts it."""
        columns = self._envelopes[0].columns
        if self._envelopes[-1].columns is columns:
            # Most are far from the limit, which is seen without a look at each key.
            payload = max(len(memoryview(one.event)) for one in self._envelopes)
            texts = _packed(columns.packed_keys), _packed(columns.packed_headers)
            if payload + sum(map(len, texts)) <= event_bytes_max:
                return True
        return max(map(event_bytes, self._envelopes)) <= event_bytes_max

    def packed(self) -> PackedBatch | None:
        """The batch as a producer packs it; `None` if these are not all events of one batch."""
        first, count = self._envelopes[0], len(self._envelopes)
        columns = first.columns
        if (
            self._envelopes[-1].columns is not columns
            or columns.base_seq_no != first.seq_no
            or len(columns.timestamps) != count * TIMESTAMP_BYTES
        ):
            return None
        pack = msgpack.packb
        keys, headers = _packed(columns.packed_keys), _packed(columns.packed_headers)
        causes = pack_causes(
            {row: one.cause for row, one in enumerate(self._envelopes) if one.cause is not None}
            if columns.causes
            else {}
        )
        body = [
            _packed_hashes(columns.keys),
            columns.due or b"",
            SIX_COLUMNS if columns.causes else FIVE_COLUMNS,
            pack(columns.ids),
            pack(columns.timestamps),
            keys,
            headers,
            _ARRAY_32.pack(0xDD, count),
            *[one.event for one in self._envelopes],
        ]
        if columns.causes:
            body.append(pack(causes))
        flags = (FLAG_KEYED if body[0] else 0) | (FLAG_CAUSED if columns.causes else 0)
        if columns.due is not None:
            flags |= FLAG_DUE
        return PackedBatch(count, flags, 0, b"".join(body))


def _packed(column: TextColumn) -> bytes:
    return column if isinstance(column, bytes) else msgpack.packb(column)


def _packed_hashes(keys: list[str | None] | None) -> bytes:
    if keys is None:
        return b""
    hashes = {key: key_hash(key) for key in set(keys)}  # keys come again and again
    return struct.pack(f"<{len(keys)}I", *map(hashes.__getitem__, keys))


def event_bytes(envelope: EventEnvelope) -> int:
    """The size of an event that was read as `msgspec.Raw`, as a log counts it."""
    size = len(memoryview(envelope.event))
    if envelope.key is not None:
        size += len(envelope.key.encode())
    if envelope.headers is not None:
        size += len(msgpack.packb(envelope.headers))
    return size


def identity(envelope: EventEnvelope) -> tuple[object, ...]:
    """All of an event, read as `msgspec.Raw`, that is the same in every log that holds it."""
    return (
        envelope.id_bytes,
        envelope.timestamp_ns,
        envelope.key,
        envelope.headers,
        bytes(envelope.event),
        envelope.cause,
        envelope.due,
    )
