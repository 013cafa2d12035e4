"""Lines of log of commands that stay: text, or JSON for what collects them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from eventlog.terminal.printing import clean_lines
from eventlog.terminal.show import to_json

CONTEXT: Final = ("worker",)
"""What records of ours may have beside the fields that all have."""


class LogFormat(StrEnum):
    """How a line of log looks."""

    text = "text"
    json = "json"


LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        help="Lines of log, on the standard error, as text or as one JSON object each.",
    ),
]


def formatter_of(
    kind: LogFormat, line: str, defaults: Mapping[str, Any] | None = None
) -> logging.Formatter:
    """What makes a line of a record: of that form if it is text; `defaults` are fields of it."""
    return JsonFormatter() if kind is LogFormat.json else CleanFormatter(line, defaults=defaults)


class CleanFormatter(logging.Formatter):
    """Log lines with nothing in them that a terminal obeys; tracebacks keep their lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return clean_lines(super().format(record))


class JsonFormatter(logging.Formatter):
    """A JSON object for each record: `time`, `level`, `logger`, `pid`, `message`.

    `worker` and `traceback` only where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object of a record, in one line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        fields.update({name: getattr(record, name) for name in CONTEXT if hasattr(record, name)})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return to_json(fields)
