"""Conditional appends, as a client says them. Pure."""

from __future__ import annotations

from typing import Final

from eventlog.api.expectation import Expectation
from eventlog.api.refusals import not_supported
from eventlog.errors import EventTooLarge, NotSupported
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.wire.messages import AppendIf

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


def not_known(path: str) -> NotSupported:
    """The error for a batch that a writer hangs up on."""
    return not_supported(
        "local",
        "expect",
        path,
        "its writer is of an earlier release, which knows no conditional appends: close all handles"
        " of the log, or restart `eventlog serve`, so that a writer of this release serves it",
    )
