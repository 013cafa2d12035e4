"""One program on every engine: how fast it stores, how soon an event arrives, how a kill shows.

Servers are real ones, started for the run as `scripts/servers` starts them, with what they store on
the disk as they are set up by default. Killed is what serves the log: the writer of a directory, or
the server, which is started again at once, as a supervisor does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Final, NamedTuple

import eventlog.blocking
from benchmark import events
from benchmark.results import Figures
from benchmark.settings import Settings
from benchmark.systems.log import end_writer_of
from benchmark.workloads.base import Column, Contender, Workload
from tests import servers

LISTS: Final = 40
"""Lists of `LIST_EVENTS` that are stored, and read again."""
LIST_EVENTS: Final = 1000
ONE_BY_ONE: Final = 300
PAUSE_S: Final = 0.002


class _Engine(NamedTuple):
    name: str
    server: str | None = None
    """One of the servers that tests start; `None` for a directory."""


ENGINES: Final = (
    _Engine("directory"),
    _Engine("Redis (Valkey)", "valkey"),
    _Engine("NATS JetStream", "nats"),
    _Engine("Apache Kafka", "kafka"),
)


class Choice(Workload):
    """See the module."""

    name = "choice"
    title = "The same program on every engine, dicts of 150 bytes"
    note = (
        "Stored and read: lists of 1,000, blocking. Append: one, from the call to its number."
        " Arrives: one, from the call to a stream in the same process. Killed: until the first"
        " append after a SIGKILL of what serves the log is answered."
    )
    columns = (
        Column("stored_s", "stored/s"),
        Column("read_s", "read/s"),
        Column("append_ms", "append ms", 2),
        Column("arrives_ms", "arrives ms", 2),
        Column("killed_ms", "killed ms", 0),
    )
    goals = ()

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            Contender(one.name, partial(_measure, one, settings), _missing(one)) for one in ENGINES
        ]


def _missing(engine: _Engine) -> str | None:
    return (engine.server and servers.reason_to_skip(engine.server)) or None


def _measure(engine: _Engine, settings: Settings) -> Figures:
    with settings.new_directory() as directory:
        if engine.server is None:
            path = os.path.join(directory, "log")
            try:
                return _figures(path, None, settings)
            finally:
                end_writer_of(path)
        with servers.own(engine.server, Path(directory)) as server:
            return _figures(f"{server.address}log", server, settings)


def _figures(address: str, server: servers.Server | None, settings: Settings) -> Figures:
    count = settings.scaled(LISTS) * LIST_EVENTS
    with eventlog.blocking.open(address) as log:
        start_s = time.perf_counter()
        for chunk in events.chunks(count, LIST_EVENTS):
            log.append_many(chunk)
        stored_s = time.perf_counter() - start_s
        start_s = time.perf_counter()
        with log.follow(eventlog.SeekPosition.BEGINNING) as stream:
            left = count
            for batch in stream.batches():
                left -= len([one.event for one in batch])
                if not left:
                    break
        read_s = time.perf_counter() - start_s
        appends, arrivals = _one_by_one(log, settings.scaled(ONE_BY_ONE))
        killed_s = _killed(log, server)
    return {
        "stored_s": count / stored_s,
        "read_s": count / read_s,
        "append_ms": median(appends) * 1e3,
        "arrives_ms": median(arrivals) * 1e3,
        "killed_ms": killed_s * 1e3,
    }


def _one_by_one(log: eventlog.blocking.EventLog, count: int) -> tuple[list[float], list[float]]:
    """Seconds of each append, and from its call to the stream."""
    calls: list[float] = []
    answers: list[float] = []
    arrivals: list[float] = []
    with log.follow() as stream:

        def listen() -> None:
            for _ in range(count):
                next(stream)
                arrivals.append(time.perf_counter())

        listener = Thread(target=listen)
        listener.start()
        for event in events.events(count):
            calls.append(time.perf_counter())
            log.append(event)
            answers.append(time.perf_counter())
            time.sleep(PAUSE_S)
        listener.join()
    return (
        [end - start for start, end in zip(calls, answers, strict=True)],
        [end - start for start, end in zip(calls, arrivals, strict=True)],
    )


def _killed(log: eventlog.blocking.EventLog, server: servers.Server | None) -> float:
    """Seconds until an append is answered again."""
    start_s = time.perf_counter()
    if server is None:
        writer_pid = log.status().writer_pid
        assert writer_pid is not None
        os.kill(writer_pid, signal.SIGKILL)
    else:
        server.kill()
        server.start()
    log.append(1)
    return time.perf_counter() - start_s
