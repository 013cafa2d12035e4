"""What a log tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from eventlog.config import Durability

RATE_S: Final = 5.0
"""A rate of now is that of the last so many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStatus:
    """A log at one moment."""

    path: str
    log_id: UUID
    """Made with the log; `Cause.log_id` of a result says it. A backup of the log has the same."""
    writer_pid: int | None
    """The process that serves it; `None` if none does."""
    first_seq_no: int | None
    """The oldest event still stored; `None` if there is none."""
    last_seq_no: int | None
    """The last event ever appended; `None` if there was none."""
    synced_seq_no: int | None
    """The last event known to be on the disk, with all before it; `None` if there is none."""
    bytes: int
    segments: int
    durability: Durability
    max_event_bytes: int
    """The largest event that it takes: payload, key and headers, packed."""
    events_per_s: float | None
    """Stored in each of the last five seconds; `None` on a server, whose clock is another one."""
    connections: int
    """Pipes to the writer, from all processes; this call's own is one of them."""
