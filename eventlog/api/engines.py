"""Which engine an address means. An engine is one folder, and one line of registration.

=====================  ==========================================================
address                engine
=====================  ==========================================================
`orders`, `/a/path`    `local`: a directory of this machine
`memory:`              `memory`: a log of this handle alone
`memory:NAME`          `memory`: a log of this process
`scheme://...`         whatever is registered as `scheme` in the entry points of
                       the group `eventlog.engines`
=====================  ==========================================================

An entry point names a module, or any object, with the attributes of `Engine`. In the
`pyproject.toml` of a package that ships one::

    [project.entry-points."eventlog.engines"]
    redis = "eventlog_redis"
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Protocol, cast

from eventlog.errors import InvalidArgument, InvalidArgumentType, NotSupported

if TYPE_CHECKING:
    from eventlog.api.blocking_log import EventLog as BlockingEventLog
    from eventlog.api.log import EventLog
    from eventlog.config import AskedOptions

ENTRY_POINTS: Final = "eventlog.engines"
MEMORY: Final = "memory:"


class Engine(Protocol):
    """What an engine's module has. `open_blocking_log` may be missing: see `over_async`."""

    NAME: str
    """What errors and tables call it."""
    OPTIONS: frozenset[str]
    """The options of `eventlog.open` that it takes."""

    def open_log(self, address: str, asked: AskedOptions) -> EventLog:
        """A handle, not entered yet, for trio and asyncio."""


class _BlockingEngine(Engine, Protocol):
    """An engine that has a blocking log of its own."""

    def open_blocking_log(self, address: str, asked: AskedOptions) -> BlockingEventLog:
        """An open log for threads."""


def open_log(path: str | os.PathLike[str], asked: AskedOptions) -> EventLog:
    """A handle, not entered yet, of the log that `path` names."""
    address = check_address(path)
    return _engine_for(address, asked).open_log(address, asked)


def open_blocking_log(path: str | os.PathLike[str], asked: AskedOptions) -> BlockingEventLog:
    """The open log that `path` names, for processes without an event loop."""
    address = check_address(path)
    engine = _engine_for(address, asked)
    if hasattr(engine, "open_blocking_log"):
        return cast("_BlockingEngine", engine).open_blocking_log(address, asked)
    from eventlog.api.over_async import LogOverAsync

    return LogOverAsync(address, lambda: engine.open_log(address, asked))


def is_directory(path: str | os.PathLike[str]) -> bool:
    """Whether the address means a directory of this machine."""
    address = check_address(path)
    return "://" not in address and not address.startswith(MEMORY)


def _engine_for(address: str, asked: AskedOptions) -> Engine:
    engine = _find_engine(address)
    for option in asked.given:
        if option not in engine.OPTIONS:
            raise NotSupported(
                f"the engine {engine.NAME!r} of {address} does not take {option}=; leave it out",
                path=address,
                engine=engine.NAME,
                option=option,
            )
    return engine


def _find_engine(address: str) -> Engine:
    if "://" in address:
        return _registered_engine(address)
    if address.startswith(MEMORY):
        from eventlog import memory

        return memory
    from eventlog import local

    return local


def _registered_engine(address: str) -> Engine:
    # Loaded for such an address only: it takes longer than all other imports of this package.
    from importlib.metadata import entry_points

    scheme = address.partition("://")[0]
    for entry in entry_points(group=ENTRY_POINTS, name=scheme):
        return cast("Engine", entry.load())
    known = ", ".join(sorted(f"{one.name}://" for one in entry_points(group=ENTRY_POINTS)))
    raise NotSupported(
        f"no engine is installed for {scheme}:// ({known or 'none for any scheme'}); give a"
        ' directory, "memory:NAME", or install the package that has the engine',
        engine=scheme,
    )


def check_address(path: object) -> str:
    """The address as a string.

    Raises:
        InvalidArgumentType: it is no path.
        InvalidArgument: it is empty, or holds what no name can.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidArgumentType(f"the path of the log is {path!r}; give a string or a Path")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise InvalidArgumentType(f"the path of the log is {text!r}; give a string or a Path")
    if not text or "\0" in text:
        raise InvalidArgument(f"{text!r} is no path for a log; give a directory's name")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{text!r} is no path for a log: {error.reason}; give a directory's name"
        ) from None
    return text
