"""The index by key of a segment: in which of its batches events of a key may stand.

A file beside the segment. It lists no key but its hash (CRC-32), and so may name a batch that has
another key of that hash: whoever looks a key up here looks at the stored keys too::

    +--------+-------------------+--------------------------------------------- - - -
    | header | slots: 12 bytes   | entries: 8 bytes each, sorted by hash;
    |        | for each bucket   | bucket b has those whose hash begins with the bits b
    +--------+-------------------+--------------------------------------------- - - -

    key index header (64 bytes)
        0    8  magic            b"EVLOGKEY"
        8    2  version          of the format; an index of another one is made again
       10    2  byte_order       0x0102
       12    4  bucket_bits      bits of a hash that are the number of its bucket
       16    8  base_seq_no      of the segment
       24    8  end_seq_no       the number after the last event that is indexed
       32    8  entries          how many there are
       40    4  last_position    offset of the last batch that is indexed
       44    4  last_crc         the checksum of that batch
       48    4  is_whole         1: no batch before it was damaged
       52    8  whole_from       the first event after the last damage; 0: not known
       60    4  crc              CRC-32C of all before

    key index slot (12 bytes)
        0    4  start            entries before the bucket's first one
        4    4  end              entries up to its last one
        8    4  crc              CRC-32C of the bucket's number, start, end, and its entries

    key index entry (8 bytes)
        0    4  position         offset of a batch in the segment
        4    4  key_hash         of one key in it, or more

`make_key_index` makes it, of a segment that is full, when it is first needed. It is never synced,
and believed only as far as its checksums go. One that is missing, damaged, or of a segment that is
not what it was (the last batch tells) is made again, or done without by walking the segment.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from eventlog.checksum import crc32c
from eventlog.local.storage.files import Files
from eventlog.local.storage.formats.format import (
    BATCH_HEADER,
    BYTE_ORDER,
    HEADER_BYTES,
    VERSION,
    BatchHeader,
    key_index_name,
    segment_name,
)
from eventlog.local.storage.formats.key_runs import positions_in
from eventlog.local.storage.formats.layout import Field, Layout

MAGIC: Final = b"EVLOGKEY"
HEADER: Final = Layout(
    "key index header",
    Field("magic", "8s", 'b"EVLOGKEY"'),
    Field("version", "H", "of the format; an index of another one is made again"),
    Field("byte_order", "H", "0x0102"),
    Field("bucket_bits", "I", "bits of a hash that are the number of its bucket"),
    Field("base_seq_no", "Q", "of the segment"),
    Field("end_seq_no", "Q", "the number after the last event that is indexed"),
    Field("entries", "Q", "how many there are"),
    Field("last_position", "I", "offset of the last batch that is indexed"),
    Field("last_crc", "I", "the checksum of that batch"),
    Field("is_whole", "I", "1: no batch before it was damaged"),
    Field("whole_from", "8s", "the first event after the last damage; 0: not known"),
    Field("crc", "I", "CRC-32C of all before"),
)
SLOT: Final = Layout(
    "key index slot",
    Field("start", "I", "entries before the bucket's first one"),
    Field("end", "I", "entries up to its last one"),
    Field("crc", "I", "CRC-32C of the bucket's number, start, end, and its entries"),
)
ENTRY: Final = Layout(
    "key index entry",
    Field("position", "I", "offset of a batch in the segment"),
    Field("key_hash", "I", "of one key in it, or more"),
)
BUCKET_ENTRIES: Final = 64
"""About so many entries are read for a key: less than a page."""
BUCKET_BITS_MAX: Final = 20
_CRC: Final = struct.Struct("<I")
_BUCKET: Final = struct.Struct("<III")


class Extent(NamedTuple):
    """What a segment's index knows of."""

    base_seq_no: int
    end_seq_no: int
    """All events before this one are indexed."""
    last_position: int
    """Offset of the last batch."""
    last_crc: int
    is_whole: bool
    """No batch was damaged: whoever goes by the index passes nothing unseen."""
    whole_from: int
    """The first event after the last damage, after which nothing is unseen."""


class Found(NamedTuple):
    """What an index says of some keys."""

    extent: Extent
    positions: list[int]
    """Offsets of the batches that may hold events of these keys, in order."""

    def is_whole_at(self, seq_no: int) -> bool:
        """Whether a reader at that event can go by the index, and passes no damage unseen."""
        return self.extent.is_whole and seq_no < self.extent.end_seq_no


class _Unusable(Exception):
    """The file is no index, or not of this segment."""


def look_up(
    directory: str, base_seq_no: int, hashes: Collection[int], files: Files
) -> Found | None:
    """Where in the segment keys with these hashes may be; `None` if no index says it."""
    try:
        descriptor = files.open_read(os.path.join(directory, key_index_name(base_seq_no)))
    except OSError:
        return None
    try:
        extent, bits, entries = _read_header(descriptor, base_seq_no, files)
        _check_segment(directory, extent, files)
        found: set[int] = set()
        for key_hash in hashes:
            held = _read_bucket(descriptor, bits, entries, _bucket_of(key_hash, bits), files)
            found.update(positions_in(held, key_hash, bisect_left(held, key_hash << 32)))
        return Found(extent, sorted(found))
    except (OSError, _Unusable):
        return None
    finally:
        files.close(descriptor)


