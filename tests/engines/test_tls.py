"""TLS to servers, with certificates that the test makes: who is trusted, and who is told what."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import anyio
import pytest
import trustme

import eventlog
from eventlog.errors import EventLogError, PermissionDenied
from tests import servers
from tests.engines.conftest import Engine
from tests.engines.faulty_proxy import Proxy
from tests.servers import HOST

pytestmark = pytest.mark.anyio

HANG_S: Final = 30.0


class Authority:
    """Makes certificates, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str) -> tuple[Path, Path]:
        """The files of a certificate for that name, and of its key."""
        made = self._ca.issue_cert(name)
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        made.private_key_pem.write_to_path(key)
        for part in made.cert_chain_pems:
            part.write_to_path(cert, append=True)
        return cert, key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


class Secured:
    """A server that speaks TLS, and who it is."""

    def __init__(self, engine: Engine, port: int, authority: Authority) -> None:
        self._engine = engine
        self.port = port
        self._authority = authority

    def address(
        self, monkeypatch: pytest.MonkeyPatch, *, ca: Path | None = None, port: int = 0
    ) -> str:
        """The address of a log there, for somebody who trusts that authority."""
        ca = ca or self._authority.file
        place = f"{HOST}:{port or self.port}"
        if self._engine.server == "nats":
            monkeypatch.setenv("NATS_CA", str(ca))
            return f"nats+tls://{place}/log"
        return f"rediss://{place}/0/log?ca={ca}"

    def with_certificate(self, monkeypatch: pytest.MonkeyPatch, cert: Path, key: Path) -> str:
        """The address for somebody who has a certificate."""
        address = self.address(monkeypatch)
        if self._engine.server == "nats":
            monkeypatch.setenv("NATS_CERT", str(cert))
            monkeypatch.setenv("NATS_KEY", str(key))
            return address
        return f"{address}&cert={cert}&key={key}"


@pytest.fixture(params=[HOST], ids=["its name"])
def secured(
    request: pytest.FixtureRequest, engine: Engine, authority: Authority, tmp_path: Path
) -> Iterator[Secured]:
    """With a certificate for the address; or for another name, which a test gives."""
    cert, key = authority.issue(request.param)
    if engine.server == "nats":
        config = tmp_path / "tls.conf"
        config.write_text(f'tls {{ cert_file: "{cert}", key_file: "{key}" }}\n')
        with servers.own("nats", tmp_path / "nats", "--config", str(config)) as server:
            yield Secured(engine, server.port, authority)
        return
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    # The servers from wheels speak no TLS themselves.
    with (
        servers.own(engine.server, tmp_path / "data") as server,
        Proxy(server.port, context) as proxy,
    ):
        yield Secured(engine, proxy.port, authority)


async def refusal_of(address: str, **options: Any) -> EventLogError:
    with anyio.fail_after(HANG_S), pytest.raises(EventLogError) as told:
        async with eventlog.open(address, **options):
            pytest.fail("it is not trusted")
    return told.value


