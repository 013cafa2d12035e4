"""The log as its writer has it: append, publish, roll, sync, positions, retention; no pipe.

Rules:

1. One object, in one process, that holds the log's lock (see `rendezvous`).
2. Numbers are given in the order of `append`, without a gap; a failed append gives none.
3. The high-water mark is raised after a batch is whole, the synced mark after its sync returned.
4. The first available number is raised, also on the disk, before a segment is unlinked.
5. What is old is decided by a clock that never jumps (see `times`).
6. After a failed sync nothing is appended any more: what the disk has is not known, and the next
   writer is told so (see `salvage`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from eventlog.api.refusals import beyond_the_last
from eventlog.api.times import LogClock
from eventlog.config import BATCH_EVENTS_LIMIT, LogOptions
from eventlog.errors import EventLogError, LogDeleted, LogFull
from eventlog.event.record_batch import FLAG_DUE, PackedBatch
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.files import Files, replace_file, sync_errors
from eventlog.local.storage.formats import producers as producers_file
from eventlog.local.storage.formats.format import (
    FIRST_BATCH,
    HEADER_BYTES,
    IndexEntry,
    pack_batch_header,
)
from eventlog.local.storage.formats.producers import ProducerTable
from eventlog.local.storage.formats.recovery import Damage, SealedSegment, StoredAcks
from eventlog.local.storage.formats.refusals import batch_too_large, no_more_appends
from eventlog.local.storage.log.last_of_keys import LastOfKeys
from eventlog.local.storage.log.retiring import RetiringLog
from eventlog.local.storage.log.sync_work import SyncWork
from eventlog.local.storage.offsets import OffsetTable
from eventlog.local.storage.segment import SegmentWriter
from eventlog.local.storage.spare import Spare


class WritableLog(RetiringLog):
    """An open log; `storage.starting.start.open_log` makes one, after recovery."""

    def __init__(
        self,
        control: ControlPage,
        offsets: OffsetTable,
        producers: ProducerTable,
        producers_to: int,
        sealed: list[SealedSegment],
        active: SegmentWriter | None,
        *,
        last_append_ns: int,
        damages: list[Damage],
        acks: list[StoredAcks],
        is_same_boot: bool,
        was_killed: bool,
        files: Files,
        clock: LogClock,
        warnings: list[str],
    ) -> None:
        self.directory = control.directory
        self.control = control
        self.offsets = offsets
        self.damages = damages
        self.warnings = warnings
        """What else the start found, in words."""
        self.acks = acks
        """Those that recovery met, for whoever keeps the groups."""
        self.is_same_boot = is_same_boot
        """Whether the machine ran all the time since the last writer started."""
        self.was_killed = was_killed
        """Whether the last writer did not end in order: the disk may lack what it stored last."""
        self._producers = producers
        self._producers_to = producers_to
        """The last event that the snapshot of them stands for."""
        self._sealed = sealed
        self._active = active
        self._last_append_ns = last_append_ns
        self._last_append_steady_ns: int | None = None
        """By the clock that never jumps; an earlier writer's is not known."""
        self._epoch = control.epoch
        self.files = files
        self.clock = clock
        """What events are stamped with, and what due times are compared with."""
        self._unsynced: list[SegmentWriter] = []
        self.failure: EventLogError | None = None
        """Why nothing is appended any more; `None` while all is well."""
        self._has_new_names = False
        self.keys: LastOfKeys | None = None
        """What is known of keys: kept from the first conditional append on."""
        self.spare = Spare(self.directory, self.options, files)
        """The next segment: without it a roll makes one itself, while the append waits."""
        self.on_spare_wanted: Callable[[], None] = lambda: None
        """Called when the active segment is half full: `spare.begin` gives the work."""

    @property
    def options(self) -> LogOptions:
        """As they are now."""
        return self.control.options

    @property
    def last_seq_no(self) -> int:
        """The number of the last event ever appended; 0 if there was none."""
        return self.control.high_water

    @property
    def is_superseded(self) -> bool:
        """Whether another writer has taken over: nothing here may be stored to any more."""
        return self.control.epoch != self._epoch

    # --- whether it is still this writer's ---------------------------------------------------

    def reason_to_end(self) -> str | None:
        """Why nothing may be stored any more; to be asked before anything is.

        The lock keeps other writers away. Should somebody have removed it while this process was
        stopped, the epoch says that there is another one now.
        """
        if self.control.is_cut_off() or self.offsets.is_cut_off():
            # One more look into them may be a SIGBUS.
            return "the control file or the offset table was truncated"
        if self.is_superseded:
            return "another writer has taken over"
        if self.failure is not None:
            return f"nothing more can be stored safely ({self.failure})"
        return None

    def is_deleted(self) -> bool:
        """Whether the log's directory is deleted, or another log lies there.

        The writer alone looks. Those who only wait cannot tell: they lose their pipes when it ends,
        look for the log, and find none or another one.
        """
        try:
            return self.control.is_replaced()
        except OSError:
            return False  # nobody can look just now, which says nothing of the log

    def check_not_deleted(self) -> None:
        """Pass if the log still lies where it was made; else nothing more is stored in it.

        Raises:
            LogDeleted: it does not.
        """
        if self.is_deleted():
            error = LogDeleted(
                f"the log {self.directory} was deleted while its writer was running; open it again"
                " to make a new one",
                path=self.directory,
            )
            self.refuse(error)
            raise error

    # --- appending ---------------------------------------------------------------------------

    def append(
        self,
        batch: PackedBatch,
        producer_id: int = 0,
        producer_seq: int = 0,
        *,
        makes_room: bool = False,
    ) -> int:
        """Store and publish a batch; the number of its first event.

        A batch that this producer already had stored gets the number that it got then. One that
        `makes_room`, because retention waits for what it acknowledges, may exceed `max_bytes`.

        Raises:
            LogFull: no room on the disk, or retention keeps what would have to go.
            EventTooLarge: the batch does not fit a segment, or has more events than a batch may.
            StorageFailed: the operating system failed the write, or an earlier sync.
        """
        known = self.find(producer_id, producer_seq)
        if known is not None:
            return known
        return self.store(batch, producer_id, producer_seq, makes_room=makes_room)

    def store(
        self, batch: PackedBatch, producer_id: int, producer_seq: int, *, makes_room: bool
    ) -> int:
        """As `append`, for a batch that is not stored already (see `find`)."""
        base_seq_no = self.control.high_water + 1
        length = HEADER_BYTES + len(batch.payload)
        room = self.options.segment_bytes - FIRST_BATCH
        if batch.count > BATCH_EVENTS_LIMIT or length > room:
            raise batch_too_large(self.directory, batch.count, length, room)
        segment = self._segment_for(length, base_seq_no, makes_room)
        now = self.clock.stamp(self._last_append_ns)
        if now < self._last_append_ns:
            segment, now = self._step_back(segment, base_seq_no, now, makes_room)
        header = pack_batch_header(
            batch,
            base_seq_no=base_seq_no,
            append_time_ns=now,
            producer_id=producer_id,
            producer_seq=producer_seq,
            epoch=self._epoch,
        )
        place = IndexEntry(base_seq_no, now, segment.position)
        segment.append(header, batch.payload, place)
        if self.keys is not None:
            self.keys.note(batch, place, header)
        self._last_append_ns, self._last_append_steady_ns = now, self.clock.steady()
        if producer_id:
            self._producers.note(producer_id, producer_seq, base_seq_no)
        if batch.flags & FLAG_DUE:
            self.control.note_due(base_seq_no, base_seq_no + batch.count - 1)
        self.control.high_water = base_seq_no + batch.count - 1
        if segment.is_half_full and self.spare.is_wanted:
            self.on_spare_wanted()
        return base_seq_no

    def find(self, producer_id: int, producer_seq: int) -> int | None:
        """The number of the first event of a batch that is stored already; else `None`."""
        return self._producers.find(producer_id, producer_seq) if producer_id else None

    def keep_keys(self) -> LastOfKeys:
        """What is known of keys: kept from the first conditional append on."""
        if self.keys is None:
            full = [segment.base_seq_no for segment in self._sealed]
            self.keys = LastOfKeys(self.control, full, self._active, self.files)
        return self.keys

    def _segment_for(self, length: int, base_seq_no: int, may_exceed: bool) -> SegmentWriter:
        """The segment that takes a batch of that length, a new one if need be."""
        if self.failure is not None:
            raise no_more_appends(self.directory, self.failure)
        active = self._active
        if active is not None and active.has_room(length):
            is_bounded = not may_exceed and self.options.retention.max_bytes is not None
            if not is_bounded or self._make_room_in_active(active, length):
                return active
        return self._roll(base_seq_no, may_exceed)

    def _step_back(
        self, segment: SegmentWriter, base_seq_no: int, now: int, may_exceed: bool
    ) -> tuple[SegmentWriter, int]:
        """The segment and the time of an event whose time is before that of the one before it.

        Times never go back within a segment; without room for another one they stay where they are.
        """
        try:
            if segment.position > FIRST_BATCH:
                segment = self._roll(base_seq_no, may_exceed)
        except LogFull:
            return segment, self._last_append_ns
        self.control.times_from = base_seq_no
        return segment, now

    def _roll(self, base_seq_no: int, may_exceed: bool) -> SegmentWriter:
        """Seal the active segment and begin another; on failure all is as it was."""
        if may_exceed:
            self.retire()
        else:
            self._make_room_to_roll()
        now = self.clock.stamp(self._last_append_ns)
        fresh = SegmentWriter.create(
            self.directory,
            base_seq_no,
            self.options.segment_bytes,
            self._epoch,
            now,
            self.files,
            spare=self.spare.take(),
            writes_ahead=self.options.durability == "sync",
        )
        if self._active is not None:
            self._seal(self._active)
        self._active = fresh
        self._note_clock()
        with suppress(EventLogError):  # an older snapshot only means more to read at the next start
            self._save_producers()
        self._has_new_names = True
        if self.keys is not None:
            self.keys.roll(base_seq_no)
        self.retire()
        return fresh

    def _seal(self, segment: SegmentWriter) -> None:
        # Not from its last time: that, or the clock just now, may be one that is ahead.
        ages = self._last_append_ns, self._last_append_steady_ns
        self._sealed.append(SealedSegment(segment.base_seq_no, *ages))
        if self.options.durability == "memory":
            segment.close()
        else:
            self._unsynced.append(segment)

    def _save_producers(self) -> None:
        """Replace the snapshot with one of all that was appended until now."""
        snapshot = self._producers.to_bytes(self.control.high_water)
        replace_file(self.directory, producers_file.FILE_NAME, snapshot, self.files)
        self._producers_to = self.control.high_water

    # --- syncing -----------------------------------------------------------------------------

    def begin_sync(self) -> SyncWork:
        """What has to be synced now; run it, in a thread if need be, and then `finish_sync`."""
        has_new_names, self._has_new_names = self._has_new_names, False
        sync_names = self._sync_names if has_new_names else None
        return SyncWork(tuple(self._unsynced), self._active, self.control.high_water, sync_names)

    def _sync_names(self) -> None:
        with sync_errors(self.directory, "syncing its directory"):
            self.files.sync_directory(self.directory)

    def finish_sync(self, work: SyncWork) -> None:
        """Raise the synced mark after `work` ran without an error."""
        for segment in work.sealed:
            self._unsynced.remove(segment)
            segment.close()
        if self.failure is None:  # another sync failed meanwhile: what this one did is not known
            self.control.synced = max(self.control.synced, work.last_seq_no)

    def fail(self, error: EventLogError) -> None:
        """Refuse appends from now on: a sync failed, and a second one could lie about it.

        So could one of the next writer's, which is therefore told.
        """
        self.refuse(error)
        self.control.note_failed_sync(self.control.boot_id)

    def refuse(self, error: EventLogError) -> None:
        """Refuse appends from now on."""
        self.failure = error

    def sync_positions(self) -> None:
        """Return when positions and marks are on the disk."""
        self.offsets.sync()
        self.control.sync()

    # --- consumers ---------------------------------------------------------------------------

    def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        """Move a consumer's position forward to `seq_no`, with this state or none.

        Raises: as `check_ack`.
        """
        self.check_ack(consumer, seq_no)
        known = self.offsets.find(consumer)
        if known is not None and not known.is_changed_by(seq_no, state):
            _, seq_no, _, state = known
        self.offsets.set(consumer, seq_no, self.clock.now(), state)

    def check_ack(self, consumer: str, seq_no: int) -> None:
        """Pass if the event is there to be acknowledged.

        Raises:
            SequenceOutOfRange: there is no such event yet.
        """
        if seq_no > self.last_seq_no:
            raise beyond_the_last(self.directory, consumer, seq_no, self.last_seq_no)

    def seek(self, consumer: str, position: int) -> None:
        """Set a consumer's position: `position` is the last number behind it, 0 the beginning."""
        self.offsets.set(consumer, position, self.clock.now())

    # --- end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """An orderly end: everything synced, and said so in the control page."""
        if self.control.is_replaced() or self.is_superseded:
            self.abandon()
            return
        try:
            if self.failure is None:
                self._end_orderly()
        finally:
            self.abandon()

    def _end_orderly(self) -> None:
        if self.options.durability != "memory":
            self._sync_all()
        self._save_producers()
        self._note_clock()
        self.spare.discard()
        self.control.writer_pid = 0

    def _sync_all(self) -> None:
        work = self.begin_sync()
        try:
            work.run()
            self.finish_sync(work)
            self.sync_positions()
        except EventLogError as error:
            self.fail(error)
            raise

    def abandon(self) -> None:
        """Give all descriptors back and leave the files as they are, as a killed process would."""
        for segment in self._unsynced:
            segment.close()
        if self._active is not None:
            self._active.close()
        self.spare.abandon()
        self.offsets.close()
        self.control.close()
