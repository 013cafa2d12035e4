"""What is sent: a dict of 150 bytes as MessagePack, like an order; or bytes of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from typing import Any, Final

import msgpack

Event = Any
"""A dict, or bytes."""

EVENT_BYTES: Final = 150
"""The packed size of each dict."""
DISTINCT: Final = 1000
"""Events that are made before the clock starts; a workload sends them again and again."""
DISTINCT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of them all, where that makes them fewer."""
BATCH_BYTES_MAX: Final = 256 * 1024
"""Bytes of what is batched by hand; larger messages make nobody faster."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What the events of a run are: bytes of `size`, or dicts if that is `None`.

    Systems that carry bytes send bytes as they are, and dicts as MessagePack; what they batch by
    hand is a list as MessagePack.
    """

    size: int | None = None

    def events(self, count: int) -> Iterator[Event]:
        """`count` events, one by one."""
        return islice(cycle(_distinct(self.size)), count)

    def chunks(self, count: int, size: int) -> Iterator[list[Event]]:
        """`count` events as lists of `size`; the last one may be shorter."""
        source = self.events(count)
        return iter(lambda: list(islice(source, size)), [])

    def event_at(self, index: int) -> Event:
        """The event that `events` gives at this place, from 0."""
        distinct = _distinct(self.size)
        return distinct[index % len(distinct)]

    def batch_events(self, at_most: int) -> int:
        """How many events to batch by hand: `at_most`, or fewer large ones."""
        return max(min(at_most, BATCH_BYTES_MAX // (self.size or EVENT_BYTES)), 1)

    @property
    def is_large(self) -> bool:
        """Whether copying one takes longer than passing it on."""
        return (self.size or 0) >= 64 * 1024

    def encoder(self) -> Callable[[Event], bytes]:
        """What makes bytes of one event, as fast as is fair: a Packer made once."""
        return msgpack.Packer().pack if self.size is None else _as_it_is

    def decoder(self) -> Callable[[Any], Event]:
        """What makes an event of such bytes."""
        return msgpack.unpackb if self.size is None else _as_it_is


def _as_it_is(event: Event) -> Any:
    return event


@cache
def _distinct(size: int | None) -> list[Event]:
    """The events, all of them different and of the same packed size."""
    if size is not None:
        number = min(max(DISTINCT_BYTES_MAX // size, 1), DISTINCT)
        rest = b"payload." * (size // 8)
        return [(index.to_bytes(8, "big") + rest)[:size] for index in range(number)]
    events = [_order(number) for number in range(DISTINCT)]
    assert {len(msgpack.packb(event)) for event in events} == {EVENT_BYTES}
    return events


def _order(number: int) -> dict[str, Any]:
    return {
        "order": 1_000_000 + number,
        "customer": f"customer-{number:04}",
        "items": [f"shoes-{number:03}", "socks"],
        "total": 99.5 + number,
        "paid": number % 2 == 0,
        "currency": "EUR",
        "note": "leave it at the door, and please ring twice: or not",
    }


ORDERS: Final = Payload()
"""The dicts."""


def events(count: int) -> Iterator[Event]:
    """`count` dicts, one by one."""
    return ORDERS.events(count)


def chunks(count: int, size: int) -> Iterator[list[Event]]:
    """`count` dicts as lists of `size`; the last one may be shorter."""
    return ORDERS.chunks(count, size)


def event_at(index: int) -> Event:
    """The dict that `events` gives at this place, from 0."""
    return ORDERS.event_at(index)
