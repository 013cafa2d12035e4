"""Groups and dead letters as they lie in a log's directory, read without its writer."""

from __future__ import annotations

import os
from collections.abc import Iterator

from eventlog.api.group import DeadLetter, GroupReport
from eventlog.local.groups.letter_content import dead_letter_of, envelope_of_letter
from eventlog.local.groups.records import (
    Forgotten,
    LettersKept,
    LettersRetried,
    LetterStored,
    group_record,
    letter_record,
)
from eventlog.local.groups.state import GroupState
from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME, read_records, replaying, stamp_of
from eventlog.local.storage.reading.reader import LogReader

Letters = dict[tuple[str, int], LetterStored]


class StoredLetters:
    """A group's letters, also while they are retried, read again only for what was not there."""

    def __init__(self, directory: str, group: str) -> None:
        self._directory = directory
        self._group = group
        self._known: dict[int, bytes] = {}
        self._read_at: tuple[int, ...] = ()

    def find(self, seq_no: int, *, is_new: bool = False) -> bytes | None:
        """The letter of an event; `None` if it has none. `is_new`: it may be another by now.

        Raises:
            CorruptLog: the letters cannot be read.
        """
        if is_new or seq_no not in self._known:
            stamp = stamp_of(self._directory, DEAD_NAME)
            if stamp != self._read_at:
                self._known = {
                    number: record.letter
                    for letters in _stored_letters(self._directory)
                    for (name, number), record in letters.items()
                    if name == self._group
                }
                self._read_at = stamp
        return self._known.get(seq_no)


def find_letter(directory: str, group: str, seq_no: int) -> LetterStored | None:
    """The dead letter of an event, if it is listed."""
    return _stored_letters(directory)[0].get((group, seq_no))


def without_copy(directory: str, group: str, seq_nos: list[int]) -> list[int]:
    """Those of the dead letters that hold no copy of their event."""
    if not seq_nos:
        return []
    listed, _ = _stored_letters(directory)
    found = [listed[group, n] for n in seq_nos if (group, n) in listed]
    return [one.seq_no for one in found if envelope_of_letter(one.letter, one.seq_no) is None]


def read_dead_letters(
    directory: str | os.PathLike[str], group: str | None = None
) -> list[DeadLetter]:
    """The dead letters of a log, or of one of its groups, in the order in which they died.

    Raises:
        LogNotFound, CorruptLog: the log cannot be read.
    """
    return list(_letters(os.fspath(directory), group))


def _letters(directory: str, group: str | None) -> Iterator[DeadLetter]:
    listed, _ = _stored_letters(directory)
    with replaying(directory, DEAD_NAME):
        for record in listed.values():
            if group is None or record.group == group:
                yield dead_letter_of(record)


def _stored_letters(directory: str) -> tuple[Letters, Letters]:
    """The records of dead letters, and of those that are being retried (see `letters`)."""
    listed: Letters = {}
    retried: Letters = {}
    with replaying(directory, DEAD_NAME):
        for record in map(letter_record, read_records(directory, DEAD_NAME)):
            name = record.group
            if isinstance(record, LetterStored):
                for letters in (listed, retried):
                    letters.pop((name, record.seq_no), None)
                listed[name, record.seq_no] = record
                continue
            for first, last in record.ranges:
                for letters in (listed, retried):
                    for key in [k for k in letters if k[0] == name and first <= k[1] <= last]:
                        found = letters.pop(key)
                        if isinstance(record, LettersRetried):
                            retried[key] = found
                        elif isinstance(record, LettersKept):
                            listed[key] = found
    return listed, retried


def read_groups(directory: str | os.PathLike[str]) -> list[GroupReport]:
    """The groups of a log, by name.

    Raises:
        LogNotFound, CorruptLog: the log cannot be read.
    """
    directory = os.fspath(directory)
    log = LogReader(directory)
    try:
        last_seq_no, first = log.last_seq_no, log.first_available
    finally:
        log.close()
    dead: dict[str, int] = {}
    for letter in _letters(directory, None):
        dead[letter.group] = dead.get(letter.group, 0) + 1
    with replaying(directory, GROUPS_NAME):
        return [
            _report(state, last_seq_no, first, dead.get(state.name, 0))
            for state in sorted(read_states(directory), key=lambda state: state.name)
        ]


def read_states(directory: str) -> list[GroupState]:
    """The groups of a log as its journal has them; they know no keys.

    Raises:
        LogNotFound, CorruptLog: the log cannot be read.
    """
    states: dict[str, GroupState] = {}
    with replaying(directory, GROUPS_NAME):
        for record in map(group_record, read_records(directory, GROUPS_NAME)):
            name = record.group
            if isinstance(record, Forgotten):
                states.pop(name, None)
            else:
                states.setdefault(name, GroupState(name, _no_hashes)).apply(record)
    return list(states.values())


def _no_hashes(first: int, last: int) -> list[int]:
    """Nothing is handed out here, so no key matters."""
    return [0] * (last - first + 1)


def _report(state: GroupState, last_seq_no: int, first: int, dead_letters: int) -> GroupReport:
    behind = max(state.position, first - 1)
    above = sum(to - since + 1 for since, to in state.done if to > behind)
    return GroupReport(
        name=state.name,
        ordering=state.ordering or None,
        max_deliveries=state.max_deliveries,
        position=state.position,
        lag=max(last_seq_no - behind - above, 0) + state.again.count,
        in_flight=state.in_flight,
        members=len(state.members),
        redeliveries=len(state.deliveries) - len(state.exhausted),
        dead_letters=dead_letters,
    )
