"""Logs and pools where something is missing that programs usually have; with real processes."""

from __future__ import annotations

import errno
import os
import platform
import resource
import signal
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventlog import EventLogError, WriterUnavailable, blocking, spawn
from tests.odd_places import ROOT, run
from tests.pools.parts import drained, kill, marked_processes, until
from workers import PoolFailed
from workers.blocking import Pool

pytestmark = pytest.mark.real_starts

USE = """
import eventlog.blocking
from workers.blocking import Pool

def handle(event):
    print("handled", event)
    return [event, os.getpid(), files_of("self")]

def use(path):
    with (
        eventlog.blocking.open(path) as log,
        Pool(log, group="g", handler=handle, processes=1, output=path + ".out") as pool,
    ):
        log.append("one")
        pool.drained()
        with eventlog.blocking.open(path + ".out") as results:
            return [result.event for result in results.read(1)], log.status().writer_pid
"""
"""A program that uses a log and a pool."""

CLOSED = (
    USE
    + """
import signal
path = sys.argv[2]
with eventlog.blocking.open(path, segment_bytes=8192, max_event_bytes=2000) as log:
    os.write(1, b"x" * 100)
    for n in range(20):
        log.append("y" * 1500)  # several segments
    say("log", files_of("self"), files_of(log.status().writer_pid))
    os.closerange(0, 3)  # as a program does that goes on in the background
    os.kill(log.status().writer_pid, signal.SIGKILL)
    log.append("two")
    say("again", files_of("self"), files_of(log.status().writer_pid))
    say("read", len(list(log.read(1))))
say("pool", use(sys.argv[3])[0][0])
"""
)


def test_a_program_without_standard_descriptors_uses_logs_and_pools(
    tmp_path: Path, log_path: str
) -> None:
    """The lock of the directory was number 0, and lost to the writer's standard input.

    No writer could start: "the control file was truncated". And what a program writes to standard
    error went into a segment.
    """
    nowhere = ["/dev/null"] * 3
    found = run(CLOSED, tmp_path, log_path, log_path + "2", is_closed=True)
    log, again, read, (_, (event, _, files)) = found
    assert log == ("log", nowhere, nowhere)
    assert again == ("again", nowhere, nowhere)
    assert read == ("read", 21)
    assert (event, files) == ("one", nowhere)


def test_modules_that_only_sys_path_knows_are_found_by_writers_and_workers(
    tmp_path: Path, log_path: str
) -> None:
    """As in archives of pex, shiv and zipapp: the interpreter itself knows none of them."""
    archive = tmp_path / "program.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        for package in ("eventlog", "workers"):
            for source in (ROOT / package).rglob("*.py"):
                file.write(source, source.relative_to(ROOT))
    bare = getattr(sys, "_base_executable", sys.executable)
    places = [str(archive), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    program = f"sys.path[:0] = {places!r}\n{USE}\nsay(*use(sys.argv[2]), eventlog.__file__)"
    ((results, _, origin),) = run(program, tmp_path, log_path, python=(bare, "-I", "-S"))
    assert [result[0] for result in results] == ["one"]
    assert origin.startswith(str(archive))


def test_a_module_that_is_missing_is_named_with_the_interpreter(
    tmp_path: Path, log_path: str
) -> None:
    program = """
    import eventlog.blocking
    eventlog.blocking.open(sys.argv[3]).close()  # what this process needs is imported
    sys.path[:] = [one for one in sys.path if "site-packages" not in one]
    say(*said_by(eventlog.blocking.open, sys.argv[2]))
    """
    ((kind, text),) = run(program, tmp_path, log_path, log_path + ".before")
    assert kind == "WriterUnavailable"
    assert "ModuleNotFoundError: No module named" in text
    assert sys.executable in text


def a_program_that_never_answers(tmp_path: Path) -> str:
    script = tmp_path / "uwsgi"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o700)
    return str(script)


