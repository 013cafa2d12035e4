"""Starts the roles, lets faults happen, ends everything in order, and audits.

nursery
|-- keep ...    one for each role: starts it again, in a new incarnation, whenever it is killed
|-- faults      one after the other
`-- watch       looks at what the writers hold
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import trio

from chaos import audit
from chaos.audit import Consumer, Stored
from chaos.faults import Faults, writer_of
from chaos.flatness import Highest, leftovers
from chaos.records import lines_of
from eventlog import CorruptLog, Retention, SeekPosition, blocking
from eventlog.demo.main_job import stop_process

HERE: Final = Path(__file__).resolve().parent
DRAIN_S: Final = 300
WATCH_S: Final = 1.0
ROOM_BYTES: Final = 64 << 20
SHORT: Final = Retention(max_bytes=8 << 20, keep_unacked=False)
KEPT: Final = Retention(max_bytes=8 << 20, max_age=timedelta(hours=1))
SMALL: Final[dict[str, Any]] = {"segment_bytes": 2 << 20, "max_event_bytes": 500_000}


@dataclass(frozen=True)
class Role:
    """A process that is kept running; `arguments` end with what the incarnation's record is."""

    name: str
    kind: str
    log: str
    arguments: Callable[[str], tuple[str, ...]]


@dataclass
class Outcome:
    """What came of it."""

    seconds: float = 0.0
    events: int = 0
    seen: int = 0
    handled: int = 0
    dead: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    writer_mib: float = 0.0
    writer_descriptors: int = 0
    writer_maps: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """SIGKILLs."""
        return sum(count for kind, count in self.faults.items() if kind.startswith("kill"))


