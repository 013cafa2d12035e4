"""A thread that looks after a member's lease while the member's own thread is in a handler.

What is done before an event that takes long is settled all the same: results are there, lag is
true, and later events of the keys that are done can go to other members.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from eventlog.system import start_thread

if TYPE_CHECKING:
    from eventlog.local.client.lease import LocalLease

SETTLE_S: Final = 0.25
"""How long what is done stays unsaid, or up to twice that behind a long handler. Nothing is lost by
it, but lag is seen later; to say it takes half a millisecond of the member and the writer."""
SETTLE_SOON_S: Final = 0.05
"""The same where somebody waits for it: for results, or for the next event of a key."""


class LeaseTimer:
    """Calls `settle_if_due` of the lease every `interval_s`; without a lease it sleeps."""

    def __init__(self, interval_s: float, path: str) -> None:
        self._interval_s = interval_s
        self._path = path
        self._lease: LocalLease | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def watch(self, lease: LocalLease | None) -> None:
        """Look after this lease from now on; after no other when this returns."""
        with self._changed:
            self._lease = lease
            if lease is not None:
                self._changed.notify()
        if lease is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lease timer", daemon=True)
            start_thread(self._thread, self._path)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._lease, self._is_closed = None, True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lease is not None or self._is_closed)
                if self._is_closed:
                    return
            time.sleep(self._interval_s)
            with self._changed:
                if self._lease is not None:
                    self._lease.settle_if_due()
