"""Consumers and groups: who is behind, and who keeps retention from deleting."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from eventlog.api.group import GroupReport
from eventlog.api.positions import ConsumerState
from eventlog.config import LogOptions
from eventlog.tools.doctor.findings import Finding, size

SILENT: Final = timedelta(days=1)
"""Whoever is behind and has not moved for so long was perhaps forgotten."""


def consumer_findings(
    states: list[ConsumerState],
    bases: list[int],
    stored_bytes: int,
    options: LogOptions,
    now: datetime,
) -> Iterator[Finding]:
    """What the positions mean. `bases` are the numbers of the segments; pure.

    `stored_bytes` counts what is used of the active segment, and the others whole.
    """
    room = _room(len(bases), stored_bytes, options)
    holding = _holding(states, bases, options, room)
    for state in holding:
        yield _held_back(state, options, room)
    for state in states:
        silence = now - state.last_seen
        if state.lag and state not in holding and silence > SILENT:
            yield Finding(
                level="note",
                about="consumers",
                what=f"{state.name!r} is {state.lag:,} events behind and has not moved for"
                f" {silence.days} day(s)",
                do=f"if it is of no use any more: eventlog forget {{log}} {state.name!r}",
            )
    if not holding:
        lag = max((state.lag for state in states), default=0)
        what = f"{len(states)} consumer(s), at most {lag:,} events behind" if states else "none"
        yield Finding(level="ok", about="consumers", what=what)


def _room(segments: int, stored_bytes: int, options: LogOptions) -> int | None:
    """The bytes that are left if retention deletes nothing; `None` if that is plenty."""
    limit, segment = options.retention.max_bytes, options.segment_bytes
    if limit is None or not segments or (segments + 1) * segment <= limit:
        return None
    room = max(min(limit, segments * segment) - stored_bytes, 0)
    return room if room < min(limit, segment) // 4 else None


def _holding(
    states: list[ConsumerState], bases: list[int], options: LogOptions, room: int | None
) -> list[ConsumerState]:
    """Those that need the oldest segment, where retention would delete it otherwise."""
    retention = options.retention
    has_limit = retention.max_bytes is not None or retention.max_age is not None
    if not (retention.keep_unacked and has_limit):
        return []
    if len(bases) < 2:  # the active segment goes once all of it is acknowledged
        return [state for state in states if state.lag and room is not None]
    return [state for state in states if (state.last_acked or 0) < bases[1] - 1]


def _held_back(state: ConsumerState, options: LogOptions, room: int | None) -> Finding:
    what = (
        f"{state.name!r} is {state.lag:,} events behind (last seen"
        f" {state.last_seen.astimezone(UTC):%Y-%m-%d %H:%M} UTC) and keeps retention from deleting"
        f" what it has not acknowledged"
    )
    do = f"let it catch up, or eventlog forget {{log}} {state.name!r}"
    limit = options.retention.max_bytes
    if limit is not None and room is not None:
        then = "wait" if options.on_full == "wait" else "fail with LogFull"
        what += (
            f"; the log is at its limit of {size(limit)}: appends that do not fit the {size(room)}"
            f" that are left {then}"
        )
        do += ", or eventlog config {log} --max-bytes with more"
        return Finding(level="problem", about="consumers", what=what, do=do)
    return Finding(level="warning", about="consumers", what=what, do=do)


def group_findings(groups: list[GroupReport]) -> Iterator[Finding]:
    """What is left undone; pure."""
    for group in groups:
        if group.dead_letters:
            yield Finding(
                level="note",
                about="groups",
                what=f"the group {group.name!r} has {group.dead_letters:,} dead letter(s)",
                do=f"workers dead list {{log}} --group {group.name!r}",
            )
        if group.lag and not group.members:
            yield Finding(
                level="note",
                about="groups",
                what=f"nobody works for the group {group.name!r}, which has {group.lag:,} events to"
                " do",
            )
