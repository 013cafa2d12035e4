"""The keys of the active segment: which of its batches have a key of some hash.

`ActiveKeys` holds four bytes for each event of the segment, from its first one on: the hash of its
key, as the batches have it. A search for the bytes of a hash finds the next event that may have the
key, at about a gigabyte a second. A reader that asks for a key looks through the batches that came
since it last did so; one that may write leaves what it knows in the file `active.keys`, from where
the next process goes on::

    +--------+-------------------+-------------------+-------------------+
    | header | first: 4 bytes    | position: 4 bytes | hash: 4 bytes     |
    |        | for each batch    | for each batch    | for each event    |
    +--------+-------------------+-------------------+-------------------+

    active keys header (56 bytes)
        0    8  magic            b"EVLOGAKY"
        8    2  version          of the format; a file of another one is made again
       10    2  byte_order       0x0102
       12    4  batches          how many are in the file
       16    8  base_seq_no      of the segment
       24    8  events           how many are in the file
       32    4  last_position    offset of the last batch
       36    4  last_crc         the checksum of that batch
       40    4  body_crc         CRC-32C of all that follows the header
       44    8  reserved         zero
       52    4  crc              CRC-32C of all before

`first` is the number of a batch's first event less that of the segment, `position` the offset of
the batch. The hash of an event without a key is 0. The file is never synced, and believed only as
far as its checksums go. One that is missing, damaged, or of a segment that is not what it was (the
last batch tells) is made again. It is of no use when the segment is full: `key_index` has the files
of full ones.
"""

from __future__ import annotations

import os
import sys
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any, Final

from eventlog.checksum import crc32c
from eventlog.event.record_batch import FLAG_KEYED
from eventlog.event.text_columns import KEY_HASH_BYTES
from eventlog.local.storage.files import Files, read_if_possible
from eventlog.local.storage.formats.format import (
    BYTE_ORDER,
    FIRST_BATCH,
    HEADER_BYTES,
    VERSION,
    BatchHeader,
    aligned,
    batch_fault,
)
from eventlog.local.storage.formats.layout import Field, Layout
from eventlog.local.storage.segment import SegmentReader

FILE_NAME: Final = "active.keys"
MAGIC: Final = b"EVLOGAKY"
HEADER: Final = Layout(
    "active keys header",
    Field("magic", "8s", 'b"EVLOGAKY"'),
    Field("version", "H", "of the format; a file of another one is made again"),
    Field("byte_order", "H", "0x0102"),
    Field("batches", "I", "how many are in the file"),
    Field("base_seq_no", "Q", "of the segment"),
    Field("events", "Q", "how many are in the file"),
    Field("last_position", "I", "offset of the last batch"),
    Field("last_crc", "I", "the checksum of that batch"),
    Field("body_crc", "I", "CRC-32C of all that follows the header"),
    Field("reserved", "8s", "zero"),
    Field("crc", "I", "CRC-32C of all before"),
)
STEP_BATCHES: Final = 256
"""Batches that are looked through in one step, in about a millisecond."""
SAVED_AFTER_BATCHES: Final = 1024
SAVED_AFTER_BYTES: Final = 4 << 20
"""So much of a segment each process looks through for itself, in some milliseconds: the file is
written anew as a whole."""
_ROW_BYTES: Final = 4
_CRC_BYTES: Final = 4
_COUNT: Final = count()
"""Number of the next file that this process makes."""


