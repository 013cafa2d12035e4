"""Which dead letters there are, and which of them are being retried. Pure; see `letters`."""

from __future__ import annotations

from collections.abc import Iterable

from eventlog.local.groups import records
from eventlog.local.groups.ranges import Range, RangeSet
from eventlog.local.groups.records import LetterRecord


class LetterNumbers:
    """The numbers of the dead letters, by group: changed by records only."""

    def __init__(self) -> None:
        self.listed: dict[str, RangeSet] = {}
        self.retried: dict[str, RangeSet] = {}

    @property
    def are_none(self) -> bool:
        """Whether no letter is stored."""
        return not any((*self.listed.values(), *self.retried.values()))

    def apply(self, record: LetterRecord) -> None:
        """Follow a record."""
        listed = self.listed.setdefault(record.group, RangeSet())
        retried = self.retried.setdefault(record.group, RangeSet())
        match record:
            case records.LetterStored(seq_no=number):
                listed.add(number, number)
                retried.remove(number, number)
            case records.LettersRetried():
                _move(record.ranges, listed, retried)
            case records.LettersKept():
                _move(record.ranges, retried, listed)
            case records.LettersDropped():
                for first, last in record.ranges:
                    listed.remove(first, last)
                    retried.remove(first, last)

    def listed_in(self, name: str, ranges: Iterable[Range]) -> list[int]:
        """The listed ones of a group in these ranges."""
        wanted = RangeSet(ranges)
        return [n for n in self.listed.get(name, RangeSet()).numbers() if n in wanted]

    def after(self, name: str, seq_no: int) -> list[int]:
        """The numbers of a group's letters, listed or retried, that are greater."""
        sets = (self.listed, self.retried)
        return [n for one in sets for n in one.get(name, RangeSet()).numbers() if n > seq_no]


def _move(ranges: Iterable[Range], source: RangeSet, target: RangeSet) -> None:
    wanted = RangeSet(ranges)
    for number in [n for n in source.numbers() if n in wanted]:
        source.remove(number, number)
        target.add(number, number)
