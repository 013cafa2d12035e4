"""What `append(event, not_before=, expires=)` stores: the event in an envelope with these times."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from eventlog.event.envelope import EventEnvelope


def scheduled(event: Any, not_before: datetime | None, expires: datetime | None) -> Any:
    """The event as it is, or in an envelope if it has times; those of an envelope are replaced.

    Raises:
        InvalidArgument, InvalidArgumentType: a time is none, or it expires before it is due.
    """
    if not_before is None and expires is None:
        return event
    if isinstance(event, EventEnvelope):
        given = {"not_before": not_before, "expires": expires}
        times = {name: moment for name, moment in given.items() if moment is not None}
        return event.__replace__(**times)
    return EventEnvelope(event, not_before=not_before, expires=expires)
