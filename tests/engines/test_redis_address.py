"""Addresses of logs on Redis: what they name, and that credentials show nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from eventlog.config import AskedOptions
from eventlog.errors import InvalidArgument, InvalidArgumentType, InvalidConfig
from eventlog.redis.address import PASSWORD, USER, parse


def test_an_address_names_hosts_database_and_stream() -> None:
    address = parse("redis://me:a%40b@one,two:7000/3/a%20b/c", {})
    assert address.hosts == (("one", 6379), ("two", 7000))
    assert (address.database, address.stream) == (3, "a b/c")
    assert (address.user, address.password) == ("me", "a@b")
    assert address.path == "redis://one,two:7000/3/a%20b/c"
    assert "a@b" not in repr(address)
    assert "a%40b" not in repr(address)


def test_credentials_may_stand_in_the_environment() -> None:
    address = parse("redis://one/0/log", {USER: "me", PASSWORD: "secret"})
    assert (address.user, address.password) == ("me", "secret")
    assert "secret" not in repr(address)


def test_options_go_before_the_address_and_the_environment() -> None:
    asked = AskedOptions(user="me", password="secret")
    address = parse("redis://you:other@one/0/log", {PASSWORD: "third"}, asked)
    assert (address.user, address.password) == ("me", "secret")
    assert "secret" not in f"{address!r} {asked!r}"
    address = parse("redis://you@one/0/log", {}, AskedOptions(password="secret"))
    assert (address.user, address.password) == ("you", "secret")


@pytest.mark.parametrize("wrong", [7, b"secret", ""])
def test_a_credential_that_is_none_is_refused_without_being_shown(wrong: Any) -> None:
    with pytest.raises((InvalidArgumentType, InvalidConfig)) as told:
        AskedOptions(password=wrong)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "wrong",
    [
        "redis://u:secret@one",
        "redis://u:secret@one/log",
        "redis://u:secret@one/0/",
        "redis://u:secret@one:no/0/log",
        "redis://u:secret@/0/log",
        "redis://u:secret@one/0/a{b}",
        "redis://u:secret@one/0/log?ca=x",
        "rediss://u:secret@one/0/log?unknown=x",
    ],
)
def test_what_is_no_address_is_refused_without_its_credentials(wrong: str) -> None:
    with pytest.raises(InvalidArgument) as told:
        parse(wrong, {})
    assert "secret" not in f"{told.value!r} {told.value.fields}"
