"""Keeps roles running, each in a process of its own, and ends them when pools have nothing left."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from chaos.case import GROUPS, Role
from chaos.surroundings import SURROUNDINGS

HERE: Final = Path(__file__).resolve().parent
STUCK_S: Final = 60
"""Longer than any backoff here."""
USUAL_SHARE: Final = 0.6
UNDERWAY_S: Final = 60
LOOK_S: Final = 0.1


@dataclass
class Outcome:
    """What came of it."""

    seconds: float = 0.0
    events: int = 0
    seen: int = 0
    handled: int = 0
    dead: int = 0
    retried: int = 0
    """Dead letters of the log with short retention, all handled in the end."""
    faults: dict[str, int] = field(default_factory=dict)
    writer_mib: float = 0.0
    writer_descriptors: int = 0
    writer_maps: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """SIGKILLs."""
        return sum(count for kind, count in self.faults.items() if kind.startswith("kill"))


class Keeper(ABC):
    """Starts each role again, in a new incarnation, whenever it is killed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._records = folder / "records"
        self._running: dict[str, int] = {}
        self._incarnations = 0
        self._is_ending = False
        self._chance = random.Random(f"surroundings {seed}")
        self._ended_ns: dict[str, int] = {}
        """When each incarnation ended, by the name of its record."""
        self._starts: Counter[str] = Counter()
        self.outcome = Outcome()

    @abstractmethod
    def path(self, log: str) -> str:
        """Where a log is."""

    @property
    @abstractmethod
    def faults_so_far(self) -> int:
        """How many there were."""

    def placed(self, role: Role, command: list[str]) -> list[str]:
        """The command that starts the role where it belongs."""
        return command

    def is_excused(self, said: str) -> bool:
        """Whether a role may have ended with that."""
        return False

    async def _wait_underway(self) -> None:
        """Wait until a pool has handled something: on a loaded machine, roles start slowly."""
        handled = self._records / f"pool-{GROUPS[0]}"
        with trio.move_on_after(UNDERWAY_S):
            # Nothing tells us: the workers are other processes.
            while not any(one.stat().st_size for one in handled.glob("worker-*")):  # noqa: ASYNC110
                await trio.sleep(LOOK_S)

    def _producer(self, name: str, log: str, *pause: str) -> Role:
        def arguments(record: str) -> tuple[str, ...]:
            return Path(record).name, record, *pause

        return Role(name, "produce", log, arguments)

    def _consumer(self, name: str, log: str, on_truncated: str) -> Role:
        return Role(f"consumer-{name}", "consume", log, lambda record: (name, record, on_truncated))

    def _pool(self, kind: str, log: str, group: str, *options: str) -> Role:
        folder = self._records / f"pool-{group}"
        folder.mkdir(exist_ok=True)
        return Role(f"pool-{group}", kind, log, lambda _: (group, str(folder), *options))

    def _command(self, role: Role, surroundings: str = "usual") -> list[str]:
        self._incarnations += 1
        record = str(self._records / f"{role.name}.{self._incarnations:06}")
        what = role.arguments(record)
        path = self.path(role.log)
        return [sys.executable, str(HERE), "role", role.kind, surroundings, path, *what]

    def _odd_surroundings(self, role: Role) -> str:
        """Where an incarnation starts: mostly in the usual surroundings, and the writer always."""
        if role.kind == "serve" or self._chance.random() < USUAL_SHARE:
            return "usual"
        chosen = self._chance.choice([name for name in SURROUNDINGS if name != "usual"])
        self._starts[f"start with {chosen}"] += 1
        return chosen

    async def _keep(self, role: Role) -> None:
        while True:
            surroundings = self._odd_surroundings(role)
            command = self._command(role, surroundings)
            incarnation = f"{role.name}.{self._incarnations:06}"
            process = await trio.lowlevel.open_process(
                self.placed(role, command), stderr=subprocess.PIPE, start_new_session=True
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
                self._ended_ns[incarnation] = time.monotonic_ns()
            text = said.decode(errors="replace")
            if code != -signal.SIGKILL and not self._is_ending and not self.is_excused(text):
                what = f"{role.name} with {surroundings} ended with {code}: {text}"
                self.outcome.violations.append(what)

    async def _end_if_nothing_is_handled(self, scope: trio.CancelScope) -> None:
        """A pool that has much left takes its time; one that hangs writes nothing down."""
        before = -1
        while (now := self._noted_bytes()) != before:
            before = now
            await trio.sleep(STUCK_S)
        self.outcome.violations.append(f"the pools handled nothing for {STUCK_S} s")
        scope.cancel()

    def _noted_bytes(self) -> int:
        return sum(one.stat().st_size for one in self._records.glob("pool-*/worker-*"))

    async def _drain_one(self, role: Role) -> None:
        command = [*self._command(role), "drained"]
        done = await trio.run_process(command, capture_stderr=True, check=False)
        if done.returncode:
            text = done.stderr[-4000:].decode(errors="replace")
            self.outcome.violations.append(f"{role.name} was not drained: {text}")