class Soak:
    """One soak in one folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._records = folder / "records"
        self._seed = seed
        self._running: dict[str, int] = {}
        self._incarnations = 0
        self._is_ending = False
        self._room: Path | None = None
        self._highest = Highest()
        self.faults: Faults | None = None
        self.outcome = Outcome()

    def path(self, log: str) -> str:
        """Where a log is; `full` is on the small file system."""
        return str((self._room if log == "full" and self._room else self._folder) / log)

    @property
    def _logs(self) -> list[str]:
        return ["plain", "short", "kept", *(["full"] if self._room else [])]

    async def run(self, seconds: float, on_tick: Callable[[], None]) -> Outcome:
        """All of it; the violations are in the outcome."""
        self._records.mkdir(parents=True)
        started = trio.current_time()
        with small_file_system(self._folder / "room") as self._room:
            try:
                await self._let_it_fail(seconds, on_tick)
                await self._drain()
                await trio.to_thread.run_sync(self._audit)
            finally:
                self._stop_writers()
        self.outcome.seconds = trio.current_time() - started
        self.outcome.violations += leftovers(str(self._folder), {os.getpid(), os.getppid()})
        return self.outcome

    # --- the time of faults --------------------------------------------------------------------

    async def _let_it_fail(self, seconds: float, on_tick: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(self._make_logs)
        self.faults = Faults(
            self._seed,
            [self.path(log) for log in self._logs],
            lambda: self._running,
            self._room,
        )
        async with trio.open_nursery() as nursery:
            for role in self._roles():
                nursery.start_soon(self._keep, role)
            nursery.start_soon(self._watch, on_tick)
            with trio.move_on_after(seconds):
                await self.faults.run()
            self._is_ending = True
            nursery.cancel_scope.cancel()
        self.outcome.faults = dict(self.faults.counts)

    def _make_logs(self) -> None:
        options: dict[str, dict[str, Any]] = {
            "plain": {},
            "short": {"retention": SHORT, "durability": "memory", **SMALL},
            "kept": {"retention": KEPT, "durability": "sync", **SMALL},
            "full": SMALL,
        }
        for log in self._logs:
            with blocking.open(self.path(log), **options[log]) as opened:
                if log == "kept":
                    opened.seek("kept-consumer", SeekPosition.BEGINNING)

    def _roles(self) -> list[Role]:
        roles = []
        for log in self._logs:
            # What is kept for ever, and what both groups have to handle, comes slowly.
            pause = {"plain": "0.1", "full": "0.01"}.get(log, "0.005")
            roles += [self._producer(f"producer-{log}-{n}", log, pause) for n in range(2)]
        for name, log, on_truncated in [
            ("plain-consumer-0", "plain", "error"),
            ("plain-consumer-1", "plain", "error"),
            ("short-consumer", "short", "skip"),
            ("kept-consumer", "kept", "error"),
        ]:
            roles += [self._consumer(name, log, on_truncated)]
        roles += [self._pool("free", "", "yes"), self._pool("keyed", "key", "")]
        return roles

    def _producer(self, name: str, log: str, pause: str) -> Role:
        def arguments(record: str) -> tuple[str, ...]:
            return Path(record).name, record, pause

        return Role(name, "produce", log, arguments)

    def _consumer(self, name: str, log: str, on_truncated: str) -> Role:
        return Role(f"consumer-{name}", "consume", log, lambda record: (name, record, on_truncated))

    def _pool(self, group: str, ordering: str, results: str) -> Role:
        folder = self._records / f"pool-{group}"
        folder.mkdir(exist_ok=True)
        return Role(
            f"pool-{group}", "work", "plain", lambda _: (group, str(folder), ordering, results)
        )

    def _command(self, role: Role) -> list[str]:
        self._incarnations += 1
        record = str(self._records / f"{role.name}.{self._incarnations:06}")
        what = role.arguments(record)
        return [sys.executable, str(HERE), "role", role.kind, self.path(role.log), *what]

    async def _keep(self, role: Role) -> None:
        while True:
            process = await trio.lowlevel.open_process(
                self._command(role), stderr=subprocess.PIPE, start_new_session=True
            )
            self._running[role.name] = process.pid
            said = b""
            try:
                assert process.stderr is not None
                async with process.stderr:
                    async for data in process.stderr:
                        said = (said + data)[-4000:]
                code = await process.wait()
            finally:
                self._running.pop(role.name, None)
                with trio.CancelScope(shield=True):
                    process.kill()
                    await process.wait()
            if code != -signal.SIGKILL and not self._is_ending:
                text = said.decode(errors="replace")
                self.outcome.violations.append(f"{role.name} ended with {code}: {text}")

    async def _watch(self, on_tick: Callable[[], None]) -> None:
        while True:
            await trio.sleep(WATCH_S)
            for log in self._logs:
                self._highest.look(writer_of(self.path(log)))
            on_tick()

    # --- the end ---------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Let the pools handle what is left."""
        with trio.move_on_after(DRAIN_S) as scope:
            for role in (role for role in self._roles() if role.kind == "work"):
                command = [*self._command(role), "drained"]
                done = await trio.run_process(command, capture_stderr=True, check=False)
                if done.returncode:
                    text = done.stderr[-4000:].decode(errors="replace")
                    self.outcome.violations.append(f"{role.name} was not drained: {text}")
        if scope.cancelled_caught:
            self.outcome.violations.append(f"the groups were not drained within {DRAIN_S} s")

    def _stop_writers(self) -> None:
        for log in self._logs:
            pid = writer_of(self.path(log))
            if pid is not None:
                stop_process(pid)

    # --- the audit -------------------------------------------------------------------------------

    def _audit(self) -> None:
        outcome, highest = self.outcome, self._highest
        for log in self._logs:
            outcome.violations += self._audit_log(log)
        outcome.violations += highest.check()
        outcome.writer_mib, outcome.writer_maps = highest.mib, highest.maps
        outcome.writer_descriptors = highest.descriptors

    def _audit_log(self, name: str) -> Iterator[str]:
        with blocking.open(self.path(name)) as log:
            first = log.status().first_seq_no or 1
            try:
                stored = [_stored(envelope) for envelope in log.read(0)]
            except CorruptLog as error:
                yield str(error)
                return
        self.outcome.events += stored[-1].seq_no if stored else 0
        by_number = {one.seq_no: one for one in stored}
        yield from audit.numbers(stored, first)
        yield from audit.order(stored)
        for record in sorted(self._records.glob(f"producer-{name}-*")):
            yield from audit.acknowledged(by_number, record.name, lines_of(record), first)
        for role in self._roles():
            if role.kind == "consume" and role.log == name:
                consumer = Consumer(role.name, may_skip=name == "short")
                for record in sorted(self._records.glob(f"{role.name}.*")):
                    yield from consumer.check(by_number, lines_of(record))
                self.outcome.seen += consumer.seen
        if name == "plain":
            yield from self._audit_groups(stored)

    def _audit_groups(self, stored: list[Stored]) -> Iterator[str]:
        for group in ("free", "keyed"):
            dead = self._dead_of(group)
            folder = self._records / f"pool-{group}"
            lines = [line for record in folder.iterdir() for line in lines_of(record)]
            self.outcome.handled += len(lines)
            self.outcome.dead += len(dead)
            yield from audit.handled(stored, lines, dead, group)
            if group == "free":
                yield from audit.results(stored, dead)
            else:
                yield from audit.key_order(lines, group)

    def _dead_of(self, group: str) -> set[int]:
        from eventlog.groups import read_dead_letters

        letters = read_dead_letters(self.path("plain"), group)
        return {letter.seq_no for letter in letters}


def _stored(envelope: Any) -> Stored:
    event = envelope.event
    is_result = "r" in event
    return Stored(
        envelope.seq_no,
        "" if is_result else event["p"],
        event["r"] if is_result else event["n"],
        envelope.key,
    )


@contextmanager
def small_file_system(place: Path) -> Iterator[Path | None]:
    """A tmpfs of 64 MiB, where this user may mount one."""
    place.mkdir(parents=True)
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={ROOM_BYTES},mode=700", "eventlog-soak", str(place)]
    is_mounted = (
        mount is not None
        and subprocess.run([mount, *options], capture_output=True, check=False).returncode == 0
    )
    try:
        yield place if is_mounted else None
    finally:
        if is_mounted:
            with suppress(OSError):
                subprocess.run(["umount", "--lazy", str(place)], check=False)
