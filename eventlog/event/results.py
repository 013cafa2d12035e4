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

from eventlog.event.cause import Cause
from eventlog.event.envelope import RANDOM_BITS, EventEnvelope, envelope_of, id_of

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

    A result that is an envelope sets key, headers and time itself; without a key of its own, it has
    the one of its source.
    """
    assert source.seq_no is not None, "an event that a group hands out has a number"
    cause = Cause(log_id, source.seq_no, group)
    source_ns, source_key, now_ns = source.timestamp_ns, source.key, time.time_ns()
    envelopes = []
    for place, result in enumerate(results):
        event, key, headers, timestamp_ns = result, None, None, now_ns
        if isinstance(result, EventEnvelope):
            event, key, headers = result.event, result.key, result.headers
            timestamp_ns = result.timestamp_ns
        envelopes.append(
            envelope_of(
                event,
                id_bytes=result_id(cause, source_ns, place),
                timestamp_ns=timestamp_ns,
                key=source_key if key is None else key,
                headers=headers,
                cause=cause,
            )
        )
    return envelopes
