"""Arrays of 256 KiB and 1 MiB for a pool of four processes, which calculate their FFT."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from benchmark.pools.array_pools import (
    ArraysInSharedMemory,
    ArraysPickled,
    ArraysThroughLog,
    transform,
)
from benchmark.pools.base import PoolSystem
from benchmark.results import Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.workloads.base import Column, Contender, Workload

ARRAYS: Final = 1000
DISTINCT: Final = 16
WARM_UP: Final = 16
SIZES: Final = {"256 KiB": 256 * 1024, "1 MiB": 1024 * 1024}


def _figure(size: str) -> str:
    return f"arrays_s_{size.replace(' ', '_')}"


def _goals(size: str) -> list[RatioGoal]:
    peers = {ArraysPickled.name: 2.0, ArraysInSharedMemory.name: 0.8}
    return [
        RatioGoal(
            text=f"{ArraysThroughLog.name} / {peer}, {size}",
            figure=_figure(size),
            of=ArraysThroughLog.name,
            to=peer,
            at_least=at_least,
        )
        for peer, at_least in peers.items()
    ]


class Arrays(Workload):
    """See the module."""

    name = "arrays"
    title = "Arrays to a pool of four processes, an FFT of each"
    note = "Ours are stored, leased and acknowledged, and 256 MiB of them are kept."
    columns = tuple(Column(_figure(size), f"arrays/s of {size}") for size in SIZES)
    goals = tuple(goal for size in SIZES for goal in _goals(size))

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [
            Contender(system.name, partial(_run, system, settings), system.missing())
            for system in (ArraysThroughLog, ArraysPickled, ArraysInSharedMemory)
        ]


def _run(system: type[PoolSystem], settings: Settings) -> Figures:
    import numpy as np

    count = settings.scaled(ARRAYS)
    figures = {}
    with (
        settings.new_directory() as directory,
        system().opened(directory, transform) as handle_all,
    ):
        for size, size_bytes in SIZES.items():
            made = np.random.default_rng(7).random((DISTINCT, size_bytes // 8))
            frames = [made[number % DISTINCT] for number in range(count)]
            handle_all(frames[:WARM_UP])
            start_s = time.perf_counter()
            handle_all(frames)
            figures[_figure(size)] = count / (time.perf_counter() - start_s)
    return figures
