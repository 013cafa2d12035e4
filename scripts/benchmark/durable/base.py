"""What a system has to offer to be measured storing events that survive a loss of power."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from benchmark.events import ORDERS, Event
from benchmark.systems.base import first_missing


class Clock:
    """Hands out events until the time is over, and counts them.

    An event that was asked for is stored before the next one is: so all that were handed out are.
    """

    def __init__(self, seconds: float) -> None:
        self.count = 0
        self._start_s = time.monotonic()
        self._end_s = self._start_s + seconds

    def events(self) -> Iterator[Event]:
        """One at a time; several may iterate at once."""
        for (event,) in self.chunks(1):
            yield event

    def chunks(self, size: int) -> Iterator[list[Event]]:
        """So many at a time."""
        while time.monotonic() < self._end_s:
            self.count += size
            yield [ORDERS.event_at(self.count - 1 - index) for index in range(size)]

    def elapsed_s(self) -> float:
        """Since the first event was to be had."""
        return time.monotonic() - self._start_s


class Durable(ABC):
    """A system, set up for one run in an empty directory; it travels to the child by pickle."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be measured here; `None` if it can."""
        return first_missing(*cls.needs)

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """In the runner's process, around a run: the ids of processes of the system's own."""
        yield []

    @abstractmethod
    def one_at_a_time(self, clock: Clock) -> None:
        """Store each event, and wait until it is safe, before the next one."""

    @abstractmethod
    def at_once(self, clock: Clock, size: int) -> None:
        """Store so many together, and wait until all are safe, before the next ones."""

    def concurrently(self, clock: Clock, size: int) -> None:
        """So many producers of one process, each with one event at a time.

        For most that is the same as `at_once`: their users batch by hand.
        """
        raise NotImplementedError
