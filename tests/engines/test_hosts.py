"""Pools on several hosts: one is killed with all its processes, or cut off for a while."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from eventlog import blocking
from tests import servers
from tests.engines.faulty_proxy import proxy_of
from tests.engines.hosts import Host, Network, network
from tests.servers import Server

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[2]
HANG_S: Final = 90.0
LOOK_S: Final = 0.02
GROUP: Final = "g"
LEASE_S: Final = 4.0
LONG_LEASE_S: Final = 10.0
KEYS: Final = 5


class Line(NamedTuple):
    """What a handler noted."""

    word: str
    host: str
    number: int
    key: str
    attempt: int


def _line(word: str, host: str, number: str, key: str, attempt: str) -> Line:
    return Line(word, host, int(number), key, int(attempt))


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for what other machines do, who tell nobody here."""
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(LOOK_S)


@dataclass
class Scene:
    """A server, the network around it, and what handlers on hosts noted."""

    network: Network
    server: Server
    folder: Path
    name: str = field(default_factory=lambda: f"on-{uuid.uuid4().hex}")

    @property
    def address(self) -> str:
        """Address of the log, from this side."""
        return f"{self.server.address}{self.name}"

    @property
    def address_on_hosts(self) -> str:
        return f"{self.server.address_by_proxy}{self.name}"

    def start(self, name: str, *options: str, lease_s: float = LEASE_S) -> Host:
        """A host with a pool of workers."""
        host = self.network.plug_in(name)
        pool = ["-m", "workers", "run", self.address_on_hosts, "--group", GROUP, "-n", "2"]
        how = ["--handler", "tests.engines.host_handlers:handle", "--lease", str(lease_s)]
        command = [sys.executable, *pool, *how, *options]
        environment = {"HOST": name, "RECORD": str(self.folder), "PYTHONPATH": str(ROOT)}
        said = self.folder / f"said-{name}"
        with said.open("ab") as file:
            host.start(command, environment, file)
        until(lambda: b"ready: <Pool" in said.read_bytes(), f"a pool on {name!r}")
        return host

    def lines(self, word: str = "", host: str = "") -> list[Line]:
        record = self.folder / "record"
        text = record.read_text() if record.exists() else ""
        found = [_line(*one.split()) for one in text.splitlines(keepends=True) if one[-1] == "\n"]
        return [one for one in found if word in ("", one.word) and host in ("", one.host)]

    def wait(self, word: str, host: str, count: int = 1) -> list[Line]:
        """So many lines."""
        what = f"{count} times {word!r} on {host!r}"
        until(lambda: len(self.lines(word, host)) >= count, what)
        return self.lines(word, host)

    def is_held(self, host: str, number: int) -> bool:
        """Whether a handler of a long event runs there."""
        with (self.folder / f"held-{host}-{number}").open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def release(self) -> None:
        """Let long events end."""
        (self.folder / "release").touch()

    def check_order(self, dead: Collection[int] = ()) -> None:
        """No event was begun before all earlier ones of its key were done."""
        done: set[int] = set(dead)
        keys = {one.number: one.key for one in self.lines()}
        for line in self.lines():
            if line.word == "did":
                done.add(line.number)
                continue
            earlier = {n for n, key in keys.items() if key == line.key and n < line.number}
            assert earlier <= done, f"event {line.number} was begun before {earlier - done}"


@pytest.fixture(scope="module", params=["valkey", "nats", "kafka"])
def server_on_network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Network, Server]]:
    """A server that hosts reach over the network, on its own port."""
    servers.require(request.param)
    with (
        network() as net,
        servers.own(
            request.param, tmp_path_factory.mktemp("server"), proxy_host=net.address
        ) as server,
        proxy_of(server),
    ):
        yield net, server


@pytest.fixture
def scene(server_on_network: tuple[Network, Server], tmp_path: Path) -> Iterator[Scene]:
    yield Scene(*server_on_network, tmp_path)
    server_on_network[0].end_hosts()


def keyed(log: blocking.EventLog, events: list[str]) -> None:
    log.append_many(events, keys=[f"k{n % KEYS}" for n in range(len(events))])


