"""How long it takes until a process can use a log: from `open` to the answer of the first append.

In a fresh interpreter that has imported `eventlog.blocking` (the import is told too): of a log that
does not exist yet, of one whose writer is gone, with a million events in it, and of one whose
writer runs. The first two start a writer, which is an interpreter of its own; the limit is starting
an interpreter that does nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

import eventlog.blocking
from benchmark import events
from benchmark.processes import Crew, Link
from benchmark.results import Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.log import CHUNK_EVENTS, end_writer_of, served
from benchmark.workloads.base import Column, Contender, Workload

STORED: Final = 1_000_000
NEW: Final = "a new log"
STOPPED: Final = "a log of a million events without a writer"
RUNNING: Final = "a log with a writer"
IMPORT: Final = """
import time
start_s = time.perf_counter()
import eventlog.blocking
print(time.perf_counter() - start_s)
"""
INTERPRETER: Final = "limit: an interpreter that does nothing"


class _Opened(NamedTuple):
    import_s: float
    open_s: float


class StartUp(Workload):
    """See the module."""

    name = "start-up"
    title = "From open to the first answer"
    columns = (Column("open_ms", "ms", 1), Column("import_ms", "import ms", 1))
    compared = "open_ms"
    goals = (
        RatioGoal(
            text=f"{NEW} / {INTERPRETER.removeprefix('limit: ')}",
            figure="open_ms",
            of=NEW,
            to=INTERPRETER,
            less_is_better=True,
        ),
        RatioGoal(
            text=f"{STOPPED} / {NEW}", figure="open_ms", of=STOPPED, to=NEW, less_is_better=True
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Write the log that is opened again and again."""
        with settings.new_directory() as directory:
            path = os.path.join(directory, "log")
            with served(path, settings.durability) as (log, _):
                for chunk in events.chunks(settings.scaled(STORED), CHUNK_EVENTS):
                    log.append_many(chunk)
            yield [
                Contender(NEW, partial(_open_new, settings)),
                Contender(STOPPED, partial(_open_stopped, path)),
                Contender(RUNNING, partial(_open_running, settings)),
                Contender(INTERPRETER, _start_interpreter),
            ]


def _open_new(settings: Settings) -> Figures:
    with settings.new_directory() as directory:
        return _open_stopped(os.path.join(directory, "log"))


def _open_stopped(path: str) -> Figures:
    try:
        return _open(path)
    finally:
        end_writer_of(path)


def _open_running(settings: Settings) -> Figures:
    with settings.new_directory() as directory:
        path = os.path.join(directory, "log")
        with served(path, settings.durability):
            return _open(path)


def _open(path: str) -> Figures:
    with Crew() as crew:
        member = crew.start("opener", partial(_append_one, path))
        opened: _Opened = crew.hear(member)[0]
    return {"open_ms": opened.open_s * 1e3, "import_ms": opened.import_s * 1e3}


def _append_one(path: str, link: Link) -> None:
    # An interpreter of its own: this one has imported it already.
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True)
    start_s = time.perf_counter()
    with eventlog.blocking.open(path) as log:
        log.append(1)
        open_s = time.perf_counter() - start_s
    link.say(_Opened(float(done.stdout), open_s))


def _start_interpreter() -> Figures:
    start_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return {"open_ms": (time.perf_counter() - start_s) * 1e3}
