"""Which dead letters there are, and which of them are being retried.

A letter comes by the record "dead" and goes by "drop". "retry" hands it out again: it is stored
until its event is done, because it has a copy of the event, and it is not listed meanwhile. "kept"
ends a retry without success, so that the letter is listed again. A program of before "retry" and
"kept" takes both of them for "drop".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from eventlog.errors import InvalidArgument
from eventlog.local.groups.ranges import Range, RangeSet
from eventlog.local.groups.stored import without_copy
from eventlog.local.storage.journal import Record
from eventlog.local.storage.log import WritableLog


class LetterNumbers:
    """The numbers of the dead letters, by group."""

    def __init__(self) -> None:
        self.listed: dict[str, RangeSet] = {}
        self.retried: dict[str, RangeSet] = {}

    @property
    def are_none(self) -> bool:
        """Whether no letter is stored."""
        return not any((*self.listed.values(), *self.retried.values()))

    def note(self, record: Record) -> None:
        """Follow a record."""
        kind, name, *fields = record
        listed = self.listed.setdefault(name, RangeSet())
        retried = self.retried.setdefault(name, RangeSet())
        if kind == "dead":
            listed.add(fields[0], fields[0])
            retried.remove(fields[0], fields[0])
            return
        for first, last in fields[0]:
            if kind == "retry":
                _move(first, last, listed, retried)
            elif kind == "kept":
                _move(first, last, retried, listed)
            else:
                listed.remove(first, last)
                retried.remove(first, last)

    def listed_in(self, name: str, ranges: Iterable[Range]) -> list[int]:
        """The listed ones of a group in these ranges."""
        wanted = RangeSet(ranges)
        return [n for n in self.listed.get(name, RangeSet()).numbers() if n in wanted]

    def stored_in(self, name: str, ranges: Iterable[Range]) -> list[int]:
        """The listed and the retried ones of a group in these ranges."""
        wanted = RangeSet(ranges)
        retried = self.retried.get(name, RangeSet()).numbers()
        return [*self.listed_in(name, wanted), *(n for n in retried if n in wanted)]


def _move(first: int, last: int, source: RangeSet, target: RangeSet) -> None:
    for number in [n for n in source.numbers() if first <= n <= last]:
        source.remove(number, number)
        target.add(number, number)


def handed_out_again(records: list[Record]) -> dict[str, set[int]]:
    """The events of each group that were to be retried, by the journal's last word on each."""
    retried: dict[str, set[int]] = defaultdict(set)
    for kind, name, *fields in records:
        if kind == "again":
            retried[name].update(fields[0])
        elif kind == "buried":
            retried[name].discard(fields[1])
        elif kind == "skip":
            retried[name] = {number for number in retried[name] if number > fields[0]}
        elif kind in {"seek", "forget"}:
            retried[name].clear()
    return retried


def check_copies(log: WritableLog, name: str, numbers: list[int]) -> None:
    """Pass if each of the dead letters can be handed out again.

    Raises:
        InvalidArgument: an event is deleted, and its letter has no copy of it.
    """
    deleted = [number for number in numbers if number < log.control.first_available]
    lost = without_copy(log.directory, name, deleted)
    if lost:
        raise InvalidArgument(
            f"event {lost[0]} of the log {log.directory} was deleted by retention, and its dead"
            f" letter has no copy of it, so the group {name!r} cannot be handed it again: leave"
            f" out {', '.join(map(str, lost[:20]))}, or drop these letters",
            path=log.directory,
            consumer=name,
            seq_no=lost[0],
        )
