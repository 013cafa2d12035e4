"""A log's writer whose clock jumps: `python jumping_clock.py PATH`.

The clock is replaced before anything of the log is imported. It is right at first, and then now
and then hours or years ahead, or minutes behind, for a moment.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

JUMPS_S: Final = (3 * 365 * 86_400, 7_200, -600)
RIGHT_S: Final = 2.0
WRONG_S: Final = 0.5
AGAIN_S: Final = 0.3


class JumpingClock:
    """Stands in for the wall clock of this process."""

    def __init__(self, real: Callable[[], int]) -> None:
        self._real = real
        self._ahead_ns = 0

    def time_ns(self) -> int:
        """Nanoseconds since 1970, right or wrong."""
        return self._real() + self._ahead_ns

    def time(self) -> float:
        """Seconds since 1970, right or wrong."""
        return self.time_ns() / 1e9

    def jump(self) -> None:
        """Go wrong for a moment, again and again."""
        while True:
            self._ahead_ns = 0
            time.sleep(random.uniform(RIGHT_S / 2, RIGHT_S))
            self._ahead_ns = random.choice(JUMPS_S) * 10**9
            time.sleep(WRONG_S)


def main(path: str) -> None:
    """Be the writer whenever nobody else is."""
    clock = JumpingClock(time.time_ns)
    time.time_ns, time.time = clock.time_ns, clock.time
    from eventlog.errors import EventLogError
    from eventlog.local.writer.__main__ import serve

    threading.Thread(target=clock.jump, daemon=True).start()
    while True:
        try:
            serve(path, linger_s=None)
        except EventLogError:
            time.sleep(AGAIN_S)  # a client was faster, until that writer is killed


if __name__ == "__main__":
    main(sys.argv[1])
