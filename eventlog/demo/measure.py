"""The figures of `eventlog bench`: one log, real processes, the public API."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, ClassVar

import multiprocess

from eventlog import SeekPosition, blocking
from eventlog.config import Durability
from eventlog.demo.main_job import stop_process

Figures = dict[str, tuple[float, str]]

EVENT = {
    "order": 123_456,
    "customer": "customer-0042",
    "items": ["a1", "b2", "c3"],
    "total": 99.5,
    "currency": "EUR",
    "note": "x" * 56,
    "paid": True,
}
APPENDS = 1000
PINGS = 1000
FAN_OUT = 4
SPIN_S = 0.01
"""Longer than the pause between two events, so that the reader never sleeps."""


def consume(log_path: str, last_seq_no: int, ready: Any, done: Any) -> None:
    """Read, in a process of its own, until event `last_seq_no`; say when."""
    with blocking.open(log_path) as log, log.follow() as stream:
        ready.release()
        for envelope in stream:
            if envelope.seq_no == last_seq_no:
                done.put(time.monotonic())
                return


def note_arrivals(log_path: str, count: int, spin: float, ready: Any, done: Any) -> None:
    """Note, in a process of its own, how long each event was on its way, in seconds."""
    delays = []
    with blocking.open(log_path) as log, log.follow(spin=spin) as stream:
        ready.release()
        for envelope in stream:
            delays.append(time.monotonic() - envelope.event)
            if len(delays) == count:
                done.put(delays)
                return


class Measurement:
    """All the figures of one log."""

    STEPS: ClassVar[tuple[str, ...]] = ("append", "publish", "many", "deliver", "delay", "replay")

    def __init__(self, log_path: str, events: int, durability: Durability) -> None:
        self._log_path = log_path
        self._events = events
        self._durability = durability
        self._context = multiprocess.get_context("spawn")

    def run(self, on_step: Callable[[str], None]) -> Figures:
        """Measure everything; `on_step` is called after each step."""
        figures: Figures = {}
        with blocking.open(self._log_path, durability=self._durability) as log:
            writer_pid = log.status().writer_pid
            try:
                for step in self.STEPS:
                    figures |= getattr(self, f"_{step}")(log)
                    on_step(step)
            finally:
                if writer_pid is not None:
                    stop_process(writer_pid)
        return figures

    def _append(self, log: blocking.EventLog) -> Figures:
        times = []
        for _ in range(APPENDS):
            start = time.monotonic()
            log.append(EVENT)
            times.append(time.monotonic() - start)
        return {"append, one at a time, median": (statistics.median(times) * 1e6, "us")}

    def _publish(self, log: blocking.EventLog) -> Figures:
        start = time.monotonic()
        self._publish_all(log)
        return {"publisher": (self._events / (time.monotonic() - start), "events/s")}

    def _publish_all(self, log: blocking.EventLog) -> None:
        with log.publisher() as publisher:
            for _ in range(self._events):
                publisher.send(EVENT)

    def _many(self, log: blocking.EventLog) -> Figures:
        thousand = [EVENT] * 1000
        start = time.monotonic()
        for _ in range(self._events // 1000):
            log.append_many(thousand)
        count = self._events // 1000 * 1000
        return {"append_many, 1,000 each": (count / (time.monotonic() - start), "events/s")}

    def _deliver(self, log: blocking.EventLog) -> Figures:
        return {
            f"publisher to {readers} process{'es' if readers > 1 else ''}": (
                self._delivered(log, readers),
                "events/s each",
            )
            for readers in (1, FAN_OUT)
        }

    def _delivered(self, log: blocking.EventLog, readers: int) -> float:
        """Events a second, from the first `send` until the last reader has read the last one."""
        last = (log.last_seq_no() or 0) + self._events
        ready, done = self._context.Semaphore(0), self._context.Queue()
        processes = [
            self._context.Process(target=consume, args=(self._log_path, last, ready, done))
            for _ in range(readers)
        ]
        with _running(processes):
            for _ in processes:
                ready.acquire()
            start = time.monotonic()
            self._publish_all(log)
            end: float = max(done.get() for _ in processes)
            return self._events / (end - start)

    def _delay(self, log: blocking.EventLog) -> Figures:
        return self._delays(log, "", 0) | self._delays(log, ", spinning", SPIN_S)

    def _delays(self, log: blocking.EventLog, how: str, spin: float) -> Figures:
        ready, done = self._context.Semaphore(0), self._context.Queue()
        arguments = (self._log_path, PINGS, spin, ready, done)
        with _running([self._context.Process(target=note_arrivals, args=arguments)]):
            ready.acquire()
            due = time.monotonic()
            for _ in range(PINGS):
                due += 0.001  # a thousand a second, whatever the last one took
                time.sleep(max(due - time.monotonic(), 0))
                log.append(time.monotonic())
            delays = sorted(done.get())
        return {
            f"one way at 1,000/s{how}, p50": (delays[len(delays) // 2] * 1e6, "us"),
            f"one way at 1,000/s{how}, p99": (delays[len(delays) * 99 // 100] * 1e6, "us"),
        }

    def _replay(self, log: blocking.EventLog) -> Figures:
        start, count = time.monotonic(), 0
        with log.subscribe("replay", SeekPosition.BEGINNING, follow=False) as stream:
            for _ in stream:
                count += 1
        return {"replay": (count / (time.monotonic() - start), "events/s")}


class _running:  # noqa: N801 - used as a function
    """The processes run in the block and are gone after it, however it ends."""

    def __init__(self, processes: list[Any]) -> None:
        self._processes = processes

    def __enter__(self) -> None:
        for process in self._processes:
            process.start()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for process in self._processes:
            if kind is not None:
                process.kill()
            process.join()
            process.close()
