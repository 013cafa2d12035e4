"""CRC-32C of many ranges of one buffer that overlap; pure.

Whoever looks for batches behind damage meets, in the payload of an event, whatever its producer put
there: perhaps a million headers that each claim to cover the rest of the segment. To sum up each
range by itself would take minutes. Here each byte is summed once, from the start on; what a range
has is what is left when the sum of all before it is taken out of the sum up to its end::

    sum(start .. end) = sum(start .. begin) moved over (end - begin) bytes  ^  sum(begin .. end)

To move a sum over n bytes is to append n zeros to what it is of: a linear map of its 32 bits (as in
`crc32_combine` of zlib), and that of 2n bytes is the one of n, twice.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from eventlog.checksum import crc32c

_POLYNOMIAL: Final = 0x82F63B78
"""Polynomial of CRC-32C, its lowest power in the highest bit."""
_STEP_BYTES: Final = 4096


class RangeSums:
    """The checksums of ranges that begin at `start` or later."""

    def __init__(self, buffer: memoryview, start: int) -> None:
        self._buffer = buffer
        self._start = start
        self._sums = [0]
        """Checksums of what is between the start and each step."""

    def sum_of(self, begin: int, end: int) -> int:
        """The checksum of the bytes from `begin` to before `end`."""
        return self._sum_to(end) ^ _moved(self._sum_to(begin), end - begin)

    def _sum_to(self, end: int) -> int:
        steps, rest = divmod(end - self._start, _STEP_BYTES)
        while len(self._sums) <= steps:
            place = self._start + (len(self._sums) - 1) * _STEP_BYTES
            self._sums.append(self._more(self._sums[-1], place, place + _STEP_BYTES))
        return self._more(self._sums[steps], end - rest, end)

    def _more(self, known: int, begin: int, end: int) -> int:
        with self._buffer[begin:end] as part:
            return crc32c(part, known)


def _moved(checksum: int, count: int) -> int:
    """The sum's share in one of `count` bytes more."""
    power = 0
    while count:
        if count & 1:
            checksum = _mapped(_map_of(power), checksum)
        count >>= 1
        power += 1
    return checksum


@cache
def _map_of(power: int) -> tuple[int, ...]:
    """What becomes of each bit, the lowest first, over 2 to the power of `power` bytes."""
    if power:
        half = _map_of(power - 1)
        return tuple(_mapped(half, bits) for bits in half)
    bits = [1 << place for place in range(32)]
    for _ in range(8):
        bits = [one >> 1 ^ (_POLYNOMIAL if one & 1 else 0) for one in bits]
    return tuple(bits)


def _mapped(images: tuple[int, ...], bits: int) -> int:
    result = 0
    for image in images:
        if bits & 1:
            result ^= image
        bits >>= 1
        if not bits:
            break
    return result
