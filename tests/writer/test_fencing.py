"""One writer at a time: by its lock, by who it says it is, and, with no lock, by its epoch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from eventlog import EventLogError, SeekPosition, blocking
from eventlog.demo.main_job import stop_process
from eventlog.local import rendezvous
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.identity import boot_id, is_same_process, process_start
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import open_storage

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
GUARD_S = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Where a log may be made; its writer is ended after the test."""
    place = str(tmp_path / "log")
    yield place
    with suppress(EventLogError), blocking.open(place) as log:
        pid = log.status().writer_pid
        if pid is not None:
            stop_process(pid)


def writer_of(path: str) -> int:
    with blocking.open(path) as log:
        pid = log.status().writer_pid
    assert pid is not None
    return pid


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process is stopped for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def start_writer(path: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "eventlog.local.writer", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )


# --- who the writer is -----------------------------------------------------------------------


@pytest.mark.parametrize("lie", ["another start", "another boot"])
def test_a_reused_pid_is_not_taken_for_the_writer(path: str, lie: str) -> None:
    log = open_storage(path)
    log.abandon()  # as if killed: the control page goes on naming this process
    reader = LogReader(path)
    pid, start = reader.control.writer_pid, reader.control.writer_start
    reader.close()
    assert (pid, start) == (os.getpid(), process_start(os.getpid()))
    assert is_same_process(pid, start)
    page = ControlPage(path, writable=True)
    if lie == "another start":
        page.writer_start = start + 1
        assert not is_same_process(pid, start + 1)
    else:
        page.boot_id = "0" * len(boot_id())
    page.close()
    done = subprocess.run(
        [sys.executable, "-m", "eventlog", "status", path, "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )
    assert '"writer_pid": null' in done.stdout
    with blocking.open(path) as opened:
        assert opened.append("served") == 1
        assert opened.status().writer_pid != os.getpid()


# --- a writer that is slow -------------------------------------------------------------------


def test_while_a_stopped_writer_holds_the_lock_nobody_else_becomes_the_writer(path: str) -> None:
    with blocking.open(path) as log:
        log.append(1)
        pid = log.status().writer_pid
        assert pid is not None
        answers: list[int] = []
        with stopped(pid):
            other = start_writer(path)
            _, said = other.communicate(timeout=GUARD_S)
            assert other.returncode == 1
            assert b"already has a writer" in said
            waiting = threading.Thread(target=lambda: answers.append(log.append(2)))
            waiting.start()
            assert LogReader(path).last_seq_no == 1
        waiting.join(GUARD_S)
        assert answers == [2]
        assert log.status().writer_pid == pid


def lose_lock(path: str) -> None:
    """What nobody should do: the lock and the socket of a stopped writer are removed."""
    os.unlink(os.path.join(path, rendezvous.LOCK_NAME))
    os.unlink(os.path.join(path, rendezvous.SOCKET_NAME))


def test_a_writer_that_lost_its_lock_while_stopped_stores_nothing_more(path: str) -> None:
    with blocking.open(path, durability="disk") as old_client:
        for n in range(1, 4):
            old_client.append(n)
        old = old_client.status().writer_pid
        assert old is not None
        descriptor = os.pidfd_open(old)
        answers: list[int] = []
        with stopped(old):
            # One that the stopped writer finds in its pipe as soon as it goes on.
            waiting = threading.Thread(target=lambda: answers.append(old_client.append("late")))
            waiting.start()
            lose_lock(path)
            with blocking.open(path) as new_client:
                new = new_client.status().writer_pid
                assert new not in (old, None)
                assert new_client.append_many(["new"] * 10) == (4, 13)
        waiting.join(GUARD_S)
        assert answers == [14], "it was repeated to the new writer"
        assert wait([descriptor], GUARD_S), "the old writer is still there"
        os.close(descriptor)
        old_client.ack("c", 14)
        assert writer_of(path) == new
        with old_client.subscribe("c", SeekPosition.BEGINNING, follow=False) as stream:
            assert [one.event for one in stream] == [1, 2, 3, *["new"] * 10, "late"]
    assert "another writer has taken over" in Path(path, rendezvous.LOG_NAME).read_text()
    assert os.path.exists(os.path.join(path, rendezvous.SOCKET_NAME)), "it is the new writer's"


def test_an_idle_writer_that_lost_its_lock_leaves_what_is_not_its_own(path: str) -> None:
    blocking.open(path).close()
    old = writer_of(path)
    with stopped(old):
        lose_lock(path)
        new = writer_of(path)
        assert new != old
    stop_process(old)
    with blocking.open(path) as log:
        assert log.status().writer_pid == new
        assert log.append(1) == 1


def test_two_writers_started_by_hand_are_one(path: str) -> None:
    blocking.open(path).close()
    assert writer_of(path)
    other = start_writer(path)
    _, said = other.communicate(timeout=GUARD_S)
    assert (other.returncode, b"already has a writer" in said) == (1, True)
