"""The life of a writer, and what odd paths, peers and ends do to a log; with real processes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import trio
from crc32c import crc32c
from trio.testing import MockClock

from eventlog import (
    EventLogError,
    LogDeleted,
    NotALog,
    Retention,
    UnknownFormat,
    WriterUnavailable,
    blocking,
)
from eventlog.demo.main_job import stop_process
from eventlog.local import rendezvous
from eventlog.local.storage.files import Files
from eventlog.local.writer.server import Server
from eventlog.testing import batch_of, open_storage, stored_events
from tests.writer.test_hostile_clients import until

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Where a log may be made; its writer is ended after the test."""
    place = tmp_path / "log"
    yield str(place)
    if (place / "control").is_file():
        stop_writer_of(str(place))


def stop_writer_of(path: str) -> None:
    try:
        with blocking.open(path) as log:
            pid = log.status().writer_pid
    except EventLogError:
        return  # a log that was spoilt on purpose has no writer
    if pid is not None:
        stop_process(pid)


def wait_for_end(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    assert wait([descriptor], 30), "the writer is still there"
    os.close(descriptor)


def start_writer(path: str, *options: str) -> subprocess.Popen[bytes]:
    """A writer of our own, which serves when this returns."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "eventlog.local.writer", path, *options],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert writer.stdout is not None
    assert writer.stdout.read() == rendezvous.READY
    writer.stdout.close()
    return writer


RACER = """
import sys
from eventlog import blocking
with blocking.open(sys.argv[1]) as log:
    print(log.status().writer_pid, log.append(sys.argv[2]))
"""


@pytest.mark.real_starts
def test_of_all_that_open_at_once_one_starts_the_writer(path: str) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, path, str(number)],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )
        for number in range(8)
    ]
    answers = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert len({pid for pid, _ in answers}) == 1
    assert sorted(int(seq_no) for _, seq_no in answers) == list(range(1, 9))


def test_an_idle_writer_leaves_and_the_next_open_starts_another(path: str) -> None:
    blocking.open(path).close()
    stop_writer_of(path)
    writer = start_writer(path, "--linger", "0.1")
    with blocking.open(path) as log:
        assert log.status().writer_pid == writer.pid
        log.append(1)
    assert writer.wait(30) == 0
    assert not os.path.exists(os.path.join(path, rendezvous.SOCKET_NAME))
    with blocking.open(path) as log:
        assert log.append(2) == 2


def test_opening_while_the_writer_leaves_never_fails(path: str) -> None:
    blocking.open(path).close()
    stop_writer_of(path)
    for number, delay_s in enumerate((0.0, 0.004, 0.008, 0.009, 0.010, 0.011, 0.012, 0.02), 1):
        writer = start_writer(path, "--linger", "0.01")
        with blocking.open(path) as log:
            log.append(number)
        time.sleep(delay_s)  # so that the next open falls before, into, or after the leaving
        with blocking.open(path) as log:
            assert log.last_seq_no() == number
        stop_writer_of(path)
        writer.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_writer_in_order_and_producers_go_on(path: str, number: int) -> None:
    with blocking.open(path) as log:
        for n in range(1, 6):
            assert log.append(n) == n
            pid = log.status().writer_pid
            assert pid is not None
            descriptor = os.pidfd_open(pid)
            os.kill(pid, number)
            wait([descriptor], 30)
            os.close(descriptor)
        assert [envelope.event for envelope in log.read(1)] == [1, 2, 3, 4, 5]
    text = Path(path, rendezvous.LOG_NAME).read_text()
    assert text.count("ended in order") == 5
    assert "Traceback" not in text


def test_a_socket_left_by_a_dead_writer_is_replaced(path: str) -> None:
    with blocking.open(path) as log:
        pid = log.status().writer_pid
        assert pid is not None
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        wait([descriptor], 30)
        os.close(descriptor)
    assert os.path.exists(os.path.join(path, rendezvous.SOCKET_NAME))
    with blocking.open(path) as log:
        assert log.append(1) == 1


def test_a_log_that_is_deleted_under_its_writer_says_so(path: str) -> None:
    with blocking.open(path) as log:
        log.append(1)
        pid = log.status().writer_pid
        assert pid is not None
        shutil.rmtree(path)
        with pytest.raises(LogDeleted):
            log.append(2)
        with pytest.raises(LogDeleted):
            log.append(3)
    with blocking.open(path) as log:
        assert log.append("new") == 1


def test_idle_writer_and_parked_subscriber_use_no_cpu(path: str) -> None:
    with blocking.open(path, durability="memory") as log:
        log.append(1)
    follower = subprocess.Popen(
        [sys.executable, "-m", "eventlog", "tail", path, "-f", "--from", "1"],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert follower.stdout is not None
    with blocking.open(path) as log:
        assert follower.stdout.readline() == b"1\t1\n"
        pid = log.status().writer_pid
        assert pid is not None
        until(lambda: parked_at(log) == 1 and state_of(follower.pid) == "S")
        before = cpu_ns(pid) + cpu_ns(follower.pid)
        time.sleep(2)  # what is measured is that nothing happens in this time
        assert cpu_ns(pid) + cpu_ns(follower.pid) - before < 20e6
    follower.kill()
    follower.wait()
    follower.stdout.close()


def parked_at(log: blocking.EventLog) -> int:
    """How many readers wait for events."""
    writer = log.statistics().writer
    assert writer is not None
    return writer.parked


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def cpu_ns(pid: int) -> int:
    """CPU time of all threads, to the nanosecond: a tick of `stat` is 10 ms, and there are two."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def test_a_path_that_is_a_file_is_no_log_and_stays_as_it_is(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(NotALog):
        blocking.open(place)
    with pytest.raises(NotALog):
        blocking.open(place / "below")
    assert place.read_text() == "mine"


def test_a_directory_with_other_things_is_no_log_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(NotALog, match="precious"):
        blocking.open(tmp_path)
    assert os.listdir(tmp_path) == ["precious"]


def test_another_format_version_is_refused_and_not_touched(path: str) -> None:
    with blocking.open(path) as log:
        log.append(1)
    stop_writer_of(path)
    control = Path(path, "control")
    page = bytearray(control.read_bytes())
    page[8] = 99
    page[44:48] = crc32c(page[:44]).to_bytes(4, "little")
    control.write_bytes(page)
    with pytest.raises(UnknownFormat, match="99"):
        blocking.open(path)
    assert control.read_bytes() == bytes(page)


@pytest.mark.parametrize(
    "name", ["with space", "ünïcode-日本", "new\nline", "..dots..", "%s{x}", "x" * 120]
)
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    place = str(tmp_path / name)
    with blocking.open(place) as log:
        assert log.append(1) == 1
        assert log.status().path == place
    stop_writer_of(place)


def test_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    place = str(tmp_path.joinpath(*["deep" * 10] * 6))
    assert len(place) > 200
    with blocking.open(place) as log:
        assert log.append(1) == 1
    stop_writer_of(place)


def test_two_dots_in_a_path_lead_where_they_say(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with blocking.open(tmp_path / "a" / ".." / "log") as log:
        assert log.path == str(tmp_path / "log")
        log.append(1)
    stop_writer_of(str(tmp_path / "log"))


def test_why_a_writer_cannot_start_reaches_the_one_who_opens(path: str) -> None:
    with blocking.open(path) as log:
        log.append(1)
    stop_writer_of(path)
    os.remove(Path(path, rendezvous.LOG_NAME))
    os.mkdir(Path(path, rendezvous.LOG_NAME))
    with pytest.raises(WriterUnavailable, match="log file"):
        blocking.open(path)


KILLED_WHILE_IT_STARTS = """#!/bin/sh
if [ "$(ls "$0".killed 2>/dev/null | wc -l)" -lt {times} ]; then
    mkdir -p "$0".killed/$$
    kill -KILL $$
fi
exec {python} "$@"
"""


def an_interpreter_killed(times: int, tmp_path: Path) -> str:
    script = tmp_path / "python"
    script.write_text(KILLED_WHILE_IT_STARTS.format(times=times, python=sys.executable))
    script.chmod(0o700)
    return str(script)


def test_a_writer_that_is_killed_while_it_starts_is_started_again(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", an_interpreter_killed(3, tmp_path))
    with blocking.open(path) as log:
        assert log.append(1) == 1


def test_writers_that_are_always_killed_are_given_up(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", an_interpreter_killed(100, tmp_path))
    with pytest.raises(WriterUnavailable, match=r"killed or ended .* writer\.log"):
        blocking.open(path)
    monkeypatch.undo()
    with blocking.open(path) as log:
        assert log.append(1) == 1


def test_the_directory_is_closed_to_others(path: str) -> None:
    with blocking.open(path) as log:
        log.append(1)
        assert os.stat(path).st_mode & 0o777 == 0o700
        for name in os.listdir(path):
            assert os.stat(os.path.join(path, name)).st_mode & 0o077 == 0, name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_connect(path: str) -> None:
    with blocking.open(path) as log:
        os.chmod(path, 0o777)
        os.chmod(os.path.join(path, rendezvous.SOCKET_NAME), 0o777)
        parents = [Path(path), *Path(path).parents]
        before = {parent: parent.stat().st_mode for parent in parents}
        try:
            for parent in parents:
                parent.chmod(before[parent] | 0o055)
            program = (
                "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
                "os.chdir(sys.argv[1]); s.connect(sys.argv[2]); sys.exit(len(s.recv(1)))"
            )
            # A name in the directory: the path of a socket may not be long, that of TMPDIR may.
            arguments = [path, rendezvous.SOCKET_NAME]
            done = subprocess.run(
                [sys.executable, "-c", program, *arguments], timeout=30, check=False
            )
        finally:
            for parent in parents:
                parent.chmod(before[parent])
        assert done.returncode == 0, "the writer said something to another user"
        assert log.append(1) == 1


GARBAGE = [
    b"GET / HTTP/1.0\r\n\r\n",
    b"\xff" * 100,
    struct.pack("<I", 2**32 - 1),
    struct.pack("<I", 3) + b"\x93\x01\x02",
    struct.pack("<I", 0),
    struct.pack("<I", 1) + b"\xc1",
    b"\x05",
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_costs_its_sender_the_pipe_and_nobody_else_anything(path: str, data: bytes) -> None:
    with blocking.open(path) as log:
        assert log.append(1) == 1
        pipe = rendezvous.connect(path)
        assert pipe is not None
        with pipe:
            pipe.settimeout(30)
            pipe.sendall(data)
            pipe.shutdown(socket.SHUT_WR)
            assert pipe.recv(100) == b""
        assert log.append(2) == 2
        assert [envelope.event for envelope in log.read(1)] == [1, 2]


def test_hundreds_of_silent_pipes_hold_nobody_up(path: str) -> None:
    with blocking.open(path) as log:
        pipes = [rendezvous.connect(path) for _ in range(300)]
        try:
            assert log.append(1) == 1
            assert log.status().connections >= 300
        finally:
            for pipe in pipes:
                assert pipe is not None
                pipe.close()


class Stubborn(Files):
    """Deletes no segment, for a while."""

    is_stubborn = True

    def unlink(self, path: str) -> None:
        if self.is_stubborn and path.endswith(".seg"):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        super().unlink(path)


def test_old_events_that_cannot_be_deleted_end_no_writer(path: str) -> None:
    """The error was nobody's, so the writer ended; so did the next one, and the next."""
    now, files = [10**18], Stubborn()
    retention = Retention(max_age=timedelta(seconds=1))
    log = open_storage(
        path, files, lambda: now[0], segment_bytes=4096, retention=retention, durability="memory"
    )
    for _ in range(4):
        log.append(batch_of("x" * 3000))
    now[0] += 10**10
    with socket.socket(socket.AF_UNIX) as listener:
        server = Server(log, listener, linger_s=None)

        async def wait() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server._expire_loop)
                await trio.sleep(10)
                files.is_stubborn = False
                await trio.sleep(10)
                nursery.cancel_scope.cancel()

        trio.run(wait, clock=MockClock(autojump_threshold=0))
        server.actor.groups.store.close()
    log.close()
    assert list(stored_events(path)) == [4]


def test_a_link_in_the_place_of_its_log_file_is_not_followed(path: str, tmp_path: Path) -> None:
    # The writer added its lines to whatever file the link led to.
    blocking.open(path).close()
    stop_writer_of(path)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    os.unlink(os.path.join(path, rendezvous.LOG_NAME))
    os.symlink(victim, os.path.join(path, rendezvous.LOG_NAME))
    with pytest.raises(EventLogError, match="log file"):
        blocking.open(path)
    assert victim.read_text() == "untouched"
