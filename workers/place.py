"""One place in a pool: a process after the other, from its start until it is waited for.

Several processes may be in one place for a while: one that has done enough works on until the next
is ready. A place never leaves a process behind.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import anyio
import anyio.abc

from eventlog import EventLogError, ExitReport, Group, spawn
from workers.child import WorkerSpec
from workers.control import RECEIVE_BYTES
from workers.errors import PoolFailed
from workers.occupant import Occupant
from workers.policy import RESTART_FAILURES_MAX, START_FAILURES_MAX, restart_delay_s
from workers.process import Ending
from workers.relay import RELAY, RelayedLogger
from workers.timing import StartTimes

logger = RelayedLogger("workers")
CHUNKS_MAX: Final = 8
"""What a worker may have said and not been heard: more than its socket holds."""
STEADY_S: Final = 10.0
"""A worker that lived this long, or handled anything, did not die of its start: what killed it is
an event, whose deliveries are counted, or somebody else."""
REFRESH_S_MAX: Final = 5.0
"""How long a group may take to tell what a worker that has ended did last."""


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How a worker ended; `member_id` is 0 if it never was a member."""

    member_id: int
    is_death: bool
    """It did not end in order."""
    report: ExitReport


class Counts(NamedTuple):
    """Events of one place: of the process that is in it now, and of all of them."""

    now_handled: int
    handled: int
    failed: int
    retried: int
    in_flight: int


