"""Says in the program's own log that appends wait for room, and which consumer holds them up.

Only a log whose `on_full` is `"wait"`, and whose retention keeps what is not acknowledged, can make
an append wait so: others have no notice, and their pipes wait without a time limit.
"""

from __future__ import annotations

import time
from typing import Final

from eventlog.api.waiting import warn_of_wait
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.outbox import Outbox
from eventlog.local.storage.reading.reader import LogReader

AGAIN_S: Final = 60.0
"""How often one notice speaks."""


class RoomNotice:
    """The notice of one outbox; called whenever its pipe has been silent for `SLOW_S`."""

    def __init__(self, reader: LogReader, outbox: Outbox) -> None:
        self._reader = reader
        self._outbox = outbox
        self._waiting: OutBatch | None = None
        self._said_s: float | None = None

    def __call__(self) -> None:
        """Log a warning if the oldest batch is the same as at the last call."""
        oldest = next(iter(self._outbox.in_flight), None)
        before, self._waiting = self._waiting, oldest
        if oldest is None or oldest is not before:
            self._said_s = None if oldest is None else self._said_s
            return
        now_s = time.monotonic()
        if self._said_s is None or now_s - self._said_s > AGAIN_S:
            self._said_s = now_s
            warn_of_wait(self._reader.directory, _last_consumer(self._reader))


def notice_of(reader: LogReader, outbox: Outbox) -> RoomNotice | None:
    """The notice for an outbox; `None` if no append to the log waits for room."""
    options = reader.options
    may_wait = options.on_full == "wait" and options.retention.max_bytes is not None
    return RoomNotice(reader, outbox) if may_wait and options.retention.keep_unacked else None


def _last_consumer(reader: LogReader) -> tuple[str, int] | None:
    """The consumer that is furthest behind, and the first event that it has not acknowledged."""
    consumers = [(one.last_acked or 0, one.name) for one in reader.consumers()]
    if not consumers:
        return None
    behind, name = min(consumers)
    return name, behind + 1