async def test_a_server_whose_authority_is_known_is_spoken_to(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with eventlog.open(secured.address(monkeypatch)) as log:
        assert await log.append("secret") == 1
        assert [one.event for one in await log.read(1)] == ["secret"]


@pytest.fixture
def demanding(engine: Engine, authority: Authority, tmp_path: Path) -> Iterator[Secured]:
    """One that wants a certificate of its clients, of the same authority."""
    cert, key = authority.issue(HOST)
    if engine.server == "nats":
        config = tmp_path / "tls.conf"
        files = f'cert_file: "{cert}", key_file: "{key}", ca_file: "{authority.file}"'
        config.write_text(f"tls {{ {files}, verify: true }}\n")
        with servers.own("nats", tmp_path / "nats", "--config", str(config)) as server:
            yield Secured(engine, server.port, authority)
        return
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    with (
        servers.own(engine.server, tmp_path / "data") as server,
        Terminator(context, server.port) as terminator,
    ):
        yield Secured(engine, terminator.server_address[1], authority)


class Terminator(socketserver.ThreadingTCPServer):
    """Speaks TLS before a server, and tells whom it refuses why, which asyncio does not."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, server_port: int) -> None:
        super().__init__((HOST, 0), _Terminated)
        self.context = context
        self.server_port = server_port
        self._thread = threading.Thread(target=self.serve_forever)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Terminated(socketserver.BaseRequestHandler):
    """One connection."""

    server: Terminator

    def handle(self) -> None:
        """Until either side ends it."""
        listening: socket.socket = self.request
        tls = self.server.context.wrap_socket(
            listening.dup(), server_side=True, do_handshake_on_connect=False
        )
        with tls, suppress(OSError):
            try:
                tls.do_handshake()
            except ssl.SSLError:
                while listening.recv(1 << 16):
                    pass  # a reset would overtake what it was told
                return
            with socket.create_connection((HOST, self.server.server_port)) as behind:
                pump = threading.Thread(target=_pump, args=(behind, tls))
                pump.start()
                _pump(tls, behind)
                pump.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


async def test_a_client_s_certificate_lets_it_in(
    demanding: Secured, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = demanding.with_certificate(monkeypatch, *authority.issue("client.example"))
    async with eventlog.open(address) as log:
        assert await log.append("secret") == 1
        assert [one.event for one in await log.read(1)] == ["secret"]


async def test_a_client_without_a_certificate_is_refused_and_told_why(
    demanding: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await refusal_of(demanding.address(monkeypatch))
    assert isinstance(error, PermissionDenied)
    assert "certificate" in str(error)


async def test_a_client_s_certificate_of_another_authority_is_refused_and_told_why(
    demanding: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Authority(tmp_path / "other").issue("client.example")
    error = await refusal_of(demanding.with_certificate(monkeypatch, *other))
    assert isinstance(error, PermissionDenied)
    assert "unknown ca" in str(error)


async def test_a_server_of_another_authority_is_refused_at_once(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Authority(tmp_path / "other")
    error = await refusal_of(secured.address(monkeypatch, ca=other.file))
    assert isinstance(error, PermissionDenied)
    assert "certificate" in str(error)


@pytest.mark.parametrize("secured", ["elsewhere.example"], indirect=True, ids=["another name"])
async def test_a_certificate_for_another_name_is_refused_at_once(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await refusal_of(secured.address(monkeypatch))
    assert isinstance(error, PermissionDenied)
    assert "certificate" in str(error)


async def test_an_authority_without_a_file_is_told_with_its_setting(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await refusal_of(secured.address(monkeypatch, ca=tmp_path / "missing.pem"))
    assert "missing.pem" in str(error) or "NATS_CA" in str(error)


async def test_a_handshake_that_breaks_is_made_again(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that ends in the middle is none of a wrong certificate."""
    with Proxy(secured.port) as proxy:
        for step in range(3):
            proxy.strike_at(step, is_halved=True)
            address = secured.address(monkeypatch, port=proxy.port)
            with anyio.fail_after(HANG_S):
                async with eventlog.open(address) as log:
                    assert await log.append(step) == step + 1
            assert proxy.disarm()


async def test_secrets_are_not_sent_to_a_server_without_tls(
    engine: Engine, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = b""

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        if engine.server == "nats":
            writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576}\r\n')
        heard += await reader.read(1 << 16)
        writer.close()

    with Listener(hear) as port:
        secured = Secured(engine, port, authority)
        address = secured.address(monkeypatch).replace("://", "://user:s3cret@")
        await refusal_of(address, retry_s=0.1)
    assert b"s3cret" not in heard


class Listener:
    """Somebody else who listens, in a thread."""

    def __init__(self, hear: Any) -> None:
        self._proxy = Proxy(0)
        self._proxy._serve = hear  # type: ignore[method-assign]

    def __enter__(self) -> int:
        return self._proxy.__enter__().port

    def __exit__(self, *_: object) -> None:
        self._proxy.__exit__()
