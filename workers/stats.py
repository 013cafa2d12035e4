"""What a pool shows of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """One worker."""

    pid: int
    handled: int
    """Events whose handler returned, by this process."""
    busy: bool
    """Whether a handler runs."""
    restarts: int
    """How many processes were in this worker's place before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A pool at one moment; the counts are of this pool, since it started."""

    handled: int
    """Events whose handler returned."""
    failed: int
    """Deliveries that ended otherwise: an exception, or the worker's death."""
    retried: int
    """Failed deliveries whose event is to be tried again."""
    in_flight: int
    """Handlers that run now."""
    lag: int
    """Events of the log after the group's position."""
    workers: tuple[WorkerStats, ...]
