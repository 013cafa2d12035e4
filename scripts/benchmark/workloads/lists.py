"""One producer to one consumer: lists of 50, 200 and 1,000 dicts that the program has anyway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from benchmark.results import RatioGoal
from benchmark.settings import Settings
from benchmark.systems.faster_fifo_queue import FasterFifo
from benchmark.systems.log_lists import (
    append_many_200,
    send_many_50,
    send_many_200,
    send_many_1000,
    trio_send_many_200,
)
from benchmark.systems.simple_queue import SimpleQueueLists
from benchmark.systems.zmq_sockets import ZmqPushPull
from benchmark.workloads.base import Contender, Workload
from benchmark.workloads.transfer import COLUMNS, FIGURE, NOTE, Entry, contender

EVENTS: Final = 1_000_000
SIZES: Final = (50, 200, 1000)
SENDS: Final = {50: send_many_50, 200: send_many_200, 1000: send_many_1000}


def _peers(size: int) -> list[Entry]:
    return [
        Entry(f"{size}: pyzmq", partial(ZmqPushPull, batch_events=size), EVENTS),
        Entry(f"{size}: faster-fifo", partial(FasterFifo, way="lists", size=size), EVENTS),
        Entry(f"{size}: SimpleQueue", partial(SimpleQueueLists, size=size), EVENTS),
    ]


ENTRIES: Final = (
    *(Entry(f"{size}: log, send_many", make, EVENTS) for size, make in SENDS.items()),
    Entry("200: log, trio, send_many", trio_send_many_200, EVENTS),
    Entry("200: log, append_many", append_many_200, EVENTS),
    *(entry for size in SIZES for entry in _peers(size)),
)


def _goal(of: str, to: str | tuple[str, ...], name: str, at_least: float | None) -> RatioGoal:
    return RatioGoal(text=f"{of} / {name}", figure=FIGURE, of=of, to=to, at_least=at_least)


class Lists(Workload):
    """See the module."""

    name = "lists"
    title = "One producer to one consumer, lists of dicts of 150 bytes"
    note = "Blocking unless said otherwise; the consumer uses `batches()`. " + NOTE
    columns = COLUMNS
    compared = FIGURE
    goals = (
        _goal("50: log, send_many", "50: pyzmq", "pyzmq", None),
        _goal("200: log, send_many", "200: pyzmq", "pyzmq", 1.0),
        _goal(
            "200: log, send_many",
            ("200: faster-fifo", "200: SimpleQueue"),
            "the best of two processes",
            0.8,
        ),
        _goal("200: log, trio, send_many", "200: pyzmq", "pyzmq", 1.0),
        _goal("1000: log, send_many", "1000: pyzmq", "pyzmq", 1.1),
        _goal("200: log, append_many", "200: log, send_many", "send_many", 0.7),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [contender(entry, settings) for entry in ENTRIES]