@pytest.mark.parametrize("program", [None, "", "/bin/false", "/nowhere/python", "silent"])
def test_an_executable_that_is_no_python_is_named(
    tmp_path: Path, log_path: str, mark: str, program: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that embeds Python may have any name there: it hung, or killed writers were blamed.

    None of its processes stays.
    """
    monkeypatch.setattr(spawn, "ANSWER_S", 1.0)
    name = a_program_that_never_answers(tmp_path) if program == "silent" else program
    with blocking.open(log_path + ".served") as log:
        monkeypatch.setattr(sys, "executable", name)
        with pytest.raises(WriterUnavailable, match=r"sys\.executable.*eventlog serve") as no_log:
            blocking.open(log_path)
        with (
            pytest.raises(PoolFailed, match=r"sys\.executable") as no_pool,
            Pool(log, group="g", handler=print, processes=1),
        ):
            pass
    monkeypatch.undo()
    assert repr(name) in str(no_log.value)
    assert repr(name) in str(no_pool.value)
    assert not [text for text in marked_processes(mark).values() if "sleep" in text]


def test_a_python_of_another_version_is_named(
    log_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-399")
    with pytest.raises(WriterUnavailable, match=r"and this process is cpython-399"):
        blocking.open(log_path)


def test_what_a_site_hook_prints_is_no_answer(
    tmp_path: Path, log_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for the writer's: "no writer could be started … ready"."""
    hook = "import sys; print('hello'); sys.stderr.write('x' * 200_000); sys.stdout.flush()"
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(hook)
    path = os.pathsep.join([str(tmp_path / "hooks"), str(ROOT)])
    found = run(f"{USE}\nsay(*use(sys.argv[2]))", tmp_path, log_path, env={"PYTHONPATH": path})
    assert found[0][0][0][0] == "one"
    assert (tmp_path / "errors").read_text().count("hello") == 2, "the program's and its worker's"


@pytest.mark.skipif(
    (3, 13) <= sys.version_info < (3, 13, 3),
    reason="these Pythons cannot import socket in a deleted directory (CPython's gh-130932)",
)
def test_a_deleted_working_directory_hinders_only_relative_paths(
    tmp_path: Path, log_path: str
) -> None:
    """Logs, pools and commands ended in FileNotFoundError."""
    program = f"""{USE}
os.mkdir(sys.argv[2] + ".gone")
os.chdir(sys.argv[2] + ".gone")
os.rmdir(sys.argv[2] + ".gone")
say(use(sys.argv[2])[0][0][0])
say(*said_by(eventlog.blocking.open, "relative"))
import subprocess
for words in ("eventlog status", "eventlog verify", "workers run"):
    command = [sys.executable, "-m", *words.split(), "relative"]
    command += ["--handler", "os:getpid", "--group", "g"] * ("run" in command)
    done = subprocess.run(command, capture_output=True, text=True)
    say(done.returncode, done.stderr)
"""
    used, (kind, text), *commands = run(program, tmp_path, log_path)
    assert used == ("one",)
    assert kind == "LogNotFound"
    assert "working directory" in text
    assert "'relative'" in text
    for code, errors in commands:
        assert code != 0
        assert "Traceback" not in errors
        assert "relative" in errors


SIGNALS = f"""{USE}
import signal
def masks(pid):
    with open(f"/proc/{{pid}}/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return [int(lines[name], 16) for name in ("SigBlk", "SigIgn")]
numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
for number in numbers[1:]:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
with eventlog.blocking.open(sys.argv[2]) as log:
    say("writer", *masks(log.status().writer_pid))
    handler = lambda event: masks(os.getpid())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with Pool(log, group="g", handler=handler, processes=1, output=log) as pool:
        log.append("one")
        pool.drained()
    say("worker", *list(log.read(2))[0].event)
"""


def test_signals_that_a_program_blocks_or_ignores_reach_what_it_starts(
    tmp_path: Path, log_path: str
) -> None:
    """A writer whose starter blocks SIGTERM could not be ended in order by it."""
    for _, blocked, ignored in run(SIGNALS, tmp_path, log_path):
        assert not blocked
        for number in (signal.SIGTERM, signal.SIGCHLD):
            assert not ignored & 1 << number - 1


REFUSED = f"""{USE}
import errno, time
from tests.conftest import _children
from tests.pools.refusals import PIDFD_OPEN, refuse
with eventlog.blocking.open(sys.argv[2]) as log:
    refuse(PIDFD_OPEN, int(sys.argv[3]))
    say(*said_by(use, sys.argv[2]))
    say(_children())
    say(log.append("two"))
"""


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_pool_that_may_not_watch_its_workers_says_so(
    tmp_path: Path, log_path: str, number: int
) -> None:
    """It ended in an ExceptionGroup of PermissionError, and left a zombie."""
    (kind, text), (children,), (seq_no,) = run(REFUSED, tmp_path, log_path, str(number))
    assert kind == "PoolFailed"
    assert "pidfd_open" in text
    assert os.strerror(number) in text
    assert children == set()
    assert seq_no == 1, "a log needs no pidfd"


def limit_to_what_is_open(more: int = 0) -> None:
    """Let this process open so many descriptors more, and not one beside them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + more, hard))


@pytest.fixture
def limit() -> Iterator[None]:
    """The limit of descriptors is as it was, after the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("limit")
def test_a_pool_without_descriptors_fails_at_its_start_and_tries_again_later(
    log: blocking.EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    """A moment without descriptors ended a pool that had run for days, in an ExceptionGroup."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Pool(log, group="g", handler=len, processes=1) as pool:
        pid = pool.stats().workers[0].pid
        limit_to_what_is_open()
        kill(pid)
        until(lambda: "it is tried again" in caplog.text)
        with pytest.raises(EventLogError), Pool(log, group="h", handler=len, processes=1):
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        log.append("one")
        drained(pool)
        assert pool.stats().handled == 1
    assert caplog.text.count("it is tried again") == 1
    assert "Too many open files" in caplog.text


CROWDED = f"""{USE}
import errno
from tests.pools.refusals import STARTING, refuse
def publish(log):
    with log.publisher() as publisher:
        publisher.send("one")
with eventlog.blocking.open(sys.argv[2]) as log:
    publish(log)
    for call in STARTING:
        refuse(call, errno.EAGAIN)
    say(*said_by(publish, log))
    say(*said_by(use, sys.argv[2]))
    say(*said_by(eventlog.blocking.open, sys.argv[2] + ".new"))
    say("append", log.append("two"))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of calls differ elsewhere")
def test_a_program_at_its_limit_of_processes_gets_errors_of_ours(
    tmp_path: Path, log_path: str
) -> None:
    """Some were a bare RuntimeError: can't start new thread."""
    publisher, pool, start, append = run(CROWDED, tmp_path, log_path)
    assert publisher[0] == "EventLogError"
    assert "thread" in publisher[1]
    assert pool[0] == "PoolFailed"
    assert start[0] == "WriterUnavailable"
    assert os.strerror(errno.EAGAIN) in start[1]
    assert append == ("append", 2)
