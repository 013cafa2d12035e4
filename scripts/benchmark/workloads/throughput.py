"""One producer's process to one consumer's, as fast as they can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from benchmark.results import FOREIGN_PERCENT, Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.bare_loop import BareLoop, bare_loop_batched
from benchmark.systems.log import BlockingLog, TrioLog, blocking_log_batched, trio_log_batched
from benchmark.systems.msgpack_pipe import MsgpackPipe
from benchmark.systems.multiprocessing_queue import MultiprocessingQueue
from benchmark.systems.zmq_sockets import ZmqPushPull, zmq_batched
from benchmark.workloads.base import FOREIGN_NOTE, Column, Contender, Workload
from benchmark.workloads.transfer import MakeSystem, transfer

FIGURE: Final = "events_per_s"


class _Entry(NamedTuple):
    name: str
    make: MakeSystem
    events: int
    """One to two seconds' worth, so that starting and ending weigh little."""
    missing: str | None = None
    consumers: int = 1


ENTRIES: Final = (
    _Entry("log, trio, event by event", TrioLog, 1_000_000),
    _Entry("log, blocking, event by event", BlockingLog, 1_000_000),
    _Entry("log, trio, batches", trio_log_batched, 1_500_000),
    _Entry("log, blocking, batches", blocking_log_batched, 1_500_000),
    _Entry("multiprocessing.Queue", MultiprocessingQueue, 200_000),
    _Entry("pipe with msgpack", MsgpackPipe, 300_000),
    _Entry("pyzmq, event by event", ZmqPushPull, 400_000, ZmqPushPull.missing()),
    _Entry("pyzmq, batched by hand", zmq_batched, 1_000_000, ZmqPushPull.missing()),
    _Entry("msgpack alone, event by event", BareLoop, 1_000_000, consumers=0),
    _Entry("msgpack alone, batches", bare_loop_batched, 1_000_000, consumers=0),
)


def _by_event(to: str, at_least: float | None) -> list[RatioGoal]:
    return [
        RatioGoal(
            text=f"log, {client}, event by event / {to}",
            figure=FIGURE,
            of=f"log, {client}, event by event",
            to=to,
            at_least=at_least,
        )
        for client in ("trio", "blocking")
    ]


def _by_batch(to: str, at_least: float | None) -> list[RatioGoal]:
    return [
        RatioGoal(
            text=f"log, {client}, batches / {to}",
            figure=FIGURE,
            of=f"log, {client}, batches",
            to=to,
            at_least=at_least,
        )
        for client in ("trio", "blocking")
    ]


class Throughput(Workload):
    """See the module."""

    name = "throughput"
    title = "One producer to one consumer"
    note = (
        "Dicts of 150 bytes, decoded by the receiver; CPU time for each event. Batches: 1000 an"
        " append_many, 256 a message of pyzmq. msgpack alone packs and unpacks in one process. "
        + FOREIGN_NOTE
    )
    columns = (
        Column(FIGURE, "events/s"),
        Column("producer_cpu_us", "producer us", 2),
        Column("consumer_cpu_us", "consumer us", 2),
        Column("own_cpu_us", "writer us", 2),
        Column(FOREIGN_PERCENT, "foreign %"),
    )
    goals = (
        *_by_event("multiprocessing.Queue", 3.0),
        *_by_event("pyzmq, event by event", 1.5),
        *_by_event("pipe with msgpack", None),
        *_by_event("msgpack alone, event by event", None),
        *_by_batch("pyzmq, batched by hand", 1.0),
        *_by_batch("msgpack alone, batches", None),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            Contender(entry.name, partial(_measure, entry, settings), entry.missing)
            for entry in ENTRIES
        ]


def _measure(entry: _Entry, settings: Settings) -> Figures:
    run = transfer(entry.make, settings.scaled(entry.events), entry.consumers, settings)
    return {
        FIGURE: run.count / run.delivering_s,
        "producer_cpu_us": run.producer_cpu_s / run.count * 1e6,
        "consumer_cpu_us": run.consumers_cpu_s / run.count * 1e6,
        "own_cpu_us": run.own_cpu_s / run.count * 1e6,
        FOREIGN_PERCENT: run.foreign_share * 100,
    }
