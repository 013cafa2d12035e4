"""What a roll costs: segments made by the append that needs them, prepared ahead, and recycled.

The storage alone, in this process: batches of 64 KiB until sixteen segments are full, with all the
work ahead done by the append that finds its segment half full (the writer has a thread for it).
`an append` is the median of all, `a roll` of those that begin a segment, `MB/s` the rate of all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any, Final

from benchmark.results import Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.workloads.base import Column, Contender, Workload
from eventlog.config import Retention
from eventlog.event.record_batch import PackedBatch
from eventlog.local.storage.formats.format import FIRST_BATCH, HEADER_BYTES, aligned
from eventlog.local.storage.log.writable import WritableLog
from eventlog.testing import batch_of, open_storage

SEGMENT_BYTES: Final = 64 << 20
SEGMENTS: Final = 16
KEPT: Final = Retention(max_bytes=4 * SEGMENT_BYTES, keep_unacked=False)
PAYLOAD: Final = bytes(64 << 10)
PREPARED: Final = ", prepared"
MADE: Final = ", made at the roll"
RECYCLED: Final = ", recycled"


class Segments(Workload):
    """See the module."""

    name = "segments"
    title = "Appends of 64 KiB into new, prepared and recycled segments"
    note = (
        "Prepared: allocated ahead. Recycled: with zeros written over it. Both: by the same thread."
    )
    columns = (
        Column("append_us", "us an append", 1),
        Column("roll_us", "us a roll", 1),
        Column("mb_per_s", "MB/s"),
    )
    is_charted = False
    goals = (
        RatioGoal(
            text="disk: a roll, prepared / made then",
            figure="roll_us",
            of=f"disk{PREPARED}",
            to=f"disk{MADE}",
            at_most=1.0,
        ),
        RatioGoal(
            text="memory: an append, recycled / made at the roll",
            figure="append_us",
            of=f"memory{RECYCLED}",
            to=f"memory{MADE}",
            less_is_better=True,
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Each run has a log of its own."""
        count = settings.scaled(SEGMENTS)
        batch = batch_of(PAYLOAD)
        yield [
            Contender(f"{durability}{how}", partial(_run, settings, batch, count, durability, how))
            for durability, ways in (
                ("memory", (MADE, PREPARED, RECYCLED)),
                ("disk", (MADE, PREPARED)),
            )
            for how in ways
        ]


def _make_ready(log: WritableLog) -> None:
    """The work ahead, which the writer does in a thread."""
    work = log.spare.begin()
    if work is not None:
        log.spare.finish(work.run())


def _run(
    settings: Settings, batch: PackedBatch, segments: int, durability: str, how: str
) -> Figures:
    options: dict[str, Any] = {"durability": durability, "segment_bytes": SEGMENT_BYTES}
    if how == RECYCLED:
        options["retention"] = KEPT
    per_segment = (SEGMENT_BYTES - FIRST_BATCH) // aligned(HEADER_BYTES + len(batch.payload))
    took_us: list[float] = []
    with settings.new_directory() as directory:
        log = open_storage(os.path.join(directory, "log"), **options)
        try:
            if how != MADE:
                log.on_spare_wanted = lambda: _make_ready(log)
            for _ in range(segments * per_segment):
                start_ns = time.perf_counter_ns()
                log.append(batch)
                took_us.append((time.perf_counter_ns() - start_ns) / 1e3)
        finally:
            log.close()
    # The first segment of a log is always made by the append that needs it.
    rolls = took_us[per_segment::per_segment]
    return {
        "append_us": median(took_us),
        "roll_us": median(rolls),
        "mb_per_s": len(took_us) * len(PAYLOAD) / sum(took_us),
    }
