"""Stored times that cannot be right."""

from __future__ import annotations

from collections.abc import Iterator

from eventlog.api.times import AHEAD_NS
from eventlog.event.moments import datetime_of
from eventlog.tools.doctor.findings import Finding


def time_findings(times: dict[int, int], now_ns: int) -> Iterator[Finding]:
    """What stored times mean, by the numbers of their events; pure."""
    ahead = {base: ns for base, ns in times.items() if ns > now_ns + AHEAD_NS}
    if ahead:
        newest = datetime_of(max(ahead.values()))
        yield Finding(
            level="warning",
            about="times",
            what=f"events from {min(ahead)} on have times in the future, up to"
            f" {newest:%Y-%m-%d %H:%M} UTC: the clock was ahead when they were stored, or is behind"
            " now; a seek by time takes them for as old as what follows, and they expire with it",
            do="see whether the clock is right: timedatectl",
        )
