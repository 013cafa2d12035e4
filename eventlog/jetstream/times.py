"""Times as the server writes them, and as nanoseconds since 1970. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

SECOND_NS = 1_000_000_000


def ns_of(text: str) -> int:
    """The nanoseconds since 1970 of a time such as `2026-11-28T05:09:23.149585655Z`.

    The server leaves out zeros at the end.

    Raises:
        ValueError: it is no such time.
    """
    fraction = text[20:-1] if text[19:20] == "." else ""
    return _seconds_of(text[:19]) * SECOND_NS + int(fraction.ljust(9, "0"))


@lru_cache(maxsize=16)  # events that are read together were mostly stored in the same second
def _seconds_of(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def text_of(time_ns: int) -> str:
    """The inverse."""
    seconds, fraction = divmod(time_ns, SECOND_NS)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{fraction:09}Z"
