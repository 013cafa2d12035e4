"""The memory that the writer has for itself, after more and more events."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from benchmark import events, measures
from benchmark.results import Figures, LimitGoal
from benchmark.settings import Settings
from benchmark.systems.log import CHUNK_EVENTS, served
from benchmark.workloads.base import Column, Contender, Workload

STAGES: Final = (100_000, 1_000_000, 3_000_000)
"""Events stored when the writer is looked at: up to nine segments of the default size."""
GROWTH_MIB_MAX: Final = 1.0
"""From the first stage to the last; one byte for each event would be three times that."""
MIB: Final = 1024 * 1024


class WriterMemory(Workload):
    """See the module."""

    name = "memory"
    title = "Memory of the writer"
    note = "RssAnon: resident, and no part of a mapped file. After 0.1, 1 and 3 million events."
    columns = (
        Column("first_mib", "MiB at 0.1 M", 2),
        Column("second_mib", "MiB at 1 M", 2),
        Column("third_mib", "MiB at 3 M", 2),
        Column("growth_mib", "growth MiB", 2),
    )
    goals = (
        LimitGoal(
            text="growth of the writer, MiB", figure="growth_mib", of="log", at_most=GROWTH_MIB_MAX
        ),
    )
    is_repeated = False
    is_charted = False

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [Contender("log", partial(_measure, settings))]


def _measure(settings: Settings) -> Figures:
    sizes = []
    with settings.new_directory() as directory:
        path = os.path.join(directory, "log")
        with served(path, settings.durability) as (log, writer_pid):
            stored = 0
            for stage in STAGES:
                for chunk in events.chunks(settings.scaled(stage) - stored, CHUNK_EVENTS):
                    log.append_many(chunk)
                stored = settings.scaled(stage)
                sizes.append(measures.anonymous_bytes(writer_pid) / MIB)
    return {
        "first_mib": sizes[0],
        "second_mib": sizes[1],
        "third_mib": sizes[2],
        "growth_mib": sizes[-1] - sizes[0],
    }
