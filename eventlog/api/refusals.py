"""The wording of what every engine refuses, each in one place."""

from __future__ import annotations

from eventlog.errors import (
    EventsTruncated,
    GroupMismatch,
    InvalidArgument,
    LogClosed,
    LogFull,
    NotAcknowledged,
    NotSupported,
    SequenceOutOfRange,
    WrongExpectation,
)
from eventlog.event.moments import datetime_of


def never_synced(path: str) -> InvalidArgument:
    """The error for waiting until a log in memory is on the disk."""
    if path.startswith("memory:"):
        reason = "lives in the memory of this process, so nothing of it is ever synced; give a"
        return InvalidArgument(f"the log {path} {reason} directory", path=path)
    return InvalidArgument(
        f'the log {path} has durability "memory", so nothing of it is ever synced; make it with'
        ' "disk" or "sync"',
        path=path,
    )


def truncated(path: str, seq_no: int, first_available: int) -> EventsTruncated:
    """The error for an event that retention has deleted."""
    return EventsTruncated(
        f"event {seq_no} of the log {path} was deleted by retention; the first one available is"
        f' {first_available}: seek to it, or subscribe with on_truncated="skip"',
        path=path,
        seq_no=seq_no,
        first_available=first_available,
    )


def full_by_retention(path: str, max_bytes: int | None, consumer: str, unacked: int) -> LogFull:
    """The error for an append that has no room before event `unacked` is acknowledged."""
    return LogFull(
        f"the log {path} is full: it may keep {max_bytes} bytes, and the consumer {consumer!r} has"
        f" not acknowledged event {unacked}; acknowledge it, forget the consumer, or raise the"
        " limit",
        path=path,
        consumer=consumer,
        seq_no=unacked,
        is_by_retention=True,
    )


def wrong_expectation(path: str, key: str, expected: int, found: int) -> WrongExpectation:
    """The error for a conditional append that expects another last event of a key."""
    return WrongExpectation(
        f"nothing was appended to the log {path}: the last event of the key {key!r:.200} is"
        f" {found or 'none'}, and {expected or 'none'} was expected; read what is new, and append"
        f" with expect={found}",
        path=path,
        key=key,
        last_seq_no=found,
    )


def wrong_last(path: str, expected: int | None, found: int) -> WrongExpectation:
    """The error for a conditional append that expects another last event of the log."""
    return WrongExpectation(
        f"nothing was appended to the log {path}: its last event is {found or 'none'}, and"
        f" {expected or 'none'} was expected; read what is new, and append with"
        f" expect_last={found}",
        path=path,
        last_seq_no=found,
    )


def no_groups(path: str) -> NotSupported:
    """The error of an engine that has no groups."""
    return NotSupported(
        f"the engine of the log {path} has no groups; give a directory, or another address",
        path=path,
        option="groups",
    )


def beyond_the_last(path: str, consumer: str, seq_no: int, last: int) -> SequenceOutOfRange:
    """The error for an acknowledgement of an event that is not there."""
    return SequenceOutOfRange(
        f"consumer {consumer!r} cannot acknowledge event {seq_no}: the last one of the log {path}"
        f" is {last}",
        path=path,
        consumer=consumer,
        seq_no=seq_no,
        last_seq_no=last,
    )


def state_of_group(consumer: str, path: str) -> InvalidArgument:
    """The error for a state of a group, whose position its members move."""
    return InvalidArgument(
        f"{consumer!r} is a group of the log {path}, whose members move its position, so it has no"
        " state; acknowledge with a consumer of another name",
        path=path,
        consumer=consumer,
    )


def older_writer(path: str, what: str) -> NotSupported:
    """The error for what the running writer, of an older release, does not know."""
    return NotSupported(
        f"the writer of the log {path} is of an older release, which does not know {what}; end it"
        " (`eventlog status` shows its pid), and the next call starts one of this release",
        path=path,
        option=what,
    )


def closed(what: str, path: str) -> LogClosed:
    """The error for a use after the end."""
    return LogClosed(f"the {what} of the log {path} is closed; open it again", path=path)


def not_opened(path: str) -> LogClosed:
    """The error for a use before the beginning."""
    return LogClosed(
        f"the log {path} was not opened yet: use `async with`, or `await log.open()` first",
        path=path,
    )


def no_consumer(path: str) -> InvalidArgument:
    """The error for an acknowledgement in a stream that `follow` gave."""
    return InvalidArgument(
        f"this stream of the log {path} has no consumer, so nothing can be acknowledged in it; use"
        " `subscribe`, or `log.ack` with a consumer's name",
        path=path,
    )


def no_statistics() -> NotSupported:
    """The error of an engine that counts nothing."""
    return NotSupported("the engine of this log counts nothing, so it has no statistics")


def mixed_use() -> InvalidArgument:
    """The error for a stream that is used event by event and by batches."""
    return InvalidArgument(
        "a stream is used one way: event by event, or by `batches()`; open another one"
    )


def expired(expires_ns: int) -> str:
    """The error of a dead letter whose event was not started in time."""
    return f"expired: no handler began before {datetime_of(expires_ns)}"


def not_supported(engine: str, option: str, path: str, instead: str = "") -> NotSupported:
    """The error for what an engine cannot do; `instead` says what to do about it."""
    advice = f"; {instead}" if instead else "; leave it out, or use another engine"
    return NotSupported(
        f"the engine {engine!r} does not support {option} (log {path}){advice}",
        path=path,
        engine=engine,
        option=option,
    )


def no_due_times(path: str) -> NotSupported:
    """The error of an engine over a server for an event that is to be handed out later."""
    engine = path.partition(":")[0]
    return not_supported(engine, "not_before", path, "append the event when it is due")


def group_mismatch(
    name: str, path: str, ordering: str | None, max_deliveries: int
) -> GroupMismatch:
    """The error for a group whose members work with these options, and not those asked for."""
    return GroupMismatch(
        f"the group {name!r} of the log {path} has members that work with ordering={ordering!r} and"
        f" max_deliveries={max_deliveries}; give the same, or wait until they have left",
        path=path,
        consumer=name,
    )


def no_operation(what: str, path: str) -> NotSupported:
    """The error of an engine that cannot do something to its logs."""
    return NotSupported(
        f"the engine of the log {path} has no `{what}`; use the tools of its server",
        path=path,
        option=what,
    )


def not_acknowledged(path: str, consumer: str, seq_no: int, last: int) -> NotAcknowledged:
    """The error for a trim that would delete what a consumer has not acknowledged."""
    return NotAcknowledged(
        f"the events up to {last} of the log {path} cannot go: the consumer {consumer!r} has not"
        f" acknowledged event {seq_no}; acknowledge, forget the consumer, or force it. Nothing is"
        " deleted",
        path=path,
        consumer=consumer,
        seq_no=seq_no,
    )


def no_group(name: str, path: str) -> InvalidArgument:
    """Nobody has made the group, or it was forgotten."""
    return InvalidArgument(
        f"the log {path} has no group {name!r}; `log.group` makes it", path=path, consumer=name
    )


def lost_letter(seq_no: int, name: str, path: str) -> InvalidArgument:
    """The dead letter's event is nowhere any more."""
    return InvalidArgument(
        f"event {seq_no} of the log {path} was deleted by retention, and its dead letter has no"
        f" copy of it, so the group {name!r} cannot be handed it again: drop this letter",
        path=path,
        consumer=name,
        seq_no=seq_no,
    )
