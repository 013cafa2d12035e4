"""Somebody truncates a file that is mapped: a clear error, and nobody dies of a signal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

from eventlog import EventLogError, SeekPosition, blocking
from eventlog.demo.main_job import stop_process
from eventlog.local.storage.formats.format import index_name, segment_name
from eventlog.testing import batch_of, open_storage, stored_events

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
SEGMENT = segment_name(1)
EVENTS = 400

READER = """
import sys
from eventlog import EventLogError
from eventlog.local.storage.reading.reader import LogReader

log = LogReader(sys.argv[1])
reader = log.batches(1)
reader.next_batch()
print("ready", flush=True)
sys.stdin.readline()
try:
    while reader.next_batch() is not None:
        pass
except EventLogError as error:
    print(type(error).__name__, error)
"""

SUBSCRIBER = """
import sys
from eventlog import EventLogError, SeekPosition, blocking

with blocking.open(sys.argv[1]) as log:
    with log.subscribe("c", SeekPosition.LATEST) as stream:
        print("ready", flush=True)
        try:
            print(next(stream).event, flush=True)
            print(next(stream).event)
        except EventLogError as error:
            print(type(error).__name__, error)
"""

USES = {
    "append": "log.append(2)",
    "ack": "log.ack('c', 1)",
    "seek": "log.seek('c', SeekPosition.sequence(1))",
    "read": "list(log.read(1))",
    "consumers": "log.consumers()",
    "status": "log.status()",
    "last_seq_no": "log.last_seq_no()",
}
USER = """
import sys
from eventlog import EventLogError, SeekPosition, blocking

with blocking.open(sys.argv[1]) as log:
    log.append(1)
    log.ack("c", 1)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(2):
        try:
            {use}
        except EventLogError as error:
            print(type(error).__name__, error)
print("closed")
"""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A log with some events; its writer is ended after the test."""
    place = tmp_path / "log"
    log = open_storage(str(place), segment_bytes=1 << 20)
    for n in range(EVENTS):
        log.append(batch_of({"n": n, "pad": "." * 1000}))
    log.close()
    yield str(place)
    with suppress(EventLogError), blocking.open(str(place)) as opened:
        pid = opened.status().writer_pid
        if pid is not None:
            opened.close()
            stop_process(pid)


@pytest.fixture(autouse=True)
def no_child_stays() -> Iterator[None]:
    """End what a test that failed left behind: it would fail others."""
    yield
    while Child.started:
        with Child.started.pop() as process:
            process.kill()


class Child:
    """A process that says when it is ready, and is then told to go on."""

    started: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, program: str, path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        self.started.append(self.process)
        assert self.line() == "ready"

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def said(self) -> str:
        """What it said after it went on, to its end, which was no signal."""
        out, err = self.process.communicate("go on\n", timeout=60)
        assert self.process.returncode == 0, err
        return out


@pytest.mark.parametrize("size", [0, 100, 4096, 200_000])
def test_a_reader_of_a_truncated_segment_gets_an_error(path: str, size: int) -> None:
    child = Child(READER, path)
    os.truncate(Path(path, SEGMENT), size)
    said = child.said()
    assert said.startswith("CorruptLog ")
    assert f"2 to {EVENTS} of the log" in said
    assert "was truncated" in said


@pytest.mark.parametrize("size", [0, 64, 2048])
def test_a_reader_of_a_truncated_control_page_gets_an_error(path: str, size: int) -> None:
    child = Child(READER.replace("batches(1)", f"batches({EVENTS})"), path)
    os.truncate(Path(path, "control"), size)
    assert "CorruptLog the control file" in child.said()


@pytest.mark.parametrize("size", [0, 48])
def test_a_truncated_index_only_makes_seeks_longer(path: str, size: int) -> None:
    os.truncate(Path(path, index_name(1)), size)
    assert len(stored_events(path, EVENTS - 10)) == 11


def test_a_parked_subscriber_gets_what_is_whole_and_then_an_error(path: str) -> None:
    with blocking.open(path) as log:
        child = Child(SUBSCRIBER, path)
        log.append("before")
        assert child.line() == "before"
        os.truncate(Path(path, SEGMENT), 4096)
        with suppress(EventLogError):
            log.append("after")
        assert "CorruptLog" in child.said()


@pytest.mark.parametrize("name", ["control", "offsets"])
@pytest.mark.parametrize("use", USES)
def test_whoever_uses_a_log_with_a_truncated_file_gets_an_answer_or_an_error(
    path: str, name: str, use: str
) -> None:
    blocking.open(path).close()  # has a writer started
    child = Child(USER.format(use=USES[use]), path)
    os.truncate(Path(path, name), 0)
    said = child.said()
    assert said.endswith("closed\n")
    if name == "control":
        assert "control" in said


@pytest.mark.parametrize("name", ["control", "offsets"])
def test_the_writer_ends_in_an_orderly_way_and_can_be_repaired(path: str, name: str) -> None:
    with blocking.open(path) as log:
        pid = log.status().writer_pid
        assert pid is not None
        descriptor = os.pidfd_open(pid)
        log.append("stored")
        os.truncate(Path(path, name), 0)
        with pytest.raises(EventLogError):
            log.append("refused")
        os.close(descriptor)
    assert "was truncated" in Path(path, "writer.log").read_text()
    command = [sys.executable, "-m", "eventlog", "verify", "--repair", path]
    subprocess.run(command, env=ENVIRONMENT, check=False, capture_output=True)
    with blocking.open(path) as log:
        assert log.append("again") == EVENTS + 2
        assert [one.event for one in log.read(EVENTS + 1)] == ["stored", "again"]


def test_a_whole_log_is_not_taken_for_a_truncated_one(path: str) -> None:
    with (
        blocking.open(path) as log,
        log.subscribe("c", SeekPosition.BEGINNING, follow=False) as stream,
    ):
        assert sum(1 for _ in stream) == EVENTS
