"""How the streams of a log are set, and what of an existing one would break a promise. Pure.

====================  =============================================================================
stream                holds
====================  =============================================================================
`orders`              the events, each one message, all on one subject: `eventlog.orders.ID`. Its
                      sequence numbers are the log's. ID is the log's own: who publishes to a log
                      that was deleted and made again finds nobody there
`KV_eventlog_ID`      the log's bucket of keys and values, which `nats kv` shows: a key for each
                      consumer
====================  =============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from eventlog.config import AskedOptions, LogOptions, Retention
from eventlog.errors import NotALog, NotSupported

NAME: Final = "jetstream"
FORMAT: Final = "1"
SECOND_NS: Final = 1_000_000_000
WINDOW_S: Final = 300.0
"""How long the server remembers what it stored, so that a repeated append is stored once."""
WINDOW_OVER_RETRY: Final = 2.0
"""The window is at least so many times as long as calls are repeated."""
RECORD_OVERHEAD_BYTES: Final = 4096
"""What headers and subject of a message may take of the server's largest one."""


def subject_of(stream: str, log_id: UUID) -> str:
    """Where a log's events are published."""
    return f"eventlog.{stream}.{log_id.hex}"


def bucket_of(log_id: UUID) -> str:
    """The name of a log's bucket."""
    return f"eventlog_{log_id.hex}"


def check_options(asked: AskedOptions, retry_s: float, path: str) -> None:
    """Refuse what no stream can keep.

    Raises:
        NotSupported: naming the option.
    """

    def refuse(option: str, why: str) -> NotSupported:
        return NotSupported(
            f"the engine {NAME!r} of {path} {why}", path=path, engine=NAME, option=option
        )

    if asked.durability == "sync":
        raise refuse(
            "durability",
            'cannot tell whether the server syncs each message; give durability="disk", and set'
            " sync_interval: always in the server's own configuration",
        )
    kept = asked.retention
    if kept is not None and kept.keep_unacked and (kept.max_bytes or kept.max_age):
        raise refuse(
            "retention",
            "deletes what is over the limit whoever has not acknowledged it; give"
            " Retention(..., keep_unacked=False)",
        )
    window = window_s(asked.retention, retry_s)
    if window < retry_s:
        raise refuse(
            "retry_s",
            f"remembers appends for {window:g} s only, which is max_age, and so cannot repeat them"
            f" safely for {retry_s:g} s; give a smaller retry_s or a larger max_age",
        )


def window_s(retention: Retention | None, retry_s: float) -> float:
    """The duplicate window of a new stream, which cannot be longer than `max_age`."""
    wanted = max(WINDOW_S, WINDOW_OVER_RETRY * retry_s)
    if retention is None or retention.max_age is None:
        return wanted
    return min(wanted, retention.max_age.total_seconds())


def events_config(stream: str, log_id: UUID, asked: AskedOptions, retry_s: float) -> dict[str, Any]:
    """The stream of a new log."""
    retention = asked.retention or Retention()
    age = retention.max_age or timedelta(0)
    metadata = {"eventlog.id": log_id.hex, "eventlog.format": FORMAT}
    if not retention.keep_unacked:
        metadata["eventlog.keep_unacked"] = "no"
    if asked.max_event_bytes is not None:
        metadata["eventlog.max_event_bytes"] = str(asked.max_event_bytes)
    return {
        "name": stream,
        "subjects": [subject_of(stream, log_id)],
        "description": "a log of eventlog; its numbers stay without gaps while nothing is deleted",
        "retention": "limits",
        "discard": "old",
        "storage": "memory" if asked.durability == "memory" else "file",
        "max_bytes": retention.max_bytes or -1,
        "max_age": int(age / timedelta(microseconds=1)) * 1000,
        "num_replicas": 1,
        "duplicate_window": int(window_s(retention, retry_s) * SECOND_NS),
        "deny_delete": True,
        "deny_purge": True,
        "allow_direct": True,
        "allow_atomic": True,
        "metadata": metadata,
    }


