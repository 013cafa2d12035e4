"""The job of `eventlog demo`: real files, parsed by consumers and by a pool; some are killed."""

from __future__ import annotations

import os
import signal
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import multiprocess

from eventlog import blocking
from eventlog.demo.parser import parse_all
from eventlog.demo.shared import GROUP, PoolReport, SharedWork, digest_of
from eventlog.errors import InvalidArgument

REFRESH_S = 0.1
"""How often the progress is drawn, and looked at for the half-way mark."""


@dataclass(slots=True)
class ConsumerReport:
    """What one consumer did, and whether its proof is right."""

    name: str
    position: int = 0
    lag: int = 0
    lives: int = 1
    redelivered: int = 0
    """Events handled twice: those between the last acknowledgement and the kill."""
    unparsable: int = 0
    fault: str | None = None


@dataclass(slots=True)
class Report:
    """What the whole job came to."""

    events: int
    bytes: int
    seconds: float
    append_seconds: float
    killed: str | None = None
    resumed_at: int | None = None
    consumers: list[ConsumerReport] = field(default_factory=list)
    pool: PoolReport | None = None

    @property
    def is_right(self) -> bool:
        """Every consumer saw every event in order, and the pool handled every one."""
        faults = [consumer.fault for consumer in self.consumers]
        return all(fault is None for fault in [*faults, self.pool and self.pool.fault])


def standard_library() -> list[Path]:
    """The source files of the Python that runs this, without what was installed into it."""
    folder = Path(sysconfig.get_path("stdlib"))
    installed = {"site-packages", "dist-packages"}
    return [path for path in python_files(folder) if not installed & set(path.parts)]


def python_files(folder: Path) -> list[Path]:
    """The source files below the folder, in order.

    Raises:
        InvalidArgument: there are none.
    """
    files = sorted(path for path in folder.rglob("*.py") if path.is_file())
    if not files:
        raise InvalidArgument(f"there are no Python files below {folder}; give another folder")
    return files


