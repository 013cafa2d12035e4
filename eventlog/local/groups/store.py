"""The groups as they are kept: states in memory, records in their journal, positions in the table.

Rule: a record is in the journal before it is applied (`commit`), so that no crash loses what
anybody was told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

from eventlog.api.statistics import Counters, WriterStatistics
from eventlog.config import MIB
from eventlog.errors import EventLogError
from eventlog.local.groups import records
from eventlog.local.groups.acks import Acks
from eventlog.local.groups.due_times import DueTimes
from eventlog.local.groups.journal import GroupFiles
from eventlog.local.groups.key_hashes import KeyHashes
from eventlog.local.groups.letters import DeadLetters
from eventlog.local.groups.reconcile import Found, Sync, reconcile
from eventlog.local.groups.records import GroupRecord, LetterRecord, Ordering
from eventlog.local.groups.state import GroupState
from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME, replaying
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.members import MemberPages

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
        self._times = DueTimes(log.control)
        self._files = GroupFiles(log)
        self.groups: dict[str, GroupState] = {}
        self.counters = Counters(WriterStatistics)
        """Counters of the whole writer; the store is what its parts have in common."""
        self.letters = DeadLetters(log, self._files, self.commit, clock)
        self._rewrite_at = REWRITE_BYTES
        self._next_slot = 0
        if self._files.are_there:
            try:
                self._load()
            except BaseException:
                self.close()
                raise

    @property
    def pages(self) -> MemberPages:
        """The members' pages."""
        return self._files.pages

    # --- at the start ------------------------------------------------------------------------

    def _load(self) -> None:
        directory, numbers = self._log.directory, self.letters.numbers
        with replaying(directory, DEAD_NAME):
            of_letters = list(map(records.letter_record, self._files.letters.take_records()))
            for letter in of_letters:
                numbers.apply(letter)
        with replaying(directory, GROUPS_NAME):
            of_groups = list(map(records.group_record, self._files.groups.take_records()))
            for record in of_groups:
                self._replay(record)
            log = self._log
            found = Found(self.groups, numbers, of_groups, of_letters, log.acks, log.last_seq_no)
            for step in reconcile(found):
                if isinstance(step, Sync):
                    (self._files.groups if step is Sync.GROUPS else self._files.letters).sync()
                elif isinstance(step, LetterRecord):
                    self.letters.write(step)
                else:
                    self.commit(step)
            for state in self.groups.values():
                self._publish(state)

    def _replay(self, record: GroupRecord) -> None:
        if isinstance(record, records.Joined):
            self._next_slot = record.slot + 1  # the turn goes on where the earlier writer was
        if isinstance(record, records.Forgotten):
            self.groups.pop(record.group, None)
        else:
            self._state(record.group).apply(record)

    def _state(self, name: str) -> GroupState:
        state = self.groups.get(name)
        if state is None:
            state = self.groups[name] = GroupState(name, self._hashes, self._times)
        return state

    # --- changes -----------------------------------------------------------------------------

    def commit(self, record: GroupRecord) -> None:
        """Store a record of a group, and apply it.

        Raises:
            LogFull, StorageFailed: nothing changed.
        """
        state, journal = self.groups[record.group], self._files.groups
        has_retried = self.letters.numbers.retried.get(record.group)
        if has_retried:
            self.letters.before(record)
        journal.append(record)
        position = state.position
        state.apply(record)
        if has_retried:
            self.letters.after(record)
        if state.position != position:
            self._publish(state)
        if journal.bytes > self._rewrite_at:
            self._rewrite()

    def reserve_results(self, acks_bytes: int) -> None:
        """Have room for the record that will repeat the acknowledgements of a batch.

        Raises:
            LogFull, StorageFailed: there is none, so the batch is not to be stored.
        """
        self._files.groups.reserve(acks_bytes + RESULTS_BYTES)

    def commit_results(self, acks: Acks, base_seq_no: int, last_seq_no: int) -> None:
        """Note what a stored batch of results says, for which there is room.

        Is it refused all the same, then this writer stores nothing more. The batch says it too, and
        the next writer looks into it: it is among those since the snapshot of the producers.
        """
        record = records.ResultsStored(
            acks.group, acks.lease_id, acks.ranges, base_seq_no, last_seq_no
        )
        try:
            self.commit(record)
        except EventLogError as error:
            self._log.refuse(error)
            self.groups[acks.group].apply(record)  # nobody is to have the events meanwhile

    def _publish(self, state: GroupState) -> None:
        """Show the position to everybody, as a consumer's."""
        self._log.offsets.set(state.name, state.position, self._clock())

    def _rewrite(self) -> None:
        journal = self._files.groups
        try:
            self._sync_results()
            self._files.letters.sync()  # a snapshot does not tell which letters were dropped
            journal.replace(one.snapshot() for one in self.groups.values())
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

    # --- groups ------------------------------------------------------------------------------

    def open_group(
        self, name: str, ordering: Ordering, max_deliveries: int, position: int
    ) -> GroupState:
        """The group, made if need be, with these options from now on."""
        is_new = name not in self.groups
        state = self._state(name)
        try:
            if is_new:
                # Whole in one record, and past what an older group of that name acknowledged.
                self.commit(
                    records.Snapshot(
                        name,
                        ordering,
                        max_deliveries,
                        position,
                        done=[],
                        again=[],
                        deliveries=[],
                        exhausted=[],
                        members=[],
                        leases=[],
                        replayed_to=self._log.last_seq_no,
                    )
                )
                # Acknowledgements in a batch are found again after a loss of power, but not
                # without a group.
                self._files.groups.sync()
            elif (state.ordering, state.max_deliveries) != (ordering, max_deliveries):
                self.commit(records.Options(name, ordering, max_deliveries))
        except EventLogError:
            if is_new:
                del self.groups[name]
            raise
        if is_new:  # else whoever only looks at an abandoned group would make it look alive
            self._publish(state)
        return state

    def holds_retention(self, group: str) -> bool:
        """Whether no consumer is behind the group: what it does is what makes room."""
        return self._log.offsets.lowest() == self.groups[group].position

    def forget(self, state: GroupState) -> None:
        """Remove a group; its dead letters stay until they are dropped."""
        record = records.Forgotten(state.name)
        self.letters.before(record)
        self._files.groups.append(record)
        del self.groups[state.name]

    def free_slot(self) -> int:
        """The slot of a page that no member has, and none had a moment ago.

        So whoever looks after a member that has ended still finds there what it did.
        """
        taken = {member.slot for state in self.groups.values() for member in state.members.values()}
        slots = max(SLOTS_MIN, 2 * len(taken) + 1)
        turns = (slot % slots for slot in range(self._next_slot, self._next_slot + slots))
        slot = next(slot for slot in turns if slot not in taken)
        self._next_slot = slot + 1
        return slot

    def members(self) -> Iterator[tuple[GroupState, int]]:
        """Every member's group and id."""
        for state in list(self.groups.values()):
            for member_id in list(state.members):
                yield state, member_id

    # --- the end -----------------------------------------------------------------------------

    def sync(self) -> None:
        """Return when all records are on the disk.

        Raises:
            StorageFailed, LogFull: they are not, or a sync of the log has failed before.
        """
        if self._log.failure is not None:
            raise self._log.failure
        self._files.sync()

    def close(self) -> None:
        """Give the descriptors back."""
        self._hashes.close()
        self._times.close()
        self._files.close()
