"""Addresses of logs on Kafka, taken apart."""

from __future__ import annotations

import pytest

from eventlog.config import AskedOptions
from eventlog.errors import InvalidArgument
from eventlog.kafka.address import parse


def test_an_address_names_hosts_and_topic_and_has_a_usual_port() -> None:
    found = parse("kafka://one,two:9093/orders", {})
    assert found.hosts == ("one:9092", "two:9093")
    assert found.topic == "orders"
    assert found.path == "kafka://one:9092,two:9093/orders"
    assert found.settings == {"security.protocol": "PLAINTEXT"}


def test_a_user_logs_in_by_sasl_and_is_shown_nowhere() -> None:
    found = parse("kafka+tls://me:se%40cret@host/orders?sasl=SCRAM-SHA-512&ca=/ca.pem", {})
    assert found.settings == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "se@cret",
        "ssl.ca.location": "/ca.pem",
    }
    assert "cret" not in found.path + repr(found)


def test_the_environment_says_what_the_address_does_not() -> None:
    environment = {
        "EVENTLOG_KAFKA_USER": "me",
        "EVENTLOG_KAFKA_PASSWORD": "secret",
        "EVENTLOG_KAFKA_SASL": "SCRAM-SHA-256",
    }
    settings = parse("kafka://host/orders", environment).settings
    assert settings["security.protocol"] == "SASL_PLAINTEXT"
    assert settings["sasl.mechanism"] == "SCRAM-SHA-256"
    assert settings["sasl.password"] == "secret"


@pytest.mark.parametrize(
    "address",
    [
        "kafka://me:secret@host",
        "kafka://me:secret@host/",
        "kafka://me:secret@host/a/b",
        "kafka://me:secret@host:port/orders",
        "kafka://me:secret@host:70000/orders",
        "kafka://me:secret@host/orders?ca=/ca.pem",
        "kafka://me:secret@host/orders?sasl=NONE",
        "kafka+tls://me:secret@host/orders?what=1",
    ],
)
def test_a_wrong_address_is_refused_without_showing_the_password(address: str) -> None:
    with pytest.raises(InvalidArgument, match="host") as caught:
        parse(address, {})
    assert "secret" not in str(caught.value)


def test_options_go_before_the_address_and_the_environment() -> None:
    asked = AskedOptions(user="me", password="mine")
    environment = {"EVENTLOG_KAFKA_USER": "they", "EVENTLOG_KAFKA_PASSWORD": "theirs"}
    found = parse("kafka://us:ours@host/orders", environment, asked)
    assert found.settings["sasl.username"] == "me"
    assert found.settings["sasl.password"] == "mine"
    assert "mine" not in repr(found)
