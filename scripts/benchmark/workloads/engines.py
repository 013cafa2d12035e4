"""Our API over servers, against the bare client that does the same work on the same server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from benchmark.engines import ALL
from benchmark.engines.base import Way
from benchmark.measures import cpu_s
from benchmark.pools.engine_pool import RedisPool
from benchmark.pools.redis_group import RedisGroup
from benchmark.results import Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.workloads.base import Column, Contender, Workload
from benchmark.workloads.pools import trivial

COUNT: Final = 40_000
PEERS: Final = (("Redis", "redis-py"), ("JetStream", "nats-py"))
AT_LEAST: Final = {"batches": 0.8, "event by event": 0.7}
STORED: Final = "stored_s"
READ: Final = "read_s"


class Engines(Workload):
    """See the module."""

    name = "engines"
    title = "Servers: dicts of 150 bytes stored, acknowledged, and read again"
    note = (
        "us: CPU of the client, and of the server, for each event that is stored and read. Batches"
        " are of 1000 events."
    )
    columns = (
        Column(STORED, "stored/s"),
        Column(READ, "read/s"),
        Column("store_us", "store us", 1),
        Column("read_us", "read us", 1),
        Column("server_us", "server us", 1),
    )
    goals = tuple(
        RatioGoal(
            text=f"eventlog on {engine} / {client}, {way}, {what}",
            figure=figure,
            of=f"eventlog on {engine}, {way}",
            to=f"{client}, {way}",
            at_least=at_least,
        )
        for engine, client in PEERS
        for way, at_least in AT_LEAST.items()
        for figure, what in ((STORED, "stored"), (READ, "read"))
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [Contender(way.name, partial(_measure, way, settings), way.missing()) for way in ALL]


def _measure(way: Way, settings: Settings) -> Figures:
    count = settings.scaled(COUNT)
    with settings.new_directory() as directory, way.served(directory) as (address, pid):
        before_s = cpu_s([pid])
        times = way.run(address, count)
        server_s = cpu_s([pid]) - before_s
    return {
        STORED: count / times.store_s,
        READ: count / times.read_s,
        "store_us": times.store_cpu_s / count * 1e6,
        "read_us": times.read_cpu_s / count * 1e6,
        "server_us": server_s / count * 1e6,
    }


class EnginePools(Workload):
    """A pool on a server, against a loop over the server's own groups, written by hand."""

    name = "engine-pool"
    title = "Pool of four processes on Redis, trivial handlers"
    note = "The loop by hand reads 256 at a time with XREADGROUP, and acknowledges them together."
    columns = (Column("events_s", "events/s"),)
    goals = (
        RatioGoal(
            text=f"{RedisPool.name} / {RedisGroup.name}",
            figure="events_s",
            of=RedisPool.name,
            to=RedisGroup.name,
            at_least=1.0,
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            Contender(system.name, partial(trivial, system, settings), system.missing())
            for system in (RedisPool, RedisGroup)
        ]
