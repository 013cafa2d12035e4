"""The wording of what the storage of a log refuses. Pure."""

from __future__ import annotations

from eventlog.config import BATCH_EVENTS_LIMIT
from eventlog.errors import CorruptLog, EventLogError, EventTooLarge, StorageFailed


def batch_too_large(directory: str, count: int, length: int, room: int) -> EventTooLarge:
    """The error for a batch of so many events and bytes, which no segment has room for."""
    if count > BATCH_EVENTS_LIMIT:
        return EventTooLarge(
            f"a batch of {count} events; the limit is {BATCH_EVENTS_LIMIT}", path=directory
        )
    return EventTooLarge(
        f"a batch of {length} bytes does not fit a segment of the log {directory}, which takes"
        f" {room}",
        path=directory,
    )


def no_more_appends(directory: str, failure: EventLogError) -> StorageFailed:
    """The error of a writer whose sync failed."""
    return StorageFailed(
        f"the log {directory} takes no more appends: {failure}; its writer ends and the next one"
        " starts from what the disk has",
        path=directory,
    )


def unknown_last(directory: str, key: str, first: int, last: int) -> CorruptLog:
    """The error for a key whose last event may be one of a range in which some are damaged."""
    return CorruptLog(
        f"nothing was appended to the log {directory}: some of the events {first} to {last} are"
        f" damaged or gone, and one of them may be the last one of the key {key!r}; restore a"
        " backup, or append an event of the key without `expect=`: its number is known then",
        path=directory,
        seq_no=first,
        last_seq_no=last,
    )


def unreadable_key(directory: str, base_seq_no: int, position: int, fault: str) -> CorruptLog:
    """The error for a batch that may hold the last event of a key, and cannot be read."""
    return CorruptLog(
        f"nothing was appended to the log {directory}: which event is the last one of the key is"
        f" not known, as {fault} stands at offset {position} of segment {base_seq_no}; run"
        " `eventlog verify`, restore a backup, or append an event of the key without `expect=`",
        path=directory,
        seq_no=base_seq_no,
    )
