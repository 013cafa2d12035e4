"""Ids of events: UUIDs of version 7, one for each row of a batch or one base for all of them. Pure.

Ids made by a batch share one random base: row i has the milliseconds of its own timestamp and the
base's random bits plus i, so one `os.urandom` serves a whole batch, in every process of its own.
"""

from __future__ import annotations

import os
from typing import Final

ID_BYTES: Final = 16
RANDOM_BITS: Final = 74
_RANDOM_MASK: Final = (1 << RANDOM_BITS) - 1
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1


def new_id(timestamp_ns: int) -> bytes:
    """A fresh UUIDv7 for that time."""
    return id_of(timestamp_ns, int.from_bytes(os.urandom(10), "little") & _RANDOM_MASK)


def id_after(base: bytes, row: int, timestamp_ns: int) -> bytes:
    """The id of a row of a batch whose ids have that base."""
    value = int.from_bytes(base, "big")
    random = (value & _LOW_MASK) | ((value >> 64 & 0xFFF) << _LOW_BITS)
    return id_of(timestamp_ns, (random + row) & _RANDOM_MASK)


def id_of(timestamp_ns: int, random: int) -> bytes:
    """The UUIDv7 of that time and of those `RANDOM_BITS`."""
    milliseconds = (timestamp_ns // 1_000_000) & 0xFFFF_FFFF_FFFF
    high = milliseconds << 16 | 0x7 << 12 | random >> _LOW_BITS
    low = 0b10 << 62 | (random & _LOW_MASK)
    return (high << 64 | low).to_bytes(ID_BYTES, "big")
