"""The part of a writer's log that deletes segments: by retention, for room, and by a trim.

Retention decides by the ages of segments.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

from eventlog.api.refusals import full_by_retention, not_acknowledged
from eventlog.api.times import SLACK_NS, LogClock, believable
from eventlog.config import LogOptions, Retention
from eventlog.errors import EventLogError
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.files import Files, os_errors
from eventlog.local.storage.formats.format import (
    FIRST_BATCH,
    index_name,
    key_index_name,
    segment_name,
)
from eventlog.local.storage.formats.recovery import SealedSegment
from eventlog.local.storage.log.last_of_keys import LastOfKeys
from eventlog.local.storage.offsets import OffsetTable
from eventlog.local.storage.segment import SegmentWriter
from eventlog.local.storage.spare import Spare


class RetiringLog(ABC):
    """What `WritableLog` does to its oldest segments. The active one is never deleted."""

    directory: str
    control: ControlPage
    offsets: OffsetTable
    files: Files
    spare: Spare
    _sealed: list[SealedSegment]
    _active: SegmentWriter | None
    _unsynced: list[SegmentWriter]
    clock: LogClock
    _producers_to: int
    keys: LastOfKeys | None

    @property
    @abstractmethod
    def options(self) -> LogOptions:
        """As they are now."""

    @property
    @abstractmethod
    def last_seq_no(self) -> int:
        """The number of the last event ever appended; 0 if there was none."""

    @abstractmethod
    def _save_producers(self) -> None:
        """Replace the snapshot with one of all that was appended until now."""

    def retire(self) -> None:
        """Delete whole segments that are over a limit, as far as consumers allow it."""
        retention = self.options.retention
        if retention.max_bytes is not None:
            while self._sealed and self._total_bytes() > retention.max_bytes:
                if not self._retire_oldest():
                    break
        if retention.max_age is not None:
            learn_ages(self._sealed, self.clock)
            while self._sealed and is_older(self._sealed[0], retention, self.clock):
                if not self._retire_oldest():
                    break

    def _note_clock(self) -> None:
        """Leave the next writer what the wall clock had settled on."""
        offset = self.clock.offset
        if abs(self.control.clock_offset - offset) > SLACK_NS and self.clock.is_settled:
            self.control.clock_offset = max(offset, 0)

    def _make_room_to_roll(self) -> None:
        """Delete what has to go so that one segment more is within the limit.

        The active segment is full by then, so whoever has acknowledged all of it lets it go too,
        right after it is sealed.
        """
        self.retire()
        self._make_room(lambda: self._total_bytes() + self.options.segment_bytes)

    def _make_room_in_active(self, active: SegmentWriter, length: int) -> bool:
        """Delete what has to go so that the active segment may take a batch of that length.

        Of that segment only what is stored in it counts against the limit.
        False if that segment alone is over the limit and a consumer has acknowledged all of it:
        another segment lets it go.
        """

        def stored() -> int:
            return len(self._sealed) * self.options.segment_bytes + active.position + length

        is_within = self._make_room(stored)
        return is_within or active.position == FIRST_BATCH or self.offsets.lowest() is None

    def _make_room(self, stored: Callable[[], int]) -> bool:
        """Delete sealed segments until so many bytes are within the limit; whether they are.

        Raises:
            LogFull: they are not, and a consumer needs what would have to go.
        """
        retention = self.options.retention
        limit = retention.max_bytes
        if limit is None or not retention.keep_unacked:
            return True
        while self._sealed and stored() > limit and self._retire_oldest():
            pass
        if self._active is None or stored() <= limit:
            return True
        behind = self._last_consumer()
        if behind is not None and behind[0] < self._base_after_oldest() - 1:
            raise full_by_retention(str(self.directory), limit, behind[1], behind[0] + 1)
        return False

    def _base_after_oldest(self) -> int:
        """The first number that is not in the oldest segment."""
        if len(self._sealed) > 1:
            return self._sealed[1].base_seq_no
        return self._active.base_seq_no if self._sealed and self._active else self.last_seq_no + 1

    def _retire_oldest(self) -> bool:
        """Delete the oldest sealed segment; false if a consumer still needs it."""
        first_kept = self._base_after_oldest()
        lowest = self.offsets.lowest() if self.options.retention.keep_unacked else None
        if lowest is not None and lowest < first_kept - 1:
            return False
        self._delete_oldest()
        return True

    def _delete_oldest(self) -> None:
        first_kept = self._base_after_oldest()
        if self._producers_to < first_kept - 1:
            # Killed writers saved none since: once the segment is gone, only a snapshot tells that
            # its batches were stored. Without room for one, deleting is what makes some.
            with suppress(EventLogError):
                self._save_producers()
        base_seq_no = self._sealed[0].base_seq_no
        self.control.first_available = first_kept
        if self.options.durability != "memory":
            # On the disk too, with the synced mark: when the segments are gone, nothing else there
            # says which numbers the log has given.
            self.control.sync()
        is_synced = all(segment.base_seq_no != base_seq_no for segment in self._unsynced)
        delete_segment(self.directory, base_seq_no, self.files, self.spare if is_synced else None)
        del self._sealed[0]
        if self.keys is not None:
            self.keys.retire(base_seq_no)

    def trim(self, before: int, *, force: bool) -> int:
        """Delete the whole segments before an event, whatever retention says; how many events went.

        Raises:
            NotAcknowledged: a consumer needs one of them; nothing is deleted.
        """
        first = self.control.first_available
        bases = [segment.base_seq_no for segment in self._sealed[1:]]
        bases.append(self._active.base_seq_no if self._active else self.last_seq_no + 1)
        first_kept = max((base for base in bases if base <= before), default=first)
        if first_kept <= first:
            return 0
        behind = self._last_consumer()
        if not force and behind is not None and behind[0] < first_kept - 1:
            raise not_acknowledged(self.directory, behind[1], behind[0] + 1, first_kept - 1)
        while self._sealed and self._base_after_oldest() <= first_kept:
            self._delete_oldest()
        return first_kept - first

    def _last_consumer(self) -> tuple[int, str] | None:
        """Position and name of the consumer that is furthest behind; `None` without consumers."""
        return min(((one.position, one.name) for one in self.offsets.all()), default=None)

    def _total_bytes(self) -> int:
        return (len(self._sealed) + (self._active is not None)) * self.options.segment_bytes


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
