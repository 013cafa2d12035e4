"""One producer to one, two, four, eight and sixteen consumers, each of which gets every event.

Two numbers are of interest. *delivered/s* is how fast all consumers have everything. The other says
how much of its rate the producer keeps: on a machine with fewer processors than processes the plain
rate says little of the log, as whoever decodes four times as much leaves less time to the producer.
So, while the producer is sending (until its last event is stored, or handed over)::

    left  =  min(wall, cores * wall - CPU time of everybody but the producer)
    kept  =  (events / left) with four consumers  /  (events / left) with one

`left` is what the others left of the machine to the producer's one thread, used or not: time in
which the producer had to wait for somebody counts against it, and processes that are no part of the
run do not. It is at most the wall time, because one thread cannot use more. 1 means that consumers
cost the producer nothing but processor time. A producer that does nothing but send everything once
for each consumer gets a quarter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from benchmark import measures
from benchmark.results import FOREIGN_PERCENT, Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.base import MakeSystem, why_missing
from benchmark.systems.faster_fifo_queue import FasterFifo
from benchmark.systems.log import BlockingLog, TrioLog, blocking_log_batched, trio_log_batched
from benchmark.systems.msgpack_pipe import MsgpackPipe, pipe_batched
from benchmark.systems.multiprocessing_queue import MultiprocessingQueue
from benchmark.systems.zmq_sockets import ZmqPubSub, zmq_pub_sub_batched
from benchmark.workloads.base import FOREIGN_NOTE, Column, Contender, Workload
from benchmark.workloads.transfer import Transfer, transfer

DELIVERED: Final = "delivered_per_s"
PER_LEFT: Final = "events_per_left_s"
CONSUMERS: Final = (1, 2, 4, 8, 16)
COMPARED: Final = (1, 4, 8)
"""Numbers of consumers for which everybody is measured; for the others, the main ones are."""
FOR_ALL: Final = ("log", "pyzmq")
LEFT_SHARE_MIN: Final = 0.02
"""Share of the wall time; a rate for less than that would say nothing."""


class _Entry(NamedTuple):
    name: str
    make: MakeSystem
    deliveries: int
    """Events times consumers: a second or two's worth, however many consumers there are."""


ENTRIES: Final = (
    _Entry("log, trio, event by event", TrioLog, 1_000_000),
    _Entry("log, blocking, event by event", BlockingLog, 1_000_000),
    _Entry("log, trio, batches", trio_log_batched, 1_500_000),
    _Entry("log, blocking, batches", blocking_log_batched, 1_500_000),
    _Entry("multiprocessing.Queue", MultiprocessingQueue, 200_000),
    _Entry("multiprocessing.Pipe, event by event", MsgpackPipe, 400_000),
    _Entry("multiprocessing.Pipe, batched by hand", pipe_batched, 1_000_000),
    _Entry("pyzmq PUB/SUB, event by event", ZmqPubSub, 500_000),
    _Entry("pyzmq PUB/SUB, batched by hand", zmq_pub_sub_batched, 1_000_000),
    _Entry("faster-fifo, a queue each", FasterFifo, 150_000),
)
BATCHED: Final = ("multiprocessing.Pipe, batched by hand", "pyzmq PUB/SUB, batched by hand")


def _named(name: str, consumers: int) -> str:
    return f"to {consumers}: {name}"


def _goals(consumers: int) -> Iterator[RatioGoal]:
    for client in ("trio", "blocking"):
        of = _named(f"log, {client}, batches", consumers)
        yield RatioGoal(
            text=f"{of} / the best peer batched by hand",
            figure=DELIVERED,
            of=of,
            to=tuple(_named(name, consumers) for name in BATCHED),
            at_least=1.3,
        )
        of = _named(f"log, {client}, event by event", consumers)
        yield RatioGoal(
            text=f"{of} / pyzmq PUB/SUB",
            figure=DELIVERED,
            of=of,
            to=_named("pyzmq PUB/SUB, event by event", consumers),
            at_least=2.0,
        )


class FanOut(Workload):
    """See the module."""

    name = "fan-out"
    title = "One producer to 1, 2, 4, 8 and 16 consumers, dicts of 150 bytes"
    note = (
        "delivered/s: events, until all consumers have all; sent/s: until the producer is rid of"
        " all. us: CPU time for each event sent; all us: of all processes. left: CPU seconds that"
        " all others leave to the producer while it sends, min(wall, cores * wall - theirs). "
        + FOREIGN_NOTE
    )
    columns = (
        Column(DELIVERED, "delivered/s"),
        Column("sent_per_s", "sent/s"),
        Column("cpu_us", "all us", 2),
        Column("producer_cpu_us", "producer us", 2),
        Column(PER_LEFT, "sent / left s"),
        Column(FOREIGN_PERCENT, "foreign %"),
    )
    goals = (
        *_goals(4),
        *_goals(8),
        *(
            RatioGoal(
                text=f"{entry.name}: sent / left s, to 4 / to 1",
                figure=PER_LEFT,
                of=_named(entry.name, 4),
                to=_named(entry.name, 1),
                at_least=0.5,
            )
            for entry in ENTRIES[:4]
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            Contender(
                _named(entry.name, consumers),
                partial(_measure, entry, consumers, settings),
                why_missing(entry.make),
            )
            for consumers in CONSUMERS
            for entry in ENTRIES
            if consumers in COMPARED or entry.name.startswith(FOR_ALL)
        ]


def _measure(entry: _Entry, consumers: int, settings: Settings) -> Figures:
    # One consumer and the producer share the machine as two consumers do.
    count = settings.scaled(entry.deliveries // max(consumers, 2))
    run = transfer(entry.make, count, consumers, settings)
    left_s = cpu_left_s(run, measures.cores())
    return {
        DELIVERED: run.count / run.delivering_s,
        "sent_per_s": run.count / run.sending_s,
        "cpu_us": run.cpu_us,
        "producer_cpu_us": run.producer_cpu_s / run.count * 1e6,
        FOREIGN_PERCENT: run.foreign_share * 100,
        **({PER_LEFT: run.count / left_s} if left_s > LEFT_SHARE_MIN * run.sending_s else {}),
    }


def cpu_left_s(run: Transfer, cores: int) -> float:
    """The CPU time that the others left to the producer while it was sending; see the module."""
    left_s = cores * run.sending_s - run.others_cpu_while_sending_s
    # The samples of the clocks lie a little outside of the sending; keep rounding from zero.
    return max(min(left_s, run.sending_s), 1e-6)
