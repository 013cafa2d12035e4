"""The fields of an exported event, and what makes an envelope of them again; pure.

    seq_no      its number in the log that it is from; not read
    id          16 bytes
    timestamp   nanoseconds since 1970
    key         str, or left out
    headers     map of str to str, or left out
    cause       what a result came from: map of log_id, seq_no and group, or left out
    not_before  when groups may hand it out: nanoseconds since 1970, or left out
    expires     when it expires: nanoseconds since 1970, or left out
    event       the payload

On import only `event` is needed; a missing `id` or `timestamp` is made then.
"""

from __future__ import annotations

import time
from typing import Any, Final

from eventlog.errors import InvalidEvent
from eventlog.event.cause import unpacked_cause
from eventlog.event.due import checked_due
from eventlog.event.envelope import EventEnvelope, envelope_of
from eventlog.event.ids import ID_BYTES, new_id
from eventlog.event.payload import with_packed_arrays
from eventlog.event.texts import check_headers, check_key

FIELDS: Final = (
    "seq_no",
    "id",
    "timestamp",
    "key",
    "headers",
    "cause",
    "not_before",
    "expires",
    "event",
)

TIMES: Final = ("not_before", "expires")
"""The fields of an envelope's `due`."""


def check_fields(record: object) -> dict[str, Any]:
    """The record itself, if its fields are those of an event.

    Raises:
        InvalidEvent: it is something else.
    """
    if not isinstance(record, dict):
        raise InvalidEvent(f"it is no object with the field 'event': {record!r:.60}")
    if "event" not in record:
        raise InvalidEvent(
            f"it has no field 'event', only {', '.join(map(repr, record)) or 'none'}"
        )
    for name in record:
        if name not in FIELDS:
            raise InvalidEvent(f"it has an unknown field {name!r}; known are {', '.join(FIELDS)}")
    return record


def envelope_from(record: dict[str, Any], id_bytes: bytes | None, ns: int | None) -> EventEnvelope:
    """The envelope, without a number.

    Raises:
        InvalidEvent, InvalidArgument, InvalidArgumentType: a field has no meaning.
    """
    if ns is None:
        ns = time.time_ns()
    if not 0 <= ns < 2**63:
        raise InvalidEvent(f"its timestamp is {ns} ns, outside of the years 1970 to 2262")
    if id_bytes is None:
        id_bytes = new_id(ns)
    if len(id_bytes) != ID_BYTES:
        raise InvalidEvent(f"its id has {len(id_bytes)} bytes instead of {ID_BYTES}")
    key, headers, cause = record.get("key"), record.get("headers"), record.get("cause")
    return envelope_of(
        with_packed_arrays(record["event"]),
        id_bytes=id_bytes,
        timestamp_ns=ns,
        key=None if key is None else check_key(key),
        headers=None if headers is None else check_headers(headers),
        cause=None if cause is None else unpacked_cause(cause),
        due=checked_due(_moment(record, "not_before"), _moment(record, "expires")),
    )


def _moment(record: dict[str, Any], name: str) -> int:
    """A time that the event has, in nanoseconds; 0 if it has none."""
    ns = record.get(name)
    if ns is None:
        return 0
    if isinstance(ns, bool) or not isinstance(ns, int) or not 0 < ns < 2**63:
        raise InvalidEvent(f"its {name} is {ns!r:.60} instead of nanoseconds since 1970")
    return ns
