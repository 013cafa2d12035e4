"""Ranges of stored events, as `--from`, `--to` and `--until` say them."""

from __future__ import annotations

from typing import Annotated

import typer

from eventlog.api.positions import SeekPosition
from eventlog.cli.address import Readable
from eventlog.errors import InvalidArgument
from eventlog.terminal.positions import PLACES, moment_of, position_of

From = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="POSITION", help=f"The first event, else the first stored: {PLACES}"
    ),
]
To = Annotated[int | None, typer.Option("--to", min=1, help="The number of the last event.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only events stored from then on: a time, or 15m, 2h."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only events stored before then.")]
Key = Annotated[str | None, typer.Option(help="Only events of this key.")]


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


def begin_of(start: str | None, last: int | None, since: str | None) -> SeekPosition:
    """Where a range begins that has two options for it.

    Raises:
        InvalidArgument: both are given, or one of them says no place, or one after the last event.
    """
    if since is not None:
        if start is not None:
            raise InvalidArgument("--from and --since both say where to begin; give one of them")
        return SeekPosition.timestamp(moment_of(since))
    position = position_of("beginning" if start is None else start)
    if position.kind == "last_acknowledged":
        raise InvalidArgument("--from last-acknowledged is about a consumer, and here is none")
    if position.kind == "sequence" and last is not None and position.value > last:
        raise InvalidArgument(f"--from {start} is after --to {last}")
    return position


def range_between(
    reading: Readable, position: SeekPosition, last: int | None, until: str | None
) -> tuple[int, int]:
    """The number of the first event, and the one after the last.

    Raises:
        InvalidArgument: `until` is no time.
    """
    oldest, end = reading.bounds()
    stop = min(last + 1 if last else end, end)
    if until is not None:
        later = reading.number_at(SeekPosition.timestamp(moment_of(until)))
        stop = min(later or end, stop)
    if position.kind == "sequence":
        return position.value or oldest, stop
    if position.kind == "beginning":
        return oldest, stop
    return reading.number_at(position) or end, stop
