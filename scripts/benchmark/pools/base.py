"""What a pool has to offer to be measured, and the handlers that it is given."""

from __future__ import annotations

import importlib.util
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final

PROCESSES: Final = 4

Handler = Callable[[Any], None]
HandleAll = Callable[[Sequence[Any]], None]
"""Hands every event to a handler, and returns when all of them have returned."""


class PoolSystem(ABC):
    """One way to share events among processes."""

    name: ClassVar[str]
    needs: ClassVar[Sequence[str]] = ()
    """The modules without which it cannot be measured."""

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be measured here; `None` if it can."""
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"{' and '.join(absent)} not installed" if absent else None

    @abstractmethod
    def opened(self, directory: str, handler: Handler) -> AbstractContextManager[HandleAll]:
        """Start the processes; `directory` is empty and is removed afterwards."""


def nothing(event: object) -> None:
    """Takes no time, so that only the pool's own is left."""


def one_millisecond(event: object) -> None:
    """Uses a millisecond of CPU time."""
    end = time.thread_time_ns() + 1_000_000
    while time.thread_time_ns() < end:
        pass


def note_and_wait(path: str, event: object) -> None:
    """Say when the handler began, and where; then take a while."""
    line = f"{time.monotonic_ns()} {os.getpid()}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    time.sleep(0.05)
