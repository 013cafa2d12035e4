"""A hostile or stopped client costs nobody else anything; with a real writer and real sockets."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from eventlog import blocking
from eventlog.demo.main_job import stop_process
from eventlog.local import rendezvous
from eventlog.local.wire.connection import frame
from eventlog.local.wire.messages import (
    HELLO_MAGIC,
    PROTOCOL_VERSION,
    Ack,
    Append,
    Appended,
    Hello,
    Park,
    Stage,
    Status,
)
from eventlog.testing import batch_of

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
HELLO = frame(Hello(HELLO_MAGIC, PROTOCOL_VERSION, os.getpid()))
WRITER_MIB_MAX = 80
GUARD_S = 30.0
"""No measure of time: what takes longer than this hangs."""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[blocking.EventLog]:
    """A log with a writer, which is ended after the test."""
    with blocking.open(tmp_path / "log") as opened:
        opened.append("first")
        pid = writer_pid(opened)
        yield opened
    stop_process(pid)


def writer_pid(log: blocking.EventLog) -> int:
    pid = log.status().writer_pid
    assert pid is not None
    return pid


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def mib_of(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (anonymous,) = [line.split()[1] for line in lines if line.startswith("RssAnon")]
    return int(anonymous) / 1024


def connected(log: blocking.EventLog) -> socket.socket:
    pipe = rendezvous.connect(log.path)
    assert pipe is not None
    pipe.settimeout(GUARD_S)
    return pipe


def is_served(log: blocking.EventLog) -> None:
    """An honest client appends, reads back and acknowledges."""
    for _ in range(20):
        seq_no = log.append({"honest": True})
        assert [one.event for one in log.read(seq_no)] == [{"honest": True}]
        log.ack("honest", seq_no)


def send_for_ever(pipe: socket.socket, data: bytes) -> None:
    while True:
        pipe.sendall(data)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the writer does by itself."""
    deadline = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@contextmanager
def costing_nothing(log: blocking.EventLog) -> Iterator[None]:
    """The writer stays the same process, small, and keeps nothing of whoever is gone."""
    pid = writer_pid(log)
    is_served(log)
    before = descriptors_of(pid)
    yield
    is_served(log)
    assert writer_pid(log) == pid
    assert mib_of(pid) < WRITER_MIB_MAX
    until(lambda: descriptors_of(pid) <= before)


@pytest.mark.parametrize("message", [Park(1, 1), Status(1)], ids=["park", "status"])
def test_a_client_that_never_reads_its_answers_is_dropped(
    log: blocking.EventLog, message: Park | Status
) -> None:
    with costing_nothing(log), connected(log) as pipe:
        pipe.sendall(HELLO)
        asking = frame(message) * 5000
        with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
            send_for_ever(pipe, asking)  # it is dropped after a MiB of unread answers
        is_served(log)


def test_a_client_that_sends_byte_by_byte_gets_its_answer(log: blocking.EventLog) -> None:
    batch = batch_of("slow")
    append = Append(1, 5, 1, batch.count, batch.flags, 0, batch.payload)
    with costing_nothing(log), connected(log) as pipe:
        for number, byte in enumerate(HELLO + frame(append)):
            pipe.sendall(bytes([byte]))
            if number % 10 == 0:
                is_served(log)
        heard = b""
        while frame(Appended(1, log.last_seq_no() or 0)) not in heard:
            heard += pipe.recv(1000)
        (last,) = log.read(-1)
    assert last.event == "slow"


