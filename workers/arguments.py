"""What a pool is given, checked before anything is started."""

from __future__ import annotations

import os
from typing import Any, Final

from eventlog import (
    EventLog,
    InvalidArgument,
    InvalidArgumentType,
    WrongEventLoop,
    blocking,
    system,
)

MEMORY: Final = "memory:"
"""How the addresses of logs begin that only this process has."""


def check_log(log: EventLog, *, is_in_process: bool = False) -> EventLog:
    """The log, if it is one for an event loop, and handlers can reach it where they run.

    Raises:
        InvalidArgument, InvalidArgumentType: it is not.
    """
    other: object = log
    if isinstance(other, blocking.EventLog):
        raise InvalidArgumentType(f"log={log!r} is a blocking one; use workers.blocking.Pool")
    if not isinstance(getattr(log, "path", None), str):
        raise InvalidArgumentType(f"log={log!r}; give what eventlog.open gives")
    if log.path.startswith(MEMORY) and not is_in_process:
        raise InvalidArgument(
            f"the log {log.path!r} is in this process's memory, where worker processes cannot reach"
            " it; give processes=0, or a log in a directory",
            path=log.path,
        )
    return log


def check_thread(path: str) -> None:
    """Pass in a thread that may wait for the event loop of a blocking pool.

    Raises:
        WrongEventLoop: it is a task of trio.
    """
    import sniffio

    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return
    if library == "trio":
        raise WrongEventLoop(
            f"a blocking pool of the log {path} cannot be entered in a task of trio, which nothing"
            " may block; use workers.Pool, or enter it in trio.to_thread.run_sync",
            path=path,
        )


def check_ordering(ordering: str | None) -> Any:
    """What was given, if there is such an order.

    Raises:
        InvalidArgument: there is not.
    """
    if ordering not in (None, "key"):
        raise InvalidArgument(f'ordering={ordering!r}; give None or "key"')
    return ordering


def path_of(
    output: EventLog | blocking.EventLog | str | os.PathLike[str] | None,
    log: EventLog,
    *,
    is_in_process: bool = False,
) -> str | None:
    """Where results go, as a path that means the same in every process; or in this one alone.

    `log` is the pool's own.

    Raises:
        InvalidArgument, InvalidArgumentType: workers cannot write there, or it is no log.
    """
    if output is None:
        return None
    path = os.fspath(output) if isinstance(output, str | os.PathLike) else _path_in(output)
    if "://" in path:
        return path
    if path.startswith(MEMORY):
        if not is_in_process:
            raise InvalidArgument(f"output={path!r} is in this process's memory; give a directory")
        if path == MEMORY and output is not log:
            path = getattr(output, "address", path)
            if path == MEMORY:
                raise InvalidArgument(
                    'output="memory:" is a log that only its own handle has, so the results would'
                    ' be lost; give that handle, "memory:NAME", or the log of the pool'
                )
        return path
    return system.absolute_path(path)


def _path_in(output: object) -> str:
    path = getattr(output, "path", None)
    if not isinstance(path, str):
        raise InvalidArgumentType(f"output={output!r}; give a log, or the path of one")
    return path


def check_retry_on(kinds: object) -> tuple[type[BaseException] | str, ...]:
    """The exceptions after which an event is tried again; all of them without a choice.

    A name (`"OSError"`, `"package.module:Name"`) is looked up by the workers.

    Raises:
        InvalidArgumentType: one of them is no exception.
    """
    if kinds is None:
        return (BaseException,)
    given = kinds if isinstance(kinds, tuple) else (kinds,)
    if not all(isinstance(one, str) or is_exception(one) for one in given):
        raise InvalidArgumentType(f"retry_on={kinds!r}; give types of exceptions")
    return given


def is_exception(kind: object) -> bool:
    """Whether it is a type of exceptions."""
    return isinstance(kind, type) and issubclass(kind, BaseException)
