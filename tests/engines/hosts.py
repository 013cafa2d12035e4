"""Hosts: network namespaces of this machine, each with a cable of its own to a switch.

::

    with Network() as network:
        host = network.plug_in("a")        a machine with processes and an address of its own
        host.start(["workers", "run", ...])
        host.cut()                         its cable is pulled; `mend` plugs it in again
        host.kill()                        all its processes at once, as when its power goes

Servers are on this side of the switch, at `network.address`. A host sees this machine's files.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import IO, Final

PROGRAMS: Final = ("ip", "nsenter", "setpriv", "unshare")
# It dies with the thread that has started it, and all processes of the host with it.
_ALONE: Final = ("setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--pid", "--fork")
_BOOT: Final = (*_ALONE, "--mount-proc", "--kill-child", "sh", "-c", "echo; exec sleep infinity")


@cache
def reason_to_skip() -> str:
    """Why there can be no hosts here; empty if there can."""
    missing = [one for one in PROGRAMS if shutil.which(one) is None]
    if missing:
        return f"there is no program {missing[0]!r} here (Debian: iproute2, util-linux)"
    tried = subprocess.run([*_ALONE, "true"], capture_output=True, text=True, check=False)
    return f"this user may make no network: {tried.stderr.strip()}" if tried.returncode else ""


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


@dataclass
class Host:
    """One machine; see the module."""

    name: str
    cable: str
    """This side's end of it."""
    _machine: subprocess.Popen[bytes]
    first_process: int
    """Its number out here; in there it is 1."""
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs the command there."""
        where = ["nsenter", "--target", str(self.first_process), "--net", "--pid", "--mount"]
        return [*where, *command]

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | int | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a program there."""
        process = subprocess.Popen(
            self.inside(command),
            stdin=stdin,
            stdout=output,
            stderr=output if stdin == subprocess.DEVNULL else None,
            env=os.environ | dict(environment or {}),
        )
        self._started.append(process)
        return process

    def cut(self) -> None:
        """Pull the cable: nothing comes through, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self.cable, "up")

    def kill(self) -> None:
        """End all its processes at once; the host is gone then, and its cable too."""
        self._machine.kill()
        for process in (self._machine, *self._started):
            process.wait()


class Network:
    """The switch; a context manager."""

    def __init__(self) -> None:
        self._switch = f"el{os.getpid() % 10_000_000}"
        # RFC 2544: networks for tests, which no router passes on.
        self._net = f"198.{random.randrange(18, 20)}.{random.randrange(256)}"
        self._stack = ExitStack()
        self._hosts: list[Host] = []

    @property
    def address(self) -> str:
        """Address of this side."""
        return f"{self._net}.1"

    def __enter__(self) -> Network:
        """Build it."""
        _ip("link", "add", self._switch, "type", "bridge")
        self._stack.callback(_ip, "link", "delete", self._switch)
        _ip("address", "add", f"{self.address}/24", "dev", self._switch)
        _ip("link", "set", self._switch, "up")
        return self

    def __exit__(self, *_: object) -> None:
        """End all hosts, and remove it."""
        self.end_hosts()
        self._stack.close()

    def end_hosts(self) -> None:
        """End those that are left."""
        for host in self._hosts:
            host.kill()

    def plug_in(self, name: str) -> Host:
        """Another host."""
        machine = subprocess.Popen(_BOOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert machine.stdout is not None
        with machine.stdout:
            assert machine.stdout.readline() == b"\n", "the host did not start"
        with open(f"/proc/{machine.pid}/task/{machine.pid}/children") as children:
            first = int(children.read())
        number = len(self._hosts) + 1
        host = Host(name, f"{self._switch}.{number}", machine, first)
        self._hosts.append(host)
        _ip("link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", str(first))
        _ip("link", "set", host.cable, "master", self._switch, "up")
        for words in (
            ("address", "add", f"{self._net}.{number + 1}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            inside = ["nsenter", "--target", str(first), "--net", "ip", *words]
            subprocess.run(inside, check=True, capture_output=True)
        return host


@contextmanager
def network() -> Iterator[Network]:
    """A network, or a skipped test that says why there is none."""
    import pytest

    if reason := reason_to_skip():
        pytest.skip(reason)
    with Network() as found:
        yield found
