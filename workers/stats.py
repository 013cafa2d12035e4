"""What a pool shows of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """One worker.

    `pid`: its process. `handled`: events whose handler returned in that process, so none that
    failed. `busy`: whether a handler runs. `restarts`: the processes in its place before this one.
    """

    pid: int
    handled: int
    busy: bool
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A pool at one moment; the counts are of this pool, since it started.

    `handled`: events whose handler returned, so none that failed. `failed`: deliveries that ended
    otherwise, by an exception or the worker's death. `retried`: those of them whose event is to be
    tried again. `in_flight`: handlers that run now. `lag`: events of the log after the group's
    position. `workers`: a `WorkerStats` for each.
    """

    handled: int
    failed: int
    retried: int
    in_flight: int
    lag: int
    workers: tuple[WorkerStats, ...]
