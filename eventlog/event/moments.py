"""Times as nanoseconds since 1970, as they are stored, and as `datetime`; pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from eventlog.errors import InvalidArgument, InvalidArgumentType

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
TIMESTAMP_NS_MAX: Final = 2**63 - 1
"""Times are stored in 64 bits and handed to languages that know only signed ones."""


def timestamp_ns_of(moment: datetime) -> int:
    """Nanoseconds since 1970 of an aware datetime.

    Raises:
        InvalidArgumentType: it is not a datetime.
        InvalidArgument: it is naive, or before 1970.
    """
    timestamp_ns = _ns_of(moment)
    if not 0 <= timestamp_ns <= TIMESTAMP_NS_MAX:
        raise InvalidArgument(f"the time {moment} is outside of the years 1970 to 2262")
    return timestamp_ns


def search_ns_of(moment: datetime) -> int:
    """As `timestamp_ns_of`, of a time that is looked for: any that a `datetime` can be.

    Before 1970 and after 2262 nothing is stored: the nearest time finds the same events.

    Raises:
        InvalidArgumentType: it is not a datetime.
        InvalidArgument: it is naive.
    """
    return min(max(_ns_of(moment), 0), TIMESTAMP_NS_MAX)


def _ns_of(moment: datetime) -> int:
    if not isinstance(moment, datetime):
        raise InvalidArgumentType(f"the time is {moment!r}; give an aware datetime")
    if moment.utcoffset() is None:
        raise InvalidArgument(f"the time {moment} is naive; give it a time zone, such as UTC")
    return (moment - _EPOCH) // _MICROSECOND * 1000


def datetime_of(timestamp_ns: int) -> datetime:
    """The aware datetime (UTC) of nanoseconds since 1970, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=timestamp_ns // 1000)
