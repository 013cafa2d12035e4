"""SIGKILL any process but the writer, at any line of its work: nobody else blocks, nothing is lost.

And SIGKILL the writer: what is published is readable with no writer at all.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eventlog import EventEnvelope, SeekPosition, blocking
from eventlog.demo.main_job import stop_process
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import stored_events
from tests.killed_jobs import JOBS, LARGE

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
STORED = 20
POINTS = 20
GUARD_S = 60.0
CONSUMERS = {"consume": "c", "total": "t"}
"""Consumers whose acknowledgements a job reports."""
ITS_OWN = 4
"""Descriptors that the writer may have got for segments meanwhile."""


class Jobs:
    """The process that forks, for one job after the other."""

    def __init__(self, path: str, job: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killed_jobs", path, job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def killed_at(self, line: int) -> tuple[int, list[list[str]]]:
        """The exit code of a process that dies there, and what it said before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        said: list[list[str]] = []
        for words in map(str.split, self._process.stdout):
            if words[0] == "over":
                return int(words[1]), said
            said.append(words)
        raise AssertionError(f"the job at line {line} never ended")

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def jobs(path: str, job: str) -> Iterator[Jobs]:
    made = Jobs(path, job)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[blocking.EventLog]:
    """A log with some events and a writer, which is ended after the test."""
    with blocking.open(tmp_path / "log") as opened:
        opened.append_many([{"before": n} for n in range(STORED)])
        pid = opened.status().writer_pid
        assert pid is not None
        yield opened
        pid = opened.status().writer_pid
    if pid is not None:
        stop_process(pid)


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_of_a_job(event: Any) -> bool:
    """Whether one of `killed_jobs` appended it."""
    return event in range(10) or event == bytes(LARGE) or event in [{"n": n} for n in range(3)]


def check(log: blocking.EventLog, job: str, said: list[list[str]]) -> None:
    """Others go on at once, and what the dead one was told is so."""
    number = log.append("honest")
    envelopes: dict[int, EventEnvelope] = {
        one.seq_no: one for one in log.read(1) if one.seq_no is not None
    }
    # What the dead one still had in its pipe may be stored after it.
    assert number in envelopes
    assert list(envelopes) == list(range(1, len(envelopes) + 1))
    assert envelopes[number].event == "honest"
    positions = {one.name: one.last_acked or 0 for one in log.consumers()}
    check_totals(log)
    for word, *numbers in said:
        if word == "appended":
            for seq_no in range(int(numbers[0]), int(numbers[-1]) + 1):
                assert is_of_a_job(envelopes[seq_no].event)
        elif word == "acked":
            assert positions[CONSUMERS[job]] >= int(numbers[0])
    if job == "work":
        finish_group(log)


def check_totals(log: blocking.EventLog) -> None:
    """What the consumer with a state has counted is exactly what is behind its position."""
    for one in log.consumers():
        if one.name == CONSUMERS["total"] and one.last_acked:
            assert one.state == b"%d" % (one.last_acked * (one.last_acked + 1) // 2)


def finish_group(log: blocking.EventLog) -> None:
    """Another member gets, at once, what the dead one had."""
    with log.group("g", position=SeekPosition.BEGINNING) as group, group.open_member(7) as member:
        last = log.last_seq_no()
        position = 0
        while position != last:
            lease = member.lease(1000)
            assert lease is not None
            for _, envelope in lease:
                assert lease.begin(envelope)
                lease.done(envelope)
            member.flush()
            states = {one.name: one.last_acked or 0 for one in log.consumers()}
            position = states["g"]
        group.wait_drained()
    log.append_many(range(5))  # for the next one


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("points", [POINTS, pytest.param(300, marks=pytest.mark.slow)])
def test_whoever_is_killed_at_any_line_holds_nobody_up(
    log: blocking.EventLog, job: str, points: int
) -> None:
    writer = log.status().writer_pid
    assert writer is not None
    check(log, job, [])
    with jobs(log.path, job) as forked:
        code, said = forked.killed_at(0)
        assert code == 0, said
        (lines,) = [int(words[1]) for words in said if words[0] == "lines"]
        assert lines > points
        before = descriptors_of(writer)
        chance = random.Random(job)
        for line in sorted(chance.sample(range(1, lines), points)):
            code, said = forked.killed_at(line)
            # The number of lines is not the same each time: the last ones may never come.
            assert code in (-signal.SIGKILL, 0), (line, said)
            check(log, job, said)
    deadline = time.monotonic() + GUARD_S
    while descriptors_of(writer) > before + ITS_OWN:
        assert time.monotonic() < deadline, "the writer keeps what was a dead client's"
        time.sleep(0.005)
    assert log.status().writer_pid == writer


def test_without_any_writer_all_that_is_published_can_be_read(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with blocking.open(path) as log:
        log.append_many([{"n": n} for n in range(1, 3001)])
        pid = log.status().writer_pid
        assert pid is not None
        reader = LogReader(path)
        batches = reader.batches(1)
        first = batches.next_batch()
        assert first is not None

        os.kill(pid, signal.SIGKILL)
        # In the middle of reading, and from the beginning.
        seen = first.header.last_seq_no
        while (batch := batches.next_batch()) is not None:
            assert batch.header.base_seq_no == seen + 1
            seen = batch.header.last_seq_no
        batches.close()
        reader.close()
        assert seen == 3000
        assert len(stored_events(path)) == 3000
        # The next writer resumes after the last whole batch.
        assert log.append("next") == 3001
        pid = log.status().writer_pid
        assert pid is not None
    stop_process(pid)
