"""A soak over a server: the same roles and the same audit, and what can happen to a server.

Each role talks to the server through a proxy, whose connections break and fall silent; the server
itself is killed and started again, and stopped for a while.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from chaos.case import GROUPS, Case, Role
from chaos.faults import children_of
from chaos.keeping import Keeper, Outcome
from eventlog import DeadLetter, NotSupported, blocking
from tests import servers
from tests.engines.faulty_proxy import Proxy
from tests.servers import KINDS, Server

FAULTS_PER_S: Final = 0.5
AWAY_S: Final = 4.0
"""The longest time without the server; a role that starts then must still find it within 10 s."""
PAUSE_S: Final = "1.0"
PADDING_MAX: Final = "3000"
"""A server may have all events in memory."""
TICK_S: Final = 1.0
NOT_FOUND: Final = "did not answer for 10 s"
"""What a role says that starts while there is no server, or a very slow one."""


class EngineSoak(Keeper):
    """One soak over a server of that name (see `servers.KINDS`)."""

    def __init__(self, folder: Path, seed: int, name: str) -> None:
        super().__init__(folder, seed)
        self._name = name
        self._server: Server
        self._proxy: Proxy
        self._groups: tuple[str, ...] = GROUPS
        self._faults = random.Random(seed)
        self.counts: Counter[str] = Counter()

    def path(self, log: str) -> str:
        """Through the proxy."""
        address = self._server.address.replace(f":{self._server.port}", f":{self._proxy.port}")
        return f"{address}{log}"

    @property
    def faults_so_far(self) -> int:
        """How many there were."""
        return self.counts.total()

    def is_excused(self, said: str) -> bool:
        """Whether it found no server at its start."""
        return NOT_FOUND in said

    async def run(self, seconds: float, on_tick: Callable[[], None]) -> Outcome:
        """All of it; the violations are in the outcome."""
        self._records.mkdir(parents=True)
        started = trio.current_time()
        settings = KINDS[self._name].no_loss
        with (
            servers.own(self._name, self._folder / "server", *settings) as self._server,
            Proxy(self._server.port) as self._proxy,
        ):
            await trio.to_thread.run_sync(self._look_for_groups)
            await self._let_it_fail(seconds, on_tick)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_if_nothing_is_handled, nursery.cancel_scope)
                for role in self._roles():
                    if role.kind == "work":
                        await self._drain_one(role)
                nursery.cancel_scope.cancel()
            await trio.to_thread.run_sync(self._audit)
        self.outcome.seconds = trio.current_time() - started
        return self.outcome

    def _look_for_groups(self) -> None:
        """Make the log; see whether the engine has groups."""
        with blocking.open(self.path("plain")) as log:
            try:
                log.groups()
            except NotSupported:
                self._groups = ()

    def _roles(self) -> list[Role]:
        pools = {
            "free": self._pool("work", "plain", "free", "", "yes"),
            "keyed": self._pool("work", "plain", "keyed", "key", ""),
        }
        return [
            *(self._producer(f"producer-plain-{n}", "plain", PAUSE_S, PADDING_MAX) for n in (0, 1)),
            *(self._consumer(f"plain-consumer-{n}", "plain", "error") for n in (0, 1)),
            *(pools[group] for group in self._groups),
        ]

    # --- the time of faults --------------------------------------------------------------------

    async def _let_it_fail(self, seconds: float, on_tick: Callable[[], None]) -> None:
        async with trio.open_nursery() as nursery:
            for role in self._roles():
                nursery.start_soon(self._keep, role)
            nursery.start_soon(self._tick, on_tick)
            if self._groups:
                await self._wait_underway()
            with trio.move_on_after(seconds):
                await self._let_faults_happen()
            self._is_ending = True
            nursery.cancel_scope.cancel()
        self.outcome.faults = dict(self.counts + self._starts)

    async def _tick(self, on_tick: Callable[[], None]) -> None:
        while True:
            await trio.sleep(TICK_S)
            on_tick()

    async def _let_faults_happen(self) -> None:
        kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._kill_role, 5),
            (self._kill_worker, 5),
            (self._kill_server, 2),
            (self._pause_server, 2),
            (self._cut, 4),
            (self._pull_cable, 2),
        ]
        weights = [weight for _, weight in kinds]
        while True:
            await trio.sleep(self._faults.expovariate(FAULTS_PER_S))
            ((fault, _),) = self._faults.choices(kinds, weights)
            await fault()

    def _kill(self, pid: int, what: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.counts[what] += 1

    async def _kill_role(self) -> None:
        if roles := sorted(self._running.items()):
            name, pid = self._faults.choice(roles)
            self._kill(pid, f"kill of a {name.split('-')[0]}")

    async def _kill_worker(self) -> None:
        pools = [pid for name, pid in sorted(self._running.items()) if name.startswith("pool")]
        if workers := [child for pool in pools for child in children_of(pool)]:
            self._kill(self._faults.choice(workers), "kill of a worker")

    async def _kill_server(self) -> None:
        # Here, not in a thread: the server ends with the thread that has started it.
        self.counts["kill of the server"] += 1
        self._server.kill()
        try:
            await trio.sleep(self._away_s())
        finally:
            self._server.start()

    async def _pause_server(self) -> None:
        self.counts["stop of the server"] += 1
        self._server.pause()
        try:
            await trio.sleep(self._away_s())
        finally:
            self._server.resume()

    async def _cut(self) -> None:
        """Break all connections, mostly in the middle of something."""
        self.counts["connections cut"] += 1
        self._proxy.refuse()
        try:
            await trio.sleep(self._away_s())
        finally:
            self._proxy.accept()

    async def _pull_cable(self) -> None:
        self.counts["cable pulled"] += 1
        self._proxy.pull_cable()
        try:
            await trio.sleep(self._away_s())
        finally:
            self._proxy.plug_cable()

    def _away_s(self) -> float:
        """Mostly not for long."""
        return self._faults.choice([0.0, 0.3, self._faults.uniform(0, AWAY_S)])

    # --- the end ---------------------------------------------------------------------------------

    def _audit(self) -> None:
        case = Case(
            self._records,
            self.path,
            tuple(self._roles()),
            {},
            groups=self._groups,
            read_letters=_letters_of,
        )
        outcome = self.outcome
        outcome.violations += case.audit_log("plain")
        outcome.events, outcome.seen = case.counts["events"], case.counts["seen"]
        outcome.handled, outcome.dead = case.counts["handled"], case.counts["dead"]


def _letters_of(path: str, group: str) -> list[DeadLetter]:
    with blocking.open(path) as log:
        return log.dead_letters(group)
