"""A consistent copy of a log, while it is written; without a word to its writer.

What is read in which order makes it consistent::

    mark m            events up to m are known; what batches after it acknowledge is not believed
    dead letters, groups, dead letters again
    positions         of consumers; nothing in them is ahead of ...
    mark n            ... the events of the copy, which are those up to n
    segments          from the newest to the oldest, because retention takes the oldest first

Segments change only after n, and are not recycled while a lock holds them, so a copy of their bytes
up to there is whole. Acknowledgements that stand in batches between m and n are replayed by the
copy's first writer, as after a kill. Members of groups stay behind: what they had in their hands is
to be handed out again.

The copy is made beside the target and gets its name when all of it is on the disk. It is a log of
its own: nobody who was connected to the original takes it for that.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from eventlog.errors import CorruptLog, EventsTruncated, InvalidArgument, LogNotFound
from eventlog.local.groups import corrections, records
from eventlog.local.groups.corrections import Numbers, pack_corrections, read_corrections
from eventlog.local.groups.endings import settlement
from eventlog.local.groups.records import LetterRecord, LetterStored, letter_record
from eventlog.local.groups.state import GroupState
from eventlog.local.groups.stored import read_states
from eventlog.local.storage import control as control_file
from eventlog.local.storage.control import CONTROL, ControlPage, new_control_page
from eventlog.local.storage.files import FILES, Files, os_errors
from eventlog.local.storage.formats import offset_format
from eventlog.local.storage.formats import producers as producers_file
from eventlog.local.storage.formats.changed_options import CHANGES_OFFSET, Change, pack_change
from eventlog.local.storage.formats.format import IndexEntry, segment_name
from eventlog.local.storage.formats.offset_format import Offset, table_bytes
from eventlog.local.storage.formats.producers import ProducerTable
from eventlog.local.storage.identity import boot_id
from eventlog.local.storage.index import write_index
from eventlog.local.storage.journal import (
    DEAD_NAME,
    GROUPS_NAME,
    STATES_NAME,
    framed,
    journal_header,
    read_records,
    replaying,
)
from eventlog.local.storage.offsets import OffsetTable
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.segment import SegmentReader, open_held
from eventlog.local.storage.states import states_bytes
from eventlog.system import absolute_path

START_OF_NONE: Final = 1
"""A start time that no process of that pid has: nobody writes the copy, this process neither."""
ATTEMPTS: Final = 5
"""Retention that takes the newest segment before it is copied is faster than any disk."""
Progress = Callable[[int, int], None]
"""Called with the bytes that are copied, and all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a copy holds."""

    path: str
    first_seq_no: int | None
    last_seq_no: int | None
    segments: int
    bytes: int
    """Bytes of its segments, without what nothing is in yet."""


@dataclass(slots=True)
class _Decisions:
    """Positions, groups and dead letters: everything but the events."""

    known_to: int
    states: list[GroupState]
    letters: list[LetterRecord]
    rows: list[Offset]
    corrected: Numbers


class _NewestGone(Exception):
    """Retention deleted even the segment of the last event, before it was copied."""


def back_up(
    directory: str,
    target: str,
    on_progress: Progress = lambda _done, _total: None,
    files: Files = FILES,
) -> Backup:
    """Copy the log to `target`, a path where nothing, or an empty directory, is.

    Raises:
        InvalidArgument: there is something at the target, or it lies in the log.
        LogNotFound, NotALog: there is no log to copy.
        LogFull: there is no room for the copy.
        CorruptLog: the end of the log is damaged; damage before it is copied as it is.
    """
    directory, target = absolute_path(directory), absolute_path(target)
    log = LogReader(directory, files)
    try:
        check_target(directory, target)
        parent, name = os.path.split(target)
        for _ in range(ATTEMPTS):
            with os_errors(target, "making a directory beside it"):
                place = tempfile.mkdtemp(prefix=f".{name}.", dir=parent)
            try:
                report = _Copy(log, place, on_progress, files).run()
                with os_errors(target, "giving the copy its name"):
                    os.rename(place, target)
                    files.sync_directory(parent)
            except _NewestGone:
                continue
            else:
                return Backup(path=target, **report)
            finally:
                shutil.rmtree(place, ignore_errors=True)
        raise EventsTruncated(
            f"retention of the log {directory} deletes events faster than they can be copied",
            path=directory,
        )
    finally:
        log.close()


def check_target(directory: str, target: str) -> None:
    """Pass if a copy may be made there.

    Raises:
        InvalidArgument: something is there, or there is no directory to put it in.
    """
    inside = os.path.realpath(target) + os.sep
    if inside.startswith(os.path.realpath(directory) + os.sep):
        raise InvalidArgument(f"{target} lies in the log itself; give another place")
    if not os.path.isdir(os.path.dirname(target)):
        raise InvalidArgument(f"there is no directory {os.path.dirname(target)}; make it first")
    if os.path.isdir(target) and not os.path.islink(target):
        with os_errors(target, "looking into it"):
            if os.listdir(target):
                raise InvalidArgument(f"{target} is not empty; a backup overwrites nothing")
    elif os.path.lexists(target):
        raise InvalidArgument(f"{target} is there already; a backup overwrites nothing")


class _Copy:
    """One attempt, into an empty directory."""

    def __init__(self, log: LogReader, place: str, on_progress: Progress, files: Files) -> None:
        self._log = log
        self._place = place
        self._on_progress = on_progress
        self._files = files
        self._segments = 0
        self._bytes = 0

    def run(self) -> dict[str, Any]:
        """Copy everything; the fields of the report."""
        decisions = self._read_decisions()
        last = self._log.last_seq_no
        first = self._copy_events(last)
        self._write_decisions(decisions)
        self._write_control(first, last, is_orderly=not decisions.states)
        with os_errors(self._place, "syncing the copy"):
            self._files.sync_directory(self._place)
        return {
            "first_seq_no": first if first <= last else None,
            "last_seq_no": last or None,
            "segments": self._segments,
            "bytes": self._bytes,
        }

    # --- positions, groups, dead letters ---------------------------------------------------------

    def _read_decisions(self) -> _Decisions:
        log = self._log
        known_to = log.last_seq_no
        corrected = read_corrections(log.directory, self._files)
        before = self._read_letters()
        states = read_states(log.directory)
        after = self._read_letters()
        # A number too many does no harm.
        corrected |= read_corrections(log.directory, self._files)
        # A letter is stored before its event is done, and dropped after its event is handed out
        # again: so those from before are kept, and those that came since are done.
        start = len(before) if after[: len(before)] == before else 0
        fresh = [record for record in after[start:] if isinstance(record, LetterStored)]
        by_name = {state.name: state for state in states}
        for letter in fresh:
            if letter.group in by_name:
                rejected = records.Rejected(letter.group, letter.lease_id, letter.seq_no)
                by_name[letter.group].apply(rejected)
        for state in states:
            _leave_members(state)
        try:
            table = OffsetTable(log.directory, files=self._files)
        except LogNotFound:
            rows = []
        else:
            rows = table.all()
            table.close()
        rows = [
            Offset(row.name, by_name[row.name].position, row.last_seen_ns)
            if row.name in by_name
            else row
            for row in rows
        ]
        return _Decisions(known_to, states, [*before, *fresh], rows, corrected)

    def _read_letters(self) -> list[LetterRecord]:
        directory = self._log.directory
        with replaying(directory, DEAD_NAME):
            return [*map(letter_record, read_records(directory, DEAD_NAME, self._files))]

    def _write_decisions(self, decisions: _Decisions) -> None:
        self._write(offset_format.FILE_NAME, table_bytes(decisions.rows))
        kept = [row for row in decisions.rows if row.state is not None]
        if kept:
            self._write(STATES_NAME, states_bytes(kept))
        known_to = max(decisions.known_to, 1)
        self._write(producers_file.FILE_NAME, ProducerTable().to_bytes(known_to))
        if decisions.states or decisions.letters:
            states = [state.snapshot() for state in decisions.states]
            self._write(GROUPS_NAME, journal_header() + b"".join(map(framed, states)))
            letters = b"".join(map(framed, decisions.letters))
            self._write(DEAD_NAME, journal_header() + letters)
        if decisions.corrected:
            self._write(corrections.FILE_NAME, pack_corrections(decisions.corrected))

    def _write(self, name: str, content: bytes) -> None:
        with os_errors(self._place, f"writing {name}"):
            descriptor = self._files.create(os.path.join(self._place, name))
            try:
                self._files.write(descriptor, [content], 0)
                self._files.sync(descriptor)
            finally:
                self._files.close(descriptor)

    # --- events ----------------------------------------------------------------------------------

    def _copy_events(self, last: int) -> int:
        """Copy the segments; the number of the first event of the copy."""
        first = self._log.first_available
        bases = [base for base in self._log.segment_bases() if base <= last]
        ends = zip(bases, [*bases[1:], last + 1], strict=False)
        bases = [base for base, end in ends if end > first]
        total = len(bases) * self._log.options.segment_bytes
        for base in reversed(bases):
            try:
                self._copy_segment(base, last, is_newest=base == bases[-1])
            except FileNotFoundError:
                if base == bases[-1]:
                    raise _NewestGone from None
                if self._log.first_available > base:
                    return bases[bases.index(base) + 1]
                continue  # lost, in the copy as in the original
            self._segments += 1
            self._on_progress(self._segments * self._log.options.segment_bytes, total)
        return first

    def _copy_segment(self, base: int, last: int, *, is_newest: bool) -> None:
        end = self._end_of(last) if is_newest else None
        # Held, or the writer would write over a segment that it retires while this copies it.
        source = open_held(self._log.directory, base, self._files)
        try:
            entries = [entry for entry in self._entries(base) if entry.base_seq_no <= last]
            with os_errors(self._place, "copying a segment"):
                target = self._files.create(os.path.join(self._place, segment_name(base)))
                try:
                    size = self._files.size(source)
                    self._files.copy(source, target, size if end is None else end, size)
                    self._files.sync(target)
                finally:
                    self._files.close(target)
        finally:
            self._files.close(source)
        self._bytes += size if end is None else end
        write_index(self._place, base, entries, self._files)

    def _end_of(self, last: int) -> int:
        """The offset after the last event, in its segment."""
        reader = self._log.batches(last)
        try:
            reader.next_batch()
            return reader.position
        except EventsTruncated:
            raise _NewestGone from None
        finally:
            reader.close()

    def _entries(self, base: int) -> list[IndexEntry]:
        """What the segment's index says."""
        try:
            segment = SegmentReader(self._log.directory, base, self._files)
        except CorruptLog:
            return []
        try:
            entries = segment.entries()
        finally:
            segment.close()
        if not entries and self._log.first_available > base:
            raise FileNotFoundError  # retention is just deleting both
        return entries

    def _write_control(self, first: int, last: int, *, is_orderly: bool) -> None:
        control = self._log.control
        page = new_control_page(
            self._log.options,
            os.urandom(16),
            control.created_ns,
            high_water=last,
            first_available=first,
            epoch=control.epoch,
            due=(control.due_from, control.due_to),
        )
        self._write(control_file.FILE_NAME, _with_changes(page, control))
        if is_orderly:
            return
        # As if a writer had been killed: the next one looks for what batches acknowledge.
        copied = ControlPage(self._place, writable=True, files=self._files)
        copied.boot_id = boot_id()
        copied.writer_pid, copied.writer_start = os.getpid(), START_OF_NONE
        copied.sync()
        copied.close()


def _with_changes(page: bytes, control: ControlPage) -> bytes:
    """The page, which also says which options were changed since the log was made."""
    if not control.changed_options:
        return page
    identity_crc = CONTROL.to_dict(page)["crc"]
    change = pack_change(Change(control.options, control.changed_options, identity_crc))
    return page[:CHANGES_OFFSET] + change + page[CHANGES_OFFSET + len(change) :]


def _leave_members(state: GroupState) -> None:
    """Nobody is a member of the copy: what they have in their hands is nobody's."""
    for lease in list(state.leases.values()):
        for record in settlement(state, lease, b""):
            state.apply(record)
    for member_id in list(state.members):
        state.apply(records.Left(state.name, member_id))
