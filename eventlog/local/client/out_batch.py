"""A batch on its way to the writer, and the ring through which a large one goes; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from eventlog.api.batches import SentBatch
from eventlog.api.expectation import Expectation
from eventlog.errors import EventLogError
from eventlog.event.record_batch import BatchParts


class OutBatch(SentBatch):
    """A batch from the moment its first event is added until the writer's answer."""

    __slots__ = (
        "expected",
        "is_sealed",
        "on_done",
        "packed",
        "place",
        "producer_seq",
        "request_id",
        "size",
    )

    def __init__(self) -> None:
        super().__init__()
        self.packed: BatchParts | None = None
        self.expected: Expectation | None = None
        """What a conditional append expects."""
        self.producer_seq = 0
        self.request_id = 0
        self.place: int | None = None
        """Where it lies in the staging ring."""
        self.is_sealed = False
        self.size = 0
        """Its bytes, once it is sent."""
        self.on_done: Any = None
        """Called once, when the answer is there: for a shell that does not wait in `deliver`."""

    def finish(self, base_seq_no: int | None, error: EventLogError | None) -> None:
        """Note the answer."""
        self.base_seq_no, self.error = base_seq_no, error
        self.packed = self.before = None
        if self.on_done is not None:
            self.on_done()


class Ring(Protocol):
    """What an outbox knows of a staging ring (see `staging`)."""

    def put(self, parts: Sequence[bytes | memoryview], size: int) -> int | None:
        """Copy a batch there; its place, or `None` if there is no room."""

    def release(self, place: int) -> None:
        """The batch there has its answer."""

    def close(self) -> None:
        """Give it back."""
