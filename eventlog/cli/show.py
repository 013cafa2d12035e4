"""Envelopes, positions and payloads as text, and text as positions."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

from eventlog.envelope import EventEnvelope
from eventlog.errors import InvalidArgument
from eventlog.positions import SeekPosition

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
    if text.isdigit():
        return SeekPosition.sequence(int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(
            f"{text!r} is no position: give beginning, latest, last-acknowledged, a sequence"
            " number, or a time such as 2026-01-31T12:00:00+00:00"
        ) from None
    return SeekPosition.timestamp(moment.astimezone() if moment.tzinfo is None else moment)


def to_json(value: Any) -> str:
    """One line of JSON; bytes become {"$bytes": base64}, other values their text."""
    return json.dumps(value, ensure_ascii=False, default=_plain, separators=(", ", ": "))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    return str(value)


def with_text_keys(value: Any) -> Any:
    """JSON has only strings as keys; MessagePack has more."""
    if isinstance(value, dict):
        return {k if isinstance(k, str) else str(k): with_text_keys(v) for k, v in value.items()}
    return [with_text_keys(item) for item in value] if isinstance(value, list) else value


def envelope_fields(envelope: EventEnvelope) -> dict[str, Any]:
    """An envelope as `--json` and `--format` know it."""
    return {
        "seq_no": envelope.seq_no,
        "id": str(envelope.id),
        "timestamp": envelope.timestamp.isoformat(),
        "key": envelope.key,
        "headers": envelope.headers,
        "event": with_text_keys(envelope.event),
    }


def envelope_line(envelope: EventEnvelope, *, as_json: bool, template: str | None) -> str:
    """An envelope as one line."""
    fields = envelope_fields(envelope)
    if as_json:
        return to_json(fields)
    event = fields["event"]
    text = event if isinstance(event, str) else to_json(event)
    if template is None:
        return f"{envelope.seq_no}\t{text}"
    try:
        return template.format(**{**fields, "event": text})
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            f"the format {template!r} is no good ({error}): use {{seq_no}}, {{id}}, {{timestamp}},"
            " {key}, {headers} and {event}"
        ) from None
