"""A log of another user: root reads it and leaves nothing behind, and changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventlog import EventLogError, PermissionDenied, SeekPosition, blocking
from eventlog.demo.main_job import stop_process
from eventlog.local import rendezvous
from eventlog.local.client.launch import find_or_start
from eventlog.local.storage.owner import check_owner, described_user
from eventlog.local.writer import __main__ as writer
from eventlog.tools.backup import back_up
from eventlog.tools.doctor.examine import examine, mend

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
OWNER = 65534
pytestmark = [
    pytest.mark.real_starts,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can read another user's log"),
]


@pytest.fixture
def path() -> Iterator[str]:
    """A log of another user, with two events and a consumer, that no writer serves."""
    place = tempfile.mkdtemp(prefix="owners-")  # where that user can get to, too
    directory = os.path.join(place, "log")
    with blocking.open(directory) as log:
        log.append(1)
        log.append(2)
        log.ack("billing", 1)
        with log.group("g"):
            pass
        pid = log.status().writer_pid
    assert pid is not None
    stop_process(pid)
    for name in ("", *os.listdir(directory)):
        os.chown(os.path.join(directory, name), OWNER, OWNER)
    os.chown(place, OWNER, OWNER)
    yield directory
    shutil.rmtree(place)


def listing(path: str) -> dict[str, tuple[int, int]]:
    """Owner and time of change of all that is there."""
    states = {name: os.stat(os.path.join(path, name)) for name in ("", *os.listdir(path))}
    return {name: (state.st_uid, state.st_mtime_ns) for name, state in states.items()}


def next_event(log: blocking.EventLog) -> None:
    with log.subscribe("tail", SeekPosition.LATEST) as stream:
        next(stream)


def locked_out(path: str) -> None:
    with rendezvous.writers_locked_out(path):
        pass


CHANGES: dict[str, Callable[[blocking.EventLog], object]] = {
    # Each started a writer as root, and the owner could not use its files.
    "append": lambda log: log.append(3),
    "append_many": lambda log: log.append_many([3, 4]),
    "ack": lambda log: log.ack("billing", 2),
    "seek": lambda log: log.seek("billing", SeekPosition.BEGINNING),
    "forget": lambda log: log.forget("billing"),
    "group": lambda log: log.group("other"),
    "retry_dead": lambda log: log.retry_dead("g", [1]),
    "follow": next_event,
    "start a writer": lambda log: find_or_start(log.path),
    "serve": lambda log: writer.serve(log.path, linger_s=None),
    "repair": lambda log: locked_out(log.path),
}


@pytest.mark.parametrize("change", CHANGES)
def test_root_changes_nothing_in_a_log_of_another_user(path: str, change: str) -> None:
    before = listing(path)
    with blocking.open(path) as log, pytest.raises(PermissionDenied) as caught:
        CHANGES[change](log)
    assert described_user(OWNER) in str(caught.value)
    assert "sudo -u" in str(caught.value)
    assert listing(path) == before


def test_root_reads_a_log_of_another_user_and_leaves_nothing_in_it(
    path: str, tmp_path: Path
) -> None:
    before = listing(path)
    with blocking.open(path) as log:
        assert [envelope.event for envelope in log.read(1)] == [1, 2]
        with log.subscribe("billing", SeekPosition.LAST_ACKNOWLEDGED, follow=False) as stream:
            assert [envelope.event for envelope in stream] == [2]
        assert [one.name for one in log.consumers()] == ["billing", "g"]
        assert log.status().last_seq_no == 2
        assert log.status().writer_pid is None
    assert not [one for one in examine(path) if one.level == "problem"]
    back_up(path, str(tmp_path / "copy"))
    assert listing(path) == before


def test_root_is_refused_by_the_commands_with_the_owners_name(path: str) -> None:
    before = listing(path)
    for arguments in (["tail", "-f", path], ["serve", path]):
        done = subprocess.run(
            [sys.executable, "-m", "eventlog", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env=ENVIRONMENT,
            check=False,
        )
        assert done.returncode == 1
        assert described_user(OWNER) in done.stderr
        assert "Traceback" not in done.stderr
    assert listing(path) == before


def test_a_writer_started_as_root_by_hand_leaves_no_file_either(path: str) -> None:
    before = listing(path)
    done = subprocess.run(
        [sys.executable, "-m", "eventlog.local.writer", path],
        stderr=subprocess.PIPE,
        timeout=60,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 1
    assert b"PermissionDenied" in done.stderr
    assert listing(path) == before


def test_root_does_not_speak_with_the_writer_of_another_user(path: str) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(OWNER)
        listener = rendezvous.listen(path)
        os.write(writing, b"1")
        listener.accept()
        os._exit(0)
    try:
        assert os.read(reading, 1) == b"1"
        with blocking.open(path) as log, pytest.raises(PermissionDenied) as caught:
            log.append(3)
        assert described_user(OWNER) in str(caught.value)
    finally:
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_doctor_mends_nothing_that_needs_a_log_of_another_user(path: str) -> None:
    Path(path, rendezvous.SOCKET_NAME).touch()
    os.chown(os.path.join(path, rendezvous.SOCKET_NAME), OWNER, OWNER)
    before = listing(path)
    findings = examine(path)
    with pytest.raises(EventLogError, match="belongs to"):
        mend(path, findings)
    assert listing(path) == before


def test_nothing_there_belongs_to_anybody(tmp_path: Path) -> None:
    check_owner(str(tmp_path / "none"))
