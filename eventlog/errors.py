"""Every error that a user of the project can meet, sorted by who has to act.

All derive from `EventLogError`; those for wrong arguments are also `ValueError` or `TypeError`.
Each message says what happened, to which log, consumer or number, and what to do; the same facts
stand in fields, so that a program need not read prose.

=====================  ==================================================================
who has to act         errors
=====================  ==================================================================
the caller's code      `InvalidEvent`, `EventTooLarge`, `InvalidName`, `InvalidArgument`,
                       `InvalidArgumentType`, `InvalidConfig`, `SequenceOutOfRange`,
                       `LogClosed`, `ForkedHandle`, `WrongEventLoop`, `GroupMismatch`,
                       `NotSupported`, `WrongExpectation`
whoever chose the path `LogNotFound`, `NotALog`, `PermissionDenied`, `UnsupportedFileSystem`
whoever runs it        `LogFull`, `NotFlushed`, `WriterUnavailable`, `LogInUse`,
                       `LogDeleted`, `StorageFailed`, `UnknownFormat`, `CorruptLog`,
                       `NotAcknowledged`
the consumer           `EventsTruncated`, `EventTypeMismatch`, `StaleLease`
a peer on a pipe       `ProtocolError`
=====================  ==================================================================
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CorruptLog",
    "EventLogError",
    "EventTooLarge",
    "EventTypeMismatch",
    "EventsTruncated",
    "ForkedHandle",
    "GroupMismatch",
    "InvalidArgument",
    "InvalidArgumentType",
    "InvalidConfig",
    "InvalidEvent",
    "InvalidName",
    "LogClosed",
    "LogDeleted",
    "LogFull",
    "LogInUse",
    "LogNotFound",
    "NotALog",
    "NotAcknowledged",
    "NotFlushed",
    "NotSupported",
    "PermissionDenied",
    "ProtocolError",
    "SequenceOutOfRange",
    "StaleLease",
    "StorageFailed",
    "UnknownFormat",
    "UnsupportedFileSystem",
    "WriterUnavailable",
    "WrongEventLoop",
    "WrongExpectation",
]


class EventLogError(Exception):
    """The base of all errors of this package.

    Fields that do not apply are `None`: `path` (the log), `consumer`, `seq_no` (the number that the
    call was about), `first_available` and `last_seq_no` (what the log holds), `stored` (of an
    `append_many`: exactly so many of its events, the first ones, are stored).
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        consumer: str | None = None,
        seq_no: int | None = None,
        first_available: int | None = None,
        last_seq_no: int | None = None,
        stored: int | None = None,
    ) -> None:
        super().__init__(message)
        self.path = path
        self.consumer = consumer
        self.seq_no = seq_no
        self.first_available = first_available
        self.last_seq_no = last_seq_no
        self.stored = stored

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that apply, by name: what a log line or a pipe message carries."""
        return {name: value for name, value in vars(self).items() if value is not None}


# --- the caller's code -----------------------------------------------------------------------


class InvalidEvent(EventLogError, TypeError):
    """The event cannot be stored: it holds a value that MessagePack cannot carry.

    Raised before anything is sent. See `EventTooLarge` for one that is only too big.
    """


class EventTooLarge(EventLogError, ValueError):
    """The packed event is larger than the log's `max_event_bytes`; raised before it is sent."""


class InvalidName(EventLogError, ValueError):
    """A consumer's name is not 1 to 128 printable characters."""


class InvalidArgument(EventLogError, ValueError):
    """An argument has the right type and a value that makes no sense, such as a negative number."""


class InvalidArgumentType(EventLogError, TypeError):
    """An argument has the wrong type."""


class InvalidConfig(EventLogError, ValueError):
    """An option has no meaning, or contradicts what the log was made with."""


class SequenceOutOfRange(EventLogError, ValueError):
    """A number past the last event was acknowledged, or waited for (`seq_no`, `last_seq_no`)."""


class LogClosed(EventLogError):
    """The log, stream or publisher was used before it was opened or after it was closed."""