HALF_A_FRAME = """
import os, sys, time
from eventlog.local import rendezvous
pipe = rendezvous.connect(sys.argv[1])
pipe.sendall(bytes.fromhex(sys.argv[2]))
print("sent", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_client_that_stops_in_the_middle_of_a_batch_holds_nobody_up(
    log: blocking.EventLog, number: signal.Signals
) -> None:
    batch = batch_of("never whole " + "." * 5000)
    whole = HELLO + frame(Append(1, 5, 1, batch.count, batch.flags, 0, batch.payload))
    with costing_nothing(log):
        process = subprocess.Popen(
            [sys.executable, "-c", HALF_A_FRAME, log.path, whole[: len(whole) // 2].hex()],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"sent\n"
            process.send_signal(number)
            is_served(log)
        finally:
            process.kill()
            process.communicate()
    events = [one.event for one in log.read(1)]
    assert not [event for event in events if "never whole" in event]


def nonsense() -> Iterator[bytes]:
    """What no client of ours says."""
    for length in (2**32 - 1, 2**31, 1 << 28, 0):
        yield HELLO + struct.pack("<I", length) + b"\x92"
    yield frame(Hello(HELLO_MAGIC, PROTOCOL_VERSION + 1, 1))
    yield frame(Hello("other", PROTOCOL_VERSION, 1))
    yield frame(Status(1))  # without a hello
    yield HELLO + HELLO
    yield HELLO + frame(Appended(1, 1))
    yield HELLO + frame(Append(1, 1, 1, 2**31, 0, 0, b"x"))
    yield HELLO + frame(Append(1, 1, 1, 1, 0xFFFF, 0, b"x" * 100))
    yield HELLO + frame(Append(1, 1, 1, 1, 0, 2**31, b"x" * 100))


@pytest.mark.parametrize("data", list(nonsense()), ids=range(12))
def test_nonsense_costs_its_sender_the_pipe(log: blocking.EventLog, data: bytes) -> None:
    with costing_nothing(log), connected(log) as pipe:
        pipe.sendall(data)
        pipe.shutdown(socket.SHUT_WR)
        while pipe.recv(1000):
            pass


def test_descriptors_that_a_client_sends_are_not_kept(log: blocking.EventLog) -> None:
    with costing_nothing(log), connected(log) as pipe, open(os.devnull, "rb") as gift:
        socket.send_fds(pipe, [HELLO + frame(Stage(1))], [gift.fileno()] * 8)
        until(lambda: bool(pipe.recv(1000)))
        socket.send_fds(pipe, [frame(Status(2))], [gift.fileno()] * 8)


def test_acknowledging_what_is_not_there_is_refused_and_harmless(log: blocking.EventLog) -> None:
    with costing_nothing(log), connected(log) as pipe:
        asking = [frame(Ack(n, "x" * 128, 2**62 + n)) for n in range(1, 200)]
        pipe.sendall(HELLO + b"".join(asking))
        heard = b""
        while heard.count(b"SequenceOutOfRange") < 199:
            heard += pipe.recv(100_000)
    assert "x" * 128 not in [one.name for one in log.consumers()]


# --- many ------------------------------------------------------------------------------------


@contextmanager
def connections(log: blocking.EventLog, count: int) -> Iterator[list[socket.socket]]:
    """So many open pipes, of which every second one has said hello."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft_before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as stack:
            pipes = [stack.enter_context(connected(log)) for _ in range(count)]
            for pipe in pipes[::2]:
                pipe.sendall(HELLO)
                assert pipe.recv(1000)
            yield pipes
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft_before, hard))


def test_a_thousand_connections_hold_nobody_up(log: blocking.EventLog) -> None:
    with costing_nothing(log), connections(log, 1000):
        is_served(log)
        until(lambda: (log.status().connections or 0) >= 1000)


SUBSCRIBERS = """
import sys, trio, eventlog
from eventlog import SeekPosition

async def subscribe(log, number, total):
    seen = 0
    async with log.subscribe(f"s{number}", SeekPosition.sequence(int(sys.argv[5]))) as stream:
        async for envelope in stream:
            seen += 1
            assert envelope.event == seen, (envelope, seen)
            if seen == total:
                break
    await log.ack(f"s{number}", envelope.seq_no)

async def main():
    path, first, count, total = sys.argv[1], *map(int, sys.argv[2:5])
    async with eventlog.open(path) as log, trio.open_nursery() as nursery:
        for number in range(first, first + count):
            nursery.start_soon(subscribe, log, number, total)
        print("ready", flush=True)

trio.run(main)
"""


@pytest.mark.parametrize(("subscribers", "idle"), [(20, 100), (200, 1000)])
def test_many_subscribers_and_connections_hold(
    log: blocking.EventLog, subscribers: int, idle: int
) -> None:
    total, processes = 500, 4
    each = subscribers // processes
    with costing_nothing(log), connections(log, idle), ExitStack() as stack:
        first = (log.last_seq_no() or 0) + 1
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SUBSCRIBERS, log.path]
                    + [str(number) for number in (n * each, each, total, first)],
                    stdout=subprocess.PIPE,
                    env=ENVIRONMENT,
                )
            )
            for n in range(processes)
        ]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        log.append_many(range(1, total + 1))
        assert [process.wait(120) for process in started] == [0] * processes
    names = {one.name for one in log.consumers() if one.name.startswith("s")}
    assert len(names) == subscribers


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
os.execv(sys.executable, [sys.executable, "-m", "eventlog.local.writer", sys.argv[1]])
"""


def test_a_writer_without_descriptors_left_serves_those_it_has(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with blocking.open(path) as log:
        pid = writer_pid(log)
    stop_process(pid)
    writer = subprocess.Popen(
        [sys.executable, "-c", LIMITED, path], stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.read() == rendezvous.READY
        with blocking.open(path) as log, ExitStack() as stack:
            is_served(log)
            pipes = [stack.enter_context(connected(log)) for _ in range(100)]
            for pipe in pipes:
                pipe.sendall(HELLO)
            # A quarter of the limit is kept for the storage.
            until(lambda: descriptors_of(writer.pid) >= 44)
            served = threading.Thread(target=is_served, args=(log,))
            served.start()
            served.join(GUARD_S)
            assert not served.is_alive()
            for pipe in pipes[:85]:
                pipe.close()
            # Those that waited at the door are let in now.
            for pipe in pipes[85:]:
                assert pipe.recv(1000)
            is_served(log)
        assert writer.poll() is None
    finally:
        writer.terminate()
        assert writer.wait(GUARD_S) == 0
        if writer.stdout is not None:
            writer.stdout.close()
