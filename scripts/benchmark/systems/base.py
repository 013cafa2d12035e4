"""What a system has to offer to be measured, and what its two ends report.

A system object is made in the runner's process and travels to the children by pickle. It says how
to produce and how to consume; the tasks that it gets say how many, take the times, and check::

    consumer                                   producer
    --------                                   --------
    open, task.ready()
                                               open, task.wait_for_start()     the clock starts
    receive and decode task.count events       send task.count events, until all are handed over
    task.received(last)                        task.sent()
    close                                      close
"""

from __future__ import annotations

import importlib.util
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from benchmark import events
from benchmark.events import Event
from benchmark.processes import Link
from benchmark.settings import Durability


class Ready(NamedTuple):
    """This end is open, and waits."""


class Sent(NamedTuple):
    """What a producer reports: monotonic times in nanoseconds, CPU time in seconds."""

    start_ns: int
    end_ns: int
    cpu_s: float


class Received(NamedTuple):
    """What a consumer reports: the time of its last event, and the CPU time for all of them."""

    end_ns: int
    cpu_s: float


class ProducerTask:
    """One producer's work in one run."""

    def __init__(self, link: Link, count: int) -> None:
        self._link = link
        self.count = count
        self._start_ns = 0
        self._start_cpu_s = 0.0

    def wait_for_start(self) -> None:
        """Say that everything is open, and wait for all the others; then the clock starts."""
        events.distinct_events()
        self._link.say(Ready())
        self._link.wait()
        self._start_cpu_s = time.process_time()
        self._start_ns = time.monotonic_ns()

    def events(self) -> Iterator[Event]:
        """What to send, one by one."""
        return events.events(self.count)

    def chunks(self, size: int) -> Iterator[list[Event]]:
        """What to send, as lists."""
        return events.chunks(self.count, size)

    def sent(self) -> None:
        """Report that no event is left in this process."""
        end_ns = time.monotonic_ns()
        self._link.say(Sent(self._start_ns, end_ns, time.process_time() - self._start_cpu_s))


class ConsumerTask:
    """One consumer's work in one run; each consumer gets all the events."""

    def __init__(self, link: Link, count: int, index: int) -> None:
        self._link = link
        self.count = count
        self.index = index
        self._start_cpu_s = 0.0

    def ready(self) -> None:
        """Say that from now on every event will be received."""
        self._start_cpu_s = time.process_time()
        self._link.say(Ready())

    def received(self, last: object) -> None:
        """Report that `last`, the last event, is there; wait until nobody looks at this process.

        Raises:
            AssertionError: it is not the last event.
        """
        end_ns = time.monotonic_ns()
        cpu_s = time.process_time() - self._start_cpu_s
        assert last == events.event_at(self.count - 1), f"received {last!r} at the end"
        self._link.say(Received(end_ns, cpu_s))
        self._link.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a system is set up, and for how many consumers.

    `directory` is empty, and is removed after the run.
    """

    directory: str
    consumers: int
    durability: Durability = "disk"


class System(ABC):
    """One way from a producer to consumers, set up for one run."""

    needs: ClassVar[str | None] = None
    """The module without which it cannot be measured."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be measured here; `None` if it can."""
        if cls.needs is not None and importlib.util.find_spec(cls.needs) is None:
            return f"{cls.needs} is not installed"
        return None

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """In the runner's process, around a run: the ids of processes of the system's own."""
        yield []

    @abstractmethod
    def produce(self, task: ProducerTask) -> None:
        """In the producer's process: send every event to every consumer."""

    @abstractmethod
    def consume(self, task: ConsumerTask) -> None:
        """In a consumer's process: receive and decode every event."""

    def run_producer(self, link: Link, count: int) -> None:
        """The role of the producer's process; consumers are open before it opens anything."""
        link.wait()
        self.produce(ProducerTask(link, count))

    def run_consumer(self, link: Link, count: int, index: int) -> None:
        """The role of a consumer's process."""
        self.consume(ConsumerTask(link, count, index))
