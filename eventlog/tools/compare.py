"""Whether two logs hold the same events: ids, times, keys, headers, causes, due times and payloads.

What each log gives an event itself is not compared: the time of storing, and with `by_order` the
number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Final

from eventlog.event.envelope import EventEnvelope
from eventlog.event.stored_batch import identity

FIELDS: Final = ("id", "timestamp", "key", "headers", "event", "cause", "times")
"""What `identity` has, in its order."""
SHOW_EVERY: Final = 4096


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place at which two logs differ."""

    first: int | None
    """The number there in the first log; `None` if it has ended."""
    second: int | None
    what: str


def first_difference(
    first: Iterator[list[EventEnvelope]],
    second: Iterator[list[EventEnvelope]],
    on_compared: Callable[[int], None],
    *,
    by_order: bool,
) -> Difference | None:
    """Where they differ; `None` if they hold the same. Events are read as `msgspec.Raw`."""
    pairs = zip_longest(chain.from_iterable(first), chain.from_iterable(second))
    for count, (one, other) in enumerate(pairs):
        if count % SHOW_EVERY == 0:
            on_compared(count)
        if (what := _difference(one, other, by_order=by_order)) is not None:
            return Difference(one and one.seq_no, other and other.seq_no, what)
    return None


def _difference(
    one: EventEnvelope | None, other: EventEnvelope | None, *, by_order: bool
) -> str | None:
    if one is None or other is None:
        return "the other log has ended"
    if not by_order and one.seq_no != other.seq_no:
        return "number"
    mine, others = identity(one), identity(other)
    if mine == others:
        return None
    return ", ".join(name for name, a, b in zip(FIELDS, mine, others, strict=True) if a != b)
