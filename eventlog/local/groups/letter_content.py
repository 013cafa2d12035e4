"""What a dead letter says: a copy of its event, the error, and what is known of a death. Pure.

Members and pools pack it, and the writer never looks into it.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack

from eventlog.api.group import DeadLetter
from eventlog.event.cause import OneCause, packed_cause, unpacked_cause
from eventlog.event.due import checked_due, pack_due
from eventlog.event.envelope import TIMESTAMP_BYTES, Columns, EventEnvelope, envelopes_of
from eventlog.event.ids import new_id
from eventlog.event.moments import datetime_of
from eventlog.event.payload import DELETION, new_packer, unpack, with_packed_arrays
from eventlog.event.record_batch import take_deletions
from eventlog.local.groups.records import LetterStored

LETTER_FAULTS: Final = (msgpack.UnpackException, struct.error)
ERROR_BYTES_LEAST: Final = 500
"""So much of an error's text is kept, however little room a letter has."""
ROOM_BYTES: Final = 8
"""More than MessagePack needs beside a text."""


def fitting_letter(
    limit: int,
    envelope: EventEnvelope | None,
    *,
    error: str,
    traceback: str | None = None,
    log_lines: tuple[str, ...] = (),
    exit_code: int | None = None,
    peak_rss_bytes: int | None = None,
) -> bytes:
    """A letter of at most `limit` bytes; `envelope` is `None` if nobody can read the event.

    The copy of the event, which a retry runs when retention has deleted it, is left out last:
    first go the older log lines, then the beginning of the traceback and the end of the error.
    """
    letter: dict[str, Any] = {
        "error": error,
        "traceback": None,
        "exit_code": exit_code,
        "peak_rss_bytes": peak_rss_bytes,
        "log_lines": [],
    }
    pack = new_packer()
    copy = {} if envelope is None else _copy_of(envelope)
    if len(pack({**letter, **copy})) > limit:
        letter["error"] = _cut(error, ERROR_BYTES_LEAST)
    if copy and len(pack({**letter, **copy})) > limit:
        copy = {"key": copy["key"], "headers": copy["headers"]}
    if copy and len(pack({**letter, **copy})) > limit:
        copy = {}
    letter |= copy
    room = limit - len(pack(letter)) - ROOM_BYTES
    if traceback is not None and room > 0:
        letter["traceback"] = _cut_start(traceback, room)
        room -= len(letter["traceback"].encode())
    for line in reversed(log_lines):
        room -= len(line.encode()) + ROOM_BYTES
        if room < 0:
            break
        letter["log_lines"].insert(0, line)
    return pack(letter)


def corrected_letter(letter: bytes, event: Any) -> bytes:
    """The same letter with another event, which a retry runs in the place of the stored one."""
    fields: dict[str, Any] = unpack(letter)
    fields["event"] = with_packed_arrays(event)
    fields.setdefault("timestamp_ns", 0)
    fields.setdefault("id", new_id(fields["timestamp_ns"]))
    return new_packer()(fields)


def _copy_of(envelope: EventEnvelope) -> dict[str, Any]:
    copy = {
        "event": DELETION if envelope.is_deletion else with_packed_arrays(envelope.event),
        "key": envelope.key,
        "headers": envelope.headers,
        "id": envelope.id.bytes,
        "timestamp_ns": envelope.timestamp_ns,
    }
    if envelope.cause is not None:
        copy["cause"] = packed_cause(envelope.cause)
    if any(envelope.due):
        copy["due"] = list(envelope.due)
    return copy


def _cut(text: str, limit: int) -> str:
    """The beginning of a text, in so many bytes."""
    return text.encode()[:limit].decode(errors="ignore")


def _cut_start(text: str, limit: int) -> str:
    """The end of a text, in so many bytes."""
    return text.encode()[-limit:].decode(errors="ignore")


def envelope_of_letter(letter: bytes, seq_no: int) -> EventEnvelope | None:
    """The copy of the event that a letter holds; `None` if it holds none.

    Letters of earlier versions hold nil for no copy, and neither id nor time.
    """
    try:
        fields: dict[str, Any] = unpack(letter)
        event, id_bytes = fields.get("event"), fields.get("id")
        if event is None and id_bytes is None:
            return None
        timestamp_ns = fields.get("timestamp_ns") or 0
        packed = fields.get("cause")
        cause = None if packed is None else OneCause(unpacked_cause(packed))
        columns = Columns(
            seq_no,
            id_bytes or new_id(timestamp_ns),
            timestamp_ns.to_bytes(TIMESTAMP_BYTES, "little"),
            [fields.get("key")],
            [fields.get("headers")],
            causes=cause,
        )
        if (due := fields.get("due")) is not None:
            columns.due = pack_due({0: checked_due(*due)}, 1)
    except (ValueError, TypeError, AttributeError, OverflowError, *LETTER_FAULTS):
        return None
    events = [event]
    columns.deletions = take_deletions(events)
    (envelope,) = envelopes_of(events, columns)
    return envelope


def dead_letter_of(record: LetterStored) -> DeadLetter:
    """The dead letter that a record stores."""
    try:
        fields: dict[str, Any] = unpack(record.letter)
    except (ValueError, msgpack.UnpackException):
        fields = {"error": "its letter cannot be read"}
    event = fields.get("event")
    return DeadLetter(
        event=None if event is DELETION else event,
        key=fields.get("key"),
        seq_no=record.seq_no,
        error=str(fields.get("error")),
        traceback=fields.get("traceback"),
        deliveries=record.deliveries,
        group=record.group,
        headers=fields.get("headers"),
        exit_code=fields.get("exit_code"),
        peak_rss_bytes=fields.get("peak_rss_bytes"),
        log_lines=tuple(fields.get("log_lines") or ()),
        failed_at=datetime_of(record.failed_ns),
    )