def index_fault(directory: str, base_seq_no: int, files: Files) -> str | None:
    """What is wrong with a segment's index by key, if there is one; every bucket is looked at."""
    try:
        descriptor = files.open_read(os.path.join(directory, key_index_name(base_seq_no)))
    except FileNotFoundError:
        return None
    try:
        extent, bits, entries = _read_header(descriptor, base_seq_no, files)
        _check_segment(directory, extent, files)
        for bucket in range(1 << bits):
            _read_bucket(descriptor, bits, entries, bucket, files)
    except _Unusable as error:
        return str(error)
    finally:
        files.close(descriptor)
    return None


def _read_header(descriptor: int, base_seq_no: int, files: Files) -> tuple[Extent, int, int]:
    """Extent, bits of a bucket's number, and entries."""
    packed = _read(descriptor, HEADER.size, 0, files)
    fields = HEADER.to_dict(packed)
    if fields["magic"] != MAGIC or fields["crc"] != crc32c(packed[: HEADER.size - _CRC.size]):
        raise _Unusable("is damaged")
    if fields["version"] != VERSION or fields["byte_order"] != BYTE_ORDER:
        raise _Unusable(f"is of format version {fields['version']}")
    if fields["base_seq_no"] != base_seq_no or fields["bucket_bits"] > BUCKET_BITS_MAX:
        raise _Unusable(f"is of segment {fields['base_seq_no']}")
    is_whole, end_seq_no = fields["is_whole"] == 1, fields["end_seq_no"]
    damaged_to = int.from_bytes(fields["whole_from"], "little") or end_seq_no
    extent = Extent(
        base_seq_no,
        end_seq_no,
        fields["last_position"],
        fields["last_crc"],
        is_whole,
        base_seq_no if is_whole else damaged_to,
    )
    return extent, fields["bucket_bits"], fields["entries"]


def _check_segment(directory: str, extent: Extent, files: Files) -> None:
    """Pass if the segment is the one that was indexed: its batches are told apart by checksums."""
    segment = files.open_read(os.path.join(directory, segment_name(extent.base_seq_no)))
    try:
        packed = _read(segment, HEADER_BYTES, extent.last_position, files)
    finally:
        files.close(segment)
    last = BatchHeader._make(BATCH_HEADER.unpack_from(packed))
    if last.crc != extent.last_crc or last.last_seq_no + 1 != extent.end_seq_no:
        raise _Unusable("is of a segment that is not what it was")


def _read_bucket(
    descriptor: int, bits: int, entries: int, bucket: int, files: Files
) -> Sequence[int]:
    slot = _read(descriptor, SLOT.size, HEADER.size + bucket * SLOT.size, files)
    start, end, crc = SLOT.unpack_from(slot)
    if not start <= end <= entries:
        raise _Unusable("is damaged")
    place = HEADER.size + (SLOT.size << bits) + start * ENTRY.size
    packed = _read(descriptor, (end - start) * ENTRY.size, place, files)
    if crc != bucket_crc(bucket, start, end, packed):
        raise _Unusable("is damaged")
    held = array("Q", packed)
    if sys.byteorder == "big":
        held.byteswap()
    return held


def _read(descriptor: int, size: int, position: int, files: Files) -> bytes:
    packed = files.read(descriptor, size, position)
    if len(packed) != size:
        raise _Unusable("is too short")
    return packed


def _bucket_of(key_hash: int, bits: int) -> int:
    return key_hash >> (32 - bits)


def bucket_crc(bucket: int, start: int, end: int, packed: bytes | memoryview) -> int:
    """The checksum of a bucket; never that of a hole in the file, which is zero."""
    return crc32c(packed, crc32c(_BUCKET.pack(bucket, start, end)))


def pack_header(extent: Extent, bits: int, entries: int) -> bytes:
    """The first bytes of an index."""
    packed = HEADER.pack(
        MAGIC,
        VERSION,
        BYTE_ORDER,
        bits,
        extent.base_seq_no,
        extent.end_seq_no,
        entries,
        extent.last_position,
        extent.last_crc,
        int(extent.is_whole),
        extent.whole_from.to_bytes(8, "little"),
        0,
    )
    return packed[: -_CRC.size] + _CRC.pack(crc32c(packed[: -_CRC.size]))


def bits_for(entries: int) -> int:
    """How many bits of a hash number its bucket, in an index of so many entries."""
    return min((entries // BUCKET_ENTRIES).bit_length(), BUCKET_BITS_MAX)


def packed_buckets(
    entries: list[int], buckets: range, bits: int, start: int
) -> tuple[bytes, bytes]:
    """Slots and entries of these buckets; so many entries, in order, stand before them."""
    packed = struct.pack(f"<{len(entries)}Q", *entries)
    slots, place = [], 0
    for bucket in buckets:
        end = bisect_left(entries, (bucket + 1) << (64 - bits), place)
        held = packed[place * ENTRY.size : end * ENTRY.size]
        crc = bucket_crc(bucket, start + place, start + end, held)
        slots.append(SLOT.pack(start + place, start + end, crc))
        place = end
    return b"".join(slots), packed
