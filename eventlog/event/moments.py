"""Times as nanoseconds since 1970, as they are stored, and as `datetime`; pure."""

from __future__ import annotations

import sys
from array import array
from datetime import UTC, datetime, timedelta
from typing import Final

from eventlog.errors import InvalidArgument, InvalidArgumentType

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def timestamp_ns_of(moment: datetime) -> int:
    """Nanoseconds since 1970 of an aware datetime.

    Raises:
        InvalidArgumentType: it is not a datetime.
        InvalidArgument: it is naive, or before 1970.
    """
    if not isinstance(moment, datetime):
        raise InvalidArgumentType(f"the time is {moment!r}; give an aware datetime")
    if moment.tzinfo is None:
        raise InvalidArgument(f"the time {moment} is naive; give it a time zone, such as UTC")
    timestamp_ns = (moment - _EPOCH) // _MICROSECOND * 1000
    if not 0 <= timestamp_ns < 2**63:
        raise InvalidArgument(f"the time {moment} is outside of the years 1970 to 2262")
    return timestamp_ns


def datetime_of(timestamp_ns: int) -> datetime:
    """The aware datetime (UTC) of nanoseconds since 1970, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=timestamp_ns // 1000)


def pack_timestamps(timestamps: list[int]) -> bytes:
    """The column of a batch: 8 bytes for each, the least significant first."""
    first = timestamps[0]
    if timestamps[-1] == first and timestamps.count(first) == len(timestamps):  # as of one list
        return first.to_bytes(8, "little") * len(timestamps)
    column = array("q", timestamps)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()
