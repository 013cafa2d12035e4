"""Checks of arguments that several engines take."""

from __future__ import annotations

from eventlog.api.positions import check_seq_no
from eventlog.config import MAX_IN_FLIGHT_LIMIT
from eventlog.errors import InvalidArgument, InvalidArgumentType


def check_range(start: object, stop: object) -> tuple[int, int | None]:
    """The bounds of a `read`.

    Raises:
        InvalidArgument, InvalidArgumentType: they are no numbers.
    """
    return check_seq_no(start), None if stop is None else check_seq_no(stop)


def check_publisher(
    linger: float, max_batch_bytes: int, max_in_flight: int, flush_s: float, path: str
) -> None:
    """Pass if the options of a publisher mean something.

    Raises:
        InvalidArgument, InvalidArgumentType: they don't.
    """
    for name, seconds in {"linger": linger, "flush_s": flush_s}.items():
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise InvalidArgumentType(f"{name} is {seconds!r}; give a number of seconds", path=path)
    for name, value in {"max_batch_bytes": max_batch_bytes, "max_in_flight": max_in_flight}.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidArgumentType(f"{name} is {value!r}; give a whole number", path=path)
    if not 0 <= linger < 3600:
        raise InvalidArgument(f"linger is {linger}; give seconds, 0 to less than 3600", path=path)
    if not 0 <= flush_s < float("inf"):
        raise InvalidArgument(f"flush_s is {flush_s}; give seconds, 0 or more", path=path)
    if max_batch_bytes < 1:
        raise InvalidArgument(f"max_batch_bytes is {max_batch_bytes}; give 1 or more", path=path)
    if not 1 <= max_in_flight <= MAX_IN_FLIGHT_LIMIT:
        raise InvalidArgument(
            f"max_in_flight is {max_in_flight}; give 1 to {MAX_IN_FLIGHT_LIMIT}, which is what the"
            " writer remembers of a producer",
            path=path,
        )
