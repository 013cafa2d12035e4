"""SIGTERM and Ctrl-C of a program with a blocking pool, whose event loop runs in another thread.

The first signal asks the pool to stop, a later one kills the workers. While a pool is left, the
asking has been done already. Signals reach Python in the main thread only, so elsewhere this module
does nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, Final

from workers import generations

NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class PoolSignals:
    """Takes signals over, and gives them back; `stop` and `kill` are called in a thread."""

    def __init__(self, stop: Callable[[], object], kill: Callable[[], object]) -> None:
        self._stop = stop
        self._kill = kill
        self._before: dict[int, Any] = {}
        self._is_asked = False
        self._generation = generations.generation
        self.is_interrupted = False
        """There was a signal since leaving began."""

    @property
    def has_taken(self) -> bool:
        """Whether signals are the pool's."""
        return bool(self._before)

    def take(self) -> None:
        """From now on signals are the pool's, until `give_back`."""
        if _is_main_thread() and not self.has_taken:
            self._before |= {one: signal.signal(one, self._on_signal) for one in NUMBERS}

    def begin_to_leave(self) -> None:
        """Ctrl-C would end the wait for the workers, wherever it is; let it kill them instead."""
        self._is_asked = True
        self.is_interrupted = False
        is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if _is_main_thread() and is_default:
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_signal)

    def give_back(self) -> None:
        """As it was before; may be called twice."""
        if _is_main_thread():
            for number, action in self._before.items():
                signal.signal(number, action)
            self._before = {}

    def _on_signal(self, number: int, _: object) -> None:
        if self._generation != generations.generation:
            # A forked child, which has no pool: the signal is its own.
            self.give_back()
            signal.raise_signal(number)
            return
        action = self._kill if self._is_asked else self._stop
        self._is_asked = self.is_interrupted = True
        # Not here: it may have interrupted whoever holds a lock that the action needs.
        threading.Thread(target=action, daemon=True).start()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