def test_a_host_that_is_killed_loses_no_event_and_no_order(scene: Scene) -> None:
    options = ("--ordering", "key", "--max-deliveries", "3")
    with blocking.open(scene.address) as log:
        victim = scene.start("a", *options)
        scene.start("b", *options)
        keyed(log, ["quick"] * 40 + ["failing", "killing"] + ["quick"] * 40)
        scene.wait("did", "a", 3)
        victim.kill()
        scene.start("c", *options)
        with log.group(GROUP, ordering="key", max_deliveries=3) as group:
            group.wait_drained()
        letters = {one.seq_no: one for one in log.dead_letters(GROUP)}
        [report] = log.groups()
    assert {one.number for one in scene.lines("did")} | {41, 42} == set(range(1, 83))
    assert {n: one.deliveries for n, one in letters.items()} == {41: 3, 42: 3}
    assert letters[41].error == "ValueError: no such order"
    # Nobody else knows how it ended if no worker was left on the host that knew.
    assert letters[42].exit_code == 3 or letters[42].error == "its worker was lost 3 times"
    assert (report.lag, report.dead_letters) == (0, 2)
    scene.check_order(dead=letters)


def test_a_host_that_is_cut_off_for_less_than_its_lease_keeps_its_work(scene: Scene) -> None:
    with blocking.open(scene.address) as log:
        one = scene.start("a", lease_s=LONG_LEASE_S)
        log.append("long")
        scene.wait("got", "a")
        scene.start("b", lease_s=LONG_LEASE_S)
        one.cut()
        time.sleep(LONG_LEASE_S / 8)
        one.mend()
        # Its time is over now, but for what it has said since.
        time.sleep(LONG_LEASE_S)
        assert scene.is_held("a", 1)
        scene.release()
        with log.group(GROUP) as group:
            group.wait_drained()
        assert log.dead_letters(GROUP) == []
    assert [line for line in scene.lines() if line.number == 1] == [
        Line("got", "a", 1, "None", 1),
        Line("did", "a", 1, "None", 1),
    ]


def test_a_host_that_is_cut_off_for_longer_stops_its_handlers_and_comes_back(
    scene: Scene,
) -> None:
    with blocking.open(scene.address) as log:
        one = scene.start("a", "--ordering", "key")
        log.append_many(["long", "quick"], keys=["k", "k"])
        scene.wait("got", "a")
        other = scene.start("b", "--ordering", "key")
        one.cut()
        until(lambda: 1 in {line.number for line in scene.lines("got", "b")}, "event 1 on b")
        until(lambda: not scene.is_held("a", 1), "the end of the handler on a")
        scene.release()
        until(lambda: {1, 2} <= {one.number for one in scene.lines("did", "b")}, "both on b")
        one.mend()
        other.cut()
        before = len(scene.lines("did", "a"))
        log.append("quick", key="after")
        scene.wait("did", "a", before + 1)
        with log.group(GROUP, ordering="key") as group:
            group.wait_drained()
        assert log.dead_letters(GROUP) == []
    assert [line.attempt for line in scene.lines("got") if line.number == 1] == [1, 2]
    assert {one.number for one in scene.lines("did", "a")} & {1, 2} == set()
    scene.check_order()


TAKES_ONE: Final = """
import sys
from eventlog import blocking
with blocking.open(sys.argv[1], lease_s=float(sys.argv[2])) as log:
    with log.group("g") as group, group.open_member(output=log.path) as member:
        lease = member.lease()
        ((attempt, envelope),) = lease
        assert lease.begin(envelope)
        print(attempt, flush=True)
        sys.stdin.readline()
        lease.done_with(envelope, ["late"])
        member.flush()
        print(lease.is_lost, flush=True)
"""


def test_a_late_acknowledgement_of_a_host_that_was_cut_off_is_refused(scene: Scene) -> None:
    host = scene.network.plug_in("a")
    with blocking.open(scene.address) as log, log.group(GROUP) as group:
        log.append("event")
        program = [sys.executable, "-c", TAKES_ONE, scene.address_on_hosts, str(LEASE_S)]
        late = host.start(program, None, subprocess.PIPE, stdin=subprocess.PIPE)
        assert late.stdout is not None
        assert late.stdin is not None
        assert late.stdout.readline() == b"1\n"
        host.cut()
        with group.open_member(output=log.path) as member:
            lease = member.lease()
            assert lease is not None
            [(attempt, envelope)] = lease
            assert attempt == 2
            assert lease.begin(envelope)
            lease.done_with(envelope, ["in time"])
            member.flush()
        late.stdin.write(b"\n")
        late.stdin.flush()
        host.mend()
        assert late.stdout.readline() == b"True\n"
        assert late.wait(HANG_S) == 0
        late.stdin.close()
        late.stdout.close()
        group.wait_drained()
        assert [one.event for one in log.read(1)] == ["event", "in time"]
