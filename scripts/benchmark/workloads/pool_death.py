"""How soon the event of a worker that was killed runs elsewhere."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from benchmark.pools.base import PROCESSES, HandleAll, note_and_wait
from benchmark.pools.log_pool import LogPool
from benchmark.results import Figures, LimitGoal
from benchmark.settings import Settings
from benchmark.workloads.base import Column, Contender, Workload
from eventlog.local.groups.stored import read_groups

DEATHS: Final = 20


class PoolDeath(Workload):
    """See the module."""

    name = "pool-death"
    title = "A worker's death: until its event runs elsewhere"
    note = f"SIGKILL in the middle of a handler, {DEATHS} times in each run."
    columns = (Column("median_ms", "median ms", 2), Column("longest_ms", "longest ms", 2))
    goals = (LimitGoal(text="longest, ms", figure="longest_ms", of=LogPool.name, at_most=50.0),)

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [Contender(LogPool.name, partial(_measure, settings))]


def _measure(settings: Settings) -> Figures:
    with settings.new_directory() as directory:
        notes = Path(directory, "notes")
        notes.touch()
        handler = partial(note_and_wait, str(notes))
        path = os.path.join(directory, "log")
        with LogPool().opened(directory, handler) as handle_all:
            handle_all(range(8))
            delays_ms = [_one_death(handle_all, notes, path) for _ in range(DEATHS)]
    return {"median_ms": median(delays_ms), "longest_ms": max(delays_ms)}


def _one_death(handle_all: HandleAll, notes: Path, path: str) -> float:
    while read_groups(path)[0].members < PROCESSES:
        time.sleep(0.01)  # until the one that died last has a successor
    seen = len(notes.read_text().splitlines())
    waiting = threading.Thread(target=handle_all, args=([0],))
    waiting.start()
    first = _line(notes, seen)
    os.kill(first[1], signal.SIGKILL)
    killed_ns = time.monotonic_ns()
    second = _line(notes, seen + 1)
    waiting.join()
    return (second[0] - killed_ns) / 1e6


def _line(notes: Path, index: int) -> tuple[int, int]:
    """The time and the process in a line of the notes, once it is there."""
    while len(lines := notes.read_text().splitlines()) <= index:
        time.sleep(0.0005)
    began_ns, pid = lines[index].split()
    return int(began_ns), int(pid)
