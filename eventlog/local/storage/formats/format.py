"""The bytes of a segment and of its index: layouts, packing and checking; pure.

A segment is a file of fixed size, allocated whole before use. Its name is the number of its first
event. Batches lie in it one after the other, each at a multiple of 8 bytes; after the last one
there are only zeros::

    +---------+---------+--------------+-------+---------+------ - - -
    | segment | batch   | batch        | pad   | batch   | zeros: nothing here yet
    | header  | header  | payload      | to 8  | header  |
    +---------+---------+--------------+-------+---------+------ - - -

    segment header (64 bytes)
        0    8  magic            b"EVLOGSEG"
        8    2  version          of the format; another one is refused, not guessed at
       10    2  byte_order       0x0102; 0x0201 was written on a machine of the other order
       12    2  header_bytes     of this header
       14    2  batch_bytes      of a batch header
       16    8  base_seq_no      number of the first event
       24    8  segment_bytes    size of the file
       32    8  epoch            of the writer that made the segment
       40    8  created_ns       the writer's clock, nanoseconds since 1970
       48   12  reserved         zero
       60    4  crc              CRC-32C of all before

    batch header (64 bytes)
        0    4  crc              CRC-32C of all that follows, header and payload
        4    4  length           of header and payload without padding; written last, 0: nothing yet
        8    8  base_seq_no      number of the first event
       16    8  append_time_ns   the writer's clock, never less than in the batch before
       24    8  producer_id      random, of one connection's producer; 0: none
       32    8  producer_seq     the producer's count of batches, from 1
       40    4  count            of events
       44    2  flags            1: key hashes; 2: causes; 4: due times; others: see *Versions*
       46    2  header_bytes     of this header
       48    4  epoch            of the writer that stored the batch
       52    4  acks_bytes       of the acknowledgements in the payload
       56    8  reserved         zero

    index entry (24 bytes)
        0    8  base_seq_no      of a batch; 0: no entry yet
        8    8  append_time_ns   of that batch
       16    4  position         offset of the batch in the segment
       20    4  crc              CRC-32C of the fields before

The payload is described in `eventlog.event.record_batch`.

**Versions.** `version` is that of the whole log: the same in the control page, which decides, and
in the segments, the offset table and the journals. What stays as it is in every version: a file's
first twelve bytes (magic, version, byte order), and in the control page and in a segment's header
the place of the CRC over what stands before it. So a program tells a version that it does not know
(`UnknownFormat`, which names it; nothing is read, changed or repaired) from damage (`CorruptLog`).

- A minor addition does not change the version. It takes a bit of `flags`, a byte that is reserved
  (zero until then), or another file in the directory, such that a program which does not know it
  either reads everything right (a reserved byte, a file) or says which flags it does not know (a
  batch with an unknown flag is not served).
- Whatever makes a program of the same version read something wrong is a new version: another size,
  place or meaning of a field. A release that writes version n reads all of 1 to n; a log keeps the
  version that it was made with, and is brought to a newer one by `eventlog export` and `import`.
- The golden logs of each version (`tests/golden`) are never written again: every later release has
  to read, continue and verify a copy of them.

**Publishing.** Only the writer stores. For each batch, in this order:

1. Header and payload, with a length of 0, by one `pwritev`: the kernel copies them into the pages
   that every reader has mapped.
2. The length, by a second `pwrite` of its own.
3. The high-water mark in the control page, one aligned store of 8 bytes into a shared map. *This
   store publishes*: readers load the mark first and look at nothing behind it. Only then is the
   producer answered and whoever is parked woken.

A writer that dies before 2 leaves a length of zero, and one that dies before 3 a whole batch that
nobody was told of; the next writer publishes it or, after a loss of power, cuts what is torn.

Why no reader takes a torn batch for a whole one: on x86 stores become visible in the order in which
they were made, and loads are made in order, so whoever sees the mark sees all that it covers. ARM
orders neither of plain stores and loads. There, whoever was woken through a pipe is ordered by the
kernel's locks, and whoever happens to load the mark early finds a length of zero or a wrong CRC,
looks again, and only calls it damage if it is the same after system calls. The CRC, over header and
payload, is the second line everywhere: against tearing by processors, disks and losses of power,
and against whatever else flips bits. (`verify=False` leaves only the first line.)
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from eventlog.checksum import crc32c
from eventlog.event.record_batch import FLAGS_KNOWN, PackedBatch, areas_bytes
from eventlog.local.storage.formats.layout import Field, Layout

VERSION: Final = 1
BYTE_ORDER: Final = 0x0102
OTHER_VERSION: Final = "it is of format version"
"""How the fault of a header begins that is whole, and of another version than this program's."""
SEGMENT_MAGIC: Final = b"EVLOGSEG"
ALIGNMENT: Final = 8
INDEX_EVERY_BYTES: Final = 4096
"""An index entry for about every page of batches: a seek reads one page beside the index."""

