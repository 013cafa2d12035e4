"""What a log, its writer and a pool find out about the machine: mounts, CPUs, descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from eventlog import EventLogError, LogNotFound, blocking, system
from eventlog.demo.main_job import stop_process
from eventlog.local import rendezvous
from eventlog.local.rendezvous import file_system_of, is_network
from eventlog.local.storage.identity import is_same_process, process_start
from eventlog.local.wire.connection import frame
from eventlog.local.wire.messages import HELLO_MAGIC, PROTOCOL_VERSION, Hello
from eventlog.tools.doctor.service import _state_of
from tests.odd_places import run
from workers.cpus import usable_cpus

pytestmark = pytest.mark.real_starts

# --- mounts ----------------------------------------------------------------------------------

MOUNTS = b"""\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/caf\xc3\xa9 rw shared:2 - nfs4 host:/caf\xc3\xa9 rw
31 22 0:41 / /srv/caf\xe9 rw shared:3 - nfs host:/x rw
32 22 0:42 / /srv/two\\040words\\134 rw - cifs //host/x rw
33 22 0:43 / /srv/\\303\\274 rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/srv/log", "ext4"),
        ("/srv/café/log".encode(), "nfs4"),
        (b"/srv/caf\xe9/log", "nfs"),
        (b"/srv/caf\xe9", "nfs"),
        (b"/srv/two words\\/log", "cifs"),
        ("/srv/ü".encode(), "tmpfs"),
    ],
)
def test_mount_points_of_any_bytes_are_recognised(tmp_path: Path, path: bytes, kind: str) -> None:
    """One that was not UTF-8, anywhere, and no writer could start; NFS in "café" was let pass."""
    table = tmp_path / "mountinfo"
    table.write_bytes(MOUNTS)
    found = file_system_of(os.fsdecode(path), str(table))
    assert found == kind
    assert is_network(found) == (kind not in ("ext4", "tmpfs"))


NAMED = """
import ctypes
ctypes.CDLL(None).prctl(15, ctypes.c_char_p(b"caf\\xe9) R 1"), 0, 0, 0)
print("named", flush=True)
sys.stdin.read()
"""


def test_a_process_whose_name_is_no_text_is_recognised() -> None:
    """Its start was taken for unknown, and doctor ended in a UnicodeDecodeError."""
    command = [sys.executable, "-c", "import sys\n" + NAMED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"named\n"
        start = process_start(process.pid)
        assert start > process_start(1)
        assert is_same_process(process.pid, start)
        assert _state_of(process.pid) in ("S", "R", "D")
        process.communicate()


# --- CPUs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "files", "share"),
    [
        ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1),
        ("0::/host/path\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/../..\n", {"cpu.max": "100000 100000"}, 1),
        ("4:cpu,cpuacct:/d\n", {"cpu/d/cpu.cfs_quota_us": "50000"}, 0.5),
        ("4:cpuacct,cpu:/d\n0::/\n", {"cpuacct,cpu/cpu.cfs_quota_us": "100000"}, 1),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1"}, None),
        ("4:memory:/d\nnonsense\n", {"cpu/cpu.cfs_quota_us": "1"}, None),
        ("", {}, None),
    ],
)
def test_the_quota_of_a_container_limits_the_workers(
    tmp_path: Path, groups: str, files: dict[str, str], share: float | None
) -> None:
    """A pool in a container with half a CPU of 64 started 64 workers."""
    allowed = len(os.sched_getaffinity(0))
    (tmp_path / "cgroup").write_text(groups)
    for name, text in files.items():
        place = tmp_path / "fs" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")
        if "quota" in name:
            place.with_name("cpu.cfs_period_us").write_text("100000\n")
    found = usable_cpus(str(tmp_path / "cgroup"), str(tmp_path / "fs"))
    assert found == (allowed if share is None else 1)


def test_a_part_of_a_cpu_counts_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert usable_cpus(str(tmp_path / "cgroup"), str(tmp_path)) == 3


# --- descriptors -----------------------------------------------------------------------------

LIMIT = 128
CLIENTS = 300