def bucket_config(log_id: UUID, storage: str, retry_s: float) -> dict[str, Any]:
    """The stream of a log's bucket, which is one as the server's clients know them."""
    bucket = bucket_of(log_id)
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "retention": "limits",
        "discard": "new",
        "storage": storage,
        "max_msgs_per_subject": 1,
        "num_replicas": 1,
        "duplicate_window": int(window_s(None, retry_s) * SECOND_NS),
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        "allow_atomic": True,
    }


_NEEDED: Final[tuple[tuple[str, Any, str], ...]] = (
    ("retention", "limits", "messages would go once they are acknowledged"),
    ("discard", "old", "appends would be refused for good"),
    ("max_msgs_per_subject", -1, "old events would go one by one"),
    ("deny_delete", True, "anybody could make gaps"),
    ("allow_rollup_hdrs", False, "a message could delete all others"),
    ("allow_msg_ttl", False, "events could go one by one"),
    ("allow_direct", True, "nothing could be read"),
    ("allow_atomic", True, "batches could be stored in part"),
    ("sealed", False, "nothing could be stored"),
)
"""Settings of a stream, what a log needs them to be, and why."""


def check_stream(config: Mapping[str, Any], retry_s: float, path: str) -> UUID:
    """The id of the log that the stream holds.

    Raises:
        NotALog: it is somebody else's.
        NotSupported: it was set since so that a promise is broken.
    """
    metadata = config.get("metadata") or {}
    if "eventlog.id" not in metadata:
        raise NotALog(
            f"the stream at {path} was not made by eventlog, and nothing in it was touched; give"
            " another name, and open makes the stream",
            path=path,
        )
    if metadata.get("eventlog.format") != FORMAT:
        raise NotSupported(
            f"the log {path} was made by a later release of eventlog; open it with that",
            path=path,
            engine=NAME,
        )
    log_id = UUID(hex=metadata["eventlog.id"])
    for setting, needed, why in _NEEDED:
        if config.get(setting, needed) != needed:
            raise _is_set_wrong(setting, config[setting], needed, why, path)
    subjects = config.get("subjects")
    if subjects != [subject_of(config["name"], log_id)]:
        needed = subject_of(config["name"], log_id)
        raise _is_set_wrong("subjects", subjects, [needed], "others could write into it", path)
    window = config.get("duplicate_window", 0) / SECOND_NS
    if window < retry_s:
        raise NotSupported(
            f"the stream at {path} remembers appends for {window:g} s, so they cannot be repeated"
            f" safely for {retry_s:g} s; open it with a smaller retry_s, or set its"
            " duplicate_window (nats stream edit --dupe-window)",
            path=path,
            engine=NAME,
            option="retry_s",
        )
    return log_id


def _is_set_wrong(setting: str, has: Any, needed: Any, why: str, path: str) -> NotSupported:
    return NotSupported(
        f"the stream at {path} has {setting}={has!r}, so {why}; set it to {needed!r} (nats stream"
        " edit)",
        path=path,
        engine=NAME,
        option=setting,
    )


def options_of(config: Mapping[str, Any], payload_bytes_max: int) -> LogOptions:
    """What the log was made with, as the server has it now."""
    age_ns, size = config.get("max_age", 0), config.get("max_bytes", -1)
    metadata = config.get("metadata") or {}
    stored = metadata.get("eventlog.max_event_bytes")
    return LogOptions(
        durability="memory" if config.get("storage") == "memory" else "disk",
        retention=Retention(
            max_bytes=size if size > 0 else None,
            max_age=timedelta(microseconds=age_ns // 1000) if age_ns > 0 else None,
            keep_unacked=metadata.get("eventlog.keep_unacked") != "no",
        ),
        on_full="error",
        max_event_bytes=int(stored) if stored else payload_bytes_max - RECORD_OVERHEAD_BYTES,
    )
