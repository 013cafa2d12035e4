"""Payloads that are too large to be copied on their way into a batch, and their heads. Pure."""

from __future__ import annotations

import struct
from itertools import groupby
from typing import Final

LARGE_BYTES: Final = 64 * 1024
"""Payloads of bytes that are not worth a copy on their way into a batch. From this size on,
MessagePack writes the length of bytes in four bytes."""
_BIN_32: Final = struct.Struct(">BI")
_EXT_32: Final = struct.Struct(">BIb")


def head_of_bytes(size: int) -> bytes:
    """Head that MessagePack writes before large bytes."""
    return _BIN_32.pack(0xC6, size)


def head_of_extension(size: int, kind: int) -> bytes:
    """Head that MessagePack writes before a large extension of that kind."""
    return _EXT_32.pack(0xC9, size, kind)


def is_head_of_large(packed: bytes | memoryview) -> bool:
    """Whether it announces a large payload that is kept apart (see `_add_large`)."""
    return len(packed) < LARGE_BYTES and packed[0] in (0xC6, 0xC9)


def joined(parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Join the parts that lie between large ones: the same bytes in few parts."""
    found: list[bytes | memoryview] = []
    for is_large, group in groupby(parts, lambda part: len(part) >= LARGE_BYTES):
        run = list(group)
        found += run if is_large else [b"".join(run)]
    return found
