"""What a log's size costs: appending to it, and finding a place in it.

A log of a million small events, and with --long of ten and of a hundred million too. Measured at
each size: `append`, one at a time, and opening a subscription at a number, or at a time, somewhere
in the log, until its first event is there (fifty places; the median).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Final

import eventlog.blocking
from benchmark import measures
from benchmark.results import Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.log import served
from benchmark.workloads.base import Column, Contender, Workload
from benchmark.workloads.writer_memory import MIB
from eventlog import SeekPosition

SIZES: Final = {"1 million": 1_000_000, "10 million": 10_000_000, "100 million": 100_000_000}
LONG: Final = ("10 million", "100 million")
CHUNK_EVENTS: Final = 10_000
PLACES: Final = 50
APPENDS: Final = 2000


class Seek(Workload):
    """See the module."""

    name = "seek"
    title = "Appending and seeking in logs of many small events"
    note = "Events are small integers. 10 and 100 million: with --long only."
    columns = (
        Column("append_us", "us an append", 1),
        Column("number_us", "us to a number", 1),
        Column("time_us", "us to a time", 1),
        Column("batch_us", "us an event, append_many", 3),
        Column("writer_mib", "writer MiB", 2),
    )
    compared = "append_us"
    is_repeated = False
    is_charted = False
    goals = (
        RatioGoal(
            text="append: 100 million / 1 million",
            figure="append_us",
            of="100 million",
            to="1 million",
            at_most=1.1,
        ),
        *(
            RatioGoal(
                text=f"seek to a {what}: 100 million / 1 million",
                figure=f"{what}_us",
                of="100 million",
                to="1 million",
                at_most=3.0,
            )
            for what in ("number", "time")
        ),
        RatioGoal(
            text="writer's memory: 100 million / 1 million",
            figure="writer_mib",
            of="100 million",
            to="1 million",
            at_most=1.05,
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """One log, which grows from size to size."""
        with settings.new_directory() as directory:
            path = os.path.join(directory, "log")
            with served(path, settings.durability) as (log, writer_pid):
                measure = partial(_measure, log, writer_pid)
                yield [
                    Contender(
                        name,
                        partial(measure, settings.scaled(count)),
                        "only with --long" if name in LONG and not settings.is_long else None,
                    )
                    for name, count in SIZES.items()
                ]


def _measure(log: eventlog.blocking.EventLog, writer_pid: int, count: int) -> Figures:
    first_at = datetime.now(UTC)
    filled_s, stored = _fill(log, count)
    last_at = datetime.now(UTC)
    source = random.Random(count)
    numbers = [source.randrange(1, count) for _ in range(PLACES)]
    times = [first_at + (last_at - first_at) * source.random() for _ in range(PLACES)]
    writer_mib = measures.anonymous_bytes(writer_pid) / MIB
    return {
        "append_us": _median_us(partial(log.append, 7), APPENDS),
        "number_us": _seeks_us(log, [SeekPosition.sequence(number) for number in numbers]),
        "time_us": _seeks_us(log, [SeekPosition.timestamp(at) for at in times]),
        "batch_us": filled_s / max(stored, 1) * 1e6,
        "writer_mib": writer_mib,
    }


def _fill(log: eventlog.blocking.EventLog, count: int) -> tuple[float, int]:
    """Append until there are so many events; how long that took, and for how many."""
    before = log.last_seq_no() or 0
    start_s = time.perf_counter()
    for first in range(before, count, CHUNK_EVENTS):
        log.append_many(range(first, min(first + CHUNK_EVENTS, count)))
    return time.perf_counter() - start_s, count - before


def _seeks_us(log: eventlog.blocking.EventLog, positions: Sequence[SeekPosition]) -> float:
    places = iter(positions)

    def seek() -> None:
        with log.subscribe("seek", next(places), follow=False) as stream:
            next(iter(stream))

    return _median_us(seek, len(positions))


def _median_us(call: Callable[[], object], times: int) -> float:
    durations = []
    for _ in range(times):
        start_ns = time.perf_counter_ns()
        call()
        durations.append(time.perf_counter_ns() - start_ns)
    return median(durations) / 1e3
