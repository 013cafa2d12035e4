"""The servers that tests stand on: they keep their port and data, and leave nothing behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.servers import HOST, KINDS, Server


def _ask(server: Server, line: str) -> bytes:
    with socket.create_connection((HOST, server.port), timeout=10) as connection:
        connection.sendall(line.encode() + b"\r\n")
        return connection.recv(1000)


@pytest.mark.parametrize("name", ["valkey", "redis"])
def test_a_killed_server_comes_back_on_its_port_with_its_data(name: str, tmp_path: Path) -> None:
    servers.require(name)
    with servers.own(name, tmp_path) as server:
        port = server.port
        assert _ask(server, "SET name value") == b"+OK\r\n"
        server.kill()
        with pytest.raises(OSError):  # noqa: PT011 - refused
            _ask(server, "GET name")
        server.start()
        assert server.port == port
        assert _ask(server, "GET name") == b"$5\r\nvalue\r\n"


def test_a_paused_server_accepts_and_does_not_answer_until_it_is_resumed(tmp_path: Path) -> None:
    servers.require("valkey")
    with servers.own("valkey", tmp_path) as server:
        server.pause()
        with socket.create_connection((HOST, server.port)) as connection:
            connection.sendall(b"PING\r\n")
            connection.settimeout(0.1)
            with pytest.raises(TimeoutError):
                connection.recv(10)
            server.resume()
            connection.settimeout(10)
            assert connection.recv(10) == b"+PONG\r\n"


def _param(name: str) -> Any:
    return pytest.param(name, marks=[pytest.mark.slow] if KINDS[name].is_heavy else [])


@pytest.mark.parametrize("name", [_param(name) for name in sorted(KINDS)])
def test_the_program_prints_an_address_and_ends_the_server_on_ctrl_c(name: str) -> None:
    servers.require(name)
    program = [sys.executable, "-m", "tests.servers", name]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        address = running.stdout.readline()
        assert address.startswith(KINDS[name].scheme + "://" + HOST)
        port = int(address.split(":")[2].split("/")[0])
        socket.create_connection((HOST, port)).close()
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port))


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    servers.require("valkey")
    starts = (
        "import sys, pathlib; from tests.servers import *;"
        " s = Server(KINDS['valkey'], pathlib.Path(sys.argv[1])); s.start();"
        " print(s.port, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starts, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline())
        with socket.create_connection((HOST, port), timeout=10) as connection:
            starter.kill()
            with suppress(ConnectionResetError):
                assert connection.recv(10) == b""
