"""Conditional appends, as a client says them. Pure."""

from __future__ import annotations

from typing import Final

from eventlog.api.expectation import Expectation
from eventlog.errors import EventTooLarge, WriterUnavailable
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.wire.messages import AppendIf

HANG_UPS_MAX: Final = 3
"""By one writer, on one batch. One that lives may drop a client for other reasons, and have stored
the batch before, so this is no refusal, which would say that nothing is stored."""
KEY_OVERHEAD_BYTES: Final = 5 + 9
"""What a key takes in a message beside its text: the text's length, and its number."""
MESSAGE_OVERHEAD_BYTES: Final = 128


def expecting(
    request_id: int, producer_id: int, batch: OutBatch, expected: Expectation
) -> AppendIf:
    """The message for a batch; its payload is to be put behind it."""
    assert batch.packed is not None
    count, flags, _, _ = batch.packed
    base_seq_no = 0 if expected.last is None else expected.last + 1
    numbers = producer_id, batch.producer_seq, count, flags, base_seq_no
    return AppendIf(request_id, *numbers, expected.of_keys, b"")


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
