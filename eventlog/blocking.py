"""The log for processes that run no event loop: the same names, without `async`.

For CPU-bound workers, scripts, notebooks and threads. Handles may be shared between threads, whose
calls of `append` then share batches; a stream or a publisher is for one thread at a time.
Importing this module imports neither trio nor asyncio.

::

    import eventlog.blocking

    with eventlog.blocking.open("orders") as log:
        log.append({"order": 7})
        for envelope in log.read(1):
            print(envelope.event)
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from eventlog.api import engines
from eventlog.api.blocking_log import (
    PUBLISHER_LINGER_S_DEFAULT,
    AppendHandle,
    EventLog,
    EventStream,
    ManyHandle,
    Publisher,
)
from eventlog.api.blocking_range import EventRange
from eventlog.api.group import BlockingGroup as Group
from eventlog.api.group import BlockingMember as Member
from eventlog.api.group import Lease
from eventlog.config import AskedOptions, Durability, OnFull, Retention

if TYPE_CHECKING:
    from eventlog.api.blocking_table import Table

__all__ = [
    "PUBLISHER_LINGER_S_DEFAULT",
    "AppendHandle",
    "EventLog",
    "EventRange",
    "EventStream",
    "Group",
    "Lease",
    "ManyHandle",
    "Member",
    "Publisher",
    "Table",
    "open",
]


def __getattr__(name: str) -> object:
    if name == "Table":
        from eventlog.api.blocking_table import Table

        return Table
    raise AttributeError(f"module 'eventlog.blocking' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def open(  # noqa: A001 - the name of the contract
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
    writer_cpus: Collection[int] | None = None,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
) -> EventLog:
    """The open log at `path`, made if there is none; close it, or use it in a `with` block.

    The arguments are those of `eventlog.open`.

    Raises:
        InvalidConfig: an option makes no sense, or is not what the log was made with.
        InvalidArgument, InvalidArgumentType: the path or an option is nothing of the kind.
        NotSupported: no engine has that address, or the engine does not take an option.
        NotALog, PermissionDenied, UnsupportedFileSystem: the path is of no use.
        UnknownFormat, CorruptLog: what is stored there cannot be used.
        LogFull, StorageFailed, WriterUnavailable: no writer could be started.
    """
    asked = AskedOptions(
        durability=durability,
        retention=retention,
        on_full=on_full,
        segment_bytes=segment_bytes,
        max_event_bytes=max_event_bytes,
        retry_s=retry_s,
        lease_s=lease_s,
        start_writer=None if start_writer is True else start_writer,
        writer_cpus=writer_cpus,
        user=user,
        password=password,
        token=token,
    )
    return engines.open_blocking_log(path, asked)
