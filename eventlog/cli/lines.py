"""An envelope as one line: for a pipe, for a terminal, as JSON, or as `--format` says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import datetime
from string import Formatter
from typing import Any, Final

from rich.text import Text

from eventlog.errors import InvalidArgument
from eventlog.event.envelope import EventEnvelope
from eventlog.terminal.fields import FIELDS, Piece, inside
from eventlog.terminal.printing import clean, is_terminal
from eventlog.terminal.show import event_text, to_json
from eventlog.tools.transfer.json_lines import fields_of

Line = Callable[[EventEnvelope], str]
LOCAL_TIME: Final = "%Y-%m-%d %H:%M:%S"
_FIELD: Final = re.compile(r"(\w+)((?:\.[^.\[\]]+|\[[^\[\]]+\])*)")
_PIECE: Final = re.compile(r"\.([^.\[\]]+)|\[([^\[\]]+)\]")


def line_for(*, as_json: bool, template: str | None, full: bool) -> Line:
    """The function that makes a line of an envelope.

    A terminal gets time and key too, cut to its width unless `full`; a pipe gets what it always
    got: the number, a tab, and the whole event, but of arrays only dtype and sizes.

    Raises:
        InvalidArgument: the template is wrong.
    """
    if as_json:
        return json_line
    if template is not None:
        return Template(template).line
    if is_terminal():
        return full_line if full else cut_line
    return pipe_line


def json_line(envelope: EventEnvelope) -> str:
    """A JSON object with all fields."""
    fields = fields_of(envelope)
    event = fields.pop("event")
    return to_json({**fields, "key": envelope.key, "headers": envelope.headers, "event": event})


def pipe_line(envelope: EventEnvelope) -> str:
    """Number and event, with a tab between them."""
    return f"{envelope.seq_no}\t{_event(envelope)}"


def terminal_line(envelope: EventEnvelope) -> str:
    """Number, time of here, key and event, for people."""
    stored, key = envelope.stored_at, envelope.key
    time = "-" if stored is None else _local(stored)
    shown = "-" if key is None else clean(key)
    return f"{envelope.seq_no}  {time}  {shown}  {_event(envelope)}"


def full_line(envelope: EventEnvelope) -> str:
    """The same, with the times at which groups may hand the event out, if it has any."""
    moments = {"not before": envelope.not_before, "expires": envelope.expires}
    times = [f"{name} {_local(one)}" for name, one in moments.items() if one is not None]
    return terminal_line(envelope) + (f"  ({', '.join(times)})" if times else "")


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():{LOCAL_TIME}}"


def cut_line(envelope: EventEnvelope) -> str:
    """A `terminal_line`, as far as the terminal is wide."""
    width = shutil.get_terminal_size().columns
    line = terminal_line(envelope).expandtabs()
    text = Text(line[: 4 * width])  # more are never shown, and a long event costs no time
    text.truncate(width, overflow="ellipsis")
    return text.plain


def _event(envelope: EventEnvelope) -> str:
    payload = envelope.event
    return clean(payload) if isinstance(payload, str) else event_text(payload)


class Template:
    """A line with fields in braces: `{seq_no}`, `{stored_at:%H:%M:%S}`, `{event.order[0]}`."""

    def __init__(self, template: str) -> None:
        self._template = template
        try:
            parts = list(Formatter().parse(template))
            self._parts = [
                (literal, None if name is None else _getter(name, conversion), spec or "")
                for literal, name, spec, conversion in parts
            ]
        except (ValueError, KeyError) as error:
            raise self._wrong(error) from None

    def _wrong(self, reason: Exception) -> InvalidArgument:
        names = ", ".join(f"{{{name}}}" for name in FIELDS)
        return InvalidArgument(
            f"the format {self._template!r} is no good ({reason}): use {names}, a part such as"
            " {event.a} or {event[0]}, and a time as in {stored_at:%H:%M:%S}"
        )

    def line(self, envelope: EventEnvelope) -> str:
        """The line of an envelope.

        Raises:
            InvalidArgument: a value has no such form.
        """
        try:
            return "".join(
                literal + ("" if get is None else _spelled(get(envelope), spec))
                for literal, get, spec in self._parts
            )
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            raise self._wrong(error) from None


def _getter(name: str, conversion: str | None) -> Callable[[EventEnvelope], Any]:
    """The value of a field in braces.

    Raises:
        KeyError, ValueError: there is no such field, or no such conversion.
    """
    match = _FIELD.fullmatch(name)
    if match is None:
        raise ValueError(f"{{{name}}} is no field")
    if match[1] not in FIELDS:
        raise KeyError(match[1])
    if conversion not in (None, "r", "s", "a"):
        raise ValueError(f"there is no conversion !{conversion}")
    get = _whole(match[1]) if not match[2] else _part(match[1], match[2])
    return lambda envelope: Formatter().convert_field(get(envelope), conversion)


def _whole(name: str) -> Callable[[EventEnvelope], Any]:
    if name == "event":
        return _event
    if name == "headers":
        return _headers
    if name == "cause":
        return lambda envelope: str(envelope.cause)
    return lambda envelope: _value(FIELDS[name](envelope))


def _headers(envelope: EventEnvelope) -> str:
    headers = envelope.headers
    return str(headers and {clean(name): clean(value) for name, value in headers.items()})


def _part(name: str, path: str) -> Callable[[EventEnvelope], Any]:
    pieces: list[Piece] = [
        named or (int(place) if place.isdecimal() else place)
        for named, place in _PIECE.findall(path)
    ]

    def get(envelope: EventEnvelope) -> Any:
        value = FIELDS[name](envelope)
        for piece in pieces:
            value = inside(value, piece)
        return _value(value)

    return get


def _value(value: Any) -> Any:
    """Numbers and times as they are, for their forms; all else as text."""
    if isinstance(value, str):
        return clean(value)
    is_kept = value is None or isinstance(value, datetime | float)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_kept or is_number else event_text(value)


def _spelled(value: Any, spec: str) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone():{spec}}" if spec else value.isoformat()
    if value is None:
        return "None"  # no form fits it
    return format(value, spec)
