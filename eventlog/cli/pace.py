"""The pace of a replay: events come again at the distances at which they were stored, or faster."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from eventlog.errors import InvalidArgument
from eventlog.event.envelope import EventEnvelope

MAX: Final = "max"
SPEEDS: Final = "How fast: 1x is the pace at which they were stored, 10x ten times that"


def speed_of(text: str) -> float | None:
    """How many times faster than stored: `1x`, `0.5x`, `10x`; `None` for `max`.

    Raises:
        InvalidArgument: it is no speed.
    """
    if text == MAX:
        return None
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)x?", text)
    if match is None or not float(match[1]):
        raise InvalidArgument(f"{text!r} is no speed: give such as 1x, 10x, 0.5x, or max")
    return float(match[1])


class Pace:
    """Waits before each event until it is its turn; the first one comes at once.

    A stored time that goes back comes at once, too.
    """

    def __init__(
        self,
        speed: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._began: tuple[float, float] | None = None
        """When the first event came, and when it was stored, in seconds."""

    def wait_for(self, envelope: EventEnvelope) -> None:
        """Wait for the turn of the event."""
        stored = envelope.stored_at or envelope.timestamp
        if self._began is None:
            self._began = self._clock(), stored.timestamp()
        began_s, first_s = self._began
        wait_s = began_s + (stored.timestamp() - first_s) / self._speed - self._clock()
        if wait_s > 0:
            self._sleep(wait_s)
