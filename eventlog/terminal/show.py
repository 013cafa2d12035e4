"""Payloads and reports as text."""

from __future__ import annotations

from typing import Any

from eventlog.event.arrays import fields_of as array_fields
from eventlog.tools.transfer.json_lines import encode, to_plain


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
