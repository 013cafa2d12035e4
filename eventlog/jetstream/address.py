"""What an address of this engine says: servers, stream, and who asks. Pure.

`nats://user:password@host:4222,other:4222/stream`, `nats+tls://...`; a token stands where the user
does, alone, unless `open` is given a password. What neither the options of `open` (`user`,
`password`, `token`) nor the address say, the environment may, by the names that the command `nats`
has: `NATS_USER`, `NATS_PASSWORD`, `NATS_TOKEN`, `NATS_CREDS`, `NATS_NKEY`, `NATS_CA`, `NATS_CERT`,
`NATS_KEY`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from eventlog.config import AskedOptions
from eventlog.errors import InvalidArgument

PORT_DEFAULT: Final = 4222
_STREAM: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""Narrower than what the server takes: the name is a part of subjects and of a bucket's name."""
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/?#\[\]]+)(?::(\d{1,5}))?")
_FORM: Final = "give nats://host:4222/stream"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Name and secret of whoever asks; never shown."""

    user: str | None = None
    password: str | None = None
    token: str | None = None
    creds_file: str | None = None
    nkey_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __repr__(self) -> str:
        """Nothing of it."""
        return "<Credentials>"


@dataclass(frozen=True, slots=True)
class Address:
    """A stream on a server, or on a cluster of several."""

    scheme: str
    hosts: tuple[str, ...]
    """Each as `host:port`."""
    stream: str
    credentials: Credentials = field(repr=False)

    @property
    def path(self) -> str:
        """The address without credentials."""
        return f"{self.scheme}://{','.join(self.hosts)}/{self.stream}"

    @property
    def servers(self) -> list[str]:
        """What the client connects to, one of them."""
        return [f"{'tls' if self.is_tls else 'nats'}://{host}" for host in self.hosts]

    @property
    def is_tls(self) -> bool:
        """Whether nothing may go over the wire in clear."""
        return self.scheme == "nats+tls"


def parse(
    address: str, environment: Mapping[str, str], asked: AskedOptions | None = None
) -> Address:
    """The parts of an address; options go before it, and the environment after it.

    Raises:
        InvalidArgument: it is none; the message shows nothing of its credentials.
    """
    scheme, _, rest = address.partition("://")
    # A password may hold a slash or an at sign: the last at sign ends the credentials.
    who, _, where = rest.rpartition("@")
    shown = f"{scheme}://{where}"
    hosts, _, stream = where.partition("/")
    if not _STREAM.fullmatch(stream):
        raise InvalidArgument(
            f"the address {shown} names no stream, or one with other characters than letters,"
            f" digits, - and _; {_FORM}",
            path=shown,
        )
    return Address(
        scheme=scheme,
        hosts=tuple(_host(one, shown) for one in hosts.split(",")),
        stream=stream,
        credentials=_credentials(who, environment, asked or AskedOptions()),
    )


def _host(text: str, shown: str) -> str:
    match = _HOST.fullmatch(text)
    if match is None or int(match[2] or PORT_DEFAULT) > 65_535:
        raise InvalidArgument(
            f"the address {shown} has {text!r} where a host stands; {_FORM}", path=shown
        )
    return f"{match[1]}:{match[2] or PORT_DEFAULT}"


def _credentials(who: str, environment: Mapping[str, str], asked: AskedOptions) -> Credentials:
    files = {
        "creds_file": environment.get("NATS_CREDS"),
        "nkey_file": environment.get("NATS_NKEY"),
        "ca_file": environment.get("NATS_CA"),
        "cert_file": environment.get("NATS_CERT"),
        "key_file": environment.get("NATS_KEY"),
    }
    if asked.token:
        return Credentials(token=asked.token, **files)
    user, colon, password = who.partition(":")
    if who and not colon and not asked.password:
        return Credentials(token=unquote(user), **files)
    has_one = bool(who or asked.user or asked.password)
    return Credentials(
        user=asked.user or unquote(user) or environment.get("NATS_USER"),
        password=asked.password or unquote(password) or environment.get("NATS_PASSWORD"),
        token=None if has_one else environment.get("NATS_TOKEN"),
        **files,
    )
