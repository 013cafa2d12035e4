"""The options of a pool: their names, types and defaults, which all else derives from."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, Final, Required, TypedDict, cast

import eventlog.blocking
from eventlog import EventLog, InvalidArgument, InvalidArgumentType, SeekPosition
from workers.arguments import check_ordering
from workers.cpus import usable_cpus
from workers.handlers import Handler
from workers.policy import Backoff, Recycling, check_limit
from workers.typed import check_type


class PoolOptions(TypedDict, total=False):
    """See `workers.Pool`, which tells what each means."""

    group: Required[str]
    handler: Required[Handler | str]
    processes: int | None
    ordering: str | None
    broadcast: bool
    max_deliveries: int
    backoff: Backoff | None
    timeout: float | None
    output: EventLog | eventlog.blocking.EventLog | str | os.PathLike[str] | None
    initializer: Callable[[], Any] | str | None
    concurrency: int
    max_events_per_worker: int | None
    max_rss_bytes: int | None
    max_age_s: float | None
    position: SeekPosition
    progress: bool
    stop_s: float
    type: Any
    retry_on: type[BaseException] | str | tuple[type[BaseException] | str, ...] | None


DEFAULTS: Final = cast(
    "PoolOptions",
    {
        "processes": None,
        "ordering": None,
        "broadcast": False,
        "max_deliveries": 5,
        "backoff": None,
        "timeout": None,
        "output": None,
        "initializer": None,
        "concurrency": 1,
        "max_events_per_worker": None,
        "max_rss_bytes": None,
        "max_age_s": None,
        "position": SeekPosition.LAST_ACKNOWLEDGED,
        "progress": False,
        "stop_s": 10.0,
        "type": None,
        "retry_on": None,
    },
)
NEED_A_PROCESS: Final = ("timeout", "max_events_per_worker", "max_rss_bytes", "max_age_s")
"""What nobody can do to a thread: end it, or replace it."""


def completed(given: PoolOptions) -> PoolOptions:
    """What was given, and the defaults of all else; checked.

    Raises:
        TypeError: an option is missing, or there is none of that name.
        InvalidArgument, InvalidArgumentType: a value makes no sense.
    """
    signature().bind(None, **given)
    options = cast("PoolOptions", {**DEFAULTS, **given})
    if options["processes"] is None:
        options["processes"] = usable_cpus()
    _check_counts(options)
    _check_times(options)
    check_ordering(options["ordering"])
    check_type(options["type"])
    for name, value in (("broadcast", options["broadcast"]), ("progress", options["progress"])):
        if not isinstance(value, bool):
            raise InvalidArgumentType(f"{name}={value!r}; give True or False")
    if not isinstance(options["backoff"], Backoff | None):
        raise InvalidArgumentType(f"backoff={options['backoff']!r}; give a workers.Backoff")
    recycling_of(options).check()
    if options["processes"] == 0:
        _check_needs_no_process(options)
    return options


def recycling_of(options: PoolOptions) -> Recycling:
    """When a worker is replaced by a fresh one."""
    return Recycling(
        options["max_events_per_worker"], options["max_rss_bytes"], options["max_age_s"]
    )


def signature() -> inspect.Signature:
    """That of a pool, for `help` and for arguments that are none."""
    kind = inspect.Parameter.KEYWORD_ONLY
    defaults = cast("dict[str, Any]", DEFAULTS)
    parameters = [inspect.Parameter("log", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name, hint in PoolOptions.__annotations__.items():
        default = defaults.get(name, inspect.Parameter.empty)
        text = getattr(hint, "__forward_arg__", hint)
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=text))
    return inspect.Signature(parameters)


def _check_counts(options: PoolOptions) -> None:
    counts = {
        "processes": options["processes"],
        "max_deliveries": options["max_deliveries"],
        "concurrency": options["concurrency"],
    }
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidArgumentType(f"{name}={value!r}; give a whole number")
        if name == "processes" and value < 0:
            raise InvalidArgument(f"processes={value}; give 1 or more, or 0 for none")
        if name != "processes" and value < 1:
            raise InvalidArgument(f"{name}={value}; give 1 or more")


def _check_times(options: PoolOptions) -> None:
    check_limit("timeout", options["timeout"])
    stop_s = options["stop_s"]
    if isinstance(stop_s, bool) or not isinstance(stop_s, int | float):
        raise InvalidArgumentType(f"stop_s={stop_s!r}; give seconds")
    if not stop_s >= 0:  # so that NaN is refused too
        raise InvalidArgument(f"stop_s={stop_s}; give seconds, 0 or more")


def _check_needs_no_process(options: PoolOptions) -> None:
    for name in NEED_A_PROCESS:
        value = cast("dict[str, Any]", options)[name]
        if value is not None:
            raise InvalidArgument(
                f"{name}={value!r} needs a worker process; leave it out with processes=0"
            )
