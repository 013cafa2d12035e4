"""Processes of several containers use one log; a program that is a container's first process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from eventlog import blocking
from eventlog.demo.main_job import stop_process

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
HANGS_S = 60
ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def may_unshare() -> bool:
    try:
        done = subprocess.run([*ALONE, "true"], capture_output=True, timeout=HANGS_S, check=False)
    except OSError:
        return False
    return done.returncode == 0


pytestmark = [
    pytest.mark.real_starts,
    pytest.mark.skipif(not may_unshare(), reason="PID namespaces are not permitted here"),
]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A log; its writer is ended after the test."""
    place = str(tmp_path / "log")
    blocking.open(place).close()
    yield place
    stop_process(writer_of(place))


def writer_of(path: str) -> int:
    with blocking.open(path) as log:
        pid = log.status().writer_pid
    assert pid is not None
    return pid


def kill(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert wait([descriptor], HANGS_S)
    os.close(descriptor)


MEMBER = """
import sys, time
from eventlog import blocking
with blocking.open(sys.argv[1]) as log, log.group("g") as group, group.open_member() as member:
    lease = member.lease(1)
    ((_, envelope),) = lease
    lease.begin(envelope)
    print(envelope.seq_no, flush=True)
    sys.stdin.readline()
    lease.done(envelope)
    member.flush()
    print("settled", lease.is_lost, flush=True)
"""


@contextmanager
def member_in_a_container(path: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A member that has begun an event, and its number out here; it has the number 1 in there."""
    outer = subprocess.Popen(
        [*ALONE, sys.executable, "-c", MEMBER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert outer.stdout is not None
    assert outer.stdin is not None
    with outer, outer.stdout, outer.stdin:
        assert outer.stdout.readline() == "1\n"
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
        yield outer, int(children)
        outer.kill()


def test_an_event_of_a_member_in_another_container_stays_its_own_when_the_writer_is_killed(
    path: str,
) -> None:
    """The next writer did not find the member's process, and gave its event to somebody else."""
    with blocking.open(path) as log, log.group("g") as group:
        log.append_many(["first", "second"])
        with member_in_a_container(path) as (outer, inner):
            os.kill(inner, signal.SIGSTOP)  # so that it does not come back before that is decided
            kill(writer_of(path))
            with group.open_member() as member:
                lease = member.lease(10)
                assert lease is not None
                ((_, envelope),) = lease
                assert envelope.seq_no == 2
                assert lease.begin(envelope)
                lease.done(envelope)
            os.kill(inner, signal.SIGCONT)
            assert outer.stdin is not None
            assert outer.stdout is not None
            outer.stdin.write("\n")
            outer.stdin.flush()
            assert outer.stdout.readline() == "settled False\n"
            group.wait_drained()


def test_an_event_of_a_member_that_died_in_another_container_goes_to_others(path: str) -> None:
    with blocking.open(path) as log, log.group("g") as group:
        log.append("first")
        with member_in_a_container(path) as (_, inner):
            os.kill(inner, signal.SIGSTOP)
            kill(writer_of(path))
            log.append("second")
            kill(inner)
            with group.open_member() as member:
                lease = member.lease(10)
                while lease is not None and (found := next(iter(lease)))[1].seq_no != 1:
                    lease = member.lease(10)
                assert lease is not None
                assert found[0] == 2


CHILD_OF_A_MEMBER = """
import os, signal, sys, time
from eventlog import blocking
log = blocking.open(sys.argv[1])
member = log.group("g").__enter__().open_member()
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, member.pipe.slot, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_gives_no_sign_of_life_for_its_parent(path: str) -> None:
    from eventlog.local.storage.members import MemberPages

    done = subprocess.run(
        [sys.executable, "-c", CHILD_OF_A_MEMBER, path],
        stdout=subprocess.PIPE,
        timeout=HANGS_S,
        env=ENVIRONMENT,
        check=False,
    )
    child, slot = map(int, done.stdout.split())
    pages = MemberPages(path)
    try:
        assert not pages.is_held(slot)
    finally:
        pages.close()
        os.kill(child, signal.SIGKILL)


SHOWS_WRITER = """
import os, sys
from eventlog.tools.doctor.examine import examine
from eventlog.local.storage.reading.reader import LogReader
log = LogReader(sys.argv[1])
print(os.getpid(), log.control.running_writer)
print([one.what for one in examine(sys.argv[1]) if one.about == "writer"])
"""


def test_the_writer_is_seen_from_another_container(path: str) -> None:
    pid = writer_of(path)
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", SHOWS_WRITER, path],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        env=ENVIRONMENT,
        check=True,
    )
    assert done.stdout.splitlines() == [f"1 {pid}", f"['process {pid} serves it']"]
    kill(pid)
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", SHOWS_WRITER, path],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        env=ENVIRONMENT,
        check=True,
    )
    assert done.stdout.startswith("1 None\n")


FIRST_PROCESS = """
import asyncio, os, signal, sys, time
import eventlog
from eventlog import WriterUnavailable, blocking

def zombies():
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with open(f"/proc/{name}/stat") as file:
            text = file.read()
        if text.rpartition(")")[2].split()[0] == "Z":
            found.append(text)
    return found

def end_writer(pid, number):
    descriptor = os.pidfd_open(pid)
    os.kill(pid, number)
    import select
    assert select.select([descriptor], [], [], 30)[0]
    os.close(descriptor)

assert os.getpid() == 1
path = sys.argv[1]
with blocking.open(path) as log:
    for number in (signal.SIGKILL, signal.SIGTERM):
        log.append(1)
        end_writer(log.status().writer_pid, number)

async def use():
    async with eventlog.open(path) as log:
        await log.append(2)
        return (await log.status()).writer_pid

end_writer(asyncio.run(use()), signal.SIGTERM)
os.rename(path + "/writer.log", path + "/writer.log.1")
os.mkdir(path + "/writer.log")
try:
    blocking.open(path)
except WriterUnavailable as error:
    print("refused")
end = time.monotonic() + 20
while zombies() and time.monotonic() < end:
    time.sleep(0.01)
print(zombies())
"""


def test_writers_leave_no_zombies_where_a_client_is_the_first_process(tmp_path: Path) -> None:
    """Each writer that ended was a zombie in a container whose first process used the log."""
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", FIRST_PROCESS, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=2 * HANGS_S,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "refused\n[]\n"
