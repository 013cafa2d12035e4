"""Batches on their way, those of one call, and the handles of their events; for any engine. Pure.

A batch of an engine is a subclass of `SentBatch`, with whatever else the engine knows of it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from eventlog.api.publisher import AppendHandle, ManyHandle
from eventlog.errors import EventLogError
from eventlog.event.many_events import stored_before


class SentBatch:
    """A batch from the moment its first event is added until it is answered."""

    __slots__ = ("base_seq_no", "before", "error", "rows")

    def __init__(self) -> None:
        self.rows = 0
        """Events that were added whole: an interrupt may leave half of one more."""
        self.base_seq_no: int | None = None
        self.error: EventLogError | None = None
        self.before: SentBatch | None = None
        """The batch of the same call that it follows."""

    @property
    def is_done(self) -> bool:
        """Whether it is answered."""
        return self.base_seq_no is not None or self.error is not None

    def seq_no_of(self, row: int) -> int:
        """The number of one of its events.

        Raises:
            EventLogError: the batch was refused.
        """
        if self.error is not None:
            raise copy_of(self.error)
        assert self.base_seq_no is not None
        return self.base_seq_no + row


B = TypeVar("B", bound=SentBatch)


class ManyBatches(Generic[B]):
    """The batches of one `append_many` or `send_many`, in order."""

    __slots__ = ("batches",)

    def __init__(self, batches: Sequence[B]) -> None:
        self.batches = batches

    @property
    def stored(self) -> int:
        """How many events are known to be stored: always the first ones."""
        stored = 0
        for batch in self.batches:
            if batch.base_seq_no is None:
                break
            stored += batch.rows
        return stored

    @property
    def numbers(self) -> tuple[int, int] | None:
        """The first and the last number; `None` if not all are stored."""
        first, last = self.batches[0].base_seq_no, self.batches[-1].base_seq_no
        if first is None or last is None:
            return None
        return first, last + self.batches[-1].rows - 1

    def result(self) -> tuple[int, int]:
        """The first and the last number, once all are answered.

        Raises:
            EventLogError: the first `error.stored` events are stored, the others are not.
        """
        for batch in self.batches:
            if batch.error is not None:
                raise stored_before(batch.error, self.stored) from batch.error.__cause__
        numbers = self.numbers
        assert numbers is not None
        return numbers


class ManyRows(Generic[B]):
    """A list of one `send_many` that shares a batch with what was sent before and after it."""

    __slots__ = ("_batch", "_count", "_row")

    def __init__(self, batch: B, row: int, count: int) -> None:
        self._batch, self._row, self._count = batch, row, count

    @property
    def batches(self) -> Sequence[B]:
        """The batch."""
        return (self._batch,)

    @property
    def numbers(self) -> tuple[int, int] | None:
        """The first and the last number; `None` until they are stored."""
        base = self._batch.base_seq_no
        return None if base is None else (base + self._row, base + self._row + self._count - 1)

    def result(self) -> tuple[int, int]:
        """The first and the last number, once the batch is answered.

        Raises:
            EventLogError: none of the list is stored.
        """
        error = self._batch.error
        if error is not None:
            raise stored_before(error, 0) from error.__cause__
        numbers = self.numbers
        assert numbers is not None
        return numbers


class Answers(Protocol):
    """What a handle asks of its publisher."""

    async def wait_done(self, batch: Any) -> None:
        """Wait until the batch is answered."""


class HandleOfRow(msgspec.Struct, eq=False, gc=False):
    """See `AppendHandle`. A struct: one is made for every event, in a quarter of a class's time."""

    _publisher: Answers
    _batch: SentBatch
    _row: int

    @property
    def seq_no(self) -> int | None:
        """The event's number; `None` until it is answered."""
        base = self._batch.base_seq_no
        return None if base is None else base + self._row

    async def result(self) -> int:
        """Wait for the event's number."""
        await self._publisher.wait_done(self._batch)
        return self._batch.seq_no_of(self._row)

    def __await__(self) -> Generator[Any, Any, int]:
        """The same as `result()`."""
        return self.result().__await__()


AppendHandle.register(HandleOfRow)


class HandleOfMany(ManyHandle):
    """See `ManyHandle`."""

    def __init__(self, publisher: Answers, many: ManyBatches[Any] | ManyRows[Any]) -> None:
        self._publisher = publisher
        self._many = many

    @property
    def seq_nos(self) -> tuple[int, int] | None:
        """The first and the last number; `None` until all are stored."""
        return self._many.numbers

    async def result(self) -> tuple[int, int]:
        """Wait for the first and the last number."""
        for batch in self._many.batches:
            await self._publisher.wait_done(batch)
        return self._many.result()


def copy_of(error: EventLogError) -> EventLogError:
    """A copy of the error for another caller: one object raised twice mixes their tracebacks."""
    twin = type(error)(str(error), **error.fields)
    twin.__cause__ = error.__cause__
    return twin
