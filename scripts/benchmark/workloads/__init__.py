"""What is measured: one module for each workload, in the order in which they are run."""

from __future__ import annotations

from benchmark.workloads.arrays import Arrays
from benchmark.workloads.base import Workload
from benchmark.workloads.choice import Choice
from benchmark.workloads.engines import EnginePools, Engines
from benchmark.workloads.fan_out import FanOut
from benchmark.workloads.idle import Idle
from benchmark.workloads.latency import Latency
from benchmark.workloads.lists import Lists
from benchmark.workloads.payloads import Payloads
from benchmark.workloads.pool_death import PoolDeath
from benchmark.workloads.pools import SlowHandlers, TrivialHandlers
from benchmark.workloads.producers import Producers
from benchmark.workloads.recovery import Recovery
from benchmark.workloads.replay import Replay
from benchmark.workloads.seek import Seek
from benchmark.workloads.segments import Segments
from benchmark.workloads.start_up import StartUp
from benchmark.workloads.sync import Sync
from benchmark.workloads.texts import Texts
from benchmark.workloads.throughput import Throughput
from benchmark.workloads.writer_memory import WriterMemory

WORKLOADS: tuple[type[Workload], ...] = (
    Throughput,
    Texts,
    Lists,
    Payloads,
    FanOut,
    Producers,
    Latency,
    Sync,
    Idle,
    Replay,
    Seek,
    StartUp,
    Recovery,
    Segments,
    WriterMemory,
    TrivialHandlers,
    SlowHandlers,
    Arrays,
    PoolDeath,
    Engines,
    EnginePools,
    Choice,
)
