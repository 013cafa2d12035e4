"""Pools of worker processes that share the events of a log: for CPU-bound handlers.

::

    async with eventlog.open("images") as log:
        async with Pool(log, group="resize", handler=resize, processes=4) as pool:
            await pool.drained()

    events ==mmap==> workers            each event goes to one worker of the group, from the log's
    writer <--leases, done--> workers   own memory; the writer shares out the numbers, by leases
    pool   <--logs, exit codes-- workers    the pool starts, watches, replaces and ends processes

`workers.blocking.Pool` is the same for scripts without an event loop. Importing this package is
cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventlog import DeadLetter
    from workers import blocking
    from workers.errors import InvalidHandler, PoolError, PoolFailed, Reject
    from workers.policy import Backoff
    from workers.pool import Pool
    from workers.results import Results
    from workers.stats import PoolStats, WorkerStats

__all__ = [
    "Backoff",
    "DeadLetter",
    "InvalidHandler",
    "Pool",
    "PoolError",
    "PoolFailed",
    "PoolStats",
    "Reject",
    "Results",
    "WorkerStats",
    "blocking",
]

_LAZY = {
    "Backoff": "workers.policy",
    "DeadLetter": "eventlog",
    "InvalidHandler": "workers.errors",
    "Pool": "workers.pool",
    "PoolError": "workers.errors",
    "PoolFailed": "workers.errors",
    "PoolStats": "workers.stats",
    "Results": "workers.results",
    "Reject": "workers.errors",
    "WorkerStats": "workers.stats",
}


def __getattr__(name: str) -> object:
    import importlib

    if name == "blocking":
        return importlib.import_module("workers.blocking")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'workers' has no attribute {name!r}")


def __dir__() -> list[str]:
    import sys

    # `help` shows in full whatever `inspect` finds: too much for a first look.
    if sys._getframe(1).f_globals["__name__"] == "inspect":
        return [*globals()]
    return sorted({*globals(), *__all__})
