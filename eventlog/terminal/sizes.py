"""Text as sizes, spans of time and yes or no: the one reader of such options."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from eventlog.errors import InvalidArgument

UNITS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
NONE: Final = "none"
"""What takes a limit away."""


def bytes_of(text: str) -> int:
    """A size: `500000000`, `500M` and `500MiB` (of 1024), `500MB` (of 1000).

    Raises:
        InvalidArgument: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]+)?)\s*([KMGT]?)(I?B)?", text.strip().upper())
    if match is None or float(match[1]) == 0:
        raise InvalidArgument(f"{text!r} is no size: give bytes, or such as 500M, 1.5GiB or 500MB")
    unit = 1000 if match[3] == "B" else 1024
    return int(float(match[1]) * unit ** UNITS[match[2]])


def span_of(text: str) -> timedelta:
    """A span of time: `90s`, `15m`, `2h`, `7d`, `4w`.

    Raises:
        InvalidArgument: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if match is None or int(match[1]) == 0:
        raise InvalidArgument(f"{text!r} is no span of time: give one such as 90s, 15m, 2h or 7d")
    return timedelta(seconds=int(match[1]) * SECONDS[match[2]])


def span_text(span: timedelta) -> str:
    """A span of time in the largest unit that it is a whole number of."""
    seconds = span.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds >= SECONDS[unit] and seconds % SECONDS[unit] == 0:
            return f"{seconds / SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def is_yes(text: str, option: str) -> bool:
    """Whether an option that is yes or no says yes.

    Raises:
        InvalidArgument: it says neither.
    """
    if text not in ("yes", "no"):
        raise InvalidArgument(f"{option} {text!r}: give yes or no")
    return text == "yes"
