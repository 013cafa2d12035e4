"""What retention decides by, the ages of segments; and how it deletes one."""

from __future__ import annotations

import os

from eventlog.api.times import LogClock, believable
from eventlog.config import Retention
from eventlog.local.storage.files import Files, os_errors
from eventlog.local.storage.formats.format import index_name, key_index_name, segment_name
from eventlog.local.storage.formats.recovery import SealedSegment
from eventlog.local.storage.spare import Spare


def is_older(segment: SealedSegment, retention: Retention, clock: LogClock) -> bool:
    """Whether all events of the segment are older than retention keeps them, as far as is known."""
    if retention.max_age is None or segment.steady_ns is None:
        return False
    return segment.steady_ns < clock.steady() - int(retention.max_age.total_seconds() * 1e9)


def learn_ages(sealed: list[SealedSegment], clock: LogClock, *, is_trusted: bool = False) -> None:
    """Find the ages of the segments that were there at the start, once the clock is right.

    If it `is_trusted`, because of what the earlier writer noted, that is at once.
    """
    unknown = [segment for segment in sealed if segment.steady_ns is None]
    if not unknown or not (is_trusted or clock.is_settled):
        return
    now = clock.steady() + clock.offset
    times = believable([segment.newest_ns for segment in unknown], now)
    for segment, newest_ns in zip(unknown, times, strict=True):
        segment.steady_ns = newest_ns - clock.offset


def delete_segment(
    directory: str, base_seq_no: int, files: Files, spare: Spare | None = None
) -> None:
    """Delete a segment and its indexes; its file becomes the spare one if that is wanted."""
    path = os.path.join(directory, segment_name(base_seq_no))
    with os_errors(directory, "deleting a retired segment"):
        if spare is None or not spare.recycle(path):
            files.unlink(path)
        for name in (index_name(base_seq_no), key_index_name(base_seq_no)):
            files.unlink(os.path.join(directory, name))
