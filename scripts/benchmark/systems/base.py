"""What a system has to offer to be measured, and what its two ends report.

A system object is made in the runner's process and travels to the children by pickle. It says how
to produce and how to consume; the tasks that it gets say how many, take the times, and check::

    consumer                                   producer
    --------                                   --------
    open, task.ready()
                                               open, task.wait_for_start()     the clock starts
    for each of task.rounds(): receive one     send task.events(), until all are handed over
    task.received(last)                        task.sent()
    close                                      close
"""

from __future__ import annotations

import importlib.util
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

from benchmark.events import ORDERS, Event, Payload
from benchmark.processes import Link
from benchmark.settings import Durability


class Ready(NamedTuple):
    """This end is open, and waits."""


class Sent(NamedTuple):
    """What a producer reports: monotonic times in nanoseconds, CPU time in seconds.

    `sent_ns`: when each event was sent, where delays are asked for.
    """

    start_ns: int
    end_ns: int
    cpu_s: float
    sent_ns: list[int]


class Received(NamedTuple):
    """What a consumer reports: the time of its last event, and the CPU time for all of them.

    `received_ns`: when each event was there, where delays are asked for.
    """

    end_ns: int
    cpu_s: float
    received_ns: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the two ends of a run have to do: `count` events from each producer.

    With `rate_per_s`, each producer sends that many a second, and every delay is noted.
    """

    count: int
    payload: Payload = ORDERS
    producers: int = 1
    rate_per_s: float | None = None


class ProducerTask:
    """One producer's work in one run."""

    def __init__(self, link: Link, work: Work) -> None:
        self._link = link
        self._work = work
        self.count = work.count
        self.payload = work.payload
        self._start_ns = 0
        self._start_cpu_s = 0.0
        self._sent_ns: list[int] = []
        self._has_ended = False

    def wait_for_start(self) -> None:
        """Say that everything is open, and wait for all the others; then the clock starts."""
        self.payload.event_at(0)
        self._link.say(Ready())
        self._link.wait()
        self._start_cpu_s = time.process_time()
        self._start_ns = time.monotonic_ns()

    def events(self) -> Iterator[Event]:
        """What to send, one by one, each when its time has come."""
        events = self.payload.events(self.count)
        return events if self._work.rate_per_s is None else self._paced(events)

    def _paced(self, events: Iterator[Event]) -> Iterator[Event]:
        for event, wait_s in self.schedule():
            if wait_s > 0:
                time.sleep(wait_s)
            self.note_sent()
            yield event

    def schedule(self) -> Iterator[tuple[Event, float]]:
        """What to send, and how long to wait before; for those who can't sleep in `events`."""
        assert self._work.rate_per_s is not None
        for index, event in enumerate(self.payload.events(self.count)):
            due_ns = self._start_ns + int(index * 1e9 / self._work.rate_per_s)
            yield event, (due_ns - time.monotonic_ns()) / 1e9

    def note_sent(self) -> None:
        """Note that the next event is sent now."""
        self._sent_ns.append(time.monotonic_ns())

    @property
    def is_paced(self) -> bool:
        """Whether events have their times."""
        return self._work.rate_per_s is not None

    def chunks(self, size: int) -> Iterator[list[Event]]:
        """What to send, as lists."""
        return self.payload.chunks(self.count, size)

    def sent(self) -> None:
        """Report that no event is left in this process."""
        end_ns = time.monotonic_ns()
        cpu_s = time.process_time() - self._start_cpu_s
        self._link.say(Sent(self._start_ns, end_ns, cpu_s, self._sent_ns))

    def wait_for_end(self) -> None:
        """Stay until all is received, which systems need in which the rest goes with its sender."""
        if not self._has_ended:
            self._link.wait()
            self._has_ended = True


class ConsumerTask:
    """One consumer's work in one run; each consumer gets all the events of all producers."""

    def __init__(self, link: Link, work: Work, index: int) -> None:
        self._link = link
        self._work = work
        self.count = work.count * work.producers
        self.payload = work.payload
        self.index = index
        self.is_paced = work.rate_per_s is not None
        self._start_cpu_s = 0.0
        self._received_ns: list[int] = []

    def ready(self) -> None:
        """Say that from now on every event will be received."""
        self._start_cpu_s = time.process_time()
        self._link.say(Ready())

    def rounds(self) -> Iterator[object]:
        """One step for each event, to be taken before it is waited for (`for`, or first in `zip`).

        So the next step, or the end, is when an event has been received and decoded.
        """
        return iter(range(self.count)) if self._work.rate_per_s is None else self._noted_rounds()

    def _noted_rounds(self) -> Iterator[object]:
        note, now = self._received_ns.append, time.monotonic_ns
        for index in range(self.count):
            yield index
            note(now())

    def received(self, last: object) -> None:
        """Report that `last`, the last event, is there; wait until nobody looks at this process.

        Raises:
            AssertionError: it is not the last event of any producer.
        """
        end_ns = time.monotonic_ns()
        cpu_s = time.process_time() - self._start_cpu_s
        expected = self.payload.event_at(self._work.count - 1)
        assert last == expected, f"received {str(last)[:300]!r} at the end"
        self._link.say(Received(end_ns, cpu_s, self._received_ns))
        self._link.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a system is set up, and for how many consumers and which events.

    `directory` is empty, and is removed after the run.
    """

    directory: str
    consumers: int
    payload: Payload = ORDERS
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
        return None if cls.needs is None else first_missing(cls.needs)

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

    def run_producer(self, link: Link, work: Work) -> None:
        """The role of a producer's process; consumers are open before it opens anything."""
        link.wait()
        task = ProducerTask(link, work)
        self.produce(task)
        task.wait_for_end()  # the end of an interpreter is no part of the run

    def run_consumer(self, link: Link, work: Work, index: int) -> None:
        """The role of a consumer's process."""
        self.consume(ConsumerTask(link, work, index))


def first_missing(*modules: str) -> str | None:
    """What to say of the first of these that is not installed; `None` if all are."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    return None


MakeSystem = Callable[[Place], System]


def why_missing(make: MakeSystem) -> str | None:
    """Why what `make` makes cannot be measured here; `None` if it can."""
    made = make.func if isinstance(make, partial) else make
    assert isinstance(made, type)
    assert issubclass(made, System)
    return made.missing()
