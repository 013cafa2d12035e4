"""SIGKILL for the writer, producers and subscribers at random moments; then an audit of everything.

The seed is in the test's name; `./scripts/test -m slow` runs the long ones.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from eventlog import blocking
from eventlog.demo.main_job import stop_process

ROOT = Path(__file__).resolve().parents[2]
PARTS = Path(__file__).with_name("kill_parts.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
PROGRESS_S = 60.0


class Cast:
    """Two producers and two subscribers, started again whenever they were killed."""

    def __init__(self, log_path: str, folder: Path) -> None:
        self._log_path = log_path
        self._folder = folder
        self._lives = 0
        self._told_before = 0
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for role in ("produce-a", "produce-b", "consume-a", "consume-b"):
            self.start(role)

    def start(self, role: str) -> None:
        kind, name = role.split("-")
        self._lives += 1
        # A producer's every life has a name of its own: its numbers begin again.
        who = f"{name}{self._lives}" if kind == "produce" else name
        record = self._folder / f"{kind}-{who}.record"
        self._running[role] = subprocess.Popen(
            [sys.executable, str(PARTS), kind, self._log_path, who, str(record)],
            env=ENVIRONMENT,
            stderr=subprocess.DEVNULL,
        )

    def kill(self, role: str) -> None:
        self._running[role].kill()
        self._running[role].wait()

    def await_progress(self) -> None:
        """Wait until a producer was told of one more event than before."""
        deadline = time.monotonic() + PROGRESS_S
        while (told := self._told()) <= self._told_before:
            assert time.monotonic() < deadline, "no producer gets on"
            time.sleep(0.005)
        self._told_before = told

    def _told(self) -> int:
        return sum(path.stat().st_size for path in self._folder.glob("produce-*.record"))

    def end(self) -> None:
        for role in self._running:
            self.kill(role)

    def records(self, kind: str) -> dict[str, list[list[str]]]:
        """Whole lines of each record; a killed process may have left half of one."""
        found = {}
        for path in self._folder.glob(f"{kind}-*.record"):
            lines = path.read_text().splitlines(keepends=True)
            name = path.stem.removeprefix(f"{kind}-")
            found[name] = [line.split() for line in lines if line.endswith("\n")]
        return found


@contextmanager
def playing(log_path: str, folder: Path) -> Iterator[Cast]:
    cast = Cast(log_path, folder)
    try:
        yield cast
    finally:
        cast.end()


def kill_at_random(cast: Cast, log: blocking.EventLog, kills: int, rng: random.Random) -> None:
    for _ in range(kills):
        cast.await_progress()  # else a slow machine sees nothing but starts
        # The moment is what is random here; nothing is waited for.
        time.sleep(rng.uniform(0.02, 0.25))
        role = rng.choice(("writer", "writer", "produce-a", "produce-b", "consume-a", "consume-b"))
        if role == "writer":
            pid = log.status().writer_pid
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            cast.kill(role)
            cast.start(role)


def audit(log: blocking.EventLog, cast: Cast) -> int:
    """What must hold whoever was killed and when; the number of events."""
    events = [(envelope.seq_no, *envelope.event) for envelope in log.read(1)]
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1)), "gapless"
    values = [(producer, number) for _, producer, number in events]
    assert len(set(values)) == len(values), "stored once"
    last: dict[str, int] = {}
    for producer, number in values:
        assert number == last.get(producer, -1) + 1, f"the order of {producer}"
        last[producer] = number
    stored = {seq_no: (producer, number) for seq_no, producer, number in events}
    for producer, lines in cast.records("produce").items():
        for seq_no, number in lines:
            assert stored[int(seq_no)] == (producer, int(number)), "acknowledged, so it is there"
    for lines in cast.records("consume").values():
        audit_consumer(lines, stored)
    return len(events)


def audit_consumer(lines: list[list[str]], stored: dict[int, tuple[str, int]]) -> None:
    """No gap inside a life, none between lives, no other value, nothing acknowledged twice."""
    seen = acked = 0
    is_first = True
    for line in lines:
        if line == ["begin"]:
            is_first = True
        elif line[0] == "acked":
            acked = max(acked, int(line[1]))
        elif len(line) == 3:
            seq_no = int(line[0])
            assert stored[seq_no] == (line[1], int(line[2]))
            if is_first:
                assert acked < seq_no <= seen + 1, f"a life began at {seq_no} after {seen}"
            else:
                assert seq_no == seen + 1
            seen, is_first = seq_no, False


def play(tmp_path: Path, seed: int, kills: int, **options: int) -> None:
    path = str(tmp_path / "log")
    rng = random.Random(seed)
    with blocking.open(path, segment_bytes=65_536, **options) as log:  # type: ignore[arg-type]
        with playing(path, tmp_path) as cast:
            kill_at_random(cast, log, kills, rng)
        log.append(["the end", 0])
        assert audit(log, cast) > kills
        pid = log.status().writer_pid
    assert pid is not None
    stop_process(pid)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_doubled_or_reordered(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed, kills=30)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10, 14))
def test_the_same_through_hundreds_of_kills(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed, kills=200)