SWEEP = """
import resource, signal
import eventlog.blocking
from eventlog import EventLogError, SeekPosition
path = sys.argv[2]

def use():
    with eventlog.blocking.open(path) as log:
        log.append("x" * 70_000)
        with log.publisher() as publisher:
            publisher.send("y" * 70_000)
        with log.subscribe("c", SeekPosition.BEGINNING, follow=False) as stream:
            for envelope in stream:
                log.ack("c", envelope.seq_no)
        return "worked"

def limited(more):
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + more, hard))
    try:
        return use()
    except EventLogError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
use()
open_before = sorted(os.listdir("/proc/self/fd"))
say(*[limited(more) for more in range(14)])
say(sorted(os.listdir("/proc/self/fd")) == open_before)
with eventlog.blocking.open(path) as log:
    os.kill(log.status().writer_pid, signal.SIGTERM)
starts = []
while starts[-1:] != ["worked"]:  # with a writer to be started
    starts.append(limited(len(starts)))
say(*starts)
say(sorted(os.listdir("/proc/self/fd")) == open_before)
"""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Where a log may be made; its writer is ended after the test."""
    place = str(tmp_path / "log")
    yield place
    with blocking.open(place) as log:
        pid = log.status().writer_pid
    assert pid is not None
    stop_process(pid)


def test_whatever_a_client_lacks_descriptors_for_ends_in_an_error_of_ours(
    tmp_path: Path, path: str
) -> None:
    """Some calls gave a bare OSError."""
    served, is_clean, starts, is_clean_later = run(SWEEP, tmp_path, path)
    assert served[-1] == starts[-1] == "worked"
    for text in (*served, *starts):
        assert text == "worked" or "Too many open files" in text
    assert is_clean == is_clean_later == (True,)


def test_a_writer_at_its_limit_of_descriptors_stores_on_and_says_so_once(path: str) -> None:
    """Ten tracebacks a second washed the writer's log away, and no roll was possible."""
    with blocking.open(path, segment_bytes=64 * 1024, max_event_bytes=16 * 1024) as log:
        pid = log.status().writer_pid
        assert pid is not None
    stop_process(pid)
    writer = subprocess.Popen(
        [
            *("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh"),
            *(sys.executable, "-m", "eventlog.local.writer", path),
        ],
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stdout.read() == rendezvous.READY
    with ExitStack() as stack:
        stack.callback(writer.stdout.close)
        log = stack.enter_context(blocking.open(path))
        log.append(0)
        welcomed = []
        hello = frame(Hello(HELLO_MAGIC, PROTOCOL_VERSION, os.getpid()))
        for _ in range(CLIENTS):
            pipe = rendezvous.connect(path)
            assert pipe is not None
            welcomed.append(stack.enter_context(pipe))
            pipe.sendall(hello)
        for number in range(1, 60):
            log.append(os.urandom(8000))  # several rolls
            assert log.last_seq_no() == number + 1
        assert log.status().segments > 5
        writers_files = len(os.listdir(f"/proc/{writer.pid}/fd"))
        assert LIMIT - 2 * system.RESERVE_MAX < writers_files < LIMIT
        welcomed[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            welcomed[-1].recv(1)
        for pipe in welcomed:
            pipe.close()
        with blocking.open(path) as other:
            assert other.append("in") == 61
    text = Path(path, rendezvous.LOG_NAME).read_text()
    assert "Traceback" not in text
    assert text.count("others wait until some of them leave") == 1
    stop_process(writer.pid)
    writer.wait()


def test_descriptors_below_three_are_left_to_the_program(tmp_path: Path) -> None:
    program = """
    from eventlog.system import above_standard, hold_standard_descriptors
    os.closerange(0, 3)
    descriptor = above_standard(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT))
    found = files_of("self"), descriptor, os.get_inheritable(descriptor), os.get_inheritable(2)
    os.close(1)
    hold_standard_descriptors()
    say(*found, files_of("self"))
    """
    ((files, descriptor, is_inherited, is_standard_inherited, later),) = run(program, tmp_path)
    assert files == later == ["/dev/null"] * 3
    assert descriptor > 2
    assert (is_inherited, is_standard_inherited) == (False, True)


def test_a_path_below_a_deleted_directory_is_an_error_of_ours(tmp_path: Path) -> None:
    program = """
    import eventlog.system
    gone = sys.argv[1] + ".gone"
    os.mkdir(gone)
    os.chdir(gone)
    os.rmdir(gone)
    say(eventlog.system.absolute_path("/there"))
    say(*said_by(eventlog.system.absolute_path, "here"))
    """
    there, (kind, text) = run(program, tmp_path)
    assert there == ("/there",)
    assert kind == "LogNotFound"
    assert "deleted" in text
    assert issubclass(LogNotFound, EventLogError)
