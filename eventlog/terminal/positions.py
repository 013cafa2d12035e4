"""Text as places in a log and as times: the one reader of what follows `--from` and its kin."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from eventlog.api.positions import SeekPosition
from eventlog.errors import InvalidArgument

NAMED: Final = {
    "beginning": SeekPosition.BEGINNING,
    "last-acknowledged": SeekPosition.LAST_ACKNOWLEDGED,
    "latest": SeekPosition.LATEST,
}
PLACES: Final = "beginning, latest, a number, a time, or how long ago, such as 15m, 2h or 3d."
"""What the help of an option says that takes a position."""
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def position_of(text: str) -> SeekPosition:
    """The position that a user means: a name, a sequence number, a time, or how long ago.

    Raises:
        InvalidArgument: it is none of these.
    """
    if text in NAMED:
        return NAMED[text]
    try:
        if text.isdecimal():
            return SeekPosition.sequence(int(text))
        moment = _moment(text)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"{text!r} is no position: give beginning, latest, last-acknowledged, a sequence"
            " number, a time such as 2026-01-31T12:00:00+00:00, or how long ago, such as 15m, 2h"
            " or 3d"
        ) from None
    return SeekPosition.timestamp(moment)


def moment_of(text: str, now: datetime | None = None) -> datetime:
    """A time: an ISO time, here if it names no zone, or how long ago: `90s`, `15m`, `2h`, `7d`.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        return _moment(text, now)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"{text!r} is no time: give one such as 2026-01-31T12:00:00+00:00, or how long ago,"
            " such as 15m, 2h or 7d"
        ) from None


def due_moment_of(text: str, now: datetime) -> datetime:
    """A time: an ISO time, here if it names no zone, or in how long: `90s`, `15m`, `2h`, `7d`.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        span = _span(text)
        return _moment(text) if span is None else now + span
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"{text!r} is no time: give one such as 2026-01-31T12:00:00+00:00, or in how long, such"
            " as 15m, 2h or 7d"
        ) from None


def _span(text: str) -> timedelta | None:
    """How long `15m` and its kin are; `None` for another text."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    return timedelta(seconds=int(match[1]) * SECONDS[match[2]]) if match else None


def _moment(text: str, now: datetime | None = None) -> datetime:
    if (ago := _span(text)) is not None:
        return (now or datetime.now(UTC)) - ago
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo is None else moment
