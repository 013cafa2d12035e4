"""The arguments of `Pool`, by name and type, for whoever hands them on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Required, TypedDict

import eventlog.blocking
from eventlog import EventLog, SeekPosition
from workers.handlers import Handler
from workers.policy import Backoff


class PoolOptions(TypedDict, total=False):
    """See `workers.Pool`, which tells what each means and its default."""

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
    retry_on: tuple[type[BaseException], ...] | None
