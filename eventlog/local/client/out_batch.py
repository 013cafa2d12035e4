"""A batch on its way to the writer, and the batches of one call; pure."""

from __future__ import annotations

from typing import Any

from eventlog.errors import EventLogError
from eventlog.event.many_events import stored_before
from eventlog.event.record_batch import BatchParts


class OutBatch:
    """A batch from the moment its first event is added until the writer's answer."""

    __slots__ = (
        "base_seq_no",
        "before",
        "error",
        "is_sealed",
        "on_done",
        "packed",
        "place",
        "producer_seq",
        "request_id",
        "rows",
        "size",
    )

    def __init__(self) -> None:
        self.packed: BatchParts | None = None
        self.producer_seq = 0
        self.request_id = 0
        self.place: int | None = None
        """Where it lies in the staging ring."""
        self.is_sealed = False
        self.size = 0
        """Its bytes, once it is sent."""
        self.rows = 0
        """Events that were added whole: an interrupt may leave half of one more."""
        self.base_seq_no: int | None = None
        self.error: EventLogError | None = None
        self.before: OutBatch | None = None
        """The batch of the same call that it follows."""
        self.on_done: Any = None
        """Called once, when the answer is there: for a shell that does not wait in `deliver`."""

    @property
    def is_done(self) -> bool:
        """Whether the writer has answered."""
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

    def finish(self, base_seq_no: int | None, error: EventLogError | None) -> None:
        """Note the answer."""
        self.base_seq_no, self.error = base_seq_no, error
        self.packed = self.before = None
        if self.on_done is not None:
            self.on_done()


class ManyBatches:
    """The batches of one `append_many` or `send_many`, in order."""

    __slots__ = ("batches",)

    def __init__(self, batches: list[OutBatch]) -> None:
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


def copy_of(error: EventLogError) -> EventLogError:
    """The same error for another caller: one object raised twice would mix their tracebacks."""
    twin = type(error)(str(error), **error.fields)
    twin.__cause__ = error.__cause__
    return twin
