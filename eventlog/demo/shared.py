"""The pool of the demonstration: workers share the files, and one of them is killed half-way.

Each handled event leaves a line "pid number digest" in one file: the proof, made outside of the
log, of who handled what.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eventlog import EventEnvelope, blocking
from eventlog.demo.parser import parse
from workers.blocking import Pool

GROUP = "pool"


@dataclass(slots=True)
class PoolReport:
    """What the pool did, and whether its proof is right."""

    workers: int
    position: int = 0
    killed_pid: int | None = None
    restarts: int = 0
    repeated: int = 0
    """Events that were handled twice: what the killed worker had in its hands."""
    fault: str | None = None


def handle(proof_path: str, envelope: EventEnvelope) -> None:
    """Parse one file; runs in a worker."""
    source: bytes = envelope.event["source"]
    parse(source)
    line = f"{os.getpid()} {envelope.seq_no} {digest_of(source)}\n"
    descriptor = os.open(proof_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def digest_of(source: bytes) -> str:
    """A short name for the bytes."""
    return hashlib.sha256(source).hexdigest()[:16]


class SharedWork:
    """The pool, its proof, and the kill."""

    def __init__(self, log: blocking.EventLog, proof: Path, workers: int) -> None:
        self._proof = proof
        self._report = PoolReport(workers)
        self.pool = Pool(log, group=GROUP, handler=partial(handle, str(proof)), processes=workers)

    def kill_one(self) -> None:
        """SIGKILL a worker."""
        self._report.killed_pid = self.pool.stats().workers[0].pid
        with suppress(ProcessLookupError):
            os.kill(self._report.killed_pid, signal.SIGKILL)

    def finish(self) -> None:
        """Wait for all events, and note what the pool says of itself."""
        self.pool.drained()
        stats = self.pool.stats()
        self._report.restarts = sum(worker.restarts for worker in stats.workers)

    def report(self, digests: list[str], position: int) -> PoolReport:
        """Hold the proof against the files."""
        lines = [line.split() for line in self._proof.read_text().splitlines()]
        times = Counter(int(number) for _, number, _ in lines)
        report = self._report
        report.position = position
        report.repeated = len(lines) - len(times)
        wrong = [number for _, number, digest in lines if digests[int(number) - 1] != digest]
        if wrong:
            report.fault = f"event {wrong[0]} is not the file that was appended"
        elif len(times) != len(digests):
            report.fault = f"it handled {len(times)} of {len(digests)} events"
        return report
