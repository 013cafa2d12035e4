"""The entries of the stream as events; pure. A number that is missing is never passed over."""

from __future__ import annotations

from typing import Any

from eventlog.errors import CorruptLog, EventsTruncated
from eventlog.remote.driver import Stored


def entries_from(entries: list[Any], seq_no: int, path: str) -> list[Stored]:
    """The events from that number on, up to a gap; none if the first one is another.

    Raises:
        CorruptLog: the first one was not written by eventlog.
    """
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
