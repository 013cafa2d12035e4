"""The entries of the stream as events; pure. A number that is missing is never passed over."""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import Any, Final, cast

from eventlog.errors import CorruptLog, EventsTruncated
from eventlog.redis.parser import Entries
from eventlog.remote.driver import Stored

_stored: Final = cast("Any", partial(tuple.__new__, Stored))
"""As `Stored._make`, in C."""


def entries_from(entries: Entries | list[Any], seq_no: int, path: str) -> list[Stored]:
    """The events from that number on, up to a gap; none if the first one is another.

    Raises:
        CorruptLog: the first one was not written by eventlog.
    """
    if isinstance(entries, Entries):
        return _all_of(entries, seq_no)
    return _some_of(entries, seq_no, path)


def _all_of(entries: Entries, seq_no: int) -> list[Stored]:
    numbers, times_us, records = entries
    count = len(numbers)
    if numbers != list(range(seq_no, seq_no + count)):
        pairs = zip(numbers, range(seq_no, seq_no + count), strict=True)
        count = next(place for place, (number, wanted) in enumerate(pairs) if number != wanted)
    times_ns = map(int.__mul__, times_us, repeat(1000))
    return list(map(_stored, zip(numbers[:count], times_ns, records, strict=False)))


def _some_of(entries: list[Any], seq_no: int, path: str) -> list[Stored]:
    found: list[Stored] = []
    for expected, (name, fields) in enumerate(entries, seq_no):
        number, _, time_us = name.partition(b"-")
        if int(number) != expected:
            break
        if len(fields) != 2 or fields[0] != b"r":
            if found:
                break  # what stands before it is handed out
            raise CorruptLog(
                f"event {int(number)} of the log {path} was not written by eventlog; read on behind"
                " it, and see who else writes to the stream",
                path=path,
                seq_no=int(number),
                last_seq_no=int(number),
            )
        found.append(Stored(expected, int(time_us) * 1000, fields[1]))
    return found


def truncated(path: str, seq_no: int, first: int) -> EventsTruncated:
    """The event was deleted from the front."""
    return EventsTruncated(
        f"event {seq_no} of the log {path} was deleted; the oldest one stored is {first}",
        path=path,
        seq_no=seq_no,
        first_available=first,
    )


def missing(path: str, seq_no: int) -> CorruptLog:
    """The event is not there, and others behind it are."""
    return CorruptLog(
        f"event {seq_no} of the log {path} is missing: somebody deleted it from the stream; read on"
        " behind it",
        path=path,
        seq_no=seq_no,
        last_seq_no=seq_no,
    )


def foreign(path: str) -> CorruptLog:
    """Somebody has added an entry behind the last event."""
    return CorruptLog(
        f"behind the last event of the log {path} stands one that was not written by eventlog;"
        " nothing can be appended until it is deleted (XDEL) and the last number set back (XSETID)",
        path=path,
    )
