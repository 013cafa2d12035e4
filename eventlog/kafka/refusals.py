"""What the errors of the client library mean for a user; no credential is ever in the text."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from eventlog.errors import (
    CorruptLog,
    EventTooLarge,
    LogDeleted,
    NotSupported,
    PermissionDenied,
    StorageFailed,
)
from eventlog.kafka.address import PASSWORD, USER
from eventlog.remote.driver import Unreachable

UNKNOWN_TOPIC: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_ID,
    }
)
TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_WRONG_PASSWORD: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    }
)
_NOT_ALLOWED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_REFUSED_TOPIC: Final = frozenset(
    {
        KafkaError.INVALID_CONFIG,
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._UNSUPPORTED_FEATURE,
    }
)
_FAILURES: Final = frozenset(
    {
        KafkaError._INVALID_ARG,
        KafkaError._CONFLICT,
        KafkaError.INVALID_REQUEST,
        KafkaError.INVALID_RECORD,
    }
)
"""What does not pass by itself. All else may: a broker that starts has many ways to say so."""


def error_of(raised: Exception) -> KafkaError | None:
    """The library's own error in what it raises."""
    found = raised.args[0] if isinstance(raised, KafkaException) and raised.args else raised
    return found if isinstance(found, KafkaError) else None


def is_unknown_topic(raised: KafkaException) -> bool:
    """Whether the library raises it of a topic that is not there."""
    error = error_of(raised)
    return error is not None and error.code() in UNKNOWN_TOPIC


def refusal_of(error: KafkaError | None, path: str) -> Exception:
    """What to raise in place of the library's error."""
    if error is None:
        return Unreachable(f"the server of {path} does not answer")
    code, text = error.code(), error.str()
    if code in _WRONG_PASSWORD:
        return PermissionDenied(
            f"the server of {path} refuses user and password; give them in the address or as"
            f" {USER} and {PASSWORD} in the environment, and the mechanism as ?sasl=",
            path=path,
        )
    if code in _NOT_ALLOWED:
        return PermissionDenied(
            f"the user may not do what the log {path} needs: {text}; allow it (kafka-acls)",
            path=path,
        )
    if code in UNKNOWN_TOPIC:
        return deleted(path)
    return _of_server(code, text, path)


def _of_server(code: int, text: str, path: str) -> Exception:
    if code in TOO_LARGE:
        return EventTooLarge(
            f"the server of {path} takes no event as large: {text}; store large data elsewhere, or"
            " raise max.message.bytes of the topic",
            path=path,
        )
    if code in _REFUSED_TOPIC:
        return NotSupported(
            f"the server of {path} refuses the topic: {text}; give other options, or make the"
            " topic by hand, with one partition",
            path=path,
            engine="kafka",
        )
    if code in _FAILURES:
        return StorageFailed(f"the server of {path} failed: {text}", path=path)
    return Unreachable(f"the server of {path} does not answer: {text}")


def deleted(path: str) -> LogDeleted:
    """The log that the handle had opened is gone, or another one is in its place."""
    return LogDeleted(
        f"the log {path} was deleted from its server, or replaced by another one, while it was in"
        " use; open it again",
        path=path,
    )


def missing(path: str, first: int, last: int) -> CorruptLog:
    """Offsets of the topic that hold no event."""
    which = f"event {first}" if first == last else f"events {first} to {last}"
    return CorruptLog(
        f"{which} of the log {path} cannot be read: another program has written there with"
        " transactions, or the topic was compacted; read on after it, and keep other programs from"
        " writing there",
        path=path,
        seq_no=first,
        last_seq_no=last,
    )
