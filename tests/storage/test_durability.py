"""What an answer means at each level of durability, a full disk, and peers that do not listen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import eventlog
from eventlog import LogFull, blocking
from eventlog.demo.main_job import stop_process
from eventlog.local import rendezvous
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.wire.connection import frame
from eventlog.local.wire.messages import HELLO_MAGIC, PROTOCOL_VERSION, Hello, Status
from eventlog.local.writer.actor import Actor
from eventlog.testing import batch_of, open_storage
from eventlog.tools.backup import back_up
from eventlog.tools.verify import verify_log


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Where a log may be made; its writer is ended after the test."""
    place = tmp_path / "log"
    yield str(place)
    if (place / "control").is_file():
        with blocking.open(place) as log:
            pid = log.status().writer_pid
        assert pid is not None
        stop_process(pid)


def test_with_sync_an_append_returns_when_the_synced_mark_covers_it(path: str) -> None:
    with blocking.open(path, durability="sync", segment_bytes=65_536) as log:
        reader = LogReader(path)
        for _ in range(100):  # through several segments
            seq_no = log.append("x" * 2000)
            assert reader.control.synced >= seq_no
        reader.close()


def test_what_a_killed_writer_had_not_synced_the_next_one_syncs(path: str) -> None:
    # It waited for an append of its own: `synced` hung, as did a stream of `durable_only`, and a
    # loss of power could take what had been acknowledged long before.
    with blocking.open(path) as log:
        last = log.append(1)
        pid = log.status().writer_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        log.synced(last)
        assert log.status().synced_seq_no == last


@pytest.mark.parametrize(("ends_in_order", "syncs"), [(False, 1), (True, 0)])
def test_only_after_a_killed_writer_the_next_one_begins_with_a_sync(
    tmp_path: Path, ends_in_order: bool, syncs: int
) -> None:
    log = open_storage(str(tmp_path / "log"))
    log.append(batch_of("a"))
    if ends_in_order:
        log.close()
    else:
        log.abandon()
    again = open_storage(str(tmp_path / "log"))
    wanted: list[int] = []
    actor = Actor(again, lambda: 0, lambda: wanted.append(1))
    assert len(wanted) == syncs
    actor.end()


def test_with_disk_the_synced_mark_follows_by_itself(path: str) -> None:
    with blocking.open(path, durability="disk") as log:
        reader = LogReader(path)
        log.append(1)
        last = log.append(2)
        pid = log.status().writer_pid
        assert pid is not None
        stop_process(pid)  # an orderly end syncs what is left, whatever the interval is
        assert reader.control.synced == last
        assert reader.control.writer_pid == 0
        reader.close()


@pytest.mark.trio
async def test_concurrent_appends_share_batches_and_so_their_syncs(path: str) -> None:
    numbers: list[int] = []

    async def append(event: int) -> None:
        numbers.append(await log.append(event))

    async with eventlog.open(path, durability="sync") as log, trio.open_nursery() as nursery:
        for event in range(64):
            nursery.start_soon(append, event)
    assert sorted(numbers) == list(range(1, 65))
    reader = LogReader(path)
    try:
        assert verify_log(reader).batches <= 4
    finally:
        reader.close()


def test_a_peer_that_never_reads_its_answers_is_dropped_and_holds_nobody_up(path: str) -> None:
    with blocking.open(path) as log:
        assert log.append(1) == 1
        pipe = rendezvous.connect(path)
        assert pipe is not None
        with pipe:
            pipe.settimeout(30)
            pipe.sendall(frame(Hello(HELLO_MAGIC, PROTOCOL_VERSION, os.getpid())))
            requests = b"".join(frame(Status(number)) for number in range(1, 300_000))
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                pipe.sendall(requests)
        assert log.append(2) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(log: blocking.EventLog) -> int:
    """Append until there is no room; the last number, 0 if there was none from the start."""
    stored = 0
    try:
        while stored < 1000:
            stored = log.append("x" * 10_000)
    except LogFull:
        return stored
    pytest.fail("there was room without end")


def test_a_full_disk_is_an_error_to_the_producer_and_nothing_worse(small_disk: Path) -> None:
    path = small_disk / "log"
    with blocking.open(path, durability="memory", segment_bytes=65_536) as log:
        pid = log.status().writer_pid
        assert pid is not None
        stored = fill(log)
        assert log.last_seq_no() == stored
        with pytest.raises(LogFull, match="no room"):
            log.append("y" * 10_000)
        assert log.status().writer_pid == pid, "the writer lives on"
        subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
        after = log.append("there is room again")
        assert [envelope.seq_no for envelope in log.read(1)] == list(range(1, after + 1))
    stop_process(pid)


def test_a_copy_with_holes_on_a_full_disk_is_read_and_recovered(small_disk: Path) -> None:
    """Looking for data behind the end, through a map, filled the holes of a backup: SIGBUS."""
    source, copy = small_disk.parent / "source", small_disk / "copy"
    log = open_storage(str(source), segment_bytes=4 << 20)
    log.append(batch_of("x"))
    log.abandon()
    back_up(str(source), str(copy))
    control = ControlPage(str(copy), writable=True)
    control.writer_pid = 1 << 30  # as after a kill: the whole segment is looked at
    control.close()
    with suppress(OSError), open(small_disk / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    program = """
        import sys
        from eventlog.errors import LogFull
        from eventlog.local.storage.reading.reader import LogReader
        from eventlog.tools.verify import verify_log
        from eventlog.testing import batch_of, open_storage

        print(verify_log(LogReader(sys.argv[1])).problems)
        log = open_storage(sys.argv[1])
        try:
            log.append(batch_of("y" * 10_000))
        except LogFull:
            print("full")
        """
    command = [sys.executable, "-c", textwrap.dedent(program), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\nfull\n"), done.stderr
