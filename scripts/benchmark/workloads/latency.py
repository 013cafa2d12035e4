"""From one send to its receipt, at a thousand events a second: how long it takes.

The producer sends a dict of 150 bytes each millisecond, and notes when; the consumer notes when it
has decoded it. Both clocks are the machine's monotonic one. The log stores each event (one `append`
each), the others don't. Once on a machine with nothing else to do, once while as many processes as
there are processors calculate without end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from benchmark import measures
from benchmark.processes import Crew, Link
from benchmark.results import FOREIGN_PERCENT, Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.base import MakeSystem, why_missing
from benchmark.systems.faster_fifo_queue import FasterFifo
from benchmark.systems.iceoryx2_service import Iceoryx2, Iceoryx2Spinning
from benchmark.systems.jetstream import JetStream
from benchmark.systems.kafka_protocol import KafkaProtocol
from benchmark.systems.log import BlockingLog, TrioLog
from benchmark.systems.log_spin import SpinningLog
from benchmark.systems.msgpack_pipe import MsgpackPipe
from benchmark.systems.multiprocessing_queue import MultiprocessingQueue
from benchmark.systems.raw_pipe import RawPipe
from benchmark.systems.redis_streams import RedisStreams
from benchmark.systems.zenoh_session import Zenoh
from benchmark.systems.zmq_sockets import ZmqPushPull, ZmqSpinning
from benchmark.workloads.base import Column, Contender, Workload
from benchmark.workloads.transfer import transfer

RATE_PER_S: Final = 1000.0
COUNT: Final = 2000
UNDER_LOAD: Final = ", under load"


class _Entry(NamedTuple):
    name: str
    make: MakeSystem
    is_loaded_too: bool = True


ENTRIES: Final = (
    _Entry("log, trio", TrioLog),
    _Entry("log, blocking", BlockingLog),
    _Entry("log, spinning", SpinningLog, is_loaded_too=False),
    _Entry("multiprocessing.Queue", MultiprocessingQueue),
    _Entry("multiprocessing.Pipe", MsgpackPipe),
    _Entry("pyzmq", ZmqPushPull),
    _Entry("pyzmq, spinning", ZmqSpinning, is_loaded_too=False),
    _Entry("faster-fifo", FasterFifo),
    _Entry("iceoryx2, woken", Iceoryx2),
    _Entry("iceoryx2, spinning", Iceoryx2Spinning, is_loaded_too=False),
    _Entry("zenoh", Zenoh),
    _Entry("Redis Streams", RedisStreams, is_loaded_too=False),
    _Entry("JetStream", JetStream, is_loaded_too=False),
    _Entry("Kafka protocol (Tansu)", KafkaProtocol, is_loaded_too=False),
    _Entry("limit: raw pipe's wake-up", RawPipe),
)


def _goals(of: str, to: str, at_most: float | None) -> list[RatioGoal]:
    return [
        RatioGoal(
            text=f"{of} / {to}: {figure.removesuffix('_us')}",
            figure=figure,
            of=of,
            to=to,
            at_most=at_most,
            less_is_better=True,
        )
        for figure in ("p50_us", "p99_us")
    ]


class Latency(Workload):
    """See the module."""

    name = "latency"
    title = "From send to receipt, at 1,000 dicts of 150 bytes a second"
    note = "Microseconds. Under load: as many processes as processors calculate meanwhile."
    columns = (
        Column("p50_us", "p50 us"),
        Column("p99_us", "p99 us"),
        Column("p999_us", "p99.9 us"),
        Column("cpu_us", "all CPU us", 1),
        Column(FOREIGN_PERCENT, "foreign %"),
    )
    compared = "p50_us"
    goals = (
        *_goals("log, trio", "pyzmq", 1.0),
        *_goals("log, blocking", "pyzmq", 1.0),
        *_goals("log, spinning", "iceoryx2, spinning", 1.0),
        *_goals("log, blocking", "limit: raw pipe's wake-up", None),
        *_goals("log, blocking" + UNDER_LOAD, "pyzmq" + UNDER_LOAD, None),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        idle = [
            Contender(one.name, partial(_measure, one, settings), why_missing(one.make))
            for one in ENTRIES
        ]
        loaded = [
            Contender(
                one.name + UNDER_LOAD,
                partial(_measure_loaded, one, settings),
                why_missing(one.make),
            )
            for one in ENTRIES
            if one.is_loaded_too
        ]
        yield [*idle, *loaded]


def _measure(entry: _Entry, settings: Settings) -> Figures:
    run = transfer(entry.make, settings.scaled(COUNT), 1, settings, rate_per_s=RATE_PER_S)
    return {
        "p50_us": quantile(run.delays_ns, 0.5) / 1e3,
        "p99_us": quantile(run.delays_ns, 0.99) / 1e3,
        "p999_us": quantile(run.delays_ns, 0.999) / 1e3,
        "cpu_us": run.cpu_us,
        FOREIGN_PERCENT: run.foreign_share * 100,
    }


def _measure_loaded(entry: _Entry, settings: Settings) -> Figures:
    with Crew() as crew:
        members = [crew.start(f"load {index}", _calculate) for index in range(measures.cores())]
        crew.hear(*members)
        figures = dict(_measure(entry, settings))
        for member in members:
            member.process.terminate()
            member.has_ended = True
    del figures[FOREIGN_PERCENT]  # the load is meant
    return figures


def _calculate(link: Link) -> None:
    link.say("busy")
    while True:
        sum(range(1000))


def quantile(ordered: Sequence[int], share: float) -> int:
    """The value that so much of them does not exceed (the nearest rank)."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
