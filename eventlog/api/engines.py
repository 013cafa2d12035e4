"""Which backend a path means."""

from __future__ import annotations

import os

from eventlog.api.log import EventLog
from eventlog.config import AskedOptions
from eventlog.errors import InvalidArgument, InvalidArgumentType

MEMORY = "memory:"


def open_log(path: str | os.PathLike[str], asked: AskedOptions) -> EventLog:
    """A handle, not entered yet, of the log that `path` names."""
    path = check_path(path)
    if path.startswith(MEMORY):
        from eventlog.memory.log import InMemoryEventLog

        return InMemoryEventLog(path.removeprefix(MEMORY), asked)
    from eventlog.local.log import LocalEventLog

    return LocalEventLog(path, asked)


def check_path(path: object) -> str:
    """The path as a string.

    Raises:
        InvalidArgumentType: it is no path.
        InvalidArgument: it is empty, holds what no name can, or names an unknown kind of log.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidArgumentType(f"the path of the log is {path!r}; give a string or a Path")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise InvalidArgumentType(f"the path of the log is {text!r}; give a string or a Path")
    if not text or "\0" in text:
        raise InvalidArgument(f"{text!r} is no path for a log; give a directory's name")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{text!r} is no path for a log: {error.reason}; give a directory's name"
        ) from None
    if "://" in text:
        scheme = text.partition("://")[0]
        raise InvalidArgument(
            f"there is no backend for {scheme}:// in this release; give a directory, or"
            ' "memory:NAME"'
        )
    return text
