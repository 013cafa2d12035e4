"""One log as the screen has it: an open handle, and what is seen of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from eventlog import blocking
from eventlog.errors import EventLogError
from eventlog.monitor.history import History
from eventlog.monitor.sample import Sampler, opened_to_look
from eventlog.monitor.views import LogView


class Watched:
    """A log that is looked at; its methods are called in threads, `look` in one at a time."""

    def __init__(self, address: str) -> None:
        """Open the log.

        Raises:
            EventLogError: it cannot be.
        """
        self.address = address
        self.log = opened_to_look(address)
        self.view: LogView | None = None
        """What was seen last."""
        self.error: EventLogError | None = None
        """Why the last look saw nothing."""
        self._sampler = Sampler(self.log)
        self._history = History()

    def look(self) -> None:
        """See what the log is now."""
        try:
            self.view, self.error = self._history.add(self._sampler.take()), None
        except EventLogError as error:
            self.error = error

    def act(self, action: Callable[[blocking.EventLog], object]) -> None:
        """Do something to the log, whose writer is started if need be.

        Raises:
            EventLogError: it was refused.
        """
        with blocking.open(self.address) as log:
            action(log)

    def close(self) -> None:
        """Let go of the log; a look that still goes on ends with an error of it."""
        with suppress(EventLogError):
            self._sampler.close()
            self.log.close()
