"""Ranges of stored events, as `--from`, `--to` and `--until` say them."""

from __future__ import annotations

from eventlog.cli.address import Readable
from eventlog.errors import InvalidArgument
from eventlog.terminal.positions import position_of


def bounds_of(reading: Readable, start: str | None, stop: str | None) -> tuple[int, int]:
    """The number of the first event that is meant and stored, and the one after the last.

    Raises:
        InvalidArgument: one of the texts says no place.
    """
    first, end = reading.bounds()
    if stop is not None and (before := stop_of(reading, stop, "--to")) is not None:
        end = min(end, before)
    return max(first, min(_start_of(reading, start), end)), end


def _start_of(reading: Readable, start: str | None) -> int:
    position = position_of("beginning" if start is None else start)
    match position.kind:
        case "last_acknowledged":
            raise InvalidArgument("--from last-acknowledged is of a consumer, and here is none")
        case "sequence":
            return position.value
        case "beginning":
            return 0
    first, end = reading.bounds()
    if position.kind == "latest" or first == end:
        return end
    number = reading.number_at(position)
    return end if number is None else number


def stop_of(reading: Readable, stop: str, option: str) -> int | None:
    """The number after the last event; `None` if all that are stored are meant.

    Raises:
        InvalidArgument: the text says no place.
    """
    position = position_of(stop)
    if position.kind == "sequence":
        return position.value + 1
    if position.kind != "timestamp":
        raise InvalidArgument(f"{option} takes a number, a time, or how long ago, not {stop}")
    return reading.number_at(position)
