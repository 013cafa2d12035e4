"""A soak over a server: the same roles and the same audit, and what can happen to a server.

Each role talks to the server through a proxy, whose connections break and fall silent; the server
itself is killed and started again, and stopped for a while. Pools run on hosts of their own, where
this user may make such (see `tests.engines.hosts`): a host is killed, and another one takes its
place, or its cable is pulled for a while.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import trio

from chaos.case import GROUPS, Case, Role
from chaos.faults import children_of
from chaos.handlers import HOST
from chaos.keeping import Keeper, Outcome
from eventlog import DeadLetter, NotSupported, blocking
from tests import servers
from tests.engines.faulty_proxy import Proxy, proxy_of
from tests.engines.hosts import Host, Network, reason_to_skip
from tests.servers import KINDS, PROXY_HOST, Server

FAULTS_PER_S: Final = 0.5
HOSTS_OF_A_GROUP: Final = 2
CUT_S: Final = 12.0
"""The longest time without a host: more than twice as long as it takes to count as dead."""
AWAY_S: Final = 4.0
"""The longest time without the server; a role that starts then must still find it within 10 s."""
PAUSE_S: Final = "1.0"
PADDING_MAX: Final = "3000"
"""A server may have all events in memory."""
TICK_S: Final = 1.0
RESULTS_TWICE: Final = {"kafka"}
"""Where a host that dies between a result and the end of its delivery leaves two of them."""
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
        self._network: Network | None = None
        self._hosts: dict[str, Host] = {}
        """By the role that runs there."""
        self._faults = random.Random(seed)
        self.counts: Counter[str] = Counter()

    def path(self, log: str) -> str:
        """Through the proxy."""
        return f"{self._server.address_by_proxy}{log}"

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
        with ExitStack() as stack:
            if not reason_to_skip():
                self._network = stack.enter_context(Network())
            where = self._network.address if self._network else PROXY_HOST
            folder = self._folder / "server"
            own = servers.own(self._name, folder, *settings, proxy_host=where)
            self._server = stack.enter_context(own)
            self._proxy = stack.enter_context(proxy_of(self._server))
            await self._run(seconds, on_tick)
        self.outcome.seconds = trio.current_time() - started
        return self.outcome

    async def _run(self, seconds: float, on_tick: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(self._look_for_groups)
        await self._let_it_fail(seconds, on_tick)
        for host in self._hosts.values():
            host.kill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_if_nothing_is_handled, nursery.cancel_scope)
            for pool in map(self._group_pool, self._groups):
                await self._drain_one(pool)
            nursery.cancel_scope.cancel()
        await trio.to_thread.run_sync(self._audit)

    def _look_for_groups(self) -> None:
        """Make the log; see whether the engine has groups."""
        with blocking.open(self.path("plain")) as log:
            try:
                log.groups()
            except NotSupported:
                self._groups = ()

    def _roles(self) -> list[Role]:
        pools = [
            replace(pool, name=f"{pool.name}-{number}")
            for pool in map(self._group_pool, self._groups)
            for number in range(HOSTS_OF_A_GROUP if self._network else 1)
        ]
        return [
            *(self._producer(f"producer-plain-{n}", "plain", PAUSE_S, PADDING_MAX) for n in (0, 1)),
            *(self._consumer(f"plain-consumer-{n}", "plain", "error") for n in (0, 1)),
            *pools,
        ]

    def _group_pool(self, group: str) -> Role:
        options = {"free": ("", "yes"), "keyed": ("key", "")}[group]
        return self._pool("work", "plain", group, *options)

    # --- hosts ---------------------------------------------------------------------------------

    def placed(self, role: Role, command: list[str]) -> list[str]:
        """Pools run on hosts, where there are any."""
        if self._network is None or role.kind != "work":
            return command
        host = self._hosts.get(role.name)
        if host is None:
            host = self._hosts[role.name] = self._network.plug_in(role.name)
        return host.inside(["env", f"{HOST}={host.cable}", *command])

    def _pools(self) -> list[int]:
        """The processes of the pools that run."""
        pids = [pid for name, pid in sorted(self._running.items()) if name.startswith("pool")]
        return pids if self._network is None else [one for pid in pids for one in children_of(pid)]

    async def _kill_host(self) -> None:
        if self._hosts:
            name = self._faults.choice(sorted(self._hosts))
            self._hosts.pop(name).kill()
            self.counts["kill of a host"] += 1

    async def _cut_host(self, nursery: trio.Nursery) -> None:
        """Beside other faults: a host may be killed meanwhile."""
        if self._hosts:
            host = self._hosts[self._faults.choice(sorted(self._hosts))]
            seconds = self._faults.choice([1.0, self._faults.uniform(0, CUT_S)])
            nursery.start_soon(self._cut_for, host, seconds)

    async def _cut_for(self, host: Host, seconds: float) -> None:
        self.counts["host cut off"] += 1
        host.cut()
        await trio.sleep(seconds)
        if host in self._hosts.values():
            host.mend()

    # --- the time of faults --------------------------------------------------------------------

    async def _let_it_fail(self, seconds: float, on_tick: Callable[[], None]) -> None:
        async with trio.open_nursery() as nursery:
            for role in self._roles():
                nursery.start_soon(self._keep, role)
            nursery.start_soon(self._tick, on_tick)
            if self._groups:
                await self._wait_underway()
            with trio.move_on_after(seconds):
                await self._let_faults_happen(nursery)
            self._is_ending = True
            nursery.cancel_scope.cancel()
        self.outcome.faults = dict(self.counts + self._starts)

    async def _tick(self, on_tick: Callable[[], None]) -> None:
        while True:
            await trio.sleep(TICK_S)
            on_tick()

    async def _let_faults_happen(self, nursery: trio.Nursery) -> None:
        kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._kill_role, 5),
            (self._kill_worker, 5),
            (self._kill_server, 2),
            (self._pause_server, 2),
            (self._cut, 4),
            (self._pull_cable, 2),
            (self._kill_host, 3),
            (partial(self._cut_host, nursery), 4),
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
        is_on_host = self._hosts.__contains__
        if roles := [one for one in sorted(self._running.items()) if not is_on_host(one[0])]:
            name, pid = self._faults.choice(roles)
            self._kill(pid, f"kill of a {name.split('-')[0]}")

    async def _kill_worker(self) -> None:
        if workers := [child for pool in self._pools() for child in children_of(pool)]:
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
            results_may_be_twice=self._name in RESULTS_TWICE,
        )
        outcome = self.outcome
        outcome.violations += case.audit_log("plain")
        outcome.events, outcome.seen = case.counts["events"], case.counts["seen"]
        outcome.handled, outcome.dead = case.counts["handled"], case.counts["dead"]


def _letters_of(path: str, group: str) -> list[DeadLetter]:
    with blocking.open(path) as log:
        return log.dead_letters(group)
