"""The locks of a log are their holder's alone, and whoever waits for one gets on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from eventlog import WriterUnavailable, blocking
from eventlog.api import forks
from eventlog.demo.main_job import stop_process
from eventlog.local import rendezvous
from eventlog.local.client import launch
from eventlog.local.writer import succession
from eventlog.tools.doctor.examine import examine

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
COMMAND = (sys.executable, "-m", "eventlog")
HANGS_S = 60
"""Whoever is not done by then waits for ever."""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A log; its writer is ended after the test."""
    place = str(tmp_path / "log")
    blocking.open(place).close()
    yield place
    with blocking.open(place) as log:
        pid = log.status().writer_pid
    assert pid is not None
    stop_process(pid)


@contextmanager
def forked_child() -> Iterator[int]:
    """A child that only lives, as one of `multiprocessing` by fork; it ends after the block."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        yield child
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def is_free(path: str) -> bool:
    lock = rendezvous.try_lock_directory(path)
    if lock is not None:
        lock.release()
    return lock is not None


def end_of(pid: int, number: int) -> bool:
    """Send the signal; whether the process ended in time."""
    descriptor = os.pidfd_open(pid)
    try:
        os.kill(pid, number)
        return bool(wait([descriptor], HANGS_S))
    finally:
        os.close(descriptor)


# --- children that are forked while a lock is held ------------------------------------------------


def test_a_child_forked_while_another_thread_opens_a_log_keeps_no_lock(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child had a copy of the directory's lock for its life: nobody could start a writer."""
    stop_writer(path)
    is_locked, is_forked = threading.Event(), threading.Event()
    start = launch.start_writer

    def start_slowly(*arguments: Any, **options: Any) -> None:
        is_locked.set()
        assert is_forked.wait(HANGS_S)
        start(*arguments, **options)

    monkeypatch.setattr(launch, "start_writer", start_slowly)
    opener = threading.Thread(target=lambda: blocking.open(path).close())
    opener.start()
    assert is_locked.wait(HANGS_S)
    with forked_child():
        is_forked.set()
        opener.join()
        assert is_free(path)


def stop_writer(path: str) -> None:
    with blocking.open(path) as log:
        pid = log.status().writer_pid
    assert pid is not None
    stop_process(pid)


@pytest.mark.parametrize("runs_hooks", [True, False], ids=["of Python", "of a C library"])
def test_a_released_lock_is_free_whoever_has_a_copy(
    path: str, monkeypatch: pytest.MonkeyPatch, runs_hooks: bool
) -> None:
    lock = rendezvous.lock_directory(path)
    if not runs_hooks:
        monkeypatch.setattr(forks, "_parents", set())
    with forked_child():
        assert not is_free(path)
        lock.release()
        assert is_free(path)


HOLDER = """
import os, signal, sys, time
from eventlog.local import rendezvous
lock = rendezvous.lock_directory(sys.argv[1])
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_holder_that_is_killed_leaves_no_lock_to_its_children(path: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLDER, path],
        stdout=subprocess.PIPE,
        timeout=HANGS_S,
        env=ENVIRONMENT,
        check=False,
    )
    child = int(done.stdout)
    try:
        assert is_free(path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_releases_nothing_of_its_parents(path: str) -> None:
    lock = rendezvous.lock_directory(path)
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert not is_free(path)
    lock.release()


KILLED_MEMBER = """
import os, signal, sys, time
from eventlog import blocking
log = blocking.open(sys.argv[1])
member = log.group("g").__enter__().open_member()
lease = member.lease(1)
lease.begin(next(iter(lease))[1])
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_events_of_a_killed_member_go_to_others_while_a_child_of_it_lives(path: str) -> None:
    """The child had a copy of the pipe: the writer did not see its end, and the events stayed."""
    with blocking.open(path) as log, log.group("g") as group:
        log.append("event")
        done = subprocess.run(
            [sys.executable, "-c", KILLED_MEMBER, path],
            stdout=subprocess.PIPE,
            timeout=HANGS_S,
            env=ENVIRONMENT,
            check=False,
        )
        try:
            with group.open_member() as member:
                lease = member.lease(1)
                assert lease is not None
                ((attempt, envelope),) = lease
                assert attempt == envelope.attempt == 2
                assert lease.begin(envelope)
                lease.done(envelope)
        finally:
            os.kill(int(done.stdout), signal.SIGKILL)


# --- a writer whose socket is gone ----------------------------------------------------------------