class ForkedHandle(EventLogError):
    """A handle was used in a process forked from the one that opened it; open the log again."""


class WrongEventLoop(EventLogError):
    """A handle was used in another event loop than the one in which it was opened, or in none.

    Open the log again in the other loop; without trio and asyncio, use `eventlog.blocking.open`.
    """


class GroupMismatch(EventLogError, ValueError):
    """The group has members that work with another `ordering` or `max_deliveries`.

    All pools of one group say the same; the options can be changed once the others have left.
    """


class NotSupported(EventLogError, ValueError):
    """The engine cannot do this (`engine`, `option`); the log and its events are as they were."""

    def __init__(
        self, message: str, *, engine: str | None = None, option: str | None = None, **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.engine = engine
        self.option = option


class WrongExpectation(EventLogError):
    """A conditional append was not stored: the log is not as `expect` or `expect_last` said.

    `key`: the key whose last event is another one (`None`: the whole log's is); `last_seq_no`: the
    number that it has, 0 without any. Of several such keys it is the first one of `expect`. Read
    what is new, decide again, and append with that number.
    """

    def __init__(self, message: str, *, key: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.key = key


# --- whoever chose the path ------------------------------------------------------------------


class LogNotFound(EventLogError):
    """There is no log at the path, and the call does not make one."""


class NotALog(EventLogError):
    """The path is a file, or a directory with other things in it; nothing in it was touched."""


class PermissionDenied(EventLogError):
    """The operating system refuses access to the log, or the log belongs to another user."""


class UnsupportedFileSystem(EventLogError):
    """The directory lies on a network file system, where neither maps nor locks are coherent."""


# --- whoever runs it -------------------------------------------------------------------------


class LogFull(EventLogError):
    """There is no room: the disk is full, or retention may not delete what is unacknowledged.

    The events of the call were not stored. Appends work again as soon as there is room.
    `is_by_retention` tells the two apart.
    """

    def __init__(self, message: str, *, is_by_retention: bool = False, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.is_by_retention = is_by_retention


class NotFlushed(EventLogError):
    """A publisher was left, and `events` that were sent in its block could not be stored in time.

    How long they are waited for is the publisher's `flush_s`.
    """

    def __init__(self, message: str, *, events: int = 0, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.events = events


class WriterUnavailable(EventLogError):
    """No writer serves the log and none could be started; the message quotes the writer's error."""


class NotAcknowledged(EventLogError):
    """A trim would delete events that `consumer` has not acknowledged, from `seq_no` on.

    Nothing was deleted; `force` deletes them.
    """


class LogInUse(EventLogError):
    """A writer serves the log, and what was asked needs the log for itself; stop the writer."""


class LogDeleted(EventLogError):
    """The log's directory was deleted, or replaced by another log, while the log was in use."""


class StorageFailed(EventLogError):
    """The operating system failed a read, write or sync of the log's files."""


class UnknownFormat(EventLogError):
    """The log was written by another version of the format, or on a machine of other byte order."""


class CorruptLog(EventLogError):
    """Stored bytes are damaged.

    `seq_no` is the first event that is lost and `last_seq_no` the last one, as far as they are
    known; all others are readable.
    """


# --- the consumer ----------------------------------------------------------------------------


class EventTypeMismatch(EventLogError):
    """Event `seq_no` is not of the type that the subscription asked for.

    The stream stays where it is, before the batch that holds the event.
    """


class EventsTruncated(EventLogError):
    """Retention deleted the event that comes next; `first_available` is the oldest still stored.

    `subscribe(..., on_truncated="skip")` goes on from there without an error.
    """


class StaleLease(EventLogError):
    """The delivery was superseded: the events were given to another member meanwhile.

    What is said of them now is not believed; the other member's word counts.
    """


# --- a peer on a pipe ------------------------------------------------------------------------


class ProtocolError(EventLogError):
    """A peer said something that is not in the protocol; its connection is closed."""
