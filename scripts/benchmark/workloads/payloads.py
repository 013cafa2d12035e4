"""One producer to one consumer: bytes, from 128 to a million, event by event.

From 64 KiB on, copying is what takes the time: the limit is memcpy, in and out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from benchmark.events import Payload
from benchmark.results import FOREIGN_PERCENT, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.base import MakeSystem
from benchmark.systems.faster_fifo_queue import FasterFifo
from benchmark.systems.iceoryx2_service import Iceoryx2Spinning
from benchmark.systems.log import BlockingLog, TrioLog
from benchmark.systems.log_views import ViewsLog
from benchmark.systems.memcpy import Memcpy
from benchmark.systems.msgpack_pipe import MsgpackPipe
from benchmark.systems.multiprocessing_queue import MultiprocessingQueue
from benchmark.systems.raw_pipe import RawPipe
from benchmark.systems.zenoh_session import Zenoh, ZenohShared
from benchmark.systems.zmq_sockets import ZmqPushPull
from benchmark.workloads.base import Column, Contender, Workload
from benchmark.workloads.transfer import FIGURE, NOTE, Entry, contender

KIB: Final = 1024
MIB: Final = 1024 * 1024
SIZES: Final = {"128 B": 128, "1 KiB": KIB, "64 KiB": 64 * KIB, "1 MiB": MIB}


class _System(NamedTuple):
    name: str
    make: MakeSystem
    counts: tuple[int, int, int, int]
    """Events of each size; 0 for none."""
    consumers: int = 1


SYSTEMS: Final = (
    _System("log, trio", TrioLog, (600_000, 300_000, 6_000, 400)),
    _System("log, blocking", BlockingLog, (600_000, 300_000, 6_000, 400)),
    _System("log, views", ViewsLog, (600_000, 300_000, 6_000, 400)),
    _System("multiprocessing.Queue", MultiprocessingQueue, (150_000, 150_000, 6_000, 400)),
    _System("multiprocessing.Pipe", MsgpackPipe, (200_000, 200_000, 6_000, 400)),
    _System("pyzmq", ZmqPushPull, (500_000, 300_000, 6_000, 400)),
    _System("faster-fifo", FasterFifo, (300_000, 200_000, 6_000, 400)),
    _System("iceoryx2, spinning", Iceoryx2Spinning, (150_000, 150_000, 6_000, 400)),
    _System("zenoh", Zenoh, (100_000, 100_000, 6_000, 400)),
    _System("zenoh, shared memory", ZenohShared, (0, 0, 6_000, 400)),
    _System("limit: raw pipe", RawPipe, (300_000, 200_000, 6_000, 400)),
    _System("limit: memcpy in and out", Memcpy, (2_000_000, 1_500_000, 60_000, 3_000), 0),
)


def _named(system: str, size: str) -> str:
    return f"{size}: {system}"


def _large_goals(size: str) -> list[RatioGoal]:
    of, limits = _named("log, blocking", size), _named("log, views", size)
    return [
        RatioGoal(
            text=f"{of}, copied out / {peer}",
            figure=FIGURE,
            of=of,
            to=_named(peer, size),
            at_least=1.0,
        )
        for peer in ("faster-fifo", "zenoh, shared memory")
    ] + [
        RatioGoal(
            text=f"{limits} / memcpy in and out",
            figure=FIGURE,
            of=limits,
            to=_named("limit: memcpy in and out", size),
            at_least=0.5,
        )
    ]


class Payloads(Workload):
    """See the module."""

    name = "payloads"
    title = "One producer to one consumer, bytes of four sizes, event by event"
    note = "Each event is copied out, but for the log's views. " + NOTE
    columns = (
        Column(FIGURE, "events/s"),
        Column("mib_per_s", "MiB/s"),
        Column("cpu_us", "all us", 2),
        Column(FOREIGN_PERCENT, "foreign %"),
    )
    goals = (
        *_large_goals("64 KiB"),
        *_large_goals("1 MiB"),
        *(
            RatioGoal(
                text=f"{_named('log, blocking', size)} / pyzmq",
                figure=FIGURE,
                of=_named("log, blocking", size),
                to=_named("pyzmq", size),
            )
            for size in SIZES
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            _with_bytes(contender(_entry(system, size, count), settings), SIZES[size])
            for index, size in enumerate(SIZES)
            for system in SYSTEMS
            if (count := system.counts[index])
        ]


def _entry(system: _System, size: str, count: int) -> Entry:
    return Entry(
        _named(system.name, size),
        system.make,
        count,
        consumers=system.consumers,
        payload=Payload(SIZES[size]),
    )


def _with_bytes(one: Contender, size: int) -> Contender:
    """The same, with its MiB a second."""

    def run() -> dict[str, float]:
        figures = dict(one.run())
        return figures | {"mib_per_s": figures[FIGURE] * size / MIB}

    return one._replace(run=run)
