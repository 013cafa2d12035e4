"""Starts the roles, lets faults happen, ends everything in order, and audits.

nursery
|-- keep ...    one for each role: starts it again, in a new incarnation, whenever it is killed
|-- faults      one after the other
`-- watch       looks at what the writers hold, and at dead letters
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import trio

from chaos.audit import Letter
from chaos.case import LETTERS, REJECTS, Case, Role, letters_of, retriable
from chaos.faults import Faults, writer_of
from chaos.flatness import Highest, leftovers
from chaos.handlers import HEALED_NAME
from chaos.keeping import Keeper, Outcome
from chaos.remaking import RemadeLog
from eventlog import Retention, SeekPosition, blocking
from eventlog.demo.main_job import stop_process

DRAINED: Final = ("work", "work_and_reject")
WATCH_S: Final = 1.0
ROOM_BYTES: Final = 64 << 20
SHORT: Final = Retention(max_bytes=8 << 20, keep_unacked=False)
KEPT: Final = Retention(max_bytes=8 << 20, max_age=timedelta(hours=1))
AGED: Final = Retention(max_age=timedelta(hours=1), keep_unacked=False)
"""Nothing of a soak is so old, whatever a clock says for a moment."""
SMALL: Final[dict[str, Any]] = {"segment_bytes": 2 << 20, "max_event_bytes": 500_000}


class Soak(Keeper):
    """One soak in one folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self._seed = seed
        self._room: Path | None = None
        self._highest = Highest()
        self._marker = f"EVENTLOG_SOAK={folder}"
        """In the environment of all that is started here, whoever starts it."""
        self._remade = RemadeLog(str(folder / "remade"), seed)
        self._letters: dict[int, Letter] = {}
        """Every dead letter that there ever was of the log with short retention."""
        self.faults: Faults | None = None

    def path(self, log: str) -> str:
        """Where a log is; `full` is on the small file system."""
        return str((self._room if log == "full" and self._room else self._folder) / log)

    @property
    def faults_so_far(self) -> int:
        """How many there were."""
        return self.faults.counts.total() if self.faults else 0

    @property
    def _logs(self) -> list[str]:
        logs = ["plain", "short", "kept", LETTERS, "aged", "remade"]
        return [*logs, *(["full"] if self._room else [])]

    async def run(self, seconds: float, on_tick: Callable[[], None]) -> Outcome:
        """All of it; the violations are in the outcome."""
        self._records.mkdir(parents=True)
        name, _, value = self._marker.partition("=")
        os.environ[name] = value
        started = trio.current_time()
        with small_file_system(self._folder / "room") as self._room:
            try:
                await self._let_it_fail(seconds, on_tick)
                await self._drain()
                await trio.to_thread.run_sync(self._audit)
            finally:
                self._stop_writers()
        self.outcome.seconds = trio.current_time() - started
        self._end_leftovers()
        return self.outcome

    def _end_leftovers(self) -> None:
        """End, and report, what outlived the roles that started it."""
        for pid, command in leftovers(self._marker).items():
            self.outcome.violations.append(f"process {pid} was left behind: {command}")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # --- the time of faults --------------------------------------------------------------------

    async def _let_it_fail(self, seconds: float, on_tick: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(self._make_logs)
        self.faults = Faults(
            self._seed,
            [self.path(log) for log in self._logs],
            lambda: self._running,
            self._room,
            self._remade,
        )
        async with trio.open_nursery() as nursery:
            for role in self._roles():
                nursery.start_soon(self._keep, role)
            nursery.start_soon(self._watch, on_tick)
            await self._wait_underway()
            with trio.move_on_after(seconds):
                await self.faults.run()
            self._is_ending = True
            nursery.cancel_scope.cancel()
        self.outcome.faults = dict(self.faults.counts + self._starts)

    def _make_logs(self) -> None:
        options: dict[str, dict[str, Any]] = {
            "plain": {},
            "short": {"retention": SHORT, "durability": "memory", **SMALL},
            "kept": {"retention": KEPT, "durability": "sync", **SMALL},
            LETTERS: {"retention": SHORT, **SMALL},
            "aged": {"retention": AGED, **SMALL, "segment_bytes": 1 << 20},
            "full": SMALL,
        }
        self._remade.make()
        for log in options.keys() & set(self._logs):
            with blocking.open(self.path(log), **options[log]) as opened:
                if log == "kept":
                    opened.seek("kept-consumer", SeekPosition.BEGINNING)

    def _roles(self) -> list[Role]:
        roles = []
        for log, producers, pause in [
            # What is kept for ever, and what both groups have to handle, comes slowly.
            ("plain", 2, "0.1"),
            ("short", 2, "0.005"),
            ("kept", 2, "0.005"),
            (LETTERS, 1, "0.1"),
            ("aged", 1, "0.2"),
            *([("full", 2, "0.01")] if self._room else []),
        ]:
            roles += [self._producer(f"producer-{log}-{n}", log, pause) for n in range(producers)]
        for name, log, on_truncated in [
            ("plain-consumer-0", "plain", "error"),
            ("plain-consumer-1", "plain", "error"),
            ("short-consumer", "short", "skip"),
            ("kept-consumer", "kept", "error"),
        ]:
            roles += [self._consumer(name, log, on_truncated)]
        roles += [
            self._pool("work", "plain", "free", "", "yes"),
            self._pool("work", "plain", "keyed", "key", ""),
            self._pool("work_and_reject", LETTERS, REJECTS),
            Role("follower-0", "follow", "remade", lambda record: ("follower-0", record)),
            Role("follower-1", "follow", "remade", lambda record: ("follower-1", record)),
            Role("follower-pool", "work_until_deleted", "remade", lambda record: ("group", record)),
            Role("fork", "fork", "kept", lambda _: ()),
            Role("serve", "serve", "aged", lambda _: ()),
        ]
        return roles

    async def _watch(self, on_tick: Callable[[], None]) -> None:
        while True:
            await trio.sleep(WATCH_S)
            for log in self._logs:
                self._highest.look(writer_of(self.path(log)))
            await trio.to_thread.run_sync(self._note_letters)
            on_tick()

    # --- the end ---------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Let the pools handle what is left, and then the dead letters that can be handled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_if_nothing_is_handled, nursery.cancel_scope)
            for role in (role for role in self._roles() if role.kind in DRAINED):
                await self._drain_one(role)
            await trio.to_thread.run_sync(self._heal)
            (rejecting,) = (role for role in self._roles() if role.kind == "work_and_reject")
            await self._drain_one(rejecting)
            nursery.cancel_scope.cancel()

    def _note_letters(self) -> list[int]:
        """Keep what dead letters say, also of events that retention has deleted."""
        found = retriable(letters_of(self.path(LETTERS), REJECTS))
        self._letters.update({letter.seq_no: letter for letter in found})
        return [letter.seq_no for letter in found]

    def _heal(self) -> None:
        """From now on the handler can do what it could not, and is given all of it again."""
        (self._records / f"pool-{REJECTS}" / HEALED_NAME).touch()
        with blocking.open(self.path(LETTERS)) as log:
            log.retry_dead(REJECTS, self._note_letters())

    def _stop_writers(self) -> None:
        for log in self._logs:
            pid = writer_of(self.path(log))
            if pid is not None:
                stop_process(pid)

    def _audit(self) -> None:
        outcome, highest = self.outcome, self._highest
        case = Case(self._records, self.path, tuple(self._roles()), self._letters)
        for log in self._logs:
            outcome.violations += case.audit_log(log)
        outcome.violations += case.audit_followers(self._remade.deleted_ns, self._ended_ns)
        outcome.violations += case.audit_letters()
        outcome.violations += highest.check()
        outcome.events, outcome.seen = case.counts["events"], case.counts["seen"]
        outcome.handled, outcome.dead = case.counts["handled"], case.counts["dead"]
        outcome.retried = len(self._letters)
        outcome.writer_mib, outcome.writer_maps = highest.mib, highest.maps
        outcome.writer_descriptors = highest.descriptors


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
