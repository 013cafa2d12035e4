"""Processes that handlers fork or start, pools that workers import, and how much memory counts."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from eventlog import blocking
from tests.pools import handlers
from tests.pools.parts import ROOT, WAIT_S, drained
from tests.pools.records import Record
from workers import PoolFailed
from workers.blocking import Pool
from workers.child import private_bytes

MIB: Final = 1 << 20
CODES: Final = {"exit": 3, "raise": 1, "return": 0}
"""The exit code of a forked child that ends so."""


@pytest.mark.parametrize("how", CODES)
@pytest.mark.parametrize("kind", ["plain", "thread", "async"])
def test_a_child_that_a_handler_forks_ends_where_the_handler_ends_in_it(
    log: blocking.EventLog, record: Record, kind: str, how: str
) -> None:
    """The child went on as a second worker: it took the parent's events, or hung with its parent.

    Only `os._exit` ended it; an orphan of that kind was found half an hour later.
    """
    log.append_many(range(3))
    handler = handlers.fork_async if kind == "async" else handlers.fork
    options: dict[str, Any] = {"processes": 1, "concurrency": 2 if kind == "thread" else 1}
    with Pool(log, group="g", handler=partial(handler, record, how), **options) as pool:
        drained(pool)
        assert (pool.stats().handled, pool.stats().failed) == (3, 0)
        assert list(pool.dead_letters()) == []
    assert sorted(record.numbers()) == [0, 1, 2]
    assert record.numbers("child") == [CODES[how]] * 3
    assert len({line[2] for line in record.lines() if line[0] == "began"}) == 1


@pytest.mark.parametrize("how", CODES)
def test_a_child_that_an_initializer_forks_ends_with_it(
    log: blocking.EventLog, record: Record, how: str
) -> None:
    """The child became a worker too, or said in the worker's name that it cannot start."""
    log.append(1)
    options: dict[str, Any] = {"initializer": partial(handlers.fork, record, how, 0)}
    with Pool(log, group="g", handler=handlers.nothing, processes=1, **options) as pool:
        drained(pool)
        assert pool.stats().handled == 1
    assert record.numbers("child") == [CODES[how]]


def test_a_program_that_a_handler_starts_can_be_interrupted(
    log: blocking.EventLog, record: Record
) -> None:
    """It inherited that the worker ignores SIGINT, so that Ctrl-C did nothing to it."""
    log.append(1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
    try:
        handler = partial(handlers.interrupt_a_program, record)
        with Pool(log, group="g", handler=handler, processes=1) as pool:
            drained(pool, 2 * WAIT_S)
            assert list(pool.dead_letters()) == []
    finally:
        signal.signal(signal.SIGINT, before)
    assert record.numbers("ended") == [-signal.SIGINT]


# --- modules that make pools -----------------------------------------------------------------

MODULE: Final = """
    import os, sys
    import eventlog.blocking
    from workers.blocking import Pool

    with open("imports", "a") as file:
        file.write(f"{os.getpid()}\\n")

    def handle(event):
        pass

    PART
    with eventlog.blocking.open("log") as log:
        log.append(1)
        with Pool(log, group="g", handler=handle, processes=2) as pool:
            pool.drained()
"""
SPAWNS: Final = """
    if __name__ == "__main__":
        import multiprocessing
        child = multiprocessing.get_context("spawn").Process(target=handle, args=(1,))
        child.start()
        child.join()
        sys.stderr.write(f"child {child.exitcode}")
        sys.exit(1)
"""


def run_module(folder: Path, part: str, *arguments: str) -> tuple[str, int]:
    """What the module writes on standard error, and how many processes ran its code."""
    text = textwrap.dedent(MODULE).replace("PART", textwrap.dedent(part))
    (folder / "shop.py").write_text(text)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=2 * WAIT_S,
    )
    assert done.returncode == 1
    return done.stderr, len((folder / "imports").read_text().splitlines())


@pytest.mark.real_starts
def test_a_module_that_makes_a_pool_is_told_so_by_the_worker_that_imports_it(
    log_path: str, tmp_path: Path
) -> None:
    """Each worker imported it for its handler, and so made a pool of its own: 4, 8, 14."""
    text, imports = run_module(tmp_path, "", "-c", "import shop")
    assert "PoolFailed" in text
    assert "the module shop makes a pool when it is imported" in text
    assert imports <= 3, "the program, and two workers"


def test_a_script_that_multiprocessing_imports_makes_no_pool(log_path: str, tmp_path: Path) -> None:
    text, imports = run_module(tmp_path, SPAWNS, "shop.py")
    assert "PoolError: the script makes a pool, and multiprocessing imports it" in text
    assert text.endswith("child 1")
    assert imports == 2


# --- memory ----------------------------------------------------------------------------------


def test_mapped_pages_of_files_are_not_the_workers_memory(tmp_path: Path) -> None:
    """Those of a log's large segments counted, and a worker was replaced after each event."""
    (tmp_path / "large").write_bytes(bytes(64 * MIB))
    with (
        open(tmp_path / "large", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages,
    ):
        before = private_bytes()
        assert sum(pages[:: mmap.PAGESIZE]) == 0
        mapped = private_bytes()
    assert mapped - before < 16 * MIB
    # Not of `malloc`, which may have as much from earlier tests, all of it resident.
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE) as own:
        own[:: mmap.PAGESIZE] = b"x" * (64 * MIB // mmap.PAGESIZE)
        assert private_bytes() - mapped > 32 * MIB


def test_a_limit_that_a_worker_exceeds_before_its_first_event_is_refused(
    log: blocking.EventLog,
) -> None:
    """There was a worker for each event then, and not a word."""
    log.append_many(range(3))
    with (
        pytest.raises(PoolFailed, match="max_rss_bytes=1048576 is too small: a worker has "),
        Pool(log, group="g", handler=handlers.nothing, processes=1, max_rss_bytes=MIB),
    ):
        pytest.fail("the pool has started")
