"""What an open log has for its groups."""

from __future__ import annotations

from dataclasses import dataclass

from eventlog.jetstream.appends import Appends
from eventlog.jetstream.bucket import Bucket
from eventlog.jetstream.link import Link
from eventlog.jetstream.reading import Events


@dataclass(frozen=True)
class LogParts:
    """The parts of an open log that its groups use."""

    link: Link
    events: Events
    appends: Appends
    bucket: Bucket
    log_id: str
    lease_s: float
    window_ns: int
    """How long the server remembers what it stored."""
