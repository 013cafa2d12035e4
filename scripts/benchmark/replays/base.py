"""What a way of reading has to offer to be measured, and how its time is taken."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from benchmark import events
from benchmark.processes import Link


class Stored(NamedTuple):
    """The same events in the three forms that are read, in one directory."""

    directory: str
    events: int

    @property
    def log(self) -> str:
        """The log."""
        return os.path.join(self.directory, "log")

    @property
    def messages(self) -> str:
        """A file of packed events, one after the other."""
        return os.path.join(self.directory, "messages")

    @property
    def database(self) -> str:
        """A database of SQLite."""
        return os.path.join(self.directory, "events.sqlite")


class Replayed(NamedTuple):
    """What a child reports."""

    wall_s: float
    cpu_s: float


class Stopwatch:
    """Wall and CPU time of this process, from its making."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._start_s = time.perf_counter()

    def stop(self, last: Any, stored: Stored, link: Link) -> None:
        """Report the time, if `last` is the last event."""
        wall_s = time.perf_counter() - self._start_s
        cpu_s = time.process_time() - self._cpu_s
        assert last == events.event_at(stored.events - 1), f"the last event read is {last!r}"
        link.say(Replayed(wall_s, cpu_s))


class Replay(ABC):
    """A way to read all the events, in a process of its own."""

    name: ClassVar[str]

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be measured here; `None` if it can."""
        return None

    @abstractmethod
    def read(self, stored: Stored, link: Link) -> None:
        """Open, start a `Stopwatch`, read and decode every event, stop it with the last one."""
