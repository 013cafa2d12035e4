"""A persistent, ordered, replayable event log for the processes of one machine.

::

    async with eventlog.open("orders") as log:  # trio, asyncio; a directory, made if need be
        await log.append({"order": 7})  # gives its number: 1, 2, 3, ...
        async with log.subscribe("billing") as stream:
            async for envelope in stream:  # what is stored, then what is new
                await stream.ack(envelope)

     producer process         writer process (one per log)        subscriber processes
     pack a batch  --append--> copy it into the segment   ==mmap==> read batches, decode, hand out
                   <--number-- publish it, wake who waits  --wake-> read on
                               keep positions        <--ack, seek--

Names by subject, each loaded at its first use; `help(eventlog.open)` and so on tell about each.
Beside them: `.blocking`, without `async`; `.aggregates`, `.testing`, `.tracing`, `.logging_handler`

logs     open EventLog EventStream EventRange Publisher AppendHandle ManyHandle Table blocking
         InMemoryEventLog; what they hold and say: EventEnvelope Cause SeekPosition ConsumerState
options  Durability Retention OnFull LogOptions Trimmed; figures: LogStatus LogStatistics
         GroupReport MemberReport StreamStatistics PublisherStatistics WriterStatistics
groups   Group GroupOrdering Member Lease DeadLetter Failure Exhausted ExitReport; pools: `workers`
errors   EventLogError: CorruptLog EventsTruncated EventTooLarge EventTypeMismatch ForkedHandle
         GroupMismatch InvalidArgument InvalidArgumentType InvalidConfig InvalidEvent InvalidName
         LogClosed LogDeleted LogFull LogInUse LogNotFound NotAcknowledged NotALog NotFlushed
         NotSupported PermissionDenied ProtocolError SequenceOutOfRange StaleLease StorageFailed
         UnknownFormat UnsupportedFileSystem WriterUnavailable WrongEventLoop WrongExpectation
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventlog import blocking
    from eventlog.api.event_stream import EventRange, EventStream
    from eventlog.api.group import (
        DeadLetter,
        Exhausted,
        ExitReport,
        Failure,
        Group,
        GroupReport,
        Lease,
        Member,
        MemberReport,
    )
    from eventlog.api.log import EventLog
    from eventlog.api.opening import open  # noqa: A004 - the name of the contract
    from eventlog.api.operated import Trimmed
    from eventlog.api.positions import ConsumerState, SeekPosition
    from eventlog.api.publisher import AppendHandle, ManyHandle, Publisher
    from eventlog.api.statistics import (
        LogStatistics,
        PublisherStatistics,
        StreamStatistics,
        WriterStatistics,
    )
    from eventlog.api.status import LogStatus
    from eventlog.api.table import Table
    from eventlog.config import (
        Durability,
        GroupOrdering,
        LogOptions,
        OnFull,
        Retention,
    )
    from eventlog.errors import (
        CorruptLog,
        EventLogError,
        EventsTruncated,
        EventTooLarge,
        EventTypeMismatch,
        ForkedHandle,
        GroupMismatch,
        InvalidArgument,
        InvalidArgumentType,
        InvalidConfig,
        InvalidEvent,
        InvalidName,
        LogClosed,
        LogDeleted,
        LogFull,
        LogInUse,
        LogNotFound,
        NotAcknowledged,
        NotALog,
        NotFlushed,
        NotSupported,
        PermissionDenied,
        ProtocolError,
        SequenceOutOfRange,
        StaleLease,
        StorageFailed,
        UnknownFormat,
        UnsupportedFileSystem,
        WriterUnavailable,
        WrongEventLoop,
        WrongExpectation,
    )
    from eventlog.event.cause import Cause
    from eventlog.event.envelope import EventEnvelope
    from eventlog.memory.log import InMemoryEventLog

__version__ = "0.1.0"
__all__ = [
    "AppendHandle",
    "Cause",
    "ConsumerState",
    "CorruptLog",
    "DeadLetter",
    "Durability",
    "EventEnvelope",
    "EventLog",
    "EventLogError",
    "EventRange",
    "EventStream",
    "EventTooLarge",
    "EventTypeMismatch",
    "EventsTruncated",
    "Exhausted",
    "ExitReport",
    "Failure",
    "ForkedHandle",
    "Group",
    "GroupMismatch",
    "GroupOrdering",
    "GroupReport",
    "InMemoryEventLog",
    "InvalidArgument",
    "InvalidArgumentType",
    "InvalidConfig",
    "InvalidEvent",
    "InvalidName",
    "Lease",
    "LogClosed",
    "LogDeleted",
    "LogFull",
    "LogInUse",
    "LogNotFound",
    "LogOptions",
    "LogStatistics",
    "LogStatus",
    "ManyHandle",
    "Member",
    "MemberReport",
    "NotALog",
    "NotAcknowledged",
    "NotFlushed",
    "NotSupported",
    "OnFull",
    "PermissionDenied",
    "ProtocolError",
    "Publisher",
    "PublisherStatistics",
    "Retention",
    "SeekPosition",
    "SequenceOutOfRange",
    "StaleLease",
    "StorageFailed",
    "StreamStatistics",
    "Table",
    "Trimmed",
    "UnknownFormat",
    "UnsupportedFileSystem",
    "WriterStatistics",
    "WriterUnavailable",
    "WrongEventLoop",
    "WrongExpectation",
    "blocking",
    "open",
]

_LAZY = {
    "AppendHandle": "eventlog.api.publisher",
    "Cause": "eventlog.event.cause",
    "ConsumerState": "eventlog.api.positions",
    "CorruptLog": "eventlog.errors",
    "DeadLetter": "eventlog.api.group",
    "Durability": "eventlog.config",
    "EventEnvelope": "eventlog.event.envelope",
    "EventLog": "eventlog.api.log",
    "EventLogError": "eventlog.errors",
    "EventRange": "eventlog.api.event_stream",
    "EventStream": "eventlog.api.event_stream",
    "EventTooLarge": "eventlog.errors",
    "EventTypeMismatch": "eventlog.errors",
    "EventsTruncated": "eventlog.errors",
    "Exhausted": "eventlog.api.group",
    "ExitReport": "eventlog.api.group",
    "Failure": "eventlog.api.group",
    "ForkedHandle": "eventlog.errors",
    "Group": "eventlog.api.group",
    "GroupMismatch": "eventlog.errors",
    "GroupOrdering": "eventlog.config",
    "GroupReport": "eventlog.api.group",
    "InMemoryEventLog": "eventlog.memory.log",
    "InvalidArgument": "eventlog.errors",
    "InvalidArgumentType": "eventlog.errors",
    "InvalidConfig": "eventlog.errors",
    "InvalidEvent": "eventlog.errors",
    "InvalidName": "eventlog.errors",
    "Lease": "eventlog.api.group",
    "LogClosed": "eventlog.errors",
    "LogDeleted": "eventlog.errors",
    "LogFull": "eventlog.errors",
    "LogInUse": "eventlog.errors",
    "LogNotFound": "eventlog.errors",
    "LogOptions": "eventlog.config",
    "LogStatistics": "eventlog.api.statistics",
    "LogStatus": "eventlog.api.status",
    "ManyHandle": "eventlog.api.publisher",
    "Member": "eventlog.api.group",
    "MemberReport": "eventlog.api.group",
    "NotALog": "eventlog.errors",
    "NotAcknowledged": "eventlog.errors",
    "NotFlushed": "eventlog.errors",
    "NotSupported": "eventlog.errors",
    "OnFull": "eventlog.config",
    "PermissionDenied": "eventlog.errors",
    "ProtocolError": "eventlog.errors",
    "Publisher": "eventlog.api.publisher",
    "PublisherStatistics": "eventlog.api.statistics",
    "Retention": "eventlog.config",
    "SeekPosition": "eventlog.api.positions",
    "SequenceOutOfRange": "eventlog.errors",
    "StaleLease": "eventlog.errors",
    "StorageFailed": "eventlog.errors",
    "StreamStatistics": "eventlog.api.statistics",
    "Table": "eventlog.api.table",
    "Trimmed": "eventlog.api.operated",
    "UnknownFormat": "eventlog.errors",
    "UnsupportedFileSystem": "eventlog.errors",
    "WriterStatistics": "eventlog.api.statistics",
    "WriterUnavailable": "eventlog.errors",
    "WrongEventLoop": "eventlog.errors",
    "WrongExpectation": "eventlog.errors",
    "open": "eventlog.api.opening",
}
"""The module of each name, which is loaded when the name is first asked for."""


def __getattr__(name: str) -> object:
    import importlib

    if name == "blocking":
        return importlib.import_module("eventlog.blocking")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'eventlog' has no attribute {name!r}")


def __dir__() -> list[str]:
    import sys

    # `help` shows in full whatever `inspect` finds: too much for a first look.
    if sys._getframe(1).f_globals["__name__"] == "inspect":
        return [*globals()]
    return sorted({*globals(), *__all__})