def test_the_next_append_works_after_the_socket_alone_was_removed(path: str) -> None:
    """The next writer waited for the first one's end, with the lock that this one needed for it."""
    with blocking.open(path) as log:
        assert log.append(1) == 1
        os.unlink(os.path.join(path, rendezvous.SOCKET_NAME))
        done = subprocess.run(
            [*COMMAND, "append", path, "2"],
            capture_output=True,
            timeout=HANGS_S,
            env=ENVIRONMENT,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, b"2\n")
        assert log.append(3) == 3
        assert [envelope.event for envelope in log.read(1)] == [1, 2, 3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_writer_whatever_holds_the_directory(path: str, number: int) -> None:
    with blocking.open(path) as log:
        pid = log.status().writer_pid
        assert pid is not None
        os.unlink(os.path.join(path, rendezvous.SOCKET_NAME))
        lock = rendezvous.lock_directory(path)
        assert end_of(pid, number)
        lock.release()
        assert log.append(1) == 1
    assert "Traceback" not in Path(path, rendezvous.LOG_NAME).read_text()


# --- a starter that is killed ---------------------------------------------------------------------

STARTER = """
import sys
from eventlog import blocking
blocking.open(sys.argv[1])
"""
STOPPED_PYTHON = """#!/bin/sh
echo $$ > {told}
kill -STOP $$
exec {python} "$@"
"""


def killed_starter(path: str, tmp_path: Path) -> None:
    """A client that is killed while the writer that it started has not said that it serves."""
    told = tmp_path / "told"
    os.mkfifo(told)
    script = tmp_path / "python"
    script.write_text(STOPPED_PYTHON.format(told=told, python=sys.executable))
    script.chmod(0o700)
    starter = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.executable = {str(script)!r}" + STARTER, path],
        env=ENVIRONMENT,
    )
    writer = int(told.read_text())
    stat = Path(f"/proc/{writer}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    starter.kill()
    starter.wait()
    os.kill(writer, signal.SIGCONT)
    # It serves, or it ends as soon as it cannot answer.
    wait_until(lambda: rendezvous.has_socket(path) or not Path(f"/proc/{writer}").exists())


def unheard_writer(path: str, _: Path) -> None:
    """A writer serves after the client that started it was killed."""
    answers, answer = os.pipe()
    os.close(answers)
    command = [sys.executable, "-m", "eventlog.local.writer", path, "--detach"]
    try:
        starting = [*command, "--answer", str(answer)]
        subprocess.run(starting, pass_fds=[answer], env=ENVIRONMENT, check=True, timeout=HANGS_S)
    finally:
        os.close(answer)
    assert rendezvous.has_socket(path)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + HANGS_S
    while not is_so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)  # a bounded look at what another process does


@pytest.mark.real_starts
@pytest.mark.parametrize("start", [killed_starter, unheard_writer])
def test_a_client_that_is_killed_while_it_starts_the_writer_leaves_nothing_to_report(
    path: str, tmp_path: Path, start: Callable[[str, Path], None]
) -> None:
    """The writer failed as nobody heard that it serves; `doctor` showed its ERROR from then on."""
    stop_writer(path)
    start(path, tmp_path)
    with blocking.open(path) as log:
        assert log.append(1) == 1
    text = Path(path, rendezvous.LOG_NAME).read_text()
    assert "ERROR" not in text
    assert "Traceback" not in text
    assert not [one for one in examine(path) if one.about == "writer" and one.level != "ok"]


# --- serve ----------------------------------------------------------------------------------------


def serve(path: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "serve", path, *options], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def first_line(server: subprocess.Popen[str], with_text: str) -> str:
    assert server.stderr is not None
    line = server.stderr.readline()
    while with_text not in line:
        assert line, f"it ended before it said {with_text!r}"
        line = server.stderr.readline()
    return line


def end(server: subprocess.Popen[str]) -> None:
    server.terminate()
    assert server.wait(HANGS_S) == 0
    assert server.stderr is not None
    server.stderr.close()


def test_serve_replaces_a_writer_that_clients_started_without_an_error_for_them(path: str) -> None:
    """A restarted unit found the writer of its clients there, failed five times, and was dead."""
    numbers: list[int] = []
    is_over = threading.Event()
    with blocking.open(path) as log, log.subscribe("reader") as stream:

        def produce() -> None:
            while not is_over.is_set():
                numbers.append(log.append(len(numbers) + 1))

        producer = threading.Thread(target=produce)
        producer.start()
        server = serve(path)
        first_line(server, ", epoch")
        with blocking.open(path) as other:
            assert other.status().writer_pid == server.pid
            other.ack("other", 1)
        before = len(numbers)
        wait_until(lambda: len(numbers) > before + 10 or not producer.is_alive())
        is_over.set()
        producer.join()
        assert len(numbers) > before + 10
        assert numbers == list(range(1, len(numbers) + 1))
        seen = [next(stream).event for _ in numbers]
        assert seen == numbers
        end(server)
        assert log.append("after") == len(numbers) + 1


def test_the_exit_code_of_a_serve_is_for_the_program_that_started_it(path: str) -> None:
    # The log's handle waited for each writer that is a child, and the program was told 0.
    stop_writer(path)
    server = serve(path)
    first_line(server, ", epoch")
    with blocking.open(path) as log:
        assert log.status().writer_pid == server.pid
        server.kill()
        assert server.wait(HANGS_S) == -signal.SIGKILL
    assert server.stderr is not None
    server.stderr.close()


