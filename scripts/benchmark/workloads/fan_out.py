"""One producer to four consumers, each of which gets every event, held against one to one.

The goal: to four subscribers, the producer keeps more than half of its one-subscriber rate per unit
of CPU time left to it. On a machine with fewer processors than processes the plain rate says little
of the log: whoever decodes four times as much leaves less time to the producer. So, while the
producer is sending (from its first send until its last event is stored, or handed over)::

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
from benchmark.systems.log import BlockingLog, TrioLog, trio_log_batched
from benchmark.systems.msgpack_pipe import MsgpackPipe
from benchmark.systems.multiprocessing_queue import MultiprocessingQueue
from benchmark.systems.zmq_sockets import ZmqPubSub
from benchmark.workloads.base import FOREIGN_NOTE, Column, Contender, Workload
from benchmark.workloads.transfer import MakeSystem, Transfer, transfer

FIGURE: Final = "events_per_left_s"
CONSUMERS: Final = (1, 4)


class _Entry(NamedTuple):
    name: str
    make: MakeSystem
    events: int
    missing: str | None = None
    kept_at_least: float | None = None


ENTRIES: Final = (
    _Entry("log, trio, event by event", TrioLog, 600_000, kept_at_least=0.5),
    _Entry("log, blocking, event by event", BlockingLog, 600_000, kept_at_least=0.5),
    _Entry("log, trio, batches", trio_log_batched, 1_000_000, kept_at_least=0.5),
    _Entry("multiprocessing.Queue", MultiprocessingQueue, 100_000),
    _Entry("pipe with msgpack", MsgpackPipe, 150_000),
    _Entry("pyzmq, PUB to SUB", ZmqPubSub, 200_000, ZmqPubSub.missing()),
)


def _contender_name(entry: _Entry, consumers: int) -> str:
    return f"{entry.name}, to {consumers}"


class FanOut(Workload):
    """See the module."""

    name = "fan-out"
    title = "One producer to one and to four consumers"
    note = (
        "sent/s: until the producer is rid of all; delivered/s: until all consumers have all. CPU"
        " time for each event sent. left: CPU seconds that all others leave to the"
        " producer while it sends, min(wall, cores * wall - theirs). " + FOREIGN_NOTE
    )
    columns = (
        Column("sent_per_s", "sent/s"),
        Column("delivered_per_s", "delivered/s"),
        Column("producer_cpu_us", "producer us", 2),
        Column("others_cpu_us", "others us", 2),
        Column("left_s", "left s", 2),
        Column(FIGURE, "sent / left s"),
        Column(FOREIGN_PERCENT, "foreign %"),
    )
    goals = (
        *(
            RatioGoal(
                text=f"{entry.name}: sent / left s, to 4 / to 1",
                figure=FIGURE,
                of=_contender_name(entry, 4),
                to=_contender_name(entry, 1),
                at_least=entry.kept_at_least,
            )
            for entry in ENTRIES
        ),
        *(
            RatioGoal(
                text=f"log, trio, event by event / {entry.name}: delivered/s, to 4",
                figure="delivered_per_s",
                of=_contender_name(ENTRIES[0], 4),
                to=_contender_name(entry, 4),
            )
            for entry in ENTRIES[3:]
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            Contender(
                _contender_name(entry, consumers),
                partial(_measure, entry, consumers, settings),
                entry.missing,
            )
            for entry in ENTRIES
            for consumers in CONSUMERS
        ]


def _measure(entry: _Entry, consumers: int, settings: Settings) -> Figures:
    run = transfer(entry.make, settings.scaled(entry.events), consumers, settings)
    left_s = cpu_left_s(run, measures.cores())
    others_cpu_s = run.consumers_cpu_s + run.own_cpu_s
    return {
        "sent_per_s": run.count / run.sending_s,
        "delivered_per_s": run.count / run.delivering_s,
        "producer_cpu_us": run.producer_cpu_s / run.count * 1e6,
        "others_cpu_us": others_cpu_s / run.count * 1e6,
        "left_s": left_s,
        FIGURE: run.count / left_s,
        FOREIGN_PERCENT: run.foreign_share * 100,
    }


def cpu_left_s(run: Transfer, cores: int) -> float:
    """The CPU time that the others left to the producer while it was sending; see the module."""
    left_s = cores * run.sending_s - run.others_cpu_while_sending_s
    # The samples of the clocks lie a little outside of the sending; keep rounding from zero.
    return max(min(left_s, run.sending_s), 1e-6)
