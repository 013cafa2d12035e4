"""What pools decide: how long to wait, how much to lease, when a worker has done enough. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eventlog import InvalidArgument, InvalidArgumentType

LEASE_S: Final = 0.2
"""How long a lease should last: long against a round trip to the writer (0.1 ms), short against
what a person waits for, and what is not begun of it others can have."""
LEASE_ASKED_MAX: Final = 2048
LEASE_GROWTH: Final = 8
RESTART_FIRST_S: Final = 0.1
RESTART_MAX_S: Final = 5.0
START_FAILURES_MAX: Final = 3
"""Workers in a row that died before they were ready, without a word, before the pool gives up."""
RESTART_FAILURES_MAX: Final = 20
"""The same, once workers were ready in that place: they can start, and something kills them."""
RECYCLE_JITTER: Final = 0.1
RETIRE_EARLY: Final = 0.9
"""A worker says that it will retire when it has done this part of what it may."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long an event waits after each failure of its handler, in seconds.

    `first_s * factor ** (attempt - 1)`, at most `max_s`, less a random part of up to `jitter` of
    it, so that what failed together does not come back together.
    """

    first_s: float = 0.1
    factor: float = 2.0
    max_s: float = 30.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        """Check that the numbers mean something."""
        values: tuple[object, ...] = (self.first_s, self.factor, self.max_s, self.jitter)
        if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
            raise InvalidArgumentType(f"{self!r}: give numbers")
        if not (0 <= self.first_s <= self.max_s and self.factor >= 1 and 0 <= self.jitter <= 1):
            raise InvalidArgument(
                f"{self!r}: give 0 <= first_s <= max_s, a factor from 1, and a jitter of 0 to 1"
            )

    def delay_s(self, attempt: int, random: Callable[[], float]) -> float:
        """The wait after that attempt (1 is the first); `random` gives 0 to 1."""
        longest = min(self.first_s * self.factor ** min(attempt - 1, 1000), self.max_s)
        return longest * (1 - self.jitter * random())


class LeaseSize:
    """How many events to ask for: as many as last for `LEASE_S`, going by the last lease."""

    def __init__(self, at_least: int = 1) -> None:
        self._at_least = at_least
        self.count = at_least

    def note(self, events: int, elapsed_s: float) -> None:
        """That many events took that long."""
        if events < 1:
            return
        fitting = int(LEASE_S * events / elapsed_s) if elapsed_s > 0 else LEASE_ASKED_MAX
        largest = min(self.count * LEASE_GROWTH, LEASE_ASKED_MAX)
        self.count = max(min(fitting, largest), self._at_least)


def restart_delay_s(deaths: int) -> float:
    """How long to wait before a worker is started again that died so often in a row."""
    if deaths <= 1:
        return 0.0
    return min(RESTART_FIRST_S * 2.0 ** min(deaths - 2, 30), RESTART_MAX_S)


def check_limit(name: str, value: object) -> None:
    """Pass if the value is a number above 0, or `None` for no limit.

    Raises:
        InvalidArgument, InvalidArgumentType: it is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentType(f"{name}={value!r}; give a number, or None")
    if not 0 < value < math.inf:  # NaN is neither
        raise InvalidArgument(f"{name}={value}; give a number above 0, or None")


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a worker has done enough and another one takes its place."""

    max_events: int | None = None
    max_rss_bytes: int | None = None
    max_age_s: float | None = None

    @property
    def has_limits(self) -> bool:
        """Whether there is anything to look at."""
        return (self.max_events, self.max_rss_bytes, self.max_age_s) != (None, None, None)

    def check(self) -> None:
        """Pass if the limits mean something.

        Raises:
            InvalidArgument, InvalidArgumentType: they don't.
        """
        limits = {
            "max_events_per_worker": self.max_events,
            "max_rss_bytes": self.max_rss_bytes,
            "max_age_s": self.max_age_s,
        }
        for name, value in limits.items():
            check_limit(name, value)
        if isinstance(self.max_events, float):
            raise InvalidArgumentType(
                f"max_events_per_worker={self.max_events}; give a whole number, or None"
            )

    def check_start(self, private_bytes: int) -> None:
        """Pass if a worker that has handled nothing yet, and has that much memory, may go on.

        Raises:
            InvalidArgument: it would be replaced at once, and so would the next one.
        """
        limit = self.max_rss_bytes
        if limit is not None and private_bytes >= limit * RETIRE_EARLY:
            raise InvalidArgument(
                f"max_rss_bytes={limit} is too small: a worker has {private_bytes} bytes of private"
                " memory before its first event, and would be replaced after each one; give more"
            )

    def for_worker(self, random: Callable[[], float]) -> Recycling:
        """The limits of one worker, a little lower by chance, so that not all leave together."""
        part = 1 - RECYCLE_JITTER * random()
        return Recycling(
            None if self.max_events is None else max(int(self.max_events * part), 1),
            self.max_rss_bytes,
            None if self.max_age_s is None else self.max_age_s * part,
        )
