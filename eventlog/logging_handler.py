"""`Handler`: a handler of the standard `logging` whose lines are events of a log.

::

    logger.error("no stock")  -->  Handler  --append-->  the log "lines"  <--  any number of readers
      (any thread, any process)      returns when the line is stored

Threads and processes share one log without a lock of their own: its writer puts the lines into one
order. A child of a fork opens the log anew at its first line.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from eventlog import blocking
from eventlog.api.engines import MEMORY, is_directory
from eventlog.config import Retention
from eventlog.errors import InvalidEvent, NotSupported
from eventlog.event.envelope import EventEnvelope

_STANDARD: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""The attributes that every record has; what else it has is from `extra=`."""
_FORMATTER: Final = logging.Formatter()


class Handler(logging.Handler):
    """Stores log records as events of the log at `path`, which it makes if there is none.

    The event has `level`, `logger`, `message`, `pid`, `thread`, `file`, `line` and `function`, and,
    where a record has them, `exception` and `stack` (texts) and `extra`. Its key is the logger's
    name, its header `level` the level's, its `timestamp` the time of the record. Formatters are not
    used: whoever reads the lines lays them out.

    `emit` returns when the line is stored, which survives a SIGKILL of this process or of the log's
    writer in the next moment. It waits while a writer starts, and for a log that is full if the log
    was made so. `max_bytes`: a new log keeps so many bytes, and the oldest lines go then, also
    those that nobody has read; without it, the log has the options that it was made with, and by
    default keeps everything.

    What cannot be stored is reported by `handleError`, as with other handlers, and never raised.

    Raises:
        NotSupported: `path` is the address of a log on a server.
        EventLogError: the log cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        level: int | str = logging.NOTSET,
        *,
        max_bytes: int | None = None,
    ) -> None:
        super().__init__(level)
        if not is_directory(os.fspath(path)) and not os.fspath(path).startswith(MEMORY):
            # The client of a server logs in threads of its own while it opens and appends.
            raise NotSupported(
                "a handler of log lines needs a log in a directory; copy it to a server with"
                " `eventlog mirror --follow`"
            )
        self._path = path
        self._retention = (
            None if max_bytes is None else Retention(max_bytes=max_bytes, keep_unacked=False)
        )
        self._later: deque[logging.LogRecord] = deque()
        """Records that came while their own thread was storing another one."""
        self._thread = _OfThread()
        self._opened: tuple[int, blocking.EventLog] | None = None
        """The process in which the log was opened, and the log."""
        self._shown = self._log().path
        """The path without a password."""

    def __repr__(self) -> str:
        """Where the lines go, and from which level on."""
        return f"<Handler {self._shown!r} ({logging.getLevelName(self.level)})>"

    def handle(self, record: logging.LogRecord) -> Any:
        """Store the record if the filters let it pass; threads that do so at once share a batch."""
        passed: Any = self.filter(record)
        if passed:  # from Python 3.12 on a filter may give another record
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Store the record, and return when it is stored.

        A record of a signal handler that interrupts this is stored right after. What eventlog
        itself says of this very append (that it waits for room) is for other handlers.
        """
        if self._thread.is_storing:
            if not f"{record.name}.".startswith("eventlog."):
                self._later.append(record)
            return
        self._store_with_later(record)

    def flush(self) -> None:
        """Store what a signal handler has logged in the last moment; all else is stored."""
        if not self._thread.is_storing:
            self._store_with_later(self._next_later())

    def close(self) -> None:
        """Close the log; a record that comes later opens it again."""
        self.flush()
        with self._open_lock():
            opened, self._opened = self._opened, None
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()
        super().close()

    def _store_with_later(self, record: logging.LogRecord | None) -> None:
        self._thread.is_storing = True
        try:
            while record is not None:
                self._store(record)
                record = self._next_later()
        finally:
            self._thread.is_storing = False

    def _next_later(self) -> logging.LogRecord | None:
        with suppress(IndexError):  # another thread may take it first
            return self._later.popleft()
        return None

    def _store(self, record: logging.LogRecord) -> None:
        try:
            log = self._log()
            try:
                log.append(_envelope_of(record))
            except InvalidEvent:
                log.append(_envelope_of(record, extra_as_text=True))
        except RecursionError:
            raise  # as the standard handlers do
        except Exception:  # noqa: BLE001 - whatever it is, logging never fails the program
            self.handleError(record)

    def _log(self) -> blocking.EventLog:
        """The log, opened in this process."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            opened = self._open()
        return opened[1]

    def _open(self) -> tuple[int, blocking.EventLog]:
        here = os.getpid()
        with self._open_lock():
            if self._opened is not None and self._opened[0] != here:
                self._opened = None  # of the parent, as the records are that wait
                self._later.clear()
            if self._opened is None:
                self._opened = here, blocking.open(self._path, retention=self._retention)
            return self._opened

    def _open_lock(self) -> threading.RLock:
        """The lock of `logging.Handler`, which a forked child finds free."""
        assert self.lock is not None
        return self.lock


class _OfThread(threading.local):
    is_storing = False


def _envelope_of(record: logging.LogRecord, *, extra_as_text: bool = False) -> EventEnvelope:
    event: dict[str, Any] = {
        "level": record.levelname,
        "logger": _text(record.name),
        "message": _text(record.getMessage()),
        "pid": record.process or os.getpid(),
        "thread": _text(record.threadName or ""),
        "file": _text(record.pathname),
        "line": record.lineno,
        "function": record.funcName or "",
    }
    if exception := _exception_of(record):
        event["exception"] = _text(exception)
    if record.stack_info:
        event["stack"] = _text(record.stack_info)
    if names := vars(record).keys() - _STANDARD:
        extra = {name: value for name, value in vars(record).items() if name in names}
        event["extra"] = _as_text(extra) if extra_as_text else extra
    return EventEnvelope(
        event,
        key=event["logger"],
        headers={"level": record.levelname},
        timestamp=datetime.fromtimestamp(record.created, UTC),
    )


def _as_text(extra: dict[str, Any]) -> dict[str, str]:
    return {_text(name): _text(repr(value)) for name, value in extra.items()}


def _exception_of(record: logging.LogRecord) -> str:
    if record.exc_text:  # another handler has made it
        return record.exc_text
    if record.exc_info and record.exc_info[0] is not None:
        return _FORMATTER.formatException(record.exc_info)
    return ""


def _text(text: str) -> str:
    """The text, with what is no valid one (of names of files, for example) as backslashes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
