"""Programs that end in the middle of publishing: what was sent is stored, and nothing hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import eventlog
from eventlog import blocking

ROOT: Final = Path(eventlog.__file__).parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Where the log is; its writer ends with the test."""
    path = str(tmp_path / "log")
    yield path
    with blocking.open(path) as log:
        pid = log.status().writer_pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)


def started(lines: str, path: str) -> subprocess.Popen[str]:
    program = textwrap.dedent(
        "import signal, sys, threading, time, eventlog.blocking\n"
    ) + textwrap.dedent(lines)
    return subprocess.Popen(
        [sys.executable, "-W", "default", "-c", program, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def stored(path: str) -> int | None:
    with blocking.open(path) as log:
        return log.last_seq_no()


LEFT_OPEN = """
    log = eventlog.blocking.open(sys.argv[1])
    block = log.publisher(linger=60)
    publisher = block.__enter__()
    for number in range(1_000):
        publisher.send(number)
"""


def test_a_block_that_the_program_never_leaves_is_flushed_at_its_end(path: str) -> None:
    program = started(LEFT_OPEN, path)
    _, errors = program.communicate(timeout=60)
    assert (program.returncode, stored(path)) == (0, 1_000), errors


def test_a_block_whose_log_was_closed_first_warns_with_the_number_of_events(path: str) -> None:
    program = started(textwrap.dedent(LEFT_OPEN) + "log.close()", path)
    _, errors = program.communicate(timeout=60)
    assert "ResourceWarning: a publisher of the log" in errors
    assert "1000 events that are not stored" in errors
    assert stored(path) is None


WAITING = """
    from eventlog import Retention, SeekPosition

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    keep = Retention(max_bytes=2**15, keep_unacked=True)
    log = eventlog.blocking.open(sys.argv[1], retention=keep, segment_bytes=2**13)
    log.seek("laggard", SeekPosition.BEGINNING)

    def watch():
        before, now = None, 0
        while before != now or not now:
            time.sleep(0.3)
            before, now = now, log.last_seq_no()
        print("waits", flush=True)

    with log.publisher() as publisher:
        threading.Thread(target=watch, daemon=True).start()
        while True:
            publisher.send(b"x" * 1_500)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 7)])
def test_a_publisher_that_waits_for_room_ends_by_one_signal(
    path: str, number: signal.Signals, code: int
) -> None:
    # It went on until a second Ctrl-C: its thread held the pipe, and the end of the block waited
    # for the thread.
    program = started(WAITING, path)
    assert program.stdout is not None
    program.stdout.readline()
    program.send_signal(number)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == code, errors
    assert "events that are not stored" in errors
