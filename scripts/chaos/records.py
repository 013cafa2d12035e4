"""What a role writes down of what it saw, in files of its own beside the logs.

A record is a line, written with one system call at the moment it is true, so that a SIGKILL leaves
whole lines only, and at most the last truth is missing::

    producer   acked COUNTER SEQ_NO          the log said that the event is stored
    consumer   begin                         a subscription starts
               saw SEQ_NO PRODUCER COUNTER
               acking SEQ_NO                 before it is said to the log
               acked SEQ_NO                  after
               opened NANOSECONDS            a follower of a log that is deleted now and then
               deleted NANOSECONDS           it was told so
               refused ERROR                 there was no log to open, or something else
    pool       got SEQ_NO PRODUCER COUNTER PID     what the handler was given
               did SEQ_NO KEY NANOSECONDS PID      it ran, at this time
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


class Record:
    """One role's file; each incarnation of a role has its own."""

    def __init__(self, path: str | Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)

    def note(self, *words: object) -> None:
        """Write one line."""
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())

    def note_all(self, lines: list[tuple[object, ...]]) -> None:
        """Write several lines at once."""
        text = "".join(" ".join(map(str, words)) + "\n" for words in lines)
        os.write(self._descriptor, text.encode())


def lines_of(path: Path) -> Iterator[list[str]]:
    """The words of each whole line."""
    with path.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield line.split()
