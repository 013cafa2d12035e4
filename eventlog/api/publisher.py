"""Publishers as every engine has them, for trio and asyncio: pipelined producers of a log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Generator, Iterable, Mapping
from typing import Any

from eventlog.api.refusals import no_statistics
from eventlog.api.statistics import PublisherStatistics
from eventlog.event.texts import Headers, Keys


class AppendHandle(ABC):
    """An event that a publisher has queued; `await` it for its number."""

    __slots__ = ()

    @property
    @abstractmethod
    def seq_no(self) -> int | None:
        """The event's number; `None` until the writer has answered."""

    @abstractmethod
    async def result(self) -> int:
        """Wait for the event's number.

        Raises:
            EventLogError: the event was not stored.
        """

    def __await__(self) -> Generator[Any, Any, int]:
        """The same as `result()`."""
        return self.result().__await__()


class ManyHandle(ABC):
    """A list of events that a publisher has queued; `await` it for its numbers."""

    __slots__ = ()

    @property
    @abstractmethod
    def seq_nos(self) -> tuple[int, int] | None:
        """The first and the last number; `None` until all are stored."""

    @abstractmethod
    async def result(self) -> tuple[int, int]:
        """Wait for the first and the last number.

        Raises:
            EventLogError: only the first `error.stored` events were stored.
        """

    def __await__(self) -> Generator[Any, Any, tuple[int, int]]:
        """The same as `result()`."""
        return self.result().__await__()


class Publisher(ABC):
    """A pipelined producer: what `publisher()` gives inside its block, whose end flushes."""

    @abstractmethod
    async def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        """Queue an event; waits only while the window is full.

        Raises:
            InvalidEvent, EventTooLarge, InvalidArgument: nothing of it was queued.
            EventLogError: an earlier batch could not be stored.
        """

    @abstractmethod
    async def send_many(
        self,
        events: Iterable[Any] | AsyncIterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
    ) -> ManyHandle:
        """Queue all the events, in order, as one list; waits only while the window is full.

        `keys` and `headers` are those of `EventLog.append_many`. A short list travels in one batch
        with what is sent before and after it, as events of `send` do. A long one (more than 1,024
        events, or twice `max_batch_bytes`), or an iterable without a length, is batches of its own,
        on their way together; events of other producers come before it, after it, or between its
        batches. The handle's result is the first and the last number; its error says in
        `error.stored` that exactly so many events, the first ones, are stored.

        Raises:
            InvalidArgument: there are none, or fewer or more of them than keys or headers.
            InvalidEvent, EventTooLarge, InvalidArgumentType: nothing of the list was queued.
            EventLogError: the publisher is of no use any more.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Wait until everything queued so far is stored.

        Raises:
            EventLogError: a batch could not be stored.
        """

    def statistics(self) -> PublisherStatistics:
        """What it has done until now; also after its block.

        Raises:
            NotSupported: the engine counts nothing.
        """
        raise no_statistics()
