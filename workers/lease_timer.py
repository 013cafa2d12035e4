"""A thread that looks after a lease while its worker is in a handler.

What is done before an event that takes long is settled all the same: results are there, lag is
true, and later events of the keys that are done can go to other workers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from eventlog.blocking import Lease

SETTLE_S: Final = 0.25
"""How long what is done stays unsaid, or up to twice that behind a long handler. Nothing is lost by
it, but lag is seen later; to say it takes half a millisecond of the worker and the writer."""
SETTLE_SOON_S: Final = 0.05
"""The same where somebody waits for it: for results, or for the next event of a key."""


class LeaseTimer:
    """Calls `look` with the lease every `interval_s` while one runs; without a lease it sleeps."""

    def __init__(self, look: Callable[[Lease], None], interval_s: float) -> None:
        self._look = look
        self._interval_s = interval_s
        self._lease: Lease | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def running(self, lease: Lease) -> Iterator[None]:
        """For the time of the block; a lease of one event has nothing to settle before it."""
        if lease.count < 2:
            yield
            return
        with self._changed:
            self._lease = lease
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lease timer", daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._lease = None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lease is not None)
            time.sleep(self._interval_s)
            with self._changed:
                if self._lease is not None:
                    self._look(self._lease)
