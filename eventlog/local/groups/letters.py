"""The life of a dead letter: made, listed, tried again, kept or dropped.

::

    the event's last delivery failed
         |
       "dead" ---> listed --- "retry" ---> retried --- its event is done ---> "drop"
                   |    ^                     |
                "drop"  '------ "kept" -------'   skipped, sought past, or its group forgotten

A letter is on the disk before its event counts as done, and is dropped after its event is done, so
no crash loses both. While it is retried it is stored still: it has a copy of the event, which the
member runs if retention has deleted the event meanwhile. A letter without a copy whose event is
deleted is not retried. What is half said after a crash, `reconcile` ends.

A program of before "retry" and "kept" takes both of them for "drop".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from eventlog.config import MIB
from eventlog.errors import EventLogError, InvalidArgument
from eventlog.local.groups import records
from eventlog.local.groups.corrections import Corrections
from eventlog.local.groups.journal import GroupFiles
from eventlog.local.groups.letter_numbers import LetterNumbers
from eventlog.local.groups.ranges import Range, RangeSet, ranges_of
from eventlog.local.groups.records import GroupRecord, LetterRecord
from eventlog.local.groups.state import GroupState
from eventlog.local.groups.stored import find_letter, without_copy
from eventlog.local.storage.log.writable import WritableLog

REWRITE_BYTES: Final = 1 * MIB
"""A file of letters of this size begins anew when none of them is left."""
Ending = type[records.LettersRetried | records.LettersKept | records.LettersDropped]


class DeadLetters:
    """All dead letters of a log. `commit` stores a record of a group, and applies it."""

    def __init__(
        self,
        log: WritableLog,
        files: GroupFiles,
        commit: Callable[[GroupRecord], None],
        clock: Callable[[], int],
    ) -> None:
        self._log = log
        self._files = files
        self._commit = commit
        self._clock = clock
        self.numbers = LetterNumbers()
        self._corrections = Corrections(log.directory, log.files)

    def reject(self, state: GroupState, lease_id: int, seq_no: int, letter: bytes) -> None:
        """Store a dead letter, and be done with its event."""
        deliveries = state.deliveries.get(seq_no, 0) + (1 if lease_id else 0)
        now = self._clock()
        # Each on the disk before the next: with the letter there is the lease, by which it is known
        # whose it is, and with "buried" the letter.
        self._files.groups.sync()
        self.write(records.LetterStored(state.name, seq_no, deliveries, now, letter, lease_id))
        self._files.letters.sync()
        self._commit(records.Rejected(state.name, lease_id, seq_no))

    def retry(self, state: GroupState, ranges: Iterable[Range]) -> int:
        """Hand dead letters out again; how many of the ranges' events are some.

        Raises:
            InvalidArgument: an event is deleted, and its letter has no copy; nothing changed.
        """
        numbers = self.numbers.listed_in(state.name, ranges)
        if numbers:
            self._check_copies(state.name, numbers)
            # In this order: killed in between, the letter is listed still (see `reconcile`).
            self._commit(records.HandedOutAgain(state.name, numbers))
            self._files.groups.sync()  # or a loss of power takes "again", and not "retry"
            self._end(records.LettersRetried, state.name, numbers)
        return len(numbers)

    def retry_corrected(self, state: GroupState, seq_no: int, letter: bytes) -> int:
        """Put another letter in the place of a listed one, and hand its event out; 1 if it was one.

        Raises:
            LogFull, StorageFailed: the old letter, or the new one, is listed.
        """
        one = [(seq_no, seq_no)]
        old = find_letter(self._log.directory, state.name, seq_no)
        if old is None or not self.numbers.listed_in(state.name, one):
            return 0
        self._corrections.add(state.name, seq_no)  # first: with the old letter it changes nothing
        fields = (old.deliveries, old.failed_ns, letter, old.lease_id)
        self.write(records.LetterStored(state.name, seq_no, *fields))
        self._files.letters.sync()
        return self.retry(state, one)

    def _check_copies(self, name: str, numbers: list[int]) -> None:
        """Pass if each of the dead letters can be handed out again."""
        log = self._log
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

    def drop(self, name: str, ranges: Iterable[Range]) -> int:
        """Forget dead letters; how many of the ranges' events were some."""
        numbers = self.numbers.listed_in(name, ranges)
        self._end(records.LettersDropped, name, numbers)
        return len(numbers)

    def before(self, record: GroupRecord) -> None:
        """List letters whose retry the record ends without success."""
        retried = self.numbers.retried.get(record.group)
        if not retried:
            return
        numbers = list(retried.numbers())
        if isinstance(record, records.Skipped):
            numbers = [number for number in numbers if number <= record.position]
        elif not isinstance(record, records.Sought | records.Forgotten):
            return
        self._end(records.LettersKept, record.group, numbers)

    def after(self, record: GroupRecord) -> None:
        """Drop letters whose events the record says are done; without room, the next start does."""
        retried = self.numbers.retried.get(record.group)
        if retried and isinstance(record, records.Done | records.ResultsStored):
            done = RangeSet(record.ranges)
            numbers = [number for number in retried.numbers() if number in done]
            with suppress(EventLogError):
                self._end(records.LettersDropped, record.group, numbers)

    def _end(self, kind: Ending, name: str, numbers: list[int]) -> None:
        if numbers:
            self.write(kind(name, ranges_of(numbers)))

    def write(self, record: LetterRecord) -> None:
        """Store a record of letters.

        Raises:
            LogFull, StorageFailed: nothing changed.
        """
        file = self._files.letters
        file.append(record)
        self.numbers.apply(record)
        if isinstance(record, records.LettersDropped):
            self._corrections.drop(record.group, record.ranges)
        if self.numbers.are_none and file.bytes > REWRITE_BYTES:
            file.replace([])
