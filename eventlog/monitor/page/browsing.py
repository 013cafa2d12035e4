"""Events of a log for the page: a screenful from a place, or live, one after the other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, NamedTuple

import anyio

from eventlog.api.log import EventLog
from eventlog.api.positions import SeekPosition
from eventlog.event.envelope import EventEnvelope
from eventlog.terminal.show import plain_event

LOOK_S: Final = 1.0
"""How long events are looked for that a filter wants, before the page is told how far that came."""
LIVE_AT_ONCE: Final = 100
LIVE_S: Final = 0.25
"""Live, so many events at once go to the page, and the next ones after so many seconds."""
BEHIND_MAX: Final = 1_000
"""A page that is further behind the log than that goes on near its end."""

IsWanted = Callable[[EventEnvelope], bool]


class Screenful(NamedTuple):
    """Events, and where it goes on."""

    events: list[dict[str, Any]]
    following: int | None
    """The number to go on from; `None` before any event was met."""
    is_at_end: bool
    """No later event is stored."""


async def screenful(
    log: EventLog, position: SeekPosition, count: int, is_wanted: IsWanted | None
) -> Screenful:
    """Up to `count` events from the position on, of those that are wanted."""
    found: list[dict[str, Any]] = []
    seen: int | None = None
    end_s = time.monotonic() + LOOK_S
    async with log.subscribe("ui", position, follow=False, on_truncated="skip") as stream:
        async for envelope in stream:
            seen = envelope.seq_no or 0
            if is_wanted is None or is_wanted(envelope):
                found.append(fields_of(envelope))
            if len(found) >= count or time.monotonic() > end_s:
                return Screenful(found, seen + 1, is_at_end=False)
    return Screenful(found, None if seen is None else seen + 1, is_at_end=True)


async def live(
    log: EventLog, start: int | None, is_wanted: IsWanted | None
) -> AsyncIterator[tuple[int, dict[str, Any] | int]]:
    """Events from number `start` on, or new ones, as they come, each with its number.

    At a rate that no page can draw, some are passed over: then the next number comes with how many
    they were.
    """
    position = SeekPosition.LATEST if start is None else SeekPosition.sequence(start)
    while True:
        async with log.follow(position, on_truncated="skip") as stream:
            sent, due_s = 0, time.monotonic() + LIVE_S
            async for envelope in stream:
                seq_no = envelope.seq_no or 0
                if is_wanted is None or is_wanted(envelope):
                    yield seq_no, fields_of(envelope)
                    sent += 1
                if sent < LIVE_AT_ONCE and time.monotonic() < due_s:
                    continue
                if sent >= LIVE_AT_ONCE:
                    await anyio.sleep(max(due_s - time.monotonic(), 0))
                sent, due_s = 0, time.monotonic() + LIVE_S
                last = await log.last_seq_no() or 0
                if last - seq_no > BEHIND_MAX and is_wanted is None:
                    following = last - LIVE_AT_ONCE + 1
                    yield following - 1, following - 1 - seq_no
                    position = SeekPosition.sequence(following)
                    break


def fields_of(envelope: EventEnvelope) -> dict[str, Any]:
    """An event as JSON has it."""
    cause = envelope.cause
    fields = {
        "seq_no": envelope.seq_no,
        "id": str(envelope.id),
        "key": envelope.key,
        "headers": envelope.headers,
        "timestamp": envelope.timestamp.isoformat(),
        "stored_at": None if envelope.stored_at is None else envelope.stored_at.isoformat(),
        "cause": None if cause is None else f"event {cause.seq_no} by {cause.group}",
        "is_deletion": envelope.is_deletion or None,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    return {**known, "event": plain_event(envelope.event)}
