"""Ctrl-C and SIGTERM: noted at once, acted upon where nothing is left half-done.

The first signal raises an exception, whose way up ends processes and removes directories; further
ones are ignored, as all of that takes seconds at most. While something is being started whose owner
does not know of it yet, signals are `held`. An exception that is raised into code which cannot pass
it on (such as a finaliser) is not lost: `check` raises it again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

TERMINATED: Final = 128 + signal.SIGTERM
"""The exit code of a program that SIGTERM ended."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _State:
    """The state of this process."""

    noted: int | None = None
    holds = 0


def _note(number: int, _frame: FrameType | None) -> None:
    if _State.noted is None:
        _State.noted = number
        if not _State.holds:
            check()


def check() -> None:
    """Raise what a signal asked for, if one came.

    Raises:
        KeyboardInterrupt: it was SIGINT.
        SystemExit: it was SIGTERM.
    """
    if _State.noted == signal.SIGINT:
        raise KeyboardInterrupt
    if _State.noted is not None:
        raise SystemExit(TERMINATED)


@contextmanager
def handled() -> Iterator[None]:
    """Handle the signals so within the block."""
    before = {one: signal.signal(one, _note) for one in _SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def held() -> Iterator[None]:
    """Let a signal wait until the end of the block."""
    _State.holds += 1
    try:
        yield
    finally:
        _State.holds -= 1
    check()