SEGMENT_HEADER: Final = Layout(
    "segment header",
    Field("magic", "8s", 'b"EVLOGSEG"'),
    Field("version", "H", "of the format; another one is refused, not guessed at"),
    Field("byte_order", "H", "0x0102; 0x0201 was written on a machine of the other order"),
    Field("header_bytes", "H", "of this header"),
    Field("batch_bytes", "H", "of a batch header"),
    Field("base_seq_no", "Q", "number of the first event"),
    Field("segment_bytes", "Q", "size of the file"),
    Field("epoch", "Q", "of the writer that made the segment"),
    Field("created_ns", "Q", "the writer's clock, nanoseconds since 1970"),
    Field("reserved", "12s", "zero"),
    Field("crc", "I", "CRC-32C of all before"),
)
BATCH_HEADER: Final = Layout(
    "batch header",
    Field("crc", "I", "CRC-32C of all that follows, header and payload"),
    Field("length", "I", "of header and payload without padding; written last, 0: nothing yet"),
    Field("base_seq_no", "Q", "number of the first event"),
    Field("append_time_ns", "Q", "the writer's clock, never less than in the batch before"),
    Field("producer_id", "Q", "random, of one connection's producer; 0: none"),
    Field("producer_seq", "Q", "the producer's count of batches, from 1"),
    Field("count", "I", "of events"),
    Field("flags", "H", "1: key hashes; 2: causes; 4: due times; others: see *Versions*"),
    Field("header_bytes", "H", "of this header"),
    Field("epoch", "I", "of the writer that stored the batch"),
    Field("acks_bytes", "I", "of the acknowledgements in the payload"),
    Field("reserved", "8s", "zero"),
)
INDEX_ENTRY: Final = Layout(
    "index entry",
    Field("base_seq_no", "Q", "of a batch; 0: no entry yet"),
    Field("append_time_ns", "Q", "of that batch"),
    Field("position", "I", "offset of the batch in the segment"),
    Field("crc", "I", "CRC-32C of the fields before"),
)
FIRST_BATCH: Final = SEGMENT_HEADER.size
HEADER_BYTES: Final = BATCH_HEADER.size
LENGTH_OFFSET: Final = BATCH_HEADER.offset("length")

_LENGTH: Final = struct.Struct("<I")
_NO_RESERVE: Final = bytes(8)


class BatchHeader(NamedTuple):
    """The fields of a batch header, in the order of the layout."""

    crc: int
    length: int
    base_seq_no: int
    append_time_ns: int
    producer_id: int
    producer_seq: int
    count: int  # type: ignore[assignment]  # hides tuple.count, of no use here
    flags: int
    header_bytes: int
    epoch: int
    acks_bytes: int
    reserved: bytes

    @property
    def last_seq_no(self) -> int:
        """The number of the batch's last event."""
        return self.base_seq_no + self.count - 1

    @property
    def body_offset(self) -> int:
        """Bytes from the start of the header to the body."""
        return HEADER_BYTES + areas_bytes(self.count, self.flags, self.acks_bytes)


class IndexEntry(NamedTuple):
    """One row of a sparse index."""

    base_seq_no: int
    append_time_ns: int
    position: int

    def is_due(self, indexed_to: int) -> bool:
        """Whether a batch gets this entry: the first one, and then about one for each page."""
        return not indexed_to or self.position >= indexed_to + INDEX_EVERY_BYTES


def aligned(offset: int) -> int:
    """The next place where a batch may begin."""
    return (offset + ALIGNMENT - 1) & ~(ALIGNMENT - 1)


