"""Credentials in the words of the client library."""

from __future__ import annotations

import ssl
from typing import Any

from eventlog.errors import InvalidConfig
from eventlog.jetstream.address import Address


def client_options(address: Address) -> dict[str, Any]:
    """What the client library needs to be let in.

    Raises:
        InvalidConfig: the certificates cannot be loaded.
    """
    who = address.credentials
    given: dict[str, Any] = {
        "user": who.user,
        "password": who.password,
        "token": who.token,
        "user_credentials": who.creds_file,
        "nkeys_seed": who.nkey_file,
    }
    if address.is_tls:
        given["tls"] = _tls(address)
    return {name: value for name, value in given.items() if value is not None}


def _tls(address: Address) -> ssl.SSLContext:
    who = address.credentials
    try:
        context = ssl.create_default_context(cafile=who.ca_file)
        if who.cert_file:
            context.load_cert_chain(who.cert_file, who.key_file)
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"the certificates for {address.path} cannot be loaded: {error}; check NATS_CA,"
            " NATS_CERT and NATS_KEY in the environment",
            path=address.path,
        ) from None
    return context
