"""The groups as they are kept: states in memory, records in journals, positions in the table.

Rule: a record is in the journal before it is applied (`commit`), and a dead letter is stored before
its event counts as done, so that no crash loses either.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any, Final

from eventlog.api.positions import SEQ_NO_MAX
from eventlog.api.statistics import Counters, WriterStatistics
from eventlog.config import MIB
from eventlog.errors import EventLogError, StorageFailed
from eventlog.local.groups.acks import Acks, unpack_acks
from eventlog.local.groups.losses import LostResults, snapshot_to
from eventlog.local.groups.ranges import Range, RangeSet, ranges_of
from eventlog.local.groups.state import GroupState
from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME, Journal, Record, replaying
from eventlog.local.storage.log import WritableLog
from eventlog.local.storage.members import MemberPages
from eventlog.local.writer.group_letters import LetterNumbers, check_copies, handed_out_again
from eventlog.local.writer.key_hashes import KeyHashes

logger = logging.getLogger("eventlog.writer")
REWRITE_BYTES: Final = 1 * MIB
"""A journal is rewritten when it is this large, and eight times what it has to say."""
RESULTS_BYTES: Final = 64
"""What the record of a batch of results has beside the batch's acknowledgements, at most."""
SLOTS_MIN: Final = 64


class GroupStore:
    """All groups of one log; the files are made with the first group."""

    def __init__(self, log: WritableLog, clock: Callable[[], int] = time.time_ns) -> None:
        self._log = log
        self._clock = clock
        self._hashes = KeyHashes(log.directory)
        self.groups: dict[str, GroupState] = {}
        self.counters = Counters(WriterStatistics)
        """Of the whole writer; the store is what its parts have in common."""
        self.letters = LetterNumbers()
        self._files: tuple[Journal, Journal, MemberPages] | None = None
        self._rewrite_at = REWRITE_BYTES
        self._next_slot = 0
        names = (GROUPS_NAME, DEAD_NAME)  # letters outlive a lost journal
        if any(os.path.exists(os.path.join(log.directory, name)) for name in names):
            try:
                self._load()
            except BaseException:
                self.close()
                raise

    @property
    def dead(self) -> dict[str, RangeSet]:
        """The numbers of the dead letters that are listed, by group."""
        return self.letters.listed

    @property
    def _open_files(self) -> tuple[Journal, Journal, MemberPages]:
        if self._files is None:
            directory, files = self._log.directory, self._log.files
            with ExitStack() as opened:
                groups = opened.enter_context(closing(Journal(directory, GROUPS_NAME, files)))
                dead = opened.enter_context(closing(Journal(directory, DEAD_NAME, files)))
                self._files = groups, dead, MemberPages(directory, writable=True, files=files)
                opened.pop_all()  # they stay open, as the last one could be opened too
        return self._files

    @property
    def pages(self) -> MemberPages:
        """The members' pages."""
        return self._open_files[2]

    # --- at the start ------------------------------------------------------------------------

    def _load(self) -> None:
        journal, dead, _ = self._open_files
        lost = LostResults(self._log.last_seq_no)
        with replaying(self._log.directory, DEAD_NAME):
            for record in dead.records:
                self.letters.note(record)
        with replaying(self._log.directory, GROUPS_NAME):
            for record in journal.records:
                lost.note(record[0], record[1], record[2:])
                self._replay(record)
            self._agree_on_letters(dead.records, journal.records)
            self._take_acks()
            self._forget_lost(lost)
            self._end_retries()
            for state in self.groups.values():
                self._publish(state)
        journal.records, dead.records = [], []

    def _replay(self, record: Record) -> None:
        kind, name, *fields = record
        if kind == "member":
            self._next_slot = fields[3] + 1  # the turn goes on where the earlier writer was
        if kind == "forget":
            self.groups.pop(name, None)
        else:
            self._state(name).apply(kind, *fields)

    def _state(self, name: str) -> GroupState:
        state = self.groups.get(name)
        if state is None:
            state = self.groups[name] = GroupState(name, self._hashes)
        return state

    def _agree_on_letters(self, letters: list[Record], records: list[Record]) -> None:
        """Let the dead letters and the groups say the same: each file may have got further.

        A letter was stored, and not that its event is done; or an event is handed out again, and
        its letter is listed still; or a loss of power took an event that has a letter; or a retry
        has succeeded, and its letter was not dropped.
        """
        retried = handed_out_again(records)
        for kind, name, *fields in letters:
            if kind == "dead" and self._is_buried_half(name, fields[0], fields[-1]):
                self._sync(self._open_files[1])
                self.commit(self.groups[name], "buried", fields[-1], fields[0])
                retried[name].discard(fields[0])
        self._sync(self._open_files[0])
        lost = [(self._log.last_seq_no + 1, SEQ_NO_MAX)]
        for name, listed in list(self.dead.items()):
            self._change_letters("drop", name, self.letters.stored_in(name, lost))
            state = self.groups.get(name)
            again = retried[name] | set(() if state is None else state.again.numbers())
            self._change_letters("retry", name, [n for n in listed.numbers() if n in again])

    def _end_retries(self) -> None:
        """Drop the letters whose retry has succeeded, and list those that nobody will retry."""
        for name, retried in self.letters.retried.items():
            state, numbers = self.groups.get(name), list(retried.numbers())
            if state is None:
                self._change_letters("kept", name, numbers)
            else:
                self._change_letters("drop", name, [n for n in numbers if state.is_done(n)])

    def _is_buried_half(self, name: str, seq_no: int, lease_id: int) -> bool:
        """Only if its event is still in the very lease, or condemned, as it was."""
        state = self.groups.get(name)
        if state is None or seq_no not in self.dead[name]:
            return False
        if not lease_id:
            return seq_no in state.condemned
        lease = state.leases.get(lease_id)
        return lease is not None and seq_no in lease.open

    def _take_acks(self) -> None:
        """Results were stored and the writer killed before it said so in the group."""
        for base_seq_no, last_seq_no, area in self._log.acks:
            try:
                acks = unpack_acks(area)
            except EventLogError as error:
                logger.warning("acknowledgements of batch %d: %s", base_seq_no, error)
                continue
            state = self.groups.get(acks.group)
            if state is not None and base_seq_no > state.replayed_to:
                self.commit(state, "results", acks.lease_id, acks.ranges, base_seq_no, last_seq_no)

    def _forget_lost(self, lost: LostResults) -> None:
        """After a loss of power a group may know more events than the log, and results.

        That is said on the disk at once: the next events get those numbers.
        """
        is_changed = False
        for state in self.groups.values():
            numbers = lost.of(state)
            if numbers:
                self.commit(state, "again", numbers)
            fields = snapshot_to(state, self._log.last_seq_no)
            if fields is not None:
                self.commit(state, "state", *fields)
            is_changed |= bool(numbers) or fields is not None
        if is_changed:
            self._sync(self._open_files[0])

    # --- changes -----------------------------------------------------------------------------

    def commit(self, state: GroupState, kind: str, *fields: Any) -> None:
        """Store a record of the group, and apply it.

        Raises:
            LogFull, StorageFailed: nothing changed.
        """
        journal = self._open_files[0]
        retried = self.letters.retried.get(state.name)
        if retried and kind in {"skip", "seek"}:  # their retries end here, without success
            over = [n for n in retried.numbers() if kind == "seek" or n <= fields[0]]
            self._change_letters("kept", state.name, over)
        self._write(journal, [kind, state.name, *fields])
        position = state.position
        state.apply(kind, *fields)
        if retried and kind in {"done", "results"}:
            self._drop_retried(state.name, retried, fields[1])
        if state.position != position:
            self._publish(state)
        if journal.bytes > self._rewrite_at:
            self._rewrite()

    def _drop_retried(self, name: str, retried: RangeSet, ranges: Iterable[Range]) -> None:
        """Forget the letters of events that are done now; without room for that, a start does."""
        done = RangeSet(ranges)
        with suppress(EventLogError):
            self._change_letters("drop", name, [n for n in retried.numbers() if n in done])

    def reserve_results(self, acks_bytes: int) -> None:
        """Have room for the record that will repeat the acknowledgements of a batch.

        Raises:
            LogFull, StorageFailed: there is none, so the batch is not to be stored.
        """
        self._open_files[0].reserve(acks_bytes + RESULTS_BYTES)

    def commit_results(
        self, state: GroupState, acks: Acks, base_seq_no: int, last_seq_no: int
    ) -> None:
        """Note what a stored batch of results says, for which there is room.

        Is it refused all the same, then this writer stores nothing more. The batch says it too, and
        the next writer looks into it: it is among those since the snapshot of the producers.
        """
        fields = (acks.lease_id, acks.ranges, base_seq_no, last_seq_no)
        try:
            self.commit(state, "results", *fields)
        except EventLogError as error:
            self._log.refuse(error)
            state.apply("results", *fields)  # nobody is to have the events meanwhile

    def _publish(self, state: GroupState) -> None:
        """Show the position to everybody, as a consumer's."""
        self._log.offsets.set(state.name, state.position, self._clock())

    def _rewrite(self) -> None:
        journal = self._open_files[0]
        try:
            self._sync_results()
            self._sync(self._open_files[1])  # a snapshot does not tell which letters were dropped
            journal.replace(["state", one.name, *one.snapshot()] for one in self.groups.values())
        except EventLogError as error:
            logger.warning("the journal of groups stays as long as it is: %s", error)
        self._rewrite_at = max(REWRITE_BYTES, 8 * journal.bytes)

    def _sync_results(self) -> None:
        """Have the batches on the disk that made events done: a snapshot does not tell which did.

        A loss of power may then take no batch whose acknowledgements a snapshot has.
        """
        log = self._log
        newest = max((state.replayed_to for state in self.groups.values()), default=0)
        if newest > log.control.synced and log.options.durability != "memory":
            try:
                log.begin_sync().run()
            except EventLogError as error:
                log.fail(error)
                raise

    def open_group(
        self, name: str, ordering: str, max_deliveries: int, position: int
    ) -> GroupState:
        """The group, made if need be, with these options from now on."""
        is_new = name not in self.groups
        state = self._state(name)
        try:
            if is_new:
                # Whole in one record, and past what an older group of that name acknowledged.
                nothing: list[Any] = [[] for _ in range(6)]
                fields = (ordering, max_deliveries, position, *nothing, self._log.last_seq_no)
                self.commit(state, "state", *fields)
                # Acknowledgements in a batch are found again after a loss of power, but not
                # without a group.
                self._sync(self._open_files[0])
            elif (state.ordering, state.max_deliveries) != (ordering, max_deliveries):
                self.commit(state, "options", ordering, max_deliveries)
        except EventLogError:
            if is_new:
                del self.groups[name]
            raise
        self._publish(state)
        return state

    def _sync(self, journal: Journal) -> None:
        """Have a journal on the disk, before something else is there that depends on it."""
        if self._log.options.durability != "memory":
            try:
                journal.sync()
            except EventLogError as error:
                self._log.fail(error)
                raise

    def _write(self, journal: Journal, record: Record) -> None:
        if self._log.is_superseded:
            raise StorageFailed(
                f"another writer of the log {self._log.directory} has taken over, so this one"
                " stores nothing more",
                path=self._log.directory,
            )
        journal.append(record)

    def holds_retention(self, group: str) -> bool:
        """Whether no consumer is behind the group: what it does is what makes room."""
        return self._log.offsets.lowest() == self.groups[group].position

    def forget(self, state: GroupState) -> None:
        """Remove a group; its dead letters stay until they are dropped."""
        retried = self.letters.retried.get(state.name, RangeSet())
        self._change_letters("kept", state.name, list(retried.numbers()))
        self._write(self._open_files[0], ["forget", state.name])
        del self.groups[state.name]

    def free_slot(self) -> int:
        """The place of a page that no member has, and none had a moment ago.

        So whoever looks after a member that has ended still finds there what it did.
        """
        taken = {member.slot for state in self.groups.values() for member in state.members.values()}
        slots = max(SLOTS_MIN, 2 * len(taken) + 1)
        turns = (slot % slots for slot in range(self._next_slot, self._next_slot + slots))
        slot = next(slot for slot in turns if slot not in taken)
        self._next_slot = slot + 1
        return slot

    # --- dead letters ------------------------------------------------------------------------

    def bury(self, state: GroupState, lease_id: int, seq_no: int, letter: bytes) -> None:
        """Store a dead letter, and be done with its event."""
        deliveries = state.deliveries.get(seq_no, 0) + (1 if lease_id else 0)
        record: Record = ["dead", state.name, seq_no, deliveries, self._clock(), letter, lease_id]
        # Each on the disk before the next: with the letter there is the lease, by which it is known
        # whose it is, and with "buried" the letter.
        self._sync(self._open_files[0])
        self._write(self._open_files[1], record)
        self.letters.note(record)
        self._sync(self._open_files[1])
        self.commit(state, "buried", lease_id, seq_no)

    def retry_dead(self, state: GroupState, ranges: Iterable[Range]) -> int:
        """Hand dead letters out again; how many of the ranges' events are some.

        Their letters are stored until the events are done: should retention delete an event
        before that, the letter has a copy of it.

        Raises:
            InvalidArgument: an event is deleted, and its letter has no copy; nothing changed.
        """
        numbers = self.letters.listed_in(state.name, ranges)
        if numbers:
            check_copies(self._log, state.name, numbers)
            # In this order: killed in between, the letter is listed still (`_agree_on_letters`).
            self.commit(state, "again", numbers)
            self._sync(self._open_files[0])  # or a loss of power takes "again", and not "retry"
            self._change_letters("retry", state.name, numbers)
        return len(numbers)

    def drop_dead(self, name: str, ranges: Iterable[Range]) -> int:
        """Forget dead letters; how many of the ranges' events were some."""
        numbers = self.letters.listed_in(name, ranges)
        self._change_letters("drop", name, numbers)
        return len(numbers)

    def _change_letters(self, kind: str, name: str, numbers: list[int]) -> None:
        if numbers:
            record: Record = [kind, name, ranges_of(numbers)]
            self._write(self._open_files[1], record)
            self.letters.note(record)
            self._rewrite_dead()

    def _rewrite_dead(self) -> None:
        """When no letter is left, the file begins anew."""
        if self.letters.are_none and self._open_files[1].bytes > REWRITE_BYTES:
            self._open_files[1].replace([])

    # --- the end -----------------------------------------------------------------------------

    def sync(self) -> None:
        """Return when all records are on the disk.

        Raises:
            StorageFailed, LogFull: they are not, or a sync of the log has failed before.
        """
        if self._log.failure is not None:
            raise self._log.failure
        if self._files is not None:
            self._files[0].sync()
            self._files[1].sync()

    def close(self) -> None:
        """Give the descriptors back."""
        self._hashes.close()
        for file in self._files or ():
            file.close()

    def members(self) -> Iterator[tuple[GroupState, int]]:
        """Every member's group and id."""
        for state in list(self.groups.values()):
            for member_id in list(state.members):
                yield state, member_id