def index_bytes(segment_bytes: int) -> int:
    """The size of the index of a segment: room for every entry that it can ever get."""
    return (segment_bytes // INDEX_EVERY_BYTES + 1) * INDEX_ENTRY.size


def segment_name(base_seq_no: int) -> str:
    """The file name of the segment whose first event has that number."""
    return f"{base_seq_no:020d}.seg"


def index_name(base_seq_no: int) -> str:
    """The file name of that segment's index."""
    return f"{base_seq_no:020d}.idx"


def key_index_name(base_seq_no: int) -> str:
    """The file name of that segment's index by key."""
    return f"{base_seq_no:020d}.keys"


def base_of_name(name: str) -> int | None:
    """The number in a segment's file name; `None` if it is no such name."""
    stem, dot, ending = name.partition(".")
    if ending != "seg" or not dot or len(stem) != 20 or not (stem.isascii() and stem.isdigit()):
        return None
    return int(stem)


def pack_segment_header(base_seq_no: int, segment_bytes: int, epoch: int, created_ns: int) -> bytes:
    """The first bytes of a new segment."""
    header = SEGMENT_HEADER.pack(
        SEGMENT_MAGIC,
        VERSION,
        BYTE_ORDER,
        SEGMENT_HEADER.size,
        HEADER_BYTES,
        base_seq_no,
        segment_bytes,
        epoch,
        created_ns,
        bytes(12),
        0,
    )
    return header[:-4] + _LENGTH.pack(crc32c(header[:-4]))


def segment_header_fault(header: bytes | memoryview, base_seq_no: int) -> str | None:
    """What is wrong with a segment's first bytes; `None` if nothing is."""
    if len(header) < SEGMENT_HEADER.size:
        return "it is shorter than its header"
    fields = SEGMENT_HEADER.to_dict(header)
    if fields["magic"] != SEGMENT_MAGIC:
        return "it does not begin as a segment does"
    if fields["crc"] != crc32c(header[: SEGMENT_HEADER.size - 4]):
        return "its header is damaged"
    if fields["version"] != VERSION or fields["byte_order"] != BYTE_ORDER:
        return f"{OTHER_VERSION} {fields['version']}"
    if fields["base_seq_no"] != base_seq_no:
        return f"it begins with event {fields['base_seq_no']}"
    return None


def pack_batch_header(
    batch: PackedBatch,
    *,
    base_seq_no: int,
    append_time_ns: int,
    producer_id: int,
    producer_seq: int,
    epoch: int,
) -> bytes:
    """The whole header of a batch, length and CRC included."""
    length = HEADER_BYTES + len(batch.payload)
    header = BATCH_HEADER.pack(
        0,
        length,
        base_seq_no,
        append_time_ns,
        producer_id,
        producer_seq,
        batch.count,
        batch.flags,
        HEADER_BYTES,
        epoch & 0xFFFF_FFFF,
        batch.acks_bytes,
        _NO_RESERVE,
    )
    return _LENGTH.pack(crc32c(batch.payload, crc32c(header[4:]))) + header[4:]


def unpack_batch_header(buffer: memoryview, position: int) -> BatchHeader:
    """The header at `position`, unchecked; the buffer must reach that far."""
    return BatchHeader._make(BATCH_HEADER.unpack_from(buffer, position))


def batch_fault(
    buffer: memoryview, position: int, header: BatchHeader, *, verify: bool = True
) -> str | None:
    """What is wrong with a batch whose length word is set; `None` if it is whole.

    Without `verify` its checksum is believed.
    """
    end = position + header.length
    if header.length < HEADER_BYTES or end > len(buffer):
        return f"a batch with a length of {header.length} bytes"
    if verify:
        with buffer[position + 4 : end] as covered:
            if crc32c(covered) != header.crc:
                return "a batch with a wrong checksum"
    if header.header_bytes != HEADER_BYTES or header.flags & ~FLAGS_KNOWN:
        return f"a batch with unknown flags ({header.flags:#x})"
    if header.count < 1 or header.body_offset > header.length:
        return f"a batch of {header.count} events that are not there"
    return None


def pack_index_entry(entry: IndexEntry) -> bytes:
    """An entry with its CRC."""
    packed = INDEX_ENTRY.pack(*entry, 0)
    return packed[:-4] + _LENGTH.pack(crc32c(packed[:-4]))


def unpack_index_entry(buffer: bytes | memoryview, offset: int) -> IndexEntry | None:
    """The entry at `offset`; `None` if nothing, or nothing whole, is there."""
    base_seq_no, append_time_ns, position, crc = INDEX_ENTRY.unpack_from(buffer, offset)
    if base_seq_no == 0 or crc32c(buffer[offset : offset + INDEX_ENTRY.size - 4]) != crc:
        return None
    return IndexEntry(base_seq_no, append_time_ns, position)
