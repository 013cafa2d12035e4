"""The address of a log on a Redis or Valkey server; pure.

::

    redis://[user[:password]@]host[:port][,host[:port]...]/database/stream
    rediss://...    the same with TLS; ?ca=FILE&cert=FILE&key=FILE name files in PEM

User and password may also be options of `open`, which go before the address, or stand in the
environment, as `EVENTLOG_REDIS_USER` and `EVENTLOG_REDIS_PASSWORD`. Neither is ever in `path`,
which is what errors show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from eventlog.config import AskedOptions
from eventlog.errors import InvalidArgument

USER: Final = "EVENTLOG_REDIS_USER"
PASSWORD: Final = "EVENTLOG_REDIS_PASSWORD"  # noqa: S105 - the name of a variable
PORT: Final = 6379
_SHAPE: Final = "redis://[user:password@]host[:port]/database/stream"
_FILES: Final = frozenset({"ca", "cert", "key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a log is."""

    path: str
    """The address without user and password."""
    hosts: tuple[tuple[str, int], ...]
    database: int
    stream: str
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    has_tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def name_of(self, part: str) -> str:
        """The key of a part of the log; a cluster keeps all of them in one slot."""
        return f"{{{self.stream}}}:{part}"


def parse(
    address: str, environment: Mapping[str, str], asked: AskedOptions | None = None
) -> Address:
    """Take an address apart; options go before it, and the environment after it.

    Raises:
        InvalidArgument: it is none; the error does not show user and password.
    """
    asked = asked or AskedOptions()
    parts = urlsplit(address)
    credentials, _, places = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    shown = parts._replace(netloc=places).geturl()
    database, _, stream = parts.path.lstrip("/").partition("/")
    stream = unquote(stream)
    hosts = tuple(_host(place, shown) for place in places.split(","))
    if not (database.isascii() and database.isdigit()) or not stream:
        raise InvalidArgument(
            f"{shown} names no database and stream; give {_SHAPE}, as redis://{hosts[0][0]}/0/orders",
            path=shown,
        )
    if not stream.isprintable() or set("{}") & set(stream):
        raise InvalidArgument(
            f"{stream!r} is no name for a stream; give printable characters without braces",
            path=shown,
        )
    files = _files(parts, shown)
    return Address(
        path=f"{parts.scheme}://{places}/{int(database)}/{quote(stream)}",
        hosts=hosts,
        database=int(database),
        stream=stream,
        user=asked.user or unquote(user) or environment.get(USER) or None,
        password=asked.password or unquote(password) or environment.get(PASSWORD) or None,
        has_tls=parts.scheme == "rediss",
        **files,
    )


def _host(place: str, shown: str) -> tuple[str, int]:
    try:
        split = urlsplit(f"//{place}")
        host, port = split.hostname, split.port
    except ValueError:
        host, port = None, None
    if not host:
        raise InvalidArgument(f"{shown} has {place!r} for host and port; give {_SHAPE}", path=shown)
    return host, PORT if port is None else port


def _files(parts: SplitResult, shown: str) -> dict[str, str]:
    files = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = sorted(files.keys() - _FILES)
    if unknown or (files and parts.scheme != "rediss"):
        raise InvalidArgument(
            f"{shown} asks for {', '.join(unknown or sorted(files))} after the question mark;"
            " rediss:// takes ca, cert and key there, and redis:// nothing",
            path=shown,
        )
    return files
