"""Envelopes, positions and payloads as text, and text as positions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from eventlog.api.positions import SeekPosition
from eventlog.cli.printing import clean
from eventlog.errors import InvalidArgument
from eventlog.event.arrays import fields_of as array_fields
from eventlog.event.envelope import EventEnvelope
from eventlog.tools.transfer.json_lines import encode, fields_of, to_plain

NAMED = {
    "beginning": SeekPosition.BEGINNING,
    "last-acknowledged": SeekPosition.LAST_ACKNOWLEDGED,
    "latest": SeekPosition.LATEST,
}


def position_of(text: str) -> SeekPosition:
    """The position that a user means: a name, a sequence number, or an ISO time.

    Raises:
        InvalidArgument: it is none of these.
    """
    if text in NAMED:
        return NAMED[text]
    try:
        if text.isdecimal():
            return SeekPosition.sequence(int(text))
        moment = aware(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"{text!r} is no position: give beginning, latest, last-acknowledged, a sequence"
            " number, or a time such as 2026-01-31T12:00:00+00:00"
        ) from None
    return SeekPosition.timestamp(moment)


def aware(moment: datetime) -> datetime:
    """The time itself; one without a zone is of here.

    Raises:
        ValueError, OverflowError: it is outside of the years that a `datetime` can hold in UTC.
    """
    return moment.astimezone(UTC) if moment.tzinfo is None else moment


def to_json(value: Any) -> str:
    """One line of strict JSON; what a report holds beside that is its text."""
    return encode(value)


def plain_event(event: Any) -> Any:
    """A payload as values that JSON has, in the forms that `eventlog export` uses."""
    return to_plain(event)


def event_text(event: Any) -> str:
    """A payload as JSON, in the same forms; of arrays their dtype and sizes."""
    return encode(plain_event(_without_values(event)))


def _without_values(value: Any) -> Any:
    if isinstance(value, memoryview):
        dtype, sizes, _ = array_fields(value)
        return f"array {dtype} {tuple(sizes)}"
    if isinstance(value, dict):
        return {key: _without_values(inner) for key, inner in value.items()}
    return [_without_values(inner) for inner in value] if type(value) is list else value


def envelope_line(envelope: EventEnvelope, *, as_json: bool, template: str | None) -> str:
    """An envelope as one line."""
    if as_json:
        fields = fields_of(envelope)
        event = fields.pop("event")
        return encode({**fields, "key": envelope.key, "headers": envelope.headers, "event": event})
    payload = envelope.event
    text = clean(payload) if isinstance(payload, str) else event_text(payload)
    if template is None:
        return f"{envelope.seq_no}\t{text}"
    headers, key = envelope.headers, envelope.key
    named = {
        "seq_no": envelope.seq_no,
        "id": str(envelope.id),
        "timestamp": envelope.timestamp.isoformat(),
        "key": None if key is None else clean(key),
        "headers": headers and {clean(name): clean(value) for name, value in headers.items()},
        "cause": envelope.cause,
        "event": text,
    }
    try:
        return template.format(**named)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            f"the format {template!r} is no good ({error}): use {{seq_no}}, {{id}}, {{timestamp}},"
            " {key}, {headers}, {cause} and {event}"
        ) from None
