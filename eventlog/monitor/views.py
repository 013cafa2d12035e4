"""What is shown of a log: rates of now, trends, and times. `None` is what nobody knows."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any

HIDDEN = {"trend"}
"""Fields that only a screen draws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """A member of a group, as a worker of a pool is."""

    pid: int
    handled: int
    failed: int
    in_flight: int
    handled_per_s: float | None
    busy_s: float | None
    """How long it has been at its oldest event; `None` if it has none, or nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderView:
    """A consumer or a group: who reads the log, and how far behind."""

    name: str
    position: int
    """Everything up to here is acknowledged."""
    lag: int
    lag_s: float | None
    """The age of the oldest event that is not acknowledged; 0 if there is none."""
    acked_per_s: float | None
    catch_up_s: float | None
    """When the lag is 0 if all goes on as now; `None` if it never is."""
    trend: tuple[int, ...] = ()
    """The lags of the last samples, the latest last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerView(ReaderView):
    """A consumer."""

    last_seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView(ReaderView):
    """A group."""

    in_flight: int
    redeliveries: int
    dead_letters: int
    members: int
    working: tuple[MemberView, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterView:
    """The process that serves the log."""

    pid: int
    cpu_percent: float | None
    """Share of one processor, over the last seconds."""
    rss_bytes: int | None
    connections: int | None
    bytes_per_s: float | None
    batches_per_s: float | None
    syncs_per_s: float | None
    mean_sync_s: float | None
    """Over the last seconds."""
    longest_sync_s: float | None
    """Since the writer started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """A log."""

    path: str
    taken_at: datetime
    first_seq_no: int | None
    last_seq_no: int | None
    bytes: int
    segments: int
    durability: str
    appended_per_s: float | None
    trend: tuple[int, ...]
    """The rates of the last samples, the latest last."""
    writer: WriterView | None
    consumers: tuple[ConsumerView, ...]
    groups: tuple[GroupView, ...] | None

    @property
    def readers(self) -> tuple[ReaderView, ...]:
        """Consumers and groups."""
        return (*self.consumers, *(self.groups or ()))


def known_fields(view: Any) -> Any:
    """A view as JSON has it, without what nobody knows, and without what only a screen draws."""
    if is_dataclass(view):
        values = {field.name: getattr(view, field.name) for field in fields(view)}
        return {
            name: known_fields(value)
            for name, value in values.items()
            if value is not None and name not in HIDDEN
        }
    if isinstance(view, tuple):
        return [known_fields(one) for one in view]
    if isinstance(view, datetime):
        return view.isoformat()
    if isinstance(view, float):
        return round(view, 3)
    return view