class MainJob:
    """One run on a new log; `progress` is called with a consumer and its position.

    Everybody's proof goes to the folder `work`.
    """

    def __init__(
        self,
        work: Path,
        log: str,
        files: list[Path],
        consumers: int,
        workers: int,
        progress: Callable[[str, int], None],
    ) -> None:
        self._work = work
        self._workers = workers
        self._log_path = log
        self._files = files
        self._names = [f"parser-{number}" for number in range(1, consumers + 1)]
        self._progress = progress
        self._processes: dict[str, Any] = {}
        self._lives = dict.fromkeys(self._names, 1)
        self._context = multiprocess.get_context("spawn")
        self._digests: list[str] = []
        self._bytes = 0

    def run(self) -> Report:
        """Do it; whatever ends it, no process is left.

        Raises:
            InvalidArgument: the log has events already.
        """
        with blocking.open(self._log_path) as log:
            _check_new(log)
            writer_pid = log.status().writer_pid
            try:
                return self._run(log)
            finally:
                self._end_processes()
                if writer_pid is not None and Path(self._log_path).parent == self._work:
                    stop_process(writer_pid)

    def _run(self, log: blocking.EventLog) -> Report:
        shared = SharedWork(log, self._proof(GROUP), self._workers)
        with shared.pool:
            start = time.monotonic()
            for name in self._names:
                self._start(name)
            self._append(log)
            append_seconds = time.monotonic() - start
            killed, resumed_at = self._kill_one(log)
            self._watch(log, until=lambda positions: positions.get(GROUP, 0) >= self._half)
            shared.kill_one()
            self._watch(log)
            shared.finish()
            self._progress(GROUP, _positions(log).get(GROUP, 0))
            seconds = time.monotonic() - start
        report = Report(
            events=len(self._files),
            bytes=self._bytes,
            seconds=seconds,
            append_seconds=append_seconds,
            killed=killed,
            resumed_at=resumed_at,
        )
        report.consumers = [self._checked(log, name) for name in self._names]
        report.pool = shared.report(self._digests, _positions(log).get(GROUP, 0))
        return report

    @property
    def _half(self) -> int:
        return len(self._files) // 2

    def _append(self, log: blocking.EventLog) -> None:
        with log.publisher() as publisher:
            for number, path in enumerate(self._files, 1):
                source = path.read_bytes()
                self._digests.append(digest_of(source))
                self._bytes += len(source)
                publisher.send({"path": str(path), "source": source})
                self._progress("append", number)

    def _start(self, name: str) -> None:
        arguments = (
            self._log_path, name, str(self._proof(name)), len(self._files), self._lives[name],
        )  # fmt: skip
        process = self._context.Process(target=parse_all, args=arguments, name=name)
        process.start()
        self._processes[name] = process

    def _proof(self, name: str) -> Path:
        return self._work / f"{name}.proof"

    def _kill_one(self, log: blocking.EventLog) -> tuple[str, int] | tuple[None, None]:
        """SIGKILL the first consumer half-way, and start it again; not if it has ended by then."""
        victim = self._names[0]
        self._watch(log, until=lambda positions: positions.get(victim, 0) >= self._half)
        process = self._processes[victim]
        if not process.is_alive():
            return None, None
        process.kill()
        process.join()
        self._lives[victim] += 1
        resumed_at = _positions(log).get(victim, 0) + 1
        self._start(victim)
        return victim, resumed_at

    def _watch(
        self,
        log: blocking.EventLog,
        until: Callable[[dict[str, int]], bool] = lambda _: False,
    ) -> None:
        """Show positions until `until` holds, or every consumer has ended."""
        while True:
            positions = _positions(log)
            for name in (*self._names, GROUP):
                self._progress(name, positions.get(name, 0))
            running = [p.sentinel for p in self._processes.values() if p.is_alive()]
            if until(positions) or not running:
                return
            wait(running, REFRESH_S)

    def _checked(self, log: blocking.EventLog, name: str) -> ConsumerReport:
        """Hold the consumer's proof against the files."""
        state = {state.name: state for state in log.consumers()}.get(name)
        report = ConsumerReport(name, lives=self._lives[name])
        if state is not None:
            report.position, report.lag = state.last_acked or 0, state.lag
        lines = [line.split() for line in self._proof(name).read_text().splitlines()]
        report.unparsable = sum(line[3:] == ["unparsable"] for line in lines)
        report.fault = self._fault([line for line in lines if len(line) == 4], report)
        exit_code = self._processes[name].exitcode
        if exit_code != 0:
            report.fault = report.fault or f"it ended with exit code {exit_code}"
        return report

    def _fault(self, lines: list[list[str]], report: ConsumerReport) -> str | None:
        """Each life must be in order without a gap, begin where it may, and all must be covered."""
        seen = 0
        life = None
        for line_life, number, digest, _ in lines:
            seq_no = int(number)
            if line_life != life:
                if seq_no > seen + 1:
                    return f"life {line_life} began with event {seq_no} after {seen}"
                report.redelivered += seen - seq_no + 1
                life, seen = line_life, seq_no - 1
            if seq_no != seen + 1:
                return f"event {seq_no} came after {seen}"
            if digest != self._digests[seq_no - 1]:
                return f"event {seq_no} is not the file that was appended"
            seen = seq_no
        return None if seen == len(self._files) else f"it saw {seen} of {len(self._files)} events"

    def _end_processes(self) -> None:
        for process in self._processes.values():
            if process.is_alive():
                process.kill()
            process.join()
            process.close()


def _check_new(log: blocking.EventLog) -> None:
    """Pass if nothing was ever stored: the numbers of events are those of the files."""
    last = log.last_seq_no()
    if last is not None:
        raise InvalidArgument(
            f"the log {log.path} has {last} events already, and the demonstration begins with event"
            " 1; give the address of a new log",
            path=log.path,
        )


def _positions(log: blocking.EventLog) -> dict[str, int]:
    return {state.name: state.last_acked or 0 for state in log.consumers()}


def stop_process(pid: int) -> None:
    """End a process that is no child of ours, and wait until it has."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGTERM)
            wait([descriptor])
        finally:
            os.close(descriptor)
