"""What a reader of a log holds, as every engine has it: a stream, and a range of stored events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator
from typing import Any, NoReturn

from eventlog.api.refusals import no_statistics
from eventlog.api.statistics import StreamStatistics
from eventlog.errors import InvalidArgumentType
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode


class EventStream(ABC):
    """A subscription; `async for` over it, or over `batches()`, but not both."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[EventEnvelope]:
        """Event by event."""

    @abstractmethod
    async def __anext__(self) -> EventEnvelope:
        """The next event, waiting for it."""

    @abstractmethod
    def batches(self) -> AsyncIterator[list[EventEnvelope]]:
        """The same events as lists, as they were batched; `ack` the last of each."""

    @abstractmethod
    async def ack(self, event: EventEnvelope | int, state: bytes | None = None) -> None:
        """Say that the stream's consumer has processed everything up to this event, or number.

        The same as `EventLog.ack` with the consumer's name; it does not move the stream.

        Raises:
            InvalidArgument: the stream has no consumer (see `EventLog.follow`), or the envelope no
                number.
            InvalidArgumentType: it is neither an envelope nor a number.
            SequenceOutOfRange: there is no such event yet.
        """

    @property
    def state(self) -> bytes | None:
        """What the consumer's last `ack(..., state=)` stored before the stream's first event.

        `None` if there is none, or if the stream does not start at the consumer's position. Later
        acknowledgements do not change it.
        """
        return None

    def statistics(self) -> StreamStatistics:
        """What it has done until now; also after its block.

        Raises:
            NotSupported: the engine counts nothing.
        """
        raise no_statistics()


class EventRange(ABC):
    """What `read` gives: `async for` over it, or `await` it for a list."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[EventEnvelope]:
        """Event by event."""

    def __iter__(self) -> NoReturn:
        """The error of `for` without `async`."""
        raise InvalidArgumentType(
            "a range of an asynchronous log is read with `async for envelope in log.read(...)`, or"
            " as a list: `for envelope in await log.read(...)`"
        )

    @abstractmethod
    def _decoded(self, decode: Decode) -> AsyncIterator[list[EventEnvelope]]:
        """The events as lists, some of them empty, from the first event on.

        An engine that decodes batches itself does it with `decode`.
        """

    async def to_list(self) -> list[EventEnvelope]:
        """All of them."""
        return [envelope async for envelope in self]

    def __await__(self) -> Generator[Any, Any, list[EventEnvelope]]:
        """The same as `to_list()`."""
        return self.to_list().__await__()
