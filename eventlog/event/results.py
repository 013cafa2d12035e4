"""Results of handlers as events, with cause, key and an id that each run gives them again; pure.

A result that is stored in another log than its event may be stored twice: when a worker dies
between storing it and saying that its event is done. Both have the same id, so a reader of that
log can tell. The id is a UUID of version 7 (RFC 9562)::

    48 bits   milliseconds of the time of the event that the result came from
    74 bits   the first of the SHA-256 of
                  16 bytes   id of the log
                   8 bytes   number of the event, big-endian
                   4 bytes   place of the result among those of its event, from 0, big-endian
                  the rest   name of the group, in UTF-8
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.cause import Cause
from eventlog.event.due import NO_TIMES
from eventlog.event.envelope import EventEnvelope, Row, envelope_of
from eventlog.event.ids import RANDOM_BITS, id_of

_NUMBERS: Final = struct.Struct(">QI")
_HASHED_BYTES: Final = 10


def result_id(cause: Cause, timestamp_ns: int, place: int = 0) -> bytes:
    """The 16 bytes of a result's id; the time is that of the event that it came from."""
    hashed = hashlib.sha256(
        cause.log_id.bytes + _NUMBERS.pack(cause.seq_no, place) + cause.group.encode()
    ).digest()
    first = int.from_bytes(hashed[:_HASHED_BYTES], "big") >> (8 * _HASHED_BYTES - RANDOM_BITS)
    return id_of(timestamp_ns, first)


def envelopes_of_results(
    source: EventEnvelope, results: Iterable[Any], log_id: UUID, group: str
) -> list[EventEnvelope]:
    """What is stored of the results of event `source` of the log `log_id`.

    A result that is an envelope sets key, headers and times itself; without a key of its own, it
    has the one of its source.
    """
    cause = _cause_of(source, log_id, group)
    return [_envelope(source, one, cause, place) for place, one in enumerate(results)]


def add_results(
    builder: BatchBuilder, source: EventEnvelope, results: Iterable[Any], log_id: UUID, group: str
) -> None:
    """Add what `envelopes_of_results` gives to a batch.

    Raises:
        InvalidEvent, EventTooLarge: one of them cannot be stored; those before it were added.
    """
    cause = _cause_of(source, log_id, group)
    key, timestamp_ns = source.key, source.timestamp_ns
    for place, result in enumerate(results):
        if type(result) is Row:
            builder.add(_envelope(source, result, cause, place))
        else:  # the same, without an envelope: this runs for nearly every result
            row = builder.add(result, key)
            builder.note_result(row, result_id(cause, timestamp_ns, place), cause)


def _cause_of(source: EventEnvelope, log_id: UUID, group: str) -> Cause:
    assert source.seq_no is not None, "an event that a group hands out has a number"
    return Cause(log_id, source.seq_no, group)


def _envelope(source: EventEnvelope, result: Any, cause: Cause, place: int) -> EventEnvelope:
    own = result if isinstance(result, EventEnvelope) else None
    return envelope_of(
        result if own is None else own.event,
        id_bytes=result_id(cause, source.timestamp_ns, place),
        timestamp_ns=time.time_ns() if own is None else own.timestamp_ns,
        key=source.key if own is None or own.key is None else own.key,
        headers=None if own is None else own.headers,
        cause=cause,
        due=NO_TIMES if own is None else own.due,
    )
