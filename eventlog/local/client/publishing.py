"""A publisher without its tasks, or its thread: what both colours share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from eventlog.api import forks
from eventlog.api.arguments import PublisherOptions
from eventlog.api.batches import copy_of
from eventlog.api.refusals import closed
from eventlog.api.statistics import PublisherStatistics
from eventlog.config import BATCH_EVENTS_LIMIT
from eventlog.errors import EventLogError
from eventlog.local.client.handle import ClosablePipe, LocalHandle

Pipe = TypeVar("Pipe", bound=ClosablePipe)
LAST_ROW: Final = BATCH_EVENTS_LIMIT - 1


class Publishing(Generic[Pipe]):
    """An outbox with a pipe of its own, and why it cannot be used any more."""

    def __init__(
        self,
        handle: LocalHandle,
        open_pipe: Callable[..., Pipe],
        options: PublisherOptions,
    ) -> None:
        self._handle = handle
        self._outbox = outbox = handle.new_outbox()
        self._builder = outbox.builder
        self._pipe = handle.adopt(open_pipe(handle.path, outbox.channel, handle.notice_of(outbox)))
        self._max_batch_bytes = min(options.max_batch_bytes, handle.options.batch_bytes_max)
        self._max_in_flight = options.max_in_flight
        self._failure: EventLogError | None = None
        self._generation = handle.generation
        """The process that may use it; `forks.UNUSABLE` once it is closed or has failed."""

    def __repr__(self) -> str:
        """What is on its way."""
        return f"<Publisher to {self._handle.path!r} batches on their way: {self._outbox.pending}>"

    def statistics(self) -> PublisherStatistics:
        """See `Publisher`."""
        return self._outbox.statistics()

    def check_usable(self) -> None:
        """Pass in the handle's process and event loop.

        Raises:
            ForkedHandle, WrongEventLoop: it is another one.
        """
        forks.check(self._handle.generation, self._handle.path)
        if self._handle.loop is not None:
            self._handle.loop.check(self._handle.path)

    def _refuse(self) -> None:
        """Raise why the publisher cannot be used."""
        self.check_usable()
        if self._failure is not None:
            raise copy_of(self._failure)
        raise closed("publisher", self._handle.path)

    def _check_stored(self) -> None:
        """Raise what was refused, or failed."""
        if self._failure is not None:
            raise copy_of(self._failure)
        self._outbox.check_stored()
