"""What the writer remembers of producers, so that a repeated batch gets its first answer. Pure.

A producer counts its batches from 1 and repeats, after a lost connection, those that were not
answered. The table keeps the latest batches of each producer; it is rebuilt at a start from a
snapshot, written whenever a segment is sealed, and from the headers of all batches after it::

    snapshot (file "producers")
        magic b"EVLOGPRD" | CRC-32C of the rest, 4 bytes | MessagePack:
        [version, last seq_no before it, [[producer_id, [[producer_seq, base], ...]], ...]]
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Final

import msgpack
import msgspec

from eventlog.checksum import crc32c
from eventlog.config import MAX_IN_FLIGHT_LIMIT, PRODUCERS_REMEMBERED

FILE_NAME: Final = "producers"
MAGIC: Final = b"EVLOGPRD"
_VERSION: Final = 1
_CRC: Final = struct.Struct("<I")
_Content = tuple[int, int, list[tuple[int, list[tuple[int, int]]]]]


class ProducerTable:
    """The latest batches of the producers that were last seen; both are bounded."""

    def __init__(self) -> None:
        self._producers: OrderedDict[int, dict[int, int]] = OrderedDict()

    def find(self, producer_id: int, producer_seq: int) -> int | None:
        """The base sequence number that this batch got the first time; `None` if it is new."""
        batches = self._producers.get(producer_id)
        return batches.get(producer_seq) if batches else None

    def note(self, producer_id: int, producer_seq: int, base_seq_no: int) -> None:
        """Remember a batch that was stored.

        Counts come in any order: one that was refused may be repeated after later ones were stored.
        """
        batches = self._producers.get(producer_id)
        if batches is None:
            batches = self._producers[producer_id] = {}
            if len(self._producers) > PRODUCERS_REMEMBERED:
                self._producers.popitem(last=False)
        else:
            self._producers.move_to_end(producer_id)
        batches[producer_seq] = base_seq_no
        if len(batches) > MAX_IN_FLIGHT_LIMIT:
            del batches[next(iter(batches))]

    def forget_after(self, last_seq_no: int) -> None:
        """Forget batches that the log turned out not to have: repeated ones must be stored."""
        for batches in self._producers.values():
            for producer_seq in [seq for seq, base in batches.items() if base > last_seq_no]:
                del batches[producer_seq]

    def to_bytes(self, last_seq_no: int) -> bytes:
        """A snapshot that stands for all batches up to `last_seq_no`."""
        rows = [[producer, list(batches.items())] for producer, batches in self._producers.items()]
        packed: bytes = msgpack.packb([_VERSION, last_seq_no, rows])
        return MAGIC + _CRC.pack(crc32c(packed)) + packed

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[ProducerTable, int]:
        """The table and the number it stands for; an unreadable snapshot gives an empty one, at 0.

        Losing it is no damage: it only narrows which repeated batches are recognised.
        """
        table = cls()
        start = len(MAGIC) + _CRC.size
        packed = data[start:]
        if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : start] != _CRC.pack(crc32c(packed)):
            return table, 0
        try:
            version, last_seq_no, rows = msgspec.msgpack.decode(packed, type=_Content)
        except msgspec.DecodeError:
            return table, 0  # no writer's, although the checksum is right
        if version != _VERSION:
            return table, 0
        for producer_id, batches in rows:
            for producer_seq, base_seq_no in batches:
                table.note(producer_id, producer_seq, base_seq_no)
        return table, last_seq_no
