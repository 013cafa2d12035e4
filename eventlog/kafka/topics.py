"""How the topics of a log are set, and what of an existing one would break a promise. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from eventlog.config import (
    MAX_EVENT_BYTES_DEFAULT,
    MIB,
    AskedOptions,
    Durability,
    LogOptions,
    Retention,
)
from eventlog.errors import NotSupported

ENGINE: Final = "kafka"
RECORD_OVERHEAD_BYTES: Final = 64 * 1024
"""What key, headers and the batch around an event may take beside it."""
BATCH_BYTES_MAX: Final = 2 * MIB
"""What is sent as one batch at most, with what the server stores beside each record."""
PER_RECORD_BYTES: Final = 64
"""What the server stores beside each record, at most: its key, lengths, and the library's guess."""
ATOMIC_EVENTS_MAX: Final = 8192
SEGMENTS_KEPT: Final = 8
"""Retention deletes whole segments: a log of a limited size is cut into so many."""
SEGMENT_BYTES_MIN: Final = 1 * MIB
"""The server's own limit, since version 4.0."""
MS: Final = timedelta(milliseconds=1)


def journal_of(topic: str, log_id: UUID) -> str:
    """The topic with positions and groups of a log; another log of that name has another one."""
    return f"{topic}.{log_id.hex}"


def check_options(asked: AskedOptions, path: str) -> None:
    """Refuse what no topic can keep.

    Raises:
        NotSupported: naming the option.
    """
    kept = asked.retention
    if kept is not None and kept.keep_unacked and (kept.max_bytes or kept.max_age):
        raise NotSupported(
            f"the engine {ENGINE!r} of {path} deletes what is over the limit whoever has not"
            " acknowledged it; give Retention(..., keep_unacked=False)",
            path=path,
            engine=ENGINE,
            option="retention",
        )


def events_config(asked: AskedOptions) -> dict[str, str]:
    """The topic of a new log."""
    largest = asked.max_event_bytes or MAX_EVENT_BYTES_DEFAULT
    config = {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(largest + RECORD_OVERHEAD_BYTES),
        "retention.ms": "-1",
        "retention.bytes": "-1",
    }
    if asked.durability == "sync":
        config["flush.messages"] = "1"
    kept = asked.retention or Retention()
    if kept.max_bytes is not None:
        config["retention.bytes"] = str(kept.max_bytes)
        segment = max(kept.max_bytes // SEGMENTS_KEPT, SEGMENT_BYTES_MIN)
        config["segment.bytes"] = str(min(segment, 1024 * MIB))
    if kept.max_age is not None:
        age_ms = max(kept.max_age // MS, 1)
        config["retention.ms"] = str(age_ms)
        config["segment.ms"] = str(max(age_ms // SEGMENTS_KEPT, 1))
    return config


def journal_config() -> dict[str, str]:
    """The topic of positions and groups; whoever follows it deletes what a snapshot replaces."""
    return {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(2 * MAX_EVENT_BYTES_DEFAULT),
        "retention.ms": "-1",
        "retention.bytes": "-1",
    }


_NEEDED: Final = (
    ("cleanup.policy", "delete", "events would go one by one, and numbers would have gaps"),
    (
        "message.timestamp.type",
        "LogAppendTime",
        "times of storing would be those of the producers' clocks",
    ),
)
"""Settings of a topic, what a log needs them to be, and why."""


def check_topic(partitions: int, config: Mapping[str, str], path: str) -> None:
    """Pass if the topic can hold a log.

    Raises:
        NotSupported: naming the setting.
    """
    if partitions != 1:
        raise NotSupported(
            f"the topic at {path} has {partitions} partitions, each with numbers of its own; a log"
            " is a topic of one partition: give another name, and open makes it",
            path=path,
            engine=ENGINE,
            option="partitions",
        )
    for setting, needed, why in _NEEDED:
        # A server that does not tell its settings is believed: the numbers are checked anyway.
        if config.get(setting, needed) != needed:
            raise NotSupported(
                f"the topic at {path} has {setting}={config[setting]}, so {why}; set it to"
                f" {needed} (kafka-configs --alter)",
                path=path,
                engine=ENGINE,
                option=setting,
            )


def options_of(config: Mapping[str, str], asked: AskedOptions, path: str) -> LogOptions:
    """What the topic is set to, as options of a log; it may be more durable than was asked for.

    Raises:
        NotSupported: it is less durable than was asked for.
    """
    size, age_ms = int(config.get("retention.bytes", -1)), int(config.get("retention.ms", -1))
    durability: Durability = "sync" if config.get("flush.messages") == "1" else "disk"
    if asked.durability == "sync" and durability != "sync":
        raise NotSupported(
            f'durability="sync" is more than the topic at {path} is set to: it needs'
            " flush.messages=1 (kafka-configs --alter)",
            path=path,
            engine=ENGINE,
            option="durability",
        )
    is_limited = size > 0 or age_ms > 0
    # Where nothing is deleted, it is kept whoever has acknowledged it.
    wants_kept = asked.retention is None or asked.retention.keep_unacked
    return LogOptions(
        durability=asked.durability or durability,
        retention=Retention(
            max_bytes=size if size > 0 else None,
            max_age=min(age_ms, 86_400_000 * 36_500) * MS if age_ms > 0 else None,
            keep_unacked=not is_limited and wants_kept,
        ),
        on_full="error",
        max_event_bytes=max(message_bytes_max(config) - RECORD_OVERHEAD_BYTES, 1),
    )


def message_bytes_max(config: Mapping[str, str]) -> int:
    """The largest batch that the topic takes."""
    return int(config.get("max.message.bytes", 1_000_000))


def batch_bytes_max(config: Mapping[str, str]) -> int:
    """What is sent as one batch."""
    return min(message_bytes_max(config) - 1024, BATCH_BYTES_MAX)
