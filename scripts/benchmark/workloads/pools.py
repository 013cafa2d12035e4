"""Pools of four processes: handlers that take no time, and handlers of a millisecond."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

from benchmark import events
from benchmark.pools import ALL, ONE_AT_A_TIME
from benchmark.pools.base import PROCESSES, HandleAll, PoolSystem, nothing, one_millisecond
from benchmark.pools.log_pool import LogPool
from benchmark.pools.multiprocessing_pool import MultiprocessingPool
from benchmark.pools.redis_group import RedisGroup
from benchmark.results import Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.workloads.base import Column, Contender, Workload

WARM_UP: Final = 2_000
TRIVIAL: Final = 40_000
SLOW: Final = (50, 500, 4_000)
BARE: Final = "bare loop"


class TrivialHandlers(Workload):
    """See the module."""

    name = "pool"
    title = "Pool of four processes, trivial handlers"
    note = "Ours are stored, leased and acknowledged; the log's time is part of it."
    columns = (Column("events_s", "events/s"),)
    goals = (
        *(
            RatioGoal(
                text=f"{LogPool.name} / {peer.name}",
                figure="events_s",
                of=LogPool.name,
                to=peer.name,
                at_least=8.0,
            )
            for peer in ONE_AT_A_TIME
        ),
        RatioGoal(
            text=f"{LogPool.name} / {RedisGroup.name}",
            figure="events_s",
            of=LogPool.name,
            to=RedisGroup.name,
            at_least=4.0,
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            Contender(system.name, partial(trivial, system, settings), system.missing())
            for system in ALL
        ]


def trivial(system: type[PoolSystem], settings: Settings) -> Figures:
    """Events a second, with handlers that take no time."""
    count = settings.scaled(TRIVIAL)
    work = list(events.events(count))
    with (
        settings.new_directory() as directory,
        system().opened(directory, nothing) as handle_all,
    ):
        handle_all(work[:WARM_UP])
        start_s = time.perf_counter()
        handle_all(work)
        return {"events_s": count / (time.perf_counter() - start_s)}


class SlowHandlers(Workload):
    """See the module."""

    name = "pool-cpu"
    title = "Pool of four processes, handlers of 1 ms CPU"
    note = f"{BARE}: the handler in as many processes, each told its share before."
    columns = tuple(Column(f"events_s_{count}", f"events/s of {count}") for count in SLOW)
    goals = tuple(
        RatioGoal(
            text=f"{LogPool.name} / {BARE}, {count} events",
            figure=f"events_s_{count}",
            of=LogPool.name,
            to=BARE,
            at_least=0.97,
        )
        for count in SLOW
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            Contender(BARE, partial(_bare, settings)),
            *(
                Contender(system.name, partial(_slow, system, settings), system.missing())
                for system in (LogPool, MultiprocessingPool)
            ),
        ]


def _slow(system: type[PoolSystem], settings: Settings) -> Figures:
    with (
        settings.new_directory() as directory,
        system().opened(directory, one_millisecond) as handle_all,
    ):
        handle_all(range(200))
        return {f"events_s_{count}": _rate(handle_all, count) for count in SLOW}


def _rate(handle_all: HandleAll, count: int) -> float:
    start_s = time.perf_counter()
    handle_all(range(count))
    return count / (time.perf_counter() - start_s)


def _bare(settings: Settings) -> Figures:
    context = multiprocessing.get_context("spawn")
    pipes = []
    processes = []
    for _ in range(PROCESSES):
        ours, theirs = context.Pipe()
        process = context.Process(target=_loop, args=(theirs,), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)

    def handle_all(work: Sequence[int]) -> None:
        for index, pipe in enumerate(pipes):
            pipe.send(len(range(index, len(work), PROCESSES)))
        for pipe in pipes:
            pipe.recv()

    handle_all(range(200))
    figures = {f"events_s_{count}": _rate(handle_all, count) for count in SLOW}
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()
    return figures


def _loop(pipe: Connection[Any, Any]) -> None:
    """A process of the bare loop: told how many, it says when they are done."""
    while (count := pipe.recv()) is not None:
        for number in range(count):
            one_millisecond(number)
        pipe.send(count)
