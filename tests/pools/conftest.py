"""A log and a record for each test; afterwards its writer is ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventlog import blocking
from eventlog.demo.main_job import stop_process
from tests.pools.records import Record


@pytest.fixture
def log_path(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "log"
    yield str(path)
    if path.exists():
        with blocking.open(path) as log:
            pid = log.status().writer_pid
        assert pid is not None
        stop_process(pid)


@pytest.fixture
def log(log_path: str) -> Iterator[blocking.EventLog]:
    with blocking.open(log_path) as opened:
        yield opened


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(str(tmp_path / "record"))
