"""`eventlog.open`: the options of a log, checked together, and the engine that gets them."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from eventlog.api import engines
from eventlog.config import AskedOptions, Durability, OnFull, Retention
from eventlog.errors import WrongEventLoop

if TYPE_CHECKING:
    from eventlog.api.log import EventLog


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
    writer_cpus: Collection[int] | None = None,
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
    none serves the log. `writer_cpus` are the numbers of the processors on which a writer runs that
    this handle starts; by default those of this process. All of these are options of this handle,
    not of the log.

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
        writer_cpus=writer_cpus,
        user=user,
        password=password,
        token=token,
    )
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