def test_a_serve_that_waits_or_starts_ends_in_order_on_sigterm(path: str) -> None:
    # Between its first words and its first pipe, SIGTERM killed it, and its socket stayed.
    for _ in range(3):
        server = serve(path)
        first_line(server, ", epoch")
        end(server)
        assert not rendezvous.has_socket(path)
    server = serve(path)
    first_line(server, ", epoch")
    waiting = serve(path, "--wait")
    wait_until(lambda: f"{waiting.pid}" in waiting_for(path))
    end(waiting)
    end(server)


SIGNALLED_IN_A_DESTRUCTOR = """
import signal, sys
from eventlog.local.writer import __main__ as writer

class Signals:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

def open_log(*arguments, real=writer.open_log):
    Signals()
    return real(*arguments)

writer.open_log = open_log
writer.serve(sys.argv[1], linger_s=None)
"""


def test_a_sigterm_in_a_destructor_ends_a_serve_that_starts(path: str) -> None:
    # Python ignored the exception that was to end it, and it served on.
    with blocking.open(path):
        pass
    stop_writer(path)
    command = [sys.executable, "-c", SIGNALLED_IN_A_DESTRUCTOR, path]
    server = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, timeout=HANGS_S, check=False
    )
    assert server.returncode == 0
    assert not rendezvous.has_socket(path)


def test_another_serve_is_an_error_or_waited_for(path: str) -> None:
    server = serve(path)
    first_line(server, ", epoch")
    with blocking.open(path) as log:
        refused = serve(path)
        assert f"already has a writer, process {server.pid}" in first_line(refused, "error")
        assert refused.wait(HANGS_S) == 1
        assert refused.stderr is not None
        refused.stderr.close()
        waiting = serve(path, "--wait")
        wait_until(lambda: f"{waiting.pid}" in waiting_for(path))
        assert log.status().writer_pid == server.pid
        end(server)
        first_line(waiting, ", epoch")
        assert log.append(1) == 1
        assert log.status().writer_pid == waiting.pid
        end(waiting)


def waiting_for(path: str) -> list[str]:
    """Processes that wait for the writer's lock."""
    inode = os.stat(os.path.join(path, rendezvous.LOCK_NAME)).st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [line[5] for line in lines if line[1] == "->" and line[6].endswith(f":{inode}")]


OLDER = """
import os, signal, socket, sys
from eventlog.local import rendezvous
directory = sys.argv[1]
lock = rendezvous.lock_directory(directory)
writer_lock = rendezvous.try_lock_writer(directory)
listener = rendezvous.listen(directory)
lock.release()

def end(*_):
    rendezvous.lock_directory(directory)  # which it needs to leave, as its release does
    os.unlink(os.path.join(directory, rendezvous.SOCKET_NAME))
    os._exit(0)

signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    pipe, _ = listener.accept()
    pipe.recv(1000)
    pipe.close()  # what it does not know ends the pipe
"""


@pytest.mark.parametrize("options", [["--detach"], []], ids=["of clients", "told to serve"])
def test_serve_ends_a_writer_of_an_older_protocol_if_clients_started_it(
    path: str, options: list[str]
) -> None:
    # The end of the pipe was taken for the writer's: it was asked again while it waited for the
    # directory's lock, whose holder waited ten seconds for its answer, or took it for a server.
    stop_writer(path)
    older = subprocess.Popen(
        [sys.executable, "-c", OLDER, path, *options],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert older.stdout is not None
    with older.stdout:
        assert older.stdout.readline() == "ready\n"
    started_s = time.monotonic()
    server = serve(path)
    if options:
        first_line(server, ", epoch")
        assert time.monotonic() - started_s < succession.ANSWER_S_MAX
        assert older.wait(HANGS_S) == 0
        with blocking.open(path) as log:  # before it serves, SIGTERM has its default action
            assert log.status().writer_pid == server.pid
        end(server)
    else:
        first_line(server, "already has a writer")
        assert server.wait(HANGS_S) == 1
        assert server.stderr is not None
        server.stderr.close()
        older.terminate()
        assert older.wait(HANGS_S) == 0


STUBBORN = OLDER.replace("SIGTERM, end", "SIGTERM, signal.SIG_IGN").replace("pipe.close()", "")


def test_a_writer_of_an_older_protocol_that_does_not_end_is_named(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit of another wait ended this one early: it passed for ended, and was asked for ever.

    stop_writer(path)
    monkeypatch.setattr(succession, "ANSWER_S_MAX", 0.1)
    monkeypatch.setattr(succession, "END_S_MAX", 0.3)
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN, path, "--detach"], stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as older:
        assert older.stdout is not None
        assert older.stdout.readline() == b"ready\n"
        with pytest.raises(WriterUnavailable, match=f"process {older.pid} .* by force"):
            succession.become_writer(path, replaces=True)
        older.kill()


def test_a_process_that_holds_the_lock_and_does_not_end_is_named(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventlog.local.writer import succession

    stop_writer(path)
    monkeypatch.setattr(succession, "END_S_MAX", 0.3)
    lock = rendezvous.try_lock_writer(path)
    assert lock is not None
    with pytest.raises(WriterUnavailable, match=r"holds the writer's lock .* by force"):
        succession.become_writer(path)
    assert is_free(path)
    lock.release()
