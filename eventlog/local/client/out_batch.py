"""A batch on its way to the writer, and the message that carries it; pure."""

from __future__ import annotations

from typing import Any, Final

from eventlog.api.batches import SentBatch
from eventlog.api.expectation import Expectation
from eventlog.errors import EventLogError, EventTooLarge, WriterUnavailable
from eventlog.event.record_batch import BatchParts
from eventlog.local.wire.connection import append_head, frame
from eventlog.local.wire.messages import FOLLOWS, Append, AppendIf, AppendStaged

HANG_UPS_MAX: Final = 3
"""By one writer, on one batch. One that lives may drop a client for other reasons, and have stored
the batch before, so this is no refusal, which would say that nothing is stored."""
KEY_OVERHEAD_BYTES: Final = 5 + 9
"""What a key takes in a message beside its text: the text's length, and its number."""
MESSAGE_OVERHEAD_BYTES: Final = 128


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

    def head(self, producer_id: int) -> bytes:
        """The message that carries it, up to its payload; all of it for one in the ring."""
        assert self.packed is not None
        count, flags, acks_bytes, _ = self.packed
        if self.before is not None:
            flags |= FOLLOWS
        numbers = self.request_id, producer_id, self.producer_seq, count, flags
        if self.place is not None:
            return frame(AppendStaged(*numbers, self.place, self.size))
        expected = self.expected
        if expected is None:
            return append_head(Append(*numbers, acks_bytes, b""), self.size)
        base_seq_no = 0 if expected.last is None else expected.last + 1
        return append_head(AppendIf(*numbers, base_seq_no, expected.of_keys, b""), self.size)

    def finish(self, base_seq_no: int | None, error: EventLogError | None) -> None:
        """Note the answer."""
        self.base_seq_no, self.error = base_seq_no, error
        self.packed = self.before = None
        if self.on_done is not None:
            self.on_done()


def check_fits(size: int, expected: Expectation, frame_bytes_max: int, path: str) -> None:
    """Pass if one message can hold the keys, and a batch of that size.

    Raises:
        EventTooLarge: it cannot.
    """
    keys_bytes = sum(len(key.encode()) + KEY_OVERHEAD_BYTES for key in expected.of_keys)
    size += keys_bytes + MESSAGE_OVERHEAD_BYTES
    if size > frame_bytes_max:
        raise EventTooLarge(
            f"the events and the keys that are expected take {size} bytes in the log {path}, and a"
            f" conditional append has {frame_bytes_max}: give fewer or smaller ones",
            path=path,
            stored=0,
        )


def hung_up(path: str) -> WriterUnavailable:
    """The error for a batch that a living writer hangs up on, again and again."""
    return WriterUnavailable(
        f"the writer of the log {path} hung up {HANG_UPS_MAX} times on a conditional append: it is"
        " of an earlier release, most likely, which knows none; close all handles of the log, or"
        " restart `eventlog serve`, so that a writer of this release serves it",
        path=path,
    )
