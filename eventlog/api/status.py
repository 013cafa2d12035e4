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
    """A log at one moment.

    `log_id`: made with the log, and as `Cause.log_id` in results; a backup has the same.
    `writer_pid`: the process that serves it; `None` if none does. `first_seq_no`: the oldest event
    still stored, `last_seq_no`: the last one ever appended, `synced_seq_no`: the last one known to
    be on the disk, with all before it; each `None` if there is none. `bytes`: of all segments, of
    the last one what is used. `max_event_bytes`: of payload, key and headers, packed.
    `events_per_s`: stored in each of the last five seconds; `None` on a server, whose clock is
    another one. `connections`: pipes to the writer, this call's own too.
    """

    path: str
    log_id: UUID
    writer_pid: int | None
    first_seq_no: int | None
    last_seq_no: int | None
    synced_seq_no: int | None
    bytes: int
    segments: int
    durability: Durability
    max_event_bytes: int
    events_per_s: float | None
    connections: int
