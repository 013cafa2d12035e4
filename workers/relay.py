"""What a pool logs, and what its workers have logged, on its way to the program's handlers.

A handler may be slow (a disk, a network) or raise, and the pool's event loop waits for neither: one
thread of this process hands all records out, in order. The queue is bounded: a record that finds it
full is dropped, and how many were is logged once there is room again.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from typing import Any, Final

from workers import generations

RECORDS_MAX: Final = 10_000
FLUSH_S_MAX: Final = 0.1
EXIT_S_MAX: Final = 1.0
"""How long the end of the program waits for what is left."""


class Relay:
    """The queue and its thread, which lives while there is something to hand out."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: deque[tuple[logging.Logger, logging.LogRecord]] = deque()
        self._is_running = False
        self._generation = generations.generation
        self._dropped = 0

    def put(self, target: logging.Logger, record: logging.LogRecord) -> None:
        """Queue a record for the handlers of a logger; never waits for them."""
        if self._generation != generations.generation:
            self.__init__()  # type: ignore[misc]  # the thread is the parent's, perhaps the lock too
        with self._changed:
            if len(self._records) >= RECORDS_MAX:
                self._dropped += 1
                return
            self._records.append((target, record))
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._hand_out, name="pool log", daemon=True).start()

    @property
    def is_full(self) -> bool:
        """Whether a record would be dropped now."""
        return len(self._records) >= RECORDS_MAX

    def count_dropped(self) -> None:
        """Note a record that was not even made, as the queue is full."""
        with self._changed:
            self._dropped += 1

    def flush(self, limit_s: float = FLUSH_S_MAX) -> None:
        """Wait until all is handed out, but not long for slow handlers: they go on alone."""
        if self._generation == generations.generation:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_running, limit_s)

    def _hand_out(self) -> None:
        while True:
            with self._changed:
                if not self._records:
                    dropped, self._dropped = self._dropped, 0
                    if not dropped:
                        self._is_running = False
                        self._changed.notify_all()
                        return
                    self._records.append(_of_dropped(dropped))
                target, record = self._records.popleft()
            try:
                target.handle(record)
            except Exception:  # noqa: BLE001 - of whatever kind: it is the handler's own
                logging.Handler().handleError(record)  # as `logging.raiseExceptions` says


def _of_dropped(count: int) -> tuple[logging.Logger, logging.LogRecord]:
    target = logging.getLogger("workers")
    text = "%d log records of pools and workers were dropped: the program's handlers are too slow"
    return target, _record(target, logging.WARNING, text, count)


def _record(target: logging.Logger, level: int, text: str, *values: Any) -> logging.LogRecord:
    return target.makeRecord(target.name, level, __file__, 0, text, values, None)


RELAY: Final = Relay()
atexit.register(RELAY.flush, EXIT_S_MAX)


class RelayedLogger:
    """A logger whose handlers nobody waits for."""

    def __init__(self, name: str) -> None:
        self._target = logging.getLogger(name)

    def _log(self, level: int, text: str, *values: Any) -> None:
        if self._target.isEnabledFor(level):
            RELAY.put(self._target, _record(self._target, level, text, *values))

    def info(self, text: str, *values: Any) -> None:
        """Log what is in order."""
        self._log(logging.INFO, text, *values)

    def warning(self, text: str, *values: Any) -> None:
        """Log what somebody may have to look at."""
        self._log(logging.WARNING, text, *values)

    def error(self, text: str, *values: Any) -> None:
        """Log what went wrong."""
        self._log(logging.ERROR, text, *values)
