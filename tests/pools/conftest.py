"""A log, a record and a gate for each test; afterwards nothing that was started is left."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from eventlog import blocking
from eventlog.demo.main_job import stop_process
from tests.pools.facade import FLAVOURS, Flavour
from tests.pools.parts import MARK, kill, marked_processes
from tests.pools.records import Record
from tests.shares import turns

LEAVE_S: Final = 20.0


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """What all processes of the test have in their environment."""
    mark = secrets.token_hex(8)
    monkeypatch.setenv(MARK, mark)
    return mark


@pytest.fixture
def log_path(tmp_path: Path, mark: str) -> Iterator[str]:
    """Where the log is made; afterwards its writer is ended, and everything else has ended."""
    path = str(tmp_path / "log")
    yield path
    others = _others(mark)
    deadline = time.monotonic() + LEAVE_S
    while others and time.monotonic() < deadline:
        time.sleep(0.01)  # a bounded look at what ends by itself
        others = _others(mark)
    for pid in others:
        kill(pid)
    for pid in marked_processes(mark):
        stop_process(pid)
    assert not others, f"processes that the test left behind: {others}"


def _others(mark: str) -> dict[int, str]:
    """What runs beside writers, which stay a while."""
    found = marked_processes(mark)
    return {pid: text for pid, text in found.items() if "eventlog.local.writer" not in text}


@pytest.fixture
def log(log_path: str) -> Iterator[blocking.EventLog]:
    """The log, open."""
    with blocking.open(log_path) as opened:
        yield opened


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """What handlers write into."""
    return Record(str(tmp_path / "record"))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that handlers wait for; opened after the test if not in it."""
    place = tmp_path / "gate"
    yield place
    place.touch()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for a `flavour` on trio, on asyncio, and without a loop.

    The blocking flavour is what all other files of this folder use, so here it is left to slow
    runs; of the other two each test has one in the plain form.
    """
    if "flavour" in metafunc.fixturenames:
        loops, blocking = FLAVOURS[:2], FLAVOURS[2]
        ways = turns(metafunc.definition.nodeid, loops, [one.name for one in loops])
        ways.append(pytest.param(blocking, id=blocking.name, marks=pytest.mark.slow))
        metafunc.parametrize("flavour", ways)


@pytest.fixture
def anyio_backend(flavour: Flavour) -> str:
    """The loop that the test itself runs on."""
    return flavour.event_loop
