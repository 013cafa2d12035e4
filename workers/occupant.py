"""A worker's process as its place knows it: what it has said, and why it was killed, if it was."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import Final

import anyio

from workers.child import WorkerSpec
from workers.control import ControlReader, new_pair, packed_message
from workers.process import WorkerProcess
from workers.timing import StartTimes

LOG_LINES_KEPT: Final = 20


class Occupant:
    """One process in the place."""

    def __init__(self, spec: WorkerSpec, *, has_timeout: bool) -> None:
        self.pipe, theirs = new_pair()
        self.times: StartTimes | None = None
        """When its handlers began, where they have a time limit."""
        try:
            self.times = StartTimes(spec.concurrency) if has_timeout else None
            times = None if self.times is None else self.times.descriptor
            self.process = WorkerProcess(spec, theirs, times)
        except BaseException:
            self._close_channels()
            raise
        finally:
            theirs.close()
        self.pipe.setblocking(False)
        self.answered = anyio.Event()
        """It is Python."""
        self.member_id = 0
        self.reader = ControlReader()
        self.became_ready = anyio.Event()
        self.is_retiring = False
        self.is_told_to_stop = False
        self.is_orderly = False
        self.has_handled = False
        self.start_error: tuple[str, str] | None = None
        self.kill_reason: str | None = None
        self.log_lines: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self.started_s = time.monotonic()
        self.ended = anyio.Event()

    def tell_to_stop(self) -> None:
        """Ask it to end in order."""
        self.is_told_to_stop = True
        with suppress(OSError):  # it has ended, or is so far behind that it will be killed
            self.pipe.send(packed_message("stop"))

    def _close_channels(self) -> None:
        self.pipe.close()
        if self.times is not None:
            self.times.close()

    def close(self) -> None:
        """Give back what is held of it, after its end."""
        self._close_channels()
        self.process.close()
