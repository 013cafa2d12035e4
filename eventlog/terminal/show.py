"""Payloads and reports as text."""

from __future__ import annotations

import json
from typing import Any, Final

from eventlog.event.arrays import fields_of as array_fields
from eventlog.tools.transfer.json_lines import encode, from_plain, to_plain

JSON_FORMS: Final = """[bold]JSON[/]

  What JSON lacks is an object with one name: {"$bytes": base64},
  {"$datetime": time}, {"$uuid": id}, {"$float": "nan"},
  {"$array": \\[dtype, sizes, base64]}, or {"$map": pairs} for keys that are
  not texts or begin with $. What `tail --json`, `export` and
  `workers dead show --json` print is what `append`, `import` and
  `workers dead retry --event` read.
"""
"""A part of the help of commands that read or print events."""


def to_json(value: Any) -> str:
    """One line of strict JSON; what a report holds beside that is its text."""
    return encode(value)


def plain_event(event: Any) -> Any:
    """A payload as values that JSON has, in the forms that `eventlog export` uses."""
    return to_plain(event)


def event_of_json(text: str) -> Any:
    """The payload that a text of JSON means, in the same forms; other JSON is as it stands.

    Raises:
        ValueError: it is no JSON, or such a form is wrong.
    """
    value = json.loads(text)
    try:
        return from_plain(value, strict=False)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a value beside a name with $ is wrong: {error}") from error


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
