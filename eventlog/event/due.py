"""When events are due and when they expire: the area of a batch that holds these times. Pure.

Few events have such times. A batch with at least one has an area of 16 bytes for each event::

    0    8  not_before   nanoseconds since 1970; 0: at once
    8    8  expires      nanoseconds since 1970; 0: never

All numbers are little-endian. The writer reads the area without decoding any event.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from eventlog.errors import InvalidArgument
from eventlog.event.moments import datetime_of, timestamp_ns_of

DUE_BYTES: Final = 16
_ROW: Final = struct.Struct("<QQ")
_NOT_BEFORE: Final = struct.Struct("<Q8x")


class Due(NamedTuple):
    """The times of one event, in nanoseconds since 1970; 0 stands for none."""

    not_before_ns: int = 0
    expires_ns: int = 0


NO_TIMES: Final = Due()


def due_ns_of(moment: datetime) -> int:
    """The time as it is stored: 1970 itself is a nanosecond later, since 0 stands for none.

    Raises:
        InvalidArgument, InvalidArgumentType: it is naive, out of range, or no datetime.
    """
    return timestamp_ns_of(moment) or 1


def checked_due(not_before_ns: int, expires_ns: int) -> Due:
    """The two times.

    Raises:
        InvalidArgument: the event would expire before it is due.
    """
    if expires_ns and expires_ns <= not_before_ns:
        raise InvalidArgument(
            f"expires={datetime_of(expires_ns)} is not after"
            f" not_before={datetime_of(not_before_ns)}, so no group could hand the event out; give"
            " a later one"
        )
    return Due(not_before_ns, expires_ns)


def pack_due(times: Mapping[int, Due], count: int) -> bytes:
    """The area of a batch of `count` events, by the rows of those that have times."""
    area = bytearray(DUE_BYTES * count)
    for row, due in times.items():
        _ROW.pack_into(area, DUE_BYTES * row, *due)
    return bytes(area)


def due_of_row(area: bytes, row: int) -> Due:
    """The times of the event in that row."""
    return Due(*_ROW.unpack_from(area, DUE_BYTES * row))


def not_before_times(area: bytes) -> Iterator[int]:
    """From when on groups hand out each event of a batch, in order; 0: at once."""
    return (not_before_ns for (not_before_ns,) in _NOT_BEFORE.iter_unpack(area))
