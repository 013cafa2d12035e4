"""Due times are met over kills of the writer: none early, none lost, and soon."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import pytest

from eventlog import EventEnvelope, blocking

LATE_S_MAX = 0.02
"""The median may be so late."""


class Met:
    """When each event came out, and when it was due; by number, in nanoseconds."""

    def __init__(self) -> None:
        self.due: dict[int, int] = {}
        self.began: dict[int, int] = {}

    def work(self, path: str, group: str) -> None:
        """Be a member until every event has come."""
        with blocking.open(path) as log, log.group(group) as made, made.open_member() as member:
            while len(self.began) < len(self.due):
                lease = member.lease(100)
                assert lease is not None
                for _, envelope in lease:
                    now = time.time_ns()
                    if lease.begin(envelope):
                        assert envelope.seq_no is not None
                        assert now >= self.due[envelope.seq_no], "it is early"
                        self.began.setdefault(envelope.seq_no, now)
                        lease.done(envelope)


def met_over_kills(path: Path, count: int, kills: int, window_s: float, lead_s: float) -> Met:
    """Append that many events, due within the window, and kill the writer again and again."""
    met, rng = Met(), random.Random(1)
    with blocking.open(path) as log:
        begin = datetime.now(UTC) + timedelta(seconds=lead_s)
        moments = [begin + timedelta(seconds=rng.random() * window_s) for _ in range(count)]
        first, last = log.append_many(
            EventEnvelope(n, not_before=moment) for n, moment in enumerate(moments)
        )
        for number, envelope in enumerate(log.read(first, last + 1), first):
            met.due[number] = envelope.due.not_before_ns
        with ThreadPoolExecutor() as threads:
            work = threads.submit(met.work, log.path, "g")
            for kill in range(kills):
                at = begin.timestamp() + window_s * (kill + 0.5) / (kills + 1)
                time.sleep(max(at - time.time(), 0))
                kill_writer(log)
            work.result()
        with log.group("g") as group:
            group.wait_drained()
    return met


def kill_writer(log: blocking.EventLog) -> None:
    pid = log.status().writer_pid
    assert pid is not None
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def check(met: Met, count: int) -> float:
    """None is lost; how late the median is, in seconds."""
    assert set(met.began) == set(met.due)
    assert len(met.began) == count
    late = [met.began[number] - due for number, due in met.due.items()]
    assert min(late) >= 0
    return median(late) / 1e9


def test_due_times_are_met_over_a_kill_of_the_writer(tmp_path: Path) -> None:
    met = met_over_kills(tmp_path / "log", 200, 1, window_s=0.8, lead_s=0.1)
    check(met, 200)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_thousand_due_times_are_met_over_ten_kills_of_the_writer(tmp_path: Path) -> None:
    met = met_over_kills(tmp_path / "log", 100_000, 10, window_s=300.0, lead_s=10.0)
    late_s = check(met, 100_000)
    assert late_s < LATE_S_MAX, f"the median is {late_s * 1000:.1f} ms late"