class ActiveKeys:
    """The key hashes of one segment's events, as far as it was looked through.

    Threads may share it: each step of one leaves it whole.
    """

    def __init__(self, base_seq_no: int) -> None:
        self.base_seq_no = self.end_seq_no = base_seq_no
        self._end = FIRST_BATCH
        self._firsts = array("I")
        self._positions = array("I")
        self._hashes = bytearray()
        self._last_crc = 0
        self._saved_batches = 0
        self._saved_end = FIRST_BATCH
        self._lock = threading.Lock()

    @property
    def known(self) -> range:
        """The numbers of the events that were looked at: all from the segment's first one on."""
        return range(self.base_seq_no, self.end_seq_no)

    def next_batch(self, key_hash: int, seq_no: int) -> tuple[int, int]:
        """First event and offset of the next batch with this hash, from event `seq_no` on.

        Without one, those of the batch behind all that are known.
        """
        wanted = key_hash.to_bytes(KEY_HASH_BYTES, "little")
        end_seq_no, end = self.end_seq_no, self._end  # before the search: it may grow meanwhile
        place = self._hashes.find(wanted, (seq_no - self.base_seq_no) * KEY_HASH_BYTES)
        while place > 0 and place % KEY_HASH_BYTES:  # the end of one hash, and the next one's begin
            place = self._hashes.find(wanted, place + 1)
        if place < 0:
            return end_seq_no, end
        row = bisect_right(self._firsts, place // KEY_HASH_BYTES) - 1
        return self.base_seq_no + self._firsts[row], self._positions[row]

    # --- looking through -------------------------------------------------------------------------

    def look_through(self, segment: SegmentReader, last_seq_no: int) -> Iterator[None]:
        """Get to know the batches up to that event, step by step; damage ends it."""
        while self._step(segment, last_seq_no):
            yield

    def _step(self, segment: SegmentReader, last_seq_no: int) -> bool:
        """Get to know some batches; whether there are more."""
        if segment.is_cut_off:
            return False
        with self._lock:
            for _ in range(STEP_BATCHES):
                header = segment.header_at(self._end) if self.end_seq_no <= last_seq_no else None
                if header is None or not header.length or header.base_seq_no != self.end_seq_no:
                    return False
                if batch_fault(segment.view, self._end, header) is not None:
                    return False
                self._note(header, segment.view)
        return True

    def _note(self, header: BatchHeader, view: memoryview) -> None:
        place, area = self._end, self._end + HEADER_BYTES
        self._firsts.append(header.base_seq_no - self.base_seq_no)
        self._positions.append(place)
        if header.flags & FLAG_KEYED:
            self._hashes += view[area : area + header.count * KEY_HASH_BYTES]
        else:
            self._hashes += bytes(header.count * KEY_HASH_BYTES)
        self._last_crc = header.crc
        self._end = aligned(place + header.length)
        self.end_seq_no = header.last_seq_no + 1

    # --- the file --------------------------------------------------------------------------------

    @property
    def is_to_be_saved(self) -> bool:
        """Whether the file lacks so much that the next process would rather have it."""
        batches = len(self._firsts) - self._saved_batches
        return batches >= SAVED_AFTER_BATCHES or self._end - self._saved_end >= SAVED_AFTER_BYTES

    def save(self, directory: str, files: Files) -> None:
        """Leave all that is known to other processes; without room for it they do without."""
        path = os.path.join(directory, FILE_NAME)
        temporary = f"{path}.{os.getpid()}.{next(_COUNT)}.new"  # threads may do so at one time
        with self._lock, suppress(OSError):
            descriptor = files.create(temporary)
            try:
                files.write(descriptor, self._packed(), 0)
                files.rename(temporary, path)
            except BaseException:
                files.unlink(temporary)
                raise
            finally:
                files.close(descriptor)
        self._saved_batches, self._saved_end = len(self._firsts), self._end

    def _packed(self) -> list[bytes | memoryview]:
        columns = [array("I", self._firsts), array("I", self._positions)]
        if sys.byteorder == "big":
            for column in columns:
                column.byteswap()
        body = b"".join([*columns, self._hashes])
        values = self.base_seq_no, len(self._hashes) // KEY_HASH_BYTES, self._positions[-1]
        header = HEADER.pack(
            MAGIC,
            VERSION,
            BYTE_ORDER,
            len(self._firsts),
            *values,
            self._last_crc,
            crc32c(body),
            bytes(8),
            0,
        )[:-_CRC_BYTES]
        return [header, crc32c(header).to_bytes(_CRC_BYTES, "little"), body]

    @classmethod
    def load(cls, segment: SegmentReader, files: Files) -> ActiveKeys:
        """What an earlier process left of this segment; nothing, if it left nothing usable."""
        keys = cls(segment.base_seq_no)
        data = read_if_possible(os.path.join(segment.directory, FILE_NAME), files)
        with memoryview(data) as packed:
            if (fields := _usable(packed, segment)) is not None:
                keys._take_over(packed[HEADER.size :], fields)
        return keys

    def _take_over(self, body: memoryview, fields: dict[str, Any]) -> None:
        row_bytes = fields["batches"] * _ROW_BYTES
        for column, start in ((self._firsts, 0), (self._positions, row_bytes)):
            column.frombytes(body[start : start + row_bytes])
            if sys.byteorder == "big":
                column.byteswap()
        self._hashes += body[2 * row_bytes :]
        self._last_crc, self.end_seq_no = fields["last_crc"], self.base_seq_no + fields["events"]
        self._end = fields["end"]
        self._saved_batches, self._saved_end = fields["batches"], self._end


def _usable(packed: memoryview, segment: SegmentReader) -> dict[str, Any] | None:
    """The fields of the file's header, and `end`, the offset behind its last batch.

    `None` if the file is damaged, or of another segment, or of one that is not what it was.
    """
    fields = _checked_header(packed)
    if fields is None or fields["base_seq_no"] != segment.base_seq_no or segment.is_cut_off:
        return None
    last = segment.header_at(fields["last_position"])
    if last is None or last.crc != fields["last_crc"] or not last.length:
        return None
    if last.last_seq_no + 1 != segment.base_seq_no + fields["events"]:
        return None
    return fields | {"end": aligned(fields["last_position"] + last.length)}


def _checked_header(packed: memoryview) -> dict[str, Any] | None:
    """The fields of the file's header; `None` if it is damaged, or no such file."""
    if len(packed) < HEADER.size:
        return None
    fields = HEADER.to_dict(packed)
    if fields["magic"] != MAGIC or fields["crc"] != crc32c(packed[: HEADER.size - _CRC_BYTES]):
        return None
    if fields["version"] != VERSION or fields["byte_order"] != BYTE_ORDER:
        return None
    body = packed[HEADER.size :]
    sizes = 2 * fields["batches"] * _ROW_BYTES + fields["events"] * KEY_HASH_BYTES
    return fields if len(body) == sizes and fields["body_crc"] == crc32c(body) else None
