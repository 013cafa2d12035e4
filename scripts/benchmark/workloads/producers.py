"""One, four and sixteen producers' processes, all into one log; one consumer gets everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmark.results import RatioGoal
from benchmark.settings import Settings
from benchmark.systems.faster_fifo_queue import FasterFifo, faster_fifo_lists
from benchmark.systems.log import BlockingLog, TrioLog, blocking_log_batched
from benchmark.systems.multiprocessing_queue import MultiprocessingQueue
from benchmark.systems.zmq_sockets import ZmqPushPull, zmq_batched
from benchmark.workloads.base import Contender, Workload
from benchmark.workloads.transfer import COLUMNS, FIGURE, NOTE, Entry, contender

NUMBERS: Final = (1, 4, 16)
SYSTEMS: Final = (
    ("log, trio, event by event", TrioLog, 800_000),
    ("log, blocking, event by event", BlockingLog, 800_000),
    ("log, blocking, batches", blocking_log_batched, 1_000_000),
    ("multiprocessing.Queue", MultiprocessingQueue, 200_000),
    ("pyzmq, event by event", ZmqPushPull, 400_000),
    ("pyzmq, batched by hand", zmq_batched, 1_000_000),
    ("faster-fifo, event by event", FasterFifo, 200_000),
    ("faster-fifo, batched by hand", faster_fifo_lists, 1_000_000),
)


def _named(system: str, number: int) -> str:
    return f"{number} to 1: {system}"


class Producers(Workload):
    """See the module."""

    name = "producers"
    title = "Many producers to one log"
    note = NOTE
    columns = COLUMNS
    goals = tuple(
        RatioGoal(
            text=f"{system}: 16 producers' total / one producer's",
            figure=FIGURE,
            of=_named(system, 16),
            to=_named(system, 1),
            at_least=0.9 if system.startswith("log") else None,
        )
        for system, _, _ in SYSTEMS
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            contender(Entry(_named(name, number), make, events, producers=number), settings)
            for number in NUMBERS
            for name, make, events in SYSTEMS
        ]
