"""What each message does: the actor that owns the log. No trio, no sockets.

The shell hands messages in (`handle`) and gives each peer a `say`; the actor decides who is told
what, and when:

- An append is answered when it has reached the log's durability: at once, or, with "sync", when the
  shell reports a sync that covers it (`on_synced`).
- An append that finds the log full waits, if the log's `on_full` says so, until an acknowledgement
  makes room; and if the disk is full, until the next segment is ready, if that is in the making.
  Those behind it wait too, so that no producer's order is broken.
- An append that `FOLLOWS` one that was refused is refused as that was: of the batches of one call
  exactly the first ones are stored, though all of them are on their way at once.
- A parked peer is woken as soon as its number is published: in the same step as the append, or at
  once if it is already there, so no wake-up can be lost.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from msgspec.structs import replace

from eventlog.api.positions import SEQ_NO_MAX, check_name, check_seq_no, check_state
from eventlog.api.refusals import state_of_group
from eventlog.api.statistics import WriterStatistics, numbers_of
from eventlog.config import AskedOptions
from eventlog.errors import EventLogError, InvalidArgument, LogFull, ProtocolError
from eventlog.event.record_batch import FLAGS_KNOWN, PackedBatch, areas_bytes
from eventlog.local.groups.coordinator import Coordinator
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.wire.connection import Peer
from eventlog.local.wire.messages import (
    FOLLOWS,
    Ack,
    AckState,
    Answer,
    Append,
    Appended,
    AppendIf,
    AwaitSynced,
    Configure,
    Done,
    Forget,
    Hello,
    Park,
    Request,
    Seek,
    Statistics,
    StatisticsReport,
    Status,
    StatusReport,
    Trim,
    TrimmedTo,
    Wake,
    Welcome,
    failed,
)
from eventlog.local.writer.waiting import AnyAppend, Entry, Expecting, Waiting, put_in_turn


class Actor:
    """The log's owner.

    `on_dirty` is called whenever something is to be synced, `on_due` when the next backoff of a
    group may end earlier than before, `on_index` when an index by key is to be made.
    """

    def __init__(
        self,
        log: WritableLog,
        connections: Callable[[], int],
        on_dirty: Callable[[], None],
        on_due: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = time.monotonic_ns,
        *,
        on_index: Callable[[], None] = lambda: None,
    ) -> None:
        self.log = log
        self._connections = connections
        self._on_dirty = on_dirty
        self._answers_when_synced = log.options.durability == "sync"
        self._parked = Waiting()
        self._awaiting_sync = Waiting()
        self._unsynced: deque[tuple[int, Peer, Appended]] = deque()
        self._waiting: deque[tuple[Peer, AnyAppend]] = deque()
        self._refused: dict[Peer, tuple[int, int, EventLogError]] = {}
        """The last batch that was refused on each pipe: producer, its count, and why."""
        self.expecting = Expecting(log, on_index)
        self.groups = Coordinator(log, on_due, self._on_group_moved, clock)
        self.counters = self.groups.store.counters
        self._clock = clock
        self._started_ns = clock()
        self.on_configured: Callable[[], None] = lambda: None
        """Called when options were changed."""
        if log.was_killed:
            on_dirty()  # nobody else syncs what the killed writer had not yet

    def handle(self, peer: Peer, message: Hello | Request) -> None:
        """Carry out one message and say the answer, now or later.

        If the log was deleted, `log.failure` says so from then on, and this writer has to end.

        Raises:
            ProtocolError: the message makes no sense; the peer is to be dropped.
        """
        if isinstance(message, Hello):
            control = self.log.control
            peer.say(Welcome(message.version, control.writer_pid, control.epoch, control.log_id))
            return
        try:
            if message.needs_log:
                self.log.check_not_deleted()
            self._carry_out(peer, message)
        except ProtocolError:
            raise
        except EventLogError as error:
            self._refuse(peer, message, error)

    def _refuse(self, peer: Peer, message: Request, error: EventLogError) -> None:
        if isinstance(message, AnyAppend):
            self._refused[peer] = message.producer_id, message.producer_seq, error
        peer.say(failed(message.request_id, error))

    def _carry_out(self, peer: Peer, message: Request) -> None:
        match message:
            case Append() | AppendIf():
                self._take(peer, message)
            case Park():
                self._park(peer, message)
            case AwaitSynced():
                self._await_synced(peer, message)
            case Ack() | AckState():
                self._ack(message)
                self._moved(peer, message.request_id)
            case Seek(request_id, consumer, position):
                check_seq_no(position, consumer=check_name(consumer))
                if not self.groups.take_seek(consumer, position):
                    self.log.seek(consumer, position)
                self._moved(peer, request_id)
            case Forget(request_id, consumer):
                self.groups.forget(check_name(consumer))
                self.log.offsets.forget(consumer)
                self._moved(peer, request_id)
            case Status() | Statistics() | Configure() | Trim():
                peer.say(self._answer_of_log(message))
            case _:
                self.groups.handle(peer, message)

    def _answer_of_log(self, message: Status | Statistics | Configure | Trim) -> Answer:
        """What concerns the log as a whole."""
        if isinstance(message, Status | Statistics):
            return self._report(message)
        if isinstance(message, Trim):
            deleted = self.log.trim(check_seq_no(message.before), force=message.force)
            self.on_retired()
            return TrimmedTo(message.request_id, deleted, self.log.control.first_available)
        asked = AskedOptions.from_dict(message.options)
        self.log.control.change_options(self.log.options.changed(asked), asked.given)
        self.on_configured()
        with suppress(EventLogError):  # what cannot be deleted now is tried again at the next roll
            self.retire()
        return Done(message.request_id)

    def retire(self) -> None:
        """Delete what is over a limit; groups and appends that it held up go on.

        Raises:
            EventLogError: some of it could not be deleted.
        """
        try:
            self.log.retire()
        finally:
            self.on_retired()

    def on_retired(self) -> None:
        """Events were deleted: groups pass them, and perhaps there is room now."""
        self.groups.on_retired()
        self.retry_waiting()

    def _ack(self, message: Ack | AckState) -> None:
        consumer, seq_no = check_name(message.consumer), message.seq_no
        self.log.check_ack(consumer, check_seq_no(seq_no, consumer=consumer))
        state = None
        if isinstance(message, AckState):
            state = check_state(message.state, consumer)
            if consumer in self.groups.store.groups:
                raise state_of_group(consumer, self.log.directory)
            known = self.log.offsets.find(consumer)
            if state is None and known is not None:
                state = known.state
        if not self.groups.take_ack(consumer, seq_no):  # its journal before the table
            self.log.ack(consumer, seq_no, state)

    def _report(self, message: Status | Statistics) -> StatusReport | StatisticsReport:
        """What only the writer knows."""
        if isinstance(message, Status):
            return StatusReport(message.request_id, self._connections())
        return StatisticsReport(message.request_id, numbers_of(self.statistics()))

    def statistics(self) -> WriterStatistics:
        """What was counted, and how many there are now of what comes and goes."""
        return self.counters.statistics(
            uptime_s=(self._clock() - self._started_ns) / 1e9,
            waiting=len(self._waiting) + len(self.expecting),
            parked=len(self._parked),
            unsynced=len(self._unsynced) + len(self._awaiting_sync),
            in_flight=sum(state.in_flight for state in self.groups.store.groups.values()),
            postponed=sum(len(state.postponed) for state in self.groups.store.groups.values()),
            connections=self._connections(),
        )

    def _moved(self, peer: Peer, request_id: int) -> None:
        """A position was set: on the disk soon, and perhaps there is room now."""
        self.counters.positions += 1
        peer.say(Done(request_id))
        self._on_dirty()
        self.retry_waiting()

    def _on_group_moved(self) -> None:
        self._on_dirty()
        if self._waiting:
            self.retry_waiting()

    # --- appends -----------------------------------------------------------------------------

    def _take(self, peer: Peer, message: AnyAppend) -> None:
        _check_append(message)
        if self.expecting.holds_before(peer, message):
            self.expecting.defer(peer, message)
        else:
            self._append_in_turn(peer, message)

    def _append_in_turn(self, peer: Peer, message: AnyAppend) -> None:
        if self._waiting and not message.acks_bytes:
            put_in_turn(self._waiting, peer, message)
        else:
            self._append(peer, message)  # what it acknowledges may be what the others wait for

    def _append(self, peer: Peer, message: AnyAppend) -> None:
        # One that is stored already is only to be answered again, whosever its events are by now.
        known = self.log.find(message.producer_id, message.producer_seq)
        if known is not None:
            self.counters.repeated += 1
            self._say_appended(peer, message, known)
            return
        if message.flags & FOLLOWS:
            message = replace(message, flags=message.flags & ~FOLLOWS)
            self._check_not_behind_refused(peer, message)
        if isinstance(message, AppendIf) and not self.expecting.admits(peer, message):
            return
        batch = PackedBatch(message.count, message.flags, message.acks_bytes, message.payload)
        try:
            acks = self.groups.acks_of(message) if message.acks_bytes else None
            base_seq_no = self.log.store(
                batch,
                message.producer_id,
                message.producer_seq,
                makes_room=acks is not None and self.groups.store.holds_retention(acks.group),
            )
        except LogFull as error:
            # A segment in the making has room in its hands: whether there is any is known then.
            waits = self.log.options.on_full == "wait"
            will_change = waits if error.is_by_retention else self.log.spare.is_making
            if not will_change:
                raise
            put_in_turn(self._waiting, peer, message)
            return
        if isinstance(message, AppendIf):
            self.expecting.stored(message, batch, base_seq_no)
        last_seq_no = base_seq_no + message.count - 1
        self.counters.add_batch(message.count, len(message.payload))
        self.counters.wake_ups += self._parked.wake(last_seq_no)
        self._say_appended(peer, message, base_seq_no)
        if acks is not None:
            self.groups.take_acks(acks, base_seq_no, last_seq_no)
        self._on_dirty()
        self.groups.on_published()

    def _say_appended(self, peer: Peer, message: AnyAppend, base_seq_no: int) -> None:
        """Answer with the number of the first event, now or when it has its durability."""
        answer = Appended(message.request_id, base_seq_no)
        last_seq_no = base_seq_no + message.count - 1
        if self._answers_when_synced and last_seq_no > self.log.control.synced:
            self._unsynced.append((last_seq_no, peer, answer))
            self._on_dirty()
        else:
            peer.say(answer)

    def _check_not_behind_refused(self, peer: Peer, message: AnyAppend) -> None:
        *before, error = self._refused.get(peer, (0, 0, None))
        if error is not None and before == [message.producer_id, message.producer_seq - 1]:
            raise error

    def retry_waiting(self) -> None:
        """Append what waited for room, in the order in which it came, as far as there is some."""
        results = [entry for entry in self._waiting if entry[1].acks_bytes]
        waiting = deque(entry for entry in self._waiting if not entry[1].acks_bytes)
        self._waiting = deque()
        for entry in results:  # what they acknowledge may be what the others wait for
            self._append_waiting(*entry)
        still, self._waiting = self._waiting, deque()
        while waiting and not self._waiting:  # one that went back says that there is no room
            self._append_waiting(*waiting.popleft())
        self._waiting = deque([*still, *self._waiting, *waiting])

    def _append_waiting(self, peer: Peer, message: AnyAppend) -> None:
        if peer.is_gone:
            return  # it will repeat the batch on its next connection, if it lives
        try:
            if self.expecting.holds_before(peer, message):
                self.expecting.defer(peer, message)
            else:
                self._append(peer, message)
        except EventLogError as error:
            self._refuse(peer, message, error)

    def indexing(self) -> Iterator[None]:
        """Make indexes by key, step by step, and store what waited for one."""

        def resume(entry: Entry, error: EventLogError | None) -> None:
            try:
                if error is not None:
                    raise error
                self._append_in_turn(*entry)
            except EventLogError as refusal:
                self._refuse(*entry, refusal)

        yield from self.expecting.working(resume)

    def note_sync(self, seconds: float) -> None:
        """Count a sync that took so long."""
        self.counters.syncs += 1
        self.counters.sync_s += seconds
        self.counters.longest_sync_s = max(self.counters.longest_sync_s, seconds)

    def on_synced(self) -> None:
        """Answer the appends that a finished sync covers."""
        synced = self.log.control.synced
        self.counters.wake_ups += self._awaiting_sync.wake(synced)
        while self._unsynced and self._unsynced[0][0] <= synced:
            _, peer, answer = self._unsynced.popleft()
            peer.say(answer)

    def on_sync_failed(self, error: EventLogError) -> None:
        """Refuse what was not synced, and everything from now on."""
        self.log.fail(error)
        while self._unsynced:
            _, peer, answer = self._unsynced.popleft()
            peer.say(failed(answer.request_id, error))

    def end(self) -> None:
        """End in order, if the log is still this writer's and all is on the disk.

        First what groups did: after an orderly end, nobody looks for that in batches.

        Raises:
            StorageFailed: a sync failed just now, so this was an end as a killed writer's.
        """
        is_ours = not (self.log.control.is_replaced() or self.log.is_superseded)
        try:
            if is_ours and not self.log.failure and self.log.options.durability != "memory":
                self.groups.store.sync()
        except EventLogError as error:
            self.log.fail(error)
            raise
        finally:
            self.log.close()
            self.groups.store.close()

    # --- waiting readers ---------------------------------------------------------------------

    def _park(self, peer: Peer, message: Park) -> None:
        if message.seq_no <= self.log.last_seq_no:
            peer.say(Wake(message.request_id, self.log.last_seq_no))
        else:
            self._parked.add(peer, message.request_id, message.seq_no)

    def _await_synced(self, peer: Peer, message: AwaitSynced) -> None:
        if message.seq_no <= self.log.control.synced:
            peer.say(Wake(message.request_id, self.log.control.synced))
        else:
            self._awaiting_sync.add(peer, message.request_id, message.seq_no)

    def forget_peer(self, peer: Peer) -> None:
        """Drop what a peer that is gone was waiting for."""
        self._refused.pop(peer, None)
        self.expecting.forget_peer(peer)
        self._parked.forget(peer)
        self._awaiting_sync.forget(peer)
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not peer)
        self.groups.forget_peer(peer)


def _check_append(message: AnyAppend) -> None:
    """Refuse what no client of ours sends, before it reaches the log."""
    before_body = areas_bytes(message.count, message.flags, message.acks_bytes)
    if message.count < 1 or before_body >= len(message.payload):
        raise ProtocolError(f"a batch of {message.count} events that are not there")
    if message.flags & ~(FLAGS_KNOWN | FOLLOWS):
        raise ProtocolError(f"a batch with unknown flags ({message.flags:#x})")
    if message.producer_seq > SEQ_NO_MAX:
        raise InvalidArgument("a producer's count that no producer can reach")
