"""How long a log needs after its writer was killed: from `open` to the answer of the first append.

Logs of 0.1 and of 1 GB, in batches of 64 events. Before each run events are appended and the
writer is killed with SIGKILL; `torn` writes what a batch begins with after the last whole one, as a
loss of power may. The next writer looks at the last segment only, so that the size of the log
matters little.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import Final

import eventlog.blocking
from benchmark import events
from benchmark.results import Figures, LimitGoal, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.log import end_writer_of, served
from benchmark.workloads.base import Column, Contender, Workload
from eventlog.local.storage.files import FILES
from eventlog.local.storage.formats.format import base_of_name, segment_name
from eventlog.local.storage.formats.recovery import scan_segment
from eventlog.local.storage.segment import SegmentReader

BATCH_EVENTS: Final = 64
SMALL_BYTES: Final = 100_000_000
LARGE_BYTES: Final = 1_000_000_000
SMALL: Final = "0.1 GB, writer killed"
LARGE: Final = "1 GB, writer killed"
TORN: Final = "1 GB, writer killed, torn tail"
TAIL: Final = b"\xff\x10\x00\x00" * 200


class Recovery(Workload):
    """See the module."""

    name = "recovery"
    title = "From open to the first answer after the writer was killed"
    columns = (Column("open_ms", "ms", 1),)
    compared = "open_ms"
    goals = (
        LimitGoal(text=f"{LARGE}, ms", figure="open_ms", of=LARGE, at_most=1000),
        LimitGoal(text=f"{TORN}, ms", figure="open_ms", of=TORN, at_most=1000),
        RatioGoal(text=f"{LARGE} / {SMALL}", figure="open_ms", of=LARGE, to=SMALL, at_most=1.5),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Write both logs."""
        with settings.new_directory() as directory:
            small, large = os.path.join(directory, "small"), os.path.join(directory, "large")
            _fill(small, settings.scaled(SMALL_BYTES), settings)
            _fill(large, settings.scaled(LARGE_BYTES), settings)
            yield [
                Contender(SMALL, partial(_recover, small)),
                Contender(LARGE, partial(_recover, large)),
                Contender(TORN, partial(_recover, large, is_torn=True)),
            ]


def _fill(path: str, size: int, settings: Settings) -> None:
    count = size // events.EVENT_BYTES
    with served(path, settings.durability) as (log, _):
        for chunk in events.chunks(count, BATCH_EVENTS):
            log.append_many(chunk)


def _recover(path: str, *, is_torn: bool = False) -> Figures:
    with eventlog.blocking.open(path) as log:
        for chunk in events.chunks(10 * BATCH_EVENTS, BATCH_EVENTS):
            log.append_many(chunk)
        writer_pid = log.status().writer_pid
        assert writer_pid is not None
        _kill(writer_pid)
    if is_torn:
        _tear(path)
    start_s = time.perf_counter()
    with eventlog.blocking.open(path) as log:
        log.append(1)
        open_s = time.perf_counter() - start_s
    end_writer_of(path)
    return {"open_ms": open_s * 1e3}


def _kill(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    wait([descriptor])
    os.close(descriptor)


def _tear(path: str) -> None:
    """Write the remains of a batch after the last whole one."""
    base = max(base for base in map(base_of_name, os.listdir(path)) if base is not None)
    reader = SegmentReader(path, base, FILES)
    try:
        end = scan_segment(reader.view, base, 0).end
    finally:
        reader.close()
    with open(os.path.join(path, segment_name(base)), "r+b") as file:
        file.seek(end)
        file.write(TAIL)
