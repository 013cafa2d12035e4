"""A persistent, ordered, replayable event log for the processes of one machine.

::

     producer process          writer process (one per log)         subscriber processes
     ----------------          ----------------------------         --------------------
     pack a batch   --append--> copy it into the segment   ==mmap==> read batches
                    <--number-- publish it, answer                   decode, hand out
                                offset table            <--ack/seek--
                                wake who waits          ---wake----> read on

Data goes through mapped memory, decisions through one process: the writer alone changes what is
shared. Start with `open` (trio, asyncio) or `eventlog.blocking.open` (scripts, threads).

Importing this package is cheap: trio and anyio are loaded when `open` is first called.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from eventlog.api.positions import ConsumerState, SeekPosition
from eventlog.config import AskedOptions, Durability, GroupOrdering, LogOptions, OnFull, Retention
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
    from eventlog.api.operated import Trimmed
    from eventlog.api.publisher import AppendHandle, ManyHandle, Publisher
    from eventlog.api.statistics import (
        LogStatistics,
        PublisherStatistics,
        StreamStatistics,
        WriterStatistics,
    )
    from eventlog.api.status import LogStatus
    from eventlog.api.table import Table
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
    "EventLog": "eventlog.api.log",
    "EventRange": "eventlog.api.event_stream",
    "EventStream": "eventlog.api.event_stream",
    "DeadLetter": "eventlog.api.group",
    "ExitReport": "eventlog.api.group",
    "Exhausted": "eventlog.api.group",
    "Failure": "eventlog.api.group",
    "Group": "eventlog.api.group",
    "GroupReport": "eventlog.api.group",
    "LogStatistics": "eventlog.api.statistics",
    "Lease": "eventlog.api.group",
    "Member": "eventlog.api.group",
    "MemberReport": "eventlog.api.group",
    "LogStatus": "eventlog.api.status",
    "Trimmed": "eventlog.api.operated",
    "ManyHandle": "eventlog.api.publisher",
    "Publisher": "eventlog.api.publisher",
    "PublisherStatistics": "eventlog.api.statistics",
    "StreamStatistics": "eventlog.api.statistics",
    "Table": "eventlog.api.table",
    "WriterStatistics": "eventlog.api.statistics",
    "InMemoryEventLog": "eventlog.memory.log",
}


def open(  # noqa: A001 - the name of the contract; nobody imports it with a star
    path: str | os.PathLike[str],
    *,
    durability: Durability | None = None,
    retention: Retention | None = None,
    on_full: OnFull | None = None,
    segment_bytes: int | None = None,
    max_event_bytes: int | None = None,
    retry_s: float | None = None,
    lease_s: float | None = None,
    start_writer: bool = True,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
) -> EventLog:
    """The log at `path`, for `async with`; it is made if there is none.

    `path` is a directory, `"memory:"` for a log that lives in this handle, or `"memory:NAME"` for
    one that all handles of this process share. The options are stored when the log is made; later
    they may be left out, or repeated. In bytes: `segment_bytes` is the size of a file (4 KiB to 1
    GiB; default 64 MiB, or a quarter of `retention.max_bytes` if that is less, but at least 1 MiB),
    `max_event_bytes` the largest packed event (default 16 MiB, at most a quarter of a segment).

    `durability`: what an acknowledged append survives: `"memory"` the death of all processes,
    `"disk"` (default) also a loss of power but for the last second, `"sync"` that too.
    `retention`: what may be deleted; by default nothing is. `on_full`: whether an append waits
    (default) or fails with `LogFull` while retention forbids deleting.

    `retry_s` is for logs on a server (an address with `://`): how many seconds a call is repeated
    that the server does not answer, before it is `WriterUnavailable`; 60 by default. So is
    `lease_s`: a member of a group, opened through this handle, of which the server hears nothing
    for so many seconds is dead, and others get its events; 30 by default. `user`,
    `password` and `token` (of NATS) go before what the address or the environment says, and are in
    no path, `repr` or error. `start_writer=False` is for a directory whose writer somebody else
    runs: this handle starts none. Reading needs none; what needs one is `WriterUnavailable` while
    none serves the log. All of these are options of this handle, not of the log.

    Raises:
        WrongEventLoop: neither trio nor asyncio is running.
        InvalidConfig: an option makes no sense, by itself or with the others.
        InvalidArgument, InvalidArgumentType: the path or an option is nothing of the kind.
        (when entered) InvalidConfig: an option is not what the log was made with.
        (when entered) NotALog, PermissionDenied, UnsupportedFileSystem: the path is of no use.
        (when entered) UnknownFormat, CorruptLog: what is stored there cannot be used.
        (when entered) LogFull, StorageFailed, WriterUnavailable: no writer could be started.
    """
    _check_event_loop()
    asked = AskedOptions(
        durability=durability,
        retention=retention,
        on_full=on_full,
        segment_bytes=segment_bytes,
        max_event_bytes=max_event_bytes,
        retry_s=retry_s,
        lease_s=lease_s,
        start_writer=None if start_writer is True else start_writer,
        user=user,
        password=password,
        token=token,
    )
    from eventlog.api import engines

    return engines.open_log(path, asked)


def _check_event_loop() -> None:
    import sniffio

    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        library = "none"
    if library not in ("trio", "asyncio"):
        raise WrongEventLoop(
            f"eventlog.open needs a running event loop of trio or asyncio (here: {library});"
            " without one, use eventlog.blocking.open"
        )


def __getattr__(name: str) -> object:
    import importlib

    if name == "blocking":
        return importlib.import_module("eventlog.blocking")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'eventlog' has no attribute {name!r}")