class Place:
    """One place in a pool, and the processes in it."""

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        timeout_s: float | None,
        on_end: Callable[[Group, WorkerEnd], None],
        on_failure: Callable[[PoolFailed], None],
        group: Group,
    ) -> None:
        self._spec = replace(spec, log_level=logging.getLogger().getEffectiveLevel())
        self._timeout_s = timeout_s
        self._on_end = on_end
        self._on_failure = on_failure
        self._group = group
        self._workers: list[Occupant] = []
        self._past = Counts(0, 0, 0, 0, 0)
        self._stopping = anyio.Event()
        self._deaths = 0
        self._start_failures = 0
        self._is_refused = False
        """The system starts no process here, which was said."""
        self._is_killed = False
        """By its own pool, which is left: that is no failure of what ran."""
        self._wanted = anyio.Event()
        self.restarts = -1
        self.pid = 0
        """Pid of the newest process."""
        self.ready = anyio.Event()
        """The first process of the place is at work."""

    def counts(self) -> Counts:
        """What the processes of this place have done so far."""
        now = [self._counts_of(worker) for worker in self._workers]
        columns = [sum(column) for column in zip(self._past, *now, strict=True)]
        return Counts(now[-1].now_handled if now else self._past.now_handled, *columns[1:])

    def hear(self) -> None:
        """Take what the processes have said so far, so that `counts` knows all of them."""
        for worker in self._workers:
            self._hear(worker)

    def _counts_of(self, worker: Occupant) -> Counts:
        report = self._group.member(worker.member_id) if worker.member_id else None
        if report is None:
            return Counts(0, 0, 0, 0, 0)
        return Counts(
            report.handled, report.handled, report.failed, report.retried, report.in_flight
        )

    # --- processes ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a process in the place until `stop`, or until none can start (`on_failure`)."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._wanted = anyio.Event()
                with anyio.move_on_after(restart_delay_s(self._deaths)):
                    await self._stopping.wait()
                if self._stopping.is_set():
                    return
                worker = self._started()
                if worker is not None:
                    tasks.start_soon(self._accompany, worker)
                    await self._wanted.wait()

    def _started(self) -> Occupant | None:
        """A new process in the place, if there can be one now."""
        try:
            worker = Occupant(self._spec, has_timeout=self._timeout_s is not None)
        except (spawn.CannotStart, OSError) as error:
            self._note_failed_start(f"a worker of {self._described()} cannot be started: {error}")
            return None
        self._workers.append(worker)
        self.restarts += 1
        self.pid = worker.process.pid
        return worker

    def _note_failed_start(self, message: str) -> None:
        """The pool ends if no worker has ever started here; else it is tried again, for ever."""
        if not self.ready.is_set():
            self._fail(message, None)
            return
        if not self._is_refused:
            logger.warning("%s; it is tried again", message)
        self._is_refused = True
        self._deaths = max(self._deaths, 1) + 1

    async def _accompany(self, worker: Occupant) -> None:
        """From its start to its end."""
        ending: Ending | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, worker)
                tasks.start_soon(self._watch_answer, worker)
                if self._timeout_s is not None and worker.times is not None:
                    tasks.start_soon(self._watch_time, worker, worker.times, self._timeout_s)
                await anyio.wait_readable(worker.process.pidfd)
                ending = worker.process.reap()
                self._hear(worker)
                tasks.cancel_scope.cancel()
            with anyio.move_on_after(REFRESH_S_MAX), suppress(EventLogError):
                await self._group.refresh()  # what it did last is to count
        finally:
            if ending is None:  # cancelled: nobody else would do it
                worker.process.kill()
                ending = worker.process.reap()
            self._bid_farewell(worker, ending)
        self._judge(worker, ending)

    def _hear(self, worker: Occupant, chunks: int = CHUNKS_MAX) -> bool:
        """Take what it has said by now, or a part of that; whether it may say more."""
        for _ in range(chunks):  # one that logs without pause would never let go
            try:
                data = worker.pipe.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            for message in worker.reader.receive(data):
                self._take(worker, message)
        return True

    def _bid_farewell(self, worker: Occupant, ending: Ending) -> None:
        """Keep its counts, tell the pool how it ended, give everything back."""
        counts = self._counts_of(worker)
        lost = counts.in_flight  # whatever its exit code: a handler may call os._exit(0)
        failed = 0 if self._is_killed else lost
        worker.has_handled = counts.handled > 0
        # Where others reap this process's children, nobody knows the code.
        is_told = worker.is_retiring or worker.is_told_to_stop
        is_good = ending.exit_code == 0 or (ending.exit_code is None and is_told)
        worker.is_orderly = is_good and worker.became_ready.is_set() and not lost
        self._past = Counts(
            counts.handled,
            self._past.handled + counts.handled,
            self._past.failed + counts.failed + failed,
            self._past.retried + counts.retried + failed,
            0,
        )
        self._workers.remove(worker)
        worker.close()
        error = f"the worker {worker.kill_reason or ending.description}"
        lines = tuple(worker.log_lines)
        report = ExitReport(
            error=error,
            exit_code=ending.exit_code,
            peak_rss_bytes=ending.peak_rss_bytes,
            log_lines=lines,
        )
        self._on_end(self._group, WorkerEnd(worker.member_id, not worker.is_orderly, report))
        worker.ended.set()

    def _judge(self, worker: Occupant, ending: Ending) -> None:
        """Whether to go on, after the end of a process."""
        if self._stopping.is_set():
            return
        if not worker.became_ready.is_set():
            self._judge_start(worker, ending)
        elif worker.is_orderly:
            self._deaths = 0
        else:
            logger.warning(
                "worker %s (pid %d) %s",
                *(self._spec.name, worker.process.pid, worker.kill_reason or ending.description),
            )
            is_steady = worker.has_handled or time.monotonic() - worker.started_s > STEADY_S
            self._deaths = 1 if is_steady or worker.kill_reason else self._deaths + 1
        if not worker.is_retiring:
            self._wanted.set()

    def _judge_start(self, worker: Occupant, ending: Ending) -> None:
        has_left = ending.exit_code is not None and ending.exit_code >= 0
        is_unfit = has_left or worker.kill_reason is not None
        if not worker.answered.is_set() and is_unfit:
            reason = worker.kill_reason or ending.description
            self._note_failed_start(
                f"a worker of {self._described()} cannot be started: {sys.executable!r}"
                f" (sys.executable) did not answer as Python, and {reason}; {spawn.hint()}"
            )
            return
        if worker.start_error is not None:
            error, text = worker.start_error
            self._fail(f"a worker of {self._described()} cannot start: {error}", text)
            return
        self._start_failures += 1
        self._deaths += 1
        logger.warning(
            "worker %s (pid %d) %s before it was ready",
            *(self._spec.name, worker.process.pid, ending.description),
        )
        limit = RESTART_FAILURES_MAX if self.ready.is_set() else START_FAILURES_MAX
        if self._start_failures >= limit:
            lines = "".join(f"\n    {line}" for line in worker.log_lines)
            self._fail(
                f"{self._start_failures} workers in a row of {self._described()} ended before they"
                f" were ready: the last one {ending.description}{lines}",
                None,
            )

    def _described(self) -> str:
        return f"the group {self._spec.group!r} of {self._spec.path}"

    def _fail(self, message: str, worker_traceback: str | None) -> None:
        self._stopping.set()
        failure = PoolFailed(
            message,
            path=self._spec.path,
            consumer=self._spec.group,
            worker_traceback=worker_traceback,
        )
        self._on_failure(failure)

    # --- what a process says -----------------------------------------------------------------

    async def _listen(self, worker: Occupant) -> None:
        is_open = True
        while is_open:
            await anyio.wait_readable(worker.pipe)
            is_open = self._hear(worker, 1)

    def _take(self, worker: Occupant, message: list[Any]) -> None:
        worker.answered.set()
        match message:
            case ["broken", str(error), str(text)]:
                error = f"{sys.executable} cannot run it: {error}"
                worker.start_error = error, text
            case ["ready", int(member_id)]:
                worker.member_id = member_id
                self._group.member(member_id)  # so that it is known after its end
                worker.became_ready.set()
                self._start_failures = 0
                self._is_refused = False
                self.ready.set()
                for older in self._workers[:-1]:
                    older.tell_to_stop()
            case ["failed", str(error), str(text), bool(may_pass)]:
                if may_pass:
                    worker.log_lines.append(error)
                else:
                    worker.start_error = error, text
            case ["retiring"]:
                if not worker.is_retiring:
                    worker.is_retiring = True
                    self._deaths = 0
                    self._wanted.set()
            case ["log", str(name), int(level), str(text), float(created), str(error)]:
                self._relog(worker, name, level, text, created, error)

    def _relog(
        self, worker: Occupant, name: str, level: int, text: str, created: float, error: str
    ) -> None:
        """Log in this process what a worker has logged."""
        worker.log_lines.append(f"{logging.getLevelName(level)} {name}: {text}")
        target = logging.getLogger(name)
        if not target.isEnabledFor(level):
            return
        if RELAY.is_full:
            RELAY.count_dropped()
            return
        record = target.makeRecord(
            name,
            level,
            fn="",
            lno=0,
            msg="%s",
            args=(text,),
            exc_info=None,
            extra={"group": self._spec.group, "worker": self._spec.name},
        )
        record.relativeCreated -= (record.created - created) * 1000
        record.created, record.msecs = created, int(created % 1 * 1000) + 0.0
        record.process = worker.process.pid
        record.exc_text = error or None
        RELAY.put(target, record)

    async def _watch_answer(self, worker: Occupant) -> None:
        """Kill a process that is no Python; it may never end by itself."""
        with anyio.move_on_after(spawn.ANSWER_S):
            await worker.answered.wait()
            return
        worker.kill_reason = f"was killed after {spawn.ANSWER_S:.0f} s"
        worker.process.kill()

    async def _watch_time(self, worker: Occupant, times: StartTimes, timeout_s: float) -> None:
        """Kill the process when one of its handlers has run too long."""
        await worker.became_ready.wait()
        while True:
            # Nothing that begins after this look can be over its time before the next one.
            now_ns = time.monotonic_ns()
            began_ns = times.oldest_ns()
            if began_ns is None:
                await anyio.sleep(timeout_s)
                continue
            over_s = (now_ns - began_ns) / 1e9 - timeout_s
            if over_s >= 0:
                worker.kill_reason = f"was killed: over its timeout of {timeout_s} s"
                worker.process.kill()
                return
            await anyio.sleep(-over_s)

    # --- the end -----------------------------------------------------------------------------

    async def stop(self) -> None:
        """Let what runs end, and return when no process is left."""
        self._stopping.set()
        self._wanted.set()
        for worker in self._workers:
            self._hear(worker)  # one that has just become ready may be at work
            if worker.became_ready.is_set():
                worker.tell_to_stop()
            else:
                worker.process.kill()
        await self.gone()

    @property
    def has_workers(self) -> bool:
        """Whether a process is left."""
        return bool(self._workers)

    @property
    def has_unready(self) -> bool:
        """Whether a process is left that has not said that it is at work."""
        return not all(worker.became_ready.is_set() for worker in self._workers)

    def kill(self) -> None:
        """End all processes now."""
        self._is_killed = True
        self._stopping.set()
        self._wanted.set()
        for worker in self._workers:
            worker.process.kill()

    def kill_lost(self, member_id: int) -> None:
        """End the process of a member whose events others have; one that is leaving has none."""
        for worker in self._workers:
            is_leaving = worker.is_retiring or worker.is_told_to_stop
            if worker.member_id == member_id and not is_leaving:
                worker.kill_reason = (
                    "was killed: the log's server had not heard of it for too long, and gave its"
                    " events to others"
                )
                worker.process.kill()

    async def gone(self) -> None:
        """Wait until no process is left."""
        while self._workers:
            await self._workers[0].ended.wait()
