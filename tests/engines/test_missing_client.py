"""An engine whose client library is not installed says what to install."""

from __future__ import annotations

import sys

import pytest

from eventlog import blocking
from eventlog.errors import NotSupported


@pytest.mark.parametrize(
    ("address", "package", "extra"),
    [
        ("redis://127.0.0.1:1/0/log", "coredis", "eventlog[redis]"),
        ("redis://127.0.0.1:1/0/log", "hiredis", "eventlog[redis]"),
        ("nats://127.0.0.1:1/log", "nats", "eventlog[jetstream]"),
        ("kafka://127.0.0.1:1/log", "confluent_kafka", "eventlog[kafka]"),
    ],
)
def test_a_client_library_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotSupported, match=r"pip install 'eventlog\[") as raised:
        blocking.open(address)
    assert extra in str(raised.value)
