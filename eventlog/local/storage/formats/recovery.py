"""What a segment holds, found by walking its batches; and what to do with what is damaged. Pure.

A walk ends at the first place where no whole batch begins. What that means is decided by one table,
after a look for whole batches further on (`found`) and with the last number that cannot have been
lost (`trusted`: what was published if only processes died, what was synced if the power failed):

=========================  ===================  ============================================
what is at the place       whole batches after  then
=========================  ===================  ============================================
a length of zero, no data  none                 the end
anything else              none                 a torn tail: cut, and reported
anything                   some, and the next   corrupt in the middle: kept and reported; the
                           number is trusted    numbers in between are lost, all others served
anything                   some, and the next   an unsynced hole after a loss of power: cut
                           number isn't         from the hole on, and reported
=========================  ===================  ============================================

Cutting writes zeros to the end of the segment, so that no remains of a cut batch are ever taken for
what comes after a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from eventlog.config import BATCH_EVENTS_LIMIT
from eventlog.local.storage.formats.format import (
    ALIGNMENT,
    FIRST_BATCH,
    HEADER_BYTES,
    BatchHeader,
    IndexEntry,
    aligned,
    batch_fault,
    unpack_batch_header,
)
from eventlog.local.storage.formats.range_sums import RangeSums


class Damage(NamedTuple):
    """A range of events that are not there any more, and why; `last_seq_no` is `None` at a tail."""

    first_seq_no: int
    last_seq_no: int | None
    reason: str


@dataclass(slots=True)
class Scan:
    """What one segment holds."""

    end: int
    """Offset after the last whole batch: where the next one goes."""
    next_seq_no: int
    last_append_time_ns: int = 0
    is_torn: bool = False
    """Something that is no batch stands at `end`."""
    damages: list[Damage] = field(default_factory=list)


@dataclass(slots=True)
class SealedSegment:
    """What the writer remembers of a segment that is full."""

    base_seq_no: int
    newest_ns: int
    """The append time of its last event, or a little later; 0: unknown."""
    steady_ns: int | None = None
    """That time by the clock that never jumps (see `times`), once it is known."""


class StoredAcks(NamedTuple):
    """The acknowledgements that stand in a batch of results (see `groups.acks`)."""

    base_seq_no: int
    last_seq_no: int
    area: bytes


def scan_segment(
    buffer: memoryview,
    base_seq_no: int,
    trusted: int,
    *,
    start: IndexEntry | None = None,
    is_end_clean: bool = False,
    data_end: int | None = None,
    on_batch: Callable[[BatchHeader, int], None] | None = None,
) -> Scan:
    """Walk a segment from its first batch, or from an index entry, to where it ends.

    `on_batch` is given the header and position of each whole batch. With `is_end_clean` what comes
    after the last whole batch is not looked at. What begins at `data_end` or later is not either:
    there are only zeros (see `Files.data_end`).
    """
    data_end = len(buffer) if data_end is None else data_end
    scan = Scan(
        end=start.position if start else FIRST_BATCH,
        next_seq_no=start.base_seq_no if start else base_seq_no,
    )
    while True:
        for header, position in whole_batches(buffer, scan.end, scan.next_seq_no, data_end):
            scan.end = aligned(position + header.length)
            scan.next_seq_no = header.last_seq_no + 1
            scan.last_append_time_ns = header.append_time_ns
            if on_batch is not None:
                on_batch(header, position)
        if is_end_clean:
            return scan
        found = find_batch_after(buffer, scan.end, scan.next_seq_no, data_end)
        if found is None or scan.next_seq_no > trusted:
            scan.is_torn = found is not None or has_data(buffer[:data_end], scan.end)
            if scan.is_torn or scan.next_seq_no <= trusted:
                fault = fault_at(buffer, scan, data_end)
                scan.damages.append(Damage(scan.next_seq_no, None, fault))
            return scan
        position, header = found
        lost = Damage(scan.next_seq_no, header.base_seq_no - 1, fault_at(buffer, scan, data_end))
        scan.damages.append(lost)
        scan.end, scan.next_seq_no = position, header.base_seq_no


def whole_batches(
    buffer: memoryview, position: int, next_seq_no: int, data_end: int
) -> Iterator[tuple[BatchHeader, int]]:
    """Whole batches from `position` on, in order and without a gap in their numbers."""
    while position < data_end and position + HEADER_BYTES <= len(buffer):
        header = unpack_batch_header(buffer, position)
        if header.length == 0 or header.base_seq_no != next_seq_no:
            return
        if batch_fault(buffer, position, header) is not None:
            return
        yield header, position
        position = aligned(position + header.length)
        next_seq_no = header.last_seq_no + 1


def find_batch_after(
    buffer: memoryview, position: int, seq_no: int, data_end: int
) -> tuple[int, BatchHeader] | None:
    """The next whole batch with a number above `seq_no`, wherever before `data_end` it begins.

    Lengths cannot be trusted here, so every place where a batch may begin is tried; the cheap
    checks come first, and overlapping claims to be a batch do not make the checksums long. First of
    all is the place that the damaged batch itself tells, as its payload may hold a batch of
    somebody's.
    """
    if (following := _batch_after_damaged(buffer, position, seq_no)) is not None:
        return following
    sums = RangeSums(buffer, position)
    for place in nonzero_places(buffer[:data_end], position):
        if place + HEADER_BYTES > len(buffer):
            return None
        header = unpack_batch_header(buffer, place)
        if not seq_no <= header.base_seq_no <= seq_no + place * BATCH_EVENTS_LIMIT:
            continue  # it is none, or more events than there is room for would be before it
        if batch_fault(buffer, place, header, verify=False) is not None:
            continue
        if sums.sum_of(place + 4, place + header.length) == header.crc:
            return place, header
    return None


def _batch_after_damaged(
    buffer: memoryview, position: int, seq_no: int
) -> tuple[int, BatchHeader] | None:
    """The whole batch that follows a damaged one whose header is right."""
    if position + HEADER_BYTES > len(buffer):
        return None
    damaged = unpack_batch_header(buffer, position)
    place = aligned(position + damaged.length)
    if damaged.base_seq_no < seq_no or place + HEADER_BYTES > len(buffer):
        return None
    header = unpack_batch_header(buffer, place)
    if header.base_seq_no != damaged.last_seq_no + 1 or batch_fault(buffer, place, header):
        return None
    return (place, header) if batch_fault(buffer, position, damaged) else None


def nonzero_places(buffer: memoryview, position: int) -> Iterator[int]:
    """The aligned places from `position` on, without the pages that hold only zeros."""
    page = 4096
    zeros = bytes(page)
    while position < len(buffer):
        stop = min((position // page + 1) * page, len(buffer))
        # A header may begin in this page and show its first non-zero byte only in the next one,
        # so a page of zeros is skipped up to a header's size before its end.
        if buffer[position:stop] == zeros[: stop - position]:
            position = max(position, (stop - HEADER_BYTES) & ~(ALIGNMENT - 1))
        yield from range(position, stop, ALIGNMENT)
        position = stop


def has_data(buffer: memoryview, position: int) -> bool:
    """Whether anything but zeros stands from `position` on."""
    step = 1 << 20
    zeros = bytes(step)
    for start in range(position, len(buffer), step):
        stop = min(start + step, len(buffer))
        if buffer[start:stop] != zeros[: stop - start]:
            return True
    return False


def fault_at(buffer: memoryview, scan: Scan, data_end: int) -> str:
    """In words, why no whole batch begins where a scan stopped."""
    if scan.end + HEADER_BYTES > len(buffer):
        return "data after the last place for a batch"
    header = unpack_batch_header(buffer, scan.end) if scan.end < data_end else None
    if header is None or header.length == 0:
        return "a batch that was never finished"
    fault = batch_fault(buffer, scan.end, header)
    return fault or f"event {header.base_seq_no} in the place of {scan.next_seq_no}"
