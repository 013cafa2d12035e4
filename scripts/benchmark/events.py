"""The event that all workloads send: a dict of 150 bytes as MessagePack, like an order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from typing import Any, Final

import msgpack

Event = dict[str, Any]

EVENT_BYTES: Final = 150
"""The packed size of each event."""
DISTINCT: Final = 1000
"""Events that are made before the clock starts; a workload sends them again and again."""


@cache
def distinct_events() -> list[Event]:
    """The events, all of them different and of the same packed size."""
    events = [_event(number) for number in range(DISTINCT)]
    assert {len(msgpack.packb(event)) for event in events} == {EVENT_BYTES}
    return events


def _event(number: int) -> Event:
    return {
        "order": 1_000_000 + number,
        "customer": f"customer-{number:04}",
        "items": [f"shoes-{number:03}", "socks"],
        "total": 99.5 + number,
        "paid": number % 2 == 0,
        "currency": "EUR",
        "note": "leave it at the door, and please ring twice: or not",
    }


def events(count: int) -> Iterator[Event]:
    """`count` events, one by one."""
    return islice(cycle(distinct_events()), count)


def chunks(count: int, size: int) -> Iterator[list[Event]]:
    """`count` events as lists of `size`; the last one may be shorter."""
    source = events(count)
    return iter(lambda: list(islice(source, size)), [])


def event_at(index: int) -> Event:
    """The event that `events` gives at this place, from 0."""
    return distinct_events()[index % DISTINCT]
