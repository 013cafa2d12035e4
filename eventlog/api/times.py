"""The writer's clock, and what stored times mean: one reading of the wall clock decides nothing.

Events get the wall clock's time. That clock may jump, for a moment or for good, and what is stored
or deleted because of it stays so. Therefore:

1. A jump counts only when the clock has stayed where it jumped to for `SETTLED_NS`. Until then the
   time goes on from where it was, with a clock that never jumps.
2. The age of events is measured with that other clock while a writer runs, and from one writer to
   the next as long as the machine runs. Only after a reboot it comes from stored times, and not
   before the wall clock has settled.
3. Stored times go back only when the wall clock has settled on an earlier time: those before were
   ahead. A new segment begins there, so that times never go back within one.
4. A stored time that lies ahead of now tells nothing: the event counts as old as the one after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

SLACK_NS: Final = 1_000_000_000
"""A clock that is set by less than this is corrected, and does not jump."""
SETTLED_NS: Final = 10_000_000_000
AHEAD_NS: Final = 60_000_000_000
"""A stored time that is further ahead of now than this is of a clock that was ahead."""
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_ns() -> int:
    """Nanoseconds since the machine was started, also those that it slept."""
    return time.clock_gettime_ns(_BOOT_CLOCK)


class LogClock:
    """The time for what is stored. Without `steady`, `wall` is a clock that never jumps."""

    def __init__(self, wall: Callable[[], int], steady: Callable[[], int] | None = None) -> None:
        self._wall = wall
        self._steady = steady
        self.offset = 0
        """What the wall clock says beyond the steady one, as far as it is believed."""
        self._agreed_since = 0
        self._jump: tuple[int, int] | None = None
        """The offset after a jump that does not count yet, and when it was first seen."""
        if steady is not None:
            self._agreed_since = steady()
            self.offset = wall() - self._agreed_since

    @classmethod
    def of_system(cls) -> LogClock:
        """The clock of this machine."""
        return cls(time.time_ns, steady_ns)

    def trust(self, offset: int) -> None:
        """Begin with an offset on which the clock had settled since the machine was started."""
        if self._steady is not None:
            self.offset, self._agreed_since = offset, self._steady() - SETTLED_NS

    def now(self) -> int:
        """Nanoseconds since 1970; a jump of the wall clock does not count at once."""
        if self._steady is None:
            return self._wall()
        steady = self._steady()
        offset = self._wall() - steady
        if -SLACK_NS <= offset - self.offset <= SLACK_NS:
            if self._jump is not None:
                self._agreed_since = steady  # it is not known which of the two is wrong
            self.offset, self._jump = offset, None
        elif self._jump is None or abs(offset - self._jump[0]) > SLACK_NS:
            self._jump = offset, steady
        elif steady - self._jump[1] >= SETTLED_NS:
            self.offset, self._agreed_since = offset, self._jump[1]
            self._jump = None
        return steady + self.offset

    def stamp(self, last_ns: int) -> int:
        """The time for an event after one of `last_ns`; less than that only if that was ahead."""
        now = self.now()
        if now >= last_ns:
            return now
        return now if last_ns - now > SLACK_NS and self.is_settled else last_ns

    def steady(self) -> int:
        """What ages are measured with: `now() - offset`, without a look at the wall clock."""
        return self._wall() if self._steady is None else self._steady()

    @property
    def is_settled(self) -> bool:
        """Whether the wall clock has been going as it should for a while."""
        if self._steady is None:
            return True
        self.now()
        return self._jump is None and self._steady() - self._agreed_since >= SETTLED_NS


def believable(times: list[int], now: int) -> list[int]:
    """Stored times, in the order of their events, as they may decide what is old. Pure.

    Nothing is older than what was stored before it. A time that is not known (0), or ahead of now,
    becomes the next one's, and the last one `now`: unknown must not make it old.
    """
    found, newest = list[int](), 0
    for one in times:
        is_known = 0 < one <= now
        newest = max(newest, one) if is_known else newest
        found.append(newest if is_known else 0)
    following = now
    for place in reversed(range(len(found))):
        following = found[place] = found[place] or following
    return found


def went_back(times: list[int]) -> int | None:
    """The last place at which stored times go back by more than a correction. Pure."""
    found, before = None, 0
    for place, one in enumerate(times):
        if one and one < before - SLACK_NS:
            found = place
        before = one or before
    return found


def first_at(stored: Iterable[tuple[int, int]], moment: int, now: int) -> int | None:
    """The number of the first batch stored at or after a moment; `None` if there is none. Pure.

    `stored` gives number and time of each batch. One whose time is ahead of `now` counts if no
    later one is from before the moment.
    """
    found = None
    for seq_no, stored_ns in stored:
        if stored_ns < moment:
            found = None
            continue
        found = seq_no if found is None else found
        if stored_ns <= now + AHEAD_NS:
            break
    return found
