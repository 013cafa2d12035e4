"""The address of a log on a Kafka cluster; pure.

::

    kafka://[user:password@]host[:port][,host[:port]...]/topic
    kafka+tls://...     the same with TLS; ?ca=FILE&cert=FILE&key=FILE name files in PEM

With a user, clients log in by SASL: `?sasl=SCRAM-SHA-512` names the mechanism, which is PLAIN
otherwise. User and password may also be options of `open`, which go before the address. What
neither says the environment may, as `EVENTLOG_KAFKA_USER`,
`EVENTLOG_KAFKA_PASSWORD` and `EVENTLOG_KAFKA_SASL`. User and password are never in `path`, which is
what errors show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote

from eventlog.config import AskedOptions
from eventlog.errors import InvalidArgument

USER: Final = "EVENTLOG_KAFKA_USER"
PASSWORD: Final = "EVENTLOG_KAFKA_PASSWORD"  # noqa: S105 - the name of a variable
MECHANISM: Final = "EVENTLOG_KAFKA_SASL"
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
PORT: Final = 9092
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""Shorter than the server's limit: the journal's name is the topic's and 33 characters."""
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/?#\[\]]+)(?::(\d{1,5}))?")
_FORM: Final = "give kafka://host:9092/topic"
_FILES: Final = {
    "ca": "ssl.ca.location",
    "cert": "ssl.certificate.location",
    "key": "ssl.key.location",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A topic of a cluster."""

    path: str
    """The address without user and password."""
    hosts: tuple[str, ...]
    """Each as `host:port`."""
    topic: str
    settings: Mapping[str, str] = field(repr=False)
    """What clients are set to beside the hosts: TLS, user and password."""


def parse(
    address: str, environment: Mapping[str, str], asked: AskedOptions | None = None
) -> Address:
    """The parts of an address; options go before it, and the environment after it.

    Raises:
        InvalidArgument: it is none; the message shows nothing of user and password.
    """
    scheme, _, rest = address.partition("://")
    # A password may hold a slash or an at sign: the last at sign ends the credentials.
    who, _, where = rest.rpartition("@")
    place, _, query = where.partition("?")
    hosts, _, topic = place.partition("/")
    shown = f"{scheme}://{place}"
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise InvalidArgument(
            f"the address {shown} names no topic, or one with other characters than letters,"
            f" digits, dot, - and _; {_FORM}",
            path=shown,
        )
    found = tuple(_host(one, shown) for one in hosts.split(","))
    user, _, password = who.partition(":")
    asked = asked or AskedOptions()
    login = (
        asked.user or unquote(user) or environment.get(USER, ""),
        asked.password or unquote(password) or environment.get(PASSWORD, ""),
    )
    return Address(
        path=f"{scheme}://{','.join(found)}/{topic}",
        hosts=found,
        topic=topic,
        settings=_settings(login, query, environment, shown, has_tls=scheme == "kafka+tls"),
    )


def _host(text: str, shown: str) -> str:
    match = _HOST.fullmatch(text)
    if match is None or int(match[2] or PORT) > 65_535:
        raise InvalidArgument(
            f"the address {shown} has {text!r} where a host stands; {_FORM}", path=shown
        )
    return f"{match[1]}:{match[2] or PORT}"


def _settings(
    login: tuple[str, str],
    query: str,
    environment: Mapping[str, str],
    shown: str,
    *,
    has_tls: bool,
) -> dict[str, str]:
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    mechanism = asked.pop("sasl", None) or environment.get(MECHANISM) or MECHANISMS[0]
    unknown = sorted(asked.keys() - _FILES) or (sorted(asked) if not has_tls else [])
    if unknown or mechanism not in MECHANISMS:
        raise InvalidArgument(
            f"the address {shown} asks for {', '.join(unknown) or f'sasl={mechanism}'}; kafka://"
            f" takes sasl ({', '.join(MECHANISMS)}), and kafka+tls:// also ca, cert and key",
            path=shown,
        )
    settings = {_FILES[name]: file for name, file in asked.items()}
    user, password = login
    kind = "SSL" if has_tls else "PLAINTEXT"
    if not user:
        return {**settings, "security.protocol": kind}
    return {
        **settings,
        "security.protocol": f"SASL_{kind}",
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
    }
