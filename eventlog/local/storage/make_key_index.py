"""Making the index by key of a segment, in steps of about a millisecond.

Who makes it pays for it, about a microsecond for each event, once: a reader that asks for one key
and may write there, or the writer of a log that is appended to with `expect=`. Nobody else does, so
that a log whose keys nobody asks for costs what it did. What a process makes gets its name when it
is whole; two that make the same one make the same bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import count
from typing import Final

from eventlog.errors import EventLogError
from eventlog.event.record_batch import FLAG_KEYED, PackedBatch
from eventlog.event.text_columns import KEY_HASH_BYTES
from eventlog.local.storage.files import Files
from eventlog.local.storage.formats.format import (
    FIRST_BATCH,
    HEADER_BYTES,
    BatchHeader,
    aligned,
    key_index_name,
    segment_name,
)
from eventlog.local.storage.formats.key_runs import KeyRuns
from eventlog.local.storage.formats.recovery import whole_batches
from eventlog.local.storage.key_index import (
    ENTRY,
    SLOT,
    Extent,
    bits_for,
    pack_header,
    packed_buckets,
)
from eventlog.local.storage.segment import SegmentReader

STEP_BYTES: Final = 256 * 1024
STEP_BATCHES: Final = 256
"""So much of a segment is looked at in one step."""
STEP_ENTRIES: Final = 4096
"""So many entries are put in order in one step."""


_COUNT: Final = count()
"""Number of the next file that this process makes."""


def hashes_of(flags: int, count: int, payload: bytes | memoryview) -> set[int]:
    """The hashes of the keys of a batch."""
    if not flags & FLAG_KEYED:
        return set()
    if count == 1:
        return {int.from_bytes(payload[:KEY_HASH_BYTES], "little")}
    return set(struct.unpack_from(f"<{count}I", payload))


class Collected:
    """The entries of one segment, as far as it was looked at; of a part, from `first_seq_no` on."""

    def __init__(self, base_seq_no: int, first_seq_no: int | None = None) -> None:
        self.runs = KeyRuns()
        self.base_seq_no = base_seq_no
        self.first_seq_no = self._end_seq_no = first_seq_no or base_seq_no
        self._whole_from = self.first_seq_no
        self._last_position = self._last_crc = 0

    @property
    def extent(self) -> Extent:
        """What was looked at."""
        last = self._last_position, self._last_crc
        is_whole = self._whole_from == self.first_seq_no
        return Extent(self.base_seq_no, self._end_seq_no, *last, is_whole, self._whole_from)

    def note(
        self,
        batch: BatchHeader | PackedBatch,
        base_seq_no: int,
        position: int,
        crc: int,
        payload: bytes | memoryview,
    ) -> set[int]:
        """Another batch of the segment, after those before it; the hashes of its keys."""
        hashes = hashes_of(batch.flags, batch.count, payload)
        self.runs.add(hashes, position)
        if base_seq_no != self._end_seq_no:
            self._whole_from = base_seq_no
        self._end_seq_no = base_seq_no + batch.count
        self._last_position, self._last_crc = position, crc
        return hashes


def collect(segment: SegmentReader, collected: Collected, end: int) -> Iterator[None]:
    """Note all batches before the offset `end` that are whole, step by step."""
    position, seq_no = FIRST_BATCH, segment.base_seq_no
    batches = bytes_seen = 0
    while True:
        for header, place in whole_batches(segment.view, position, seq_no, end):
            area = place + HEADER_BYTES
            with segment.view[area : area + KEY_HASH_BYTES * header.count] as hashes:
                collected.note(header, header.base_seq_no, place, header.crc, hashes)
            position, seq_no = aligned(place + header.length), header.last_seq_no + 1
            batches, bytes_seen = batches + 1, bytes_seen + header.length
            if batches >= STEP_BATCHES or bytes_seen >= STEP_BYTES:
                yield
                batches = bytes_seen = 0
                if segment.is_cut_off:
                    return
        found = segment.find_batch_after(position, seq_no) if position < end else None
        if found is None or found[0] >= end:
            return
        position, seq_no = found[0], found[1].base_seq_no


def collect_all(directory: str, collected: Collected, files: Files) -> Iterator[None]:
    """Note all batches of a full segment, step by step.

    Raises (from the iterator):
        FileNotFoundError: there is no such segment.
        CorruptLog, StorageFailed: it cannot be read.
    """
    segment = SegmentReader(directory, collected.base_seq_no, files)
    try:
        yield from collect(segment, collected, segment.data_end())
    finally:
        segment.close()


def make_key_index(directory: str, base_seq_no: int, files: Files) -> Iterator[None]:
    """Make the index of a full segment, step by step; without room for it there is none.

    Raises (from the iterator):
        FileNotFoundError, CorruptLog, StorageFailed: as `collect_all`.
    """
    collected = Collected(base_seq_no)
    yield from collect_all(directory, collected, files)
    yield from save(directory, collected, files)


def save(directory: str, collected: Collected, files: Files) -> Generator[None, None, bool]:
    """Put the index into its file, step by step; whether it is there: it needs room."""
    if not collected.extent.last_position:
        return False
    path = os.path.join(directory, key_index_name(collected.base_seq_no))
    temporary = f"{path}.{os.getpid()}.{next(_COUNT)}.new"  # threads may make the same one
    try:
        descriptor = files.create(temporary)
    except OSError:
        return False
    try:
        yield from _write(descriptor, collected, files)
        files.rename(temporary, path)
    except OSError:
        with suppress(OSError):
            files.unlink(temporary)
        return False
    except BaseException:
        with suppress(OSError):
            files.unlink(temporary)
        raise
    finally:
        files.close(descriptor)
    # Retention may have deleted the segment meanwhile: nobody else would look for its index.
    if not os.path.exists(os.path.join(directory, segment_name(collected.base_seq_no))):
        with suppress(OSError, EventLogError):
            files.unlink(path)
    return True


def _write(descriptor: int, collected: Collected, files: Files) -> Iterator[None]:
    entries = len(collected.runs)
    bits = bits_for(entries)
    parts_bits = min((entries // STEP_ENTRIES).bit_length(), bits)
    header = pack_header(collected.extent, bits, entries)
    place = len(header) + (SLOT.size << bits)
    slots, start = [header], 0
    for part, some in enumerate(collected.runs.merged(1 << parts_bits)):
        of_part = 1 << (bits - parts_bits)
        buckets = range(part * of_part, (part + 1) * of_part)
        packed_slots, packed = packed_buckets(some, buckets, bits, start)
        files.write(descriptor, [packed], place + start * ENTRY.size)
        slots.append(packed_slots)
        start += len(some)
        yield
    files.write(descriptor, slots, 0)
