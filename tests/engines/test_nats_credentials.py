"""Clients that a NATS server knows by keys (nkeys) and credentials of an operator."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import nkeys  # type: ignore[import-untyped]
import pytest

import eventlog
from eventlog.errors import InvalidConfig, PermissionDenied
from tests import servers
from tests.servers import Server

pytestmark = pytest.mark.anyio

HANG_S: Final = 20.0
KIND_BYTES: Final = {"operator": 14, "account": 0, "user": 20}


class Key:
    """A pair of keys as NATS has them."""

    def __init__(self, kind: str) -> None:
        self.seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), KIND_BYTES[kind] << 3)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def token(self, subject: str, name: str, nats: dict[str, Any]) -> str:
        """A signed claim about whoever has the key `subject`."""
        claims = {"iat": int(time.time()), "iss": self.public, "name": name, "sub": subject}
        claims |= {"nats": {"version": 2, **nats}}
        digest = hashlib.sha256(json.dumps(claims).encode()).digest()
        claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = f"{_encoded({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encoded(claims)}"
        signature: bytes = self._pair.sign(signed.encode())
        return f"{signed}.{_base64(signature)}"


def _encoded(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that knows a user by a key, which the environment names."""
    servers.require("nats")
    user = Key("user")
    config = write(tmp_path / "c.conf", f"authorization {{ users: [{{ nkey: {user.public} }}] }}")
    monkeypatch.setenv("NATS_NKEY", str(write(tmp_path / "user.nk", user.seed)))
    with servers.own("nats", tmp_path / "nats", "--config", str(config)) as server:
        yield server


@pytest.fixture
def of_an_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that knows an operator, whose account has a user with a file of credentials."""
    servers.require("nats")
    operator, system, account, user = map(Key, ("operator", "account", "account", "user"))
    room = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    limits = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1}
    accounts = {
        one.public: operator.token(
            one.public,
            name,
            {"type": "account", "limits": limits | {"exports": -1, "wildcards": True} | extra},
        )
        for one, name, extra in ((system, "SYS", {}), (account, "events", room))
    }
    token = operator.token(
        operator.public, "operator", {"type": "operator", "system_account": system.public}
    )
    config = write(
        tmp_path / "c.conf",
        f"operator: {token}\nsystem_account: {system.public}\nresolver: MEMORY\n"
        f"resolver_preload: {json.dumps(accounts)}\n",
    )
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    of_user = account.token(
        user.public, "worker", {"type": "user", "pub": {}, "sub": {}, **unlimited}
    )
    monkeypatch.setenv("NATS_CREDS", str(write(tmp_path / "user.creds", creds(of_user, user))))
    with servers.own("nats", tmp_path / "nats", "--config", str(config)) as server:
        yield server


def creds(token: str, key: Key) -> str:
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed.decode()}\n------END USER NKEY SEED------\n"
    )


async def test_a_key_opens_a_log(of_keys: Server) -> None:
    async with eventlog.open(f"{of_keys.address}log") as log:
        assert await log.append(1) == 1


async def test_credentials_of_an_operator_open_a_log(of_an_operator: Server) -> None:
    async with eventlog.open(f"{of_an_operator.address}log") as log:
        assert await log.append(1) == 1


async def test_a_key_that_the_server_does_not_know_is_refused(
    of_keys: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Key("user")
    monkeypatch.setenv("NATS_NKEY", str(write(tmp_path / "other.nk", other.seed)))
    with anyio.fail_after(HANG_S), pytest.raises(PermissionDenied, match="NATS_") as refused:
        async with eventlog.open(f"{of_keys.address}log"):
            pytest.fail("nobody knows it")
    assert other.seed.decode() not in f"{refused.value!r} {refused.value.fields}"


@pytest.mark.parametrize("setting", ["NATS_NKEY", "NATS_CREDS"])
@pytest.mark.parametrize("is_there", [False, True], ids=["missing", "nonsense"])
async def test_a_file_that_holds_no_key_is_named(
    of_keys: Server, setting: str, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "wrong"
    if is_there:
        write(file, "n0nsense")
    monkeypatch.setenv(setting, str(file))
    with anyio.fail_after(HANG_S), pytest.raises(InvalidConfig, match=setting) as refused:
        async with eventlog.open(f"{of_keys.address}log"):
            pytest.fail("it is no key")
    assert "n0nsense" not in str(refused.value)
