"""How long a publisher's block is flushed at its end, and what is said of what could not be stored.

============================  ==================================  ================================
the block ends by             flushed within                      what could not be stored
============================  ==================================  ================================
its last line                 `flush_s`                           `NotFlushed`, or its own error
an exception                  `flush_s`                           a `ResourceWarning`
Ctrl-C, `sys.exit`            `INTERRUPTED_FLUSH_S`               a `ResourceWarning`
cancellation, a second Ctrl-C not at all                          a `ResourceWarning`
the garbage collector         not at all                          a `ResourceWarning`
============================  ==================================  ================================

In asyncio, the first Ctrl-C is a cancellation of the main task.
"""

from __future__ import annotations

import warnings
from typing import Final

from eventlog.errors import NotFlushed

INTERRUPTED_FLUSH_S: Final = 0.7
"""So that the process ends within a second of Ctrl-C, or of a SIGTERM that calls `sys.exit`."""
INTERRUPTS: Final = (KeyboardInterrupt, SystemExit)


def flush_limit_s(error: BaseException | None, flush_s: float) -> float:
    """How long to flush when the block ends with this exception; 0: not at all."""
    if error is None or isinstance(error, Exception):
        return flush_s
    return min(flush_s, INTERRUPTED_FLUSH_S) if _is_interrupt(error) else 0.0


def _is_interrupt(error: BaseException) -> bool:
    """Whether it is Ctrl-C or `sys.exit`, perhaps in the group of a task group."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(INTERRUPTS) is not None
    return isinstance(error, INTERRUPTS)


def not_flushed(path: str, events: int, limit_s: float) -> NotFlushed:
    """The error for events that were not stored in time."""
    return NotFlushed(
        f"{events} events that a publisher sent to the log {path} were not stored within"
        f" {limit_s:g} s of the end of its block; see whether its writer waits for room, or call"
        " `flush` in the block, which waits as long as it takes",
        path=path,
        events=events,
    )


def warn_of_unstored(path: str, events: int) -> None:
    """Tell of events that are lost where no error can be raised."""
    if events:
        warnings.warn(
            f"a publisher of the log {path} was left with {events} events that are not stored",
            ResourceWarning,
            stacklevel=2,
        )
