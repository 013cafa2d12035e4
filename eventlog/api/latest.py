"""The search for the latest event of a key, backwards from the end of a log. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from eventlog.api.arguments import Bounds
from eventlog.errors import EventsTruncated
from eventlog.event.envelope import EventEnvelope
from eventlog.event.filters import EventFilter
from eventlog.event.texts import check_key

FIRST_EVENTS: Final = 1024
"""Events that are looked at first; then twice as many each time, up to the most."""
MOST_EVENTS: Final = 1 << 20


def filter_of_key(key: object) -> EventFilter:
    """The filter of one key.

    Raises:
        InvalidArgument, InvalidArgumentType: it is none.
    """
    return EventFilter(keys=[check_key(key)])


def backwards(last_seq_no: int | None, wanted: EventFilter) -> Iterator[Bounds]:
    """Ranges from the last event down to the first, each before the one that came before it."""
    stop, count = (last_seq_no or 0) + 1, FIRST_EVENTS
    while stop > 1:
        start = max(stop - count, 1)
        yield Bounds(start=start, stop=stop, filter=wanted)
        stop, count = start, min(2 * count, MOST_EVENTS)


async def latest_of(
    read: Callable[[Bounds], AsyncIterable[EventEnvelope]],
    last_seq_no: int | None,
    wanted: EventFilter,
) -> EventEnvelope | None:
    """The last event that the filter wants; `None` without one, or if it says: deleted."""
    found: EventEnvelope | None = None
    for bounds in backwards(last_seq_no, wanted):
        try:
            async for envelope in read(bounds):
                found = envelope
        except EventsTruncated:  # the first of these are gone, and all before them
            async for envelope in read(replace(bounds, start=0)):
                found = envelope
            break
        if found is not None:
            break
    return _unless_deleted(found)


def blocking_latest_of(
    read: Callable[[Bounds], Iterable[EventEnvelope]],
    last_seq_no: int | None,
    wanted: EventFilter,
) -> EventEnvelope | None:
    """The same, for threads."""
    found: EventEnvelope | None = None
    for bounds in backwards(last_seq_no, wanted):
        try:
            for envelope in read(bounds):
                found = envelope
        except EventsTruncated:
            for envelope in read(replace(bounds, start=0)):
                found = envelope
            break
        if found is not None:
            break
    return _unless_deleted(found)


def _unless_deleted(envelope: EventEnvelope | None) -> EventEnvelope | None:
    return None if envelope is None or envelope.is_deletion else envelope
