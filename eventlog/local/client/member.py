"""A member of a group, for processes without an event loop: its events, and what became of them.

::

    lease() -> envelope() -> begin() ... the handler ... end() -> settle()
                                                   |---> nack()
                                                   `---> bury()
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import Final
from uuid import UUID

from eventlog.api.positions import SEQ_NO_MAX
from eventlog.config import AskedOptions
from eventlog.errors import (
    CorruptLog,
    EventLogError,
    EventsTruncated,
    InvalidArgument,
    InvalidArgumentType,
)
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import key_hash, unpack_body
from eventlog.local.client.group import letter_bytes_max
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.member_pipe import Lease, MemberPipe
from eventlog.local.client.results import ResultWriter
from eventlog.local.groups.acks import Acks
from eventlog.local.groups.ranges import Range, ranges_of
from eventlog.local.groups.state import DONE, RETURNED, STARTED
from eventlog.local.groups.stored import StoredLetters, envelope_of_letter, fitting_letter
from eventlog.local.storage.batch_reader import BatchReader, StoredBatch
from eventlog.local.storage.members import PAGE
from eventlog.local.wire.group_messages import Bury, Nack, Release, Settle

__all__ = ["GroupMember", "Lease"]

logger = logging.getLogger("eventlog")
BATCHES_KEPT: Final = 4
"""Decoded batches: the members of a group take turns in the same few."""

_STARTED_NS: Final = PAGE.word("started_ns")
_RUNNING: Final = PAGE.word("running")
_HANDLED: Final = PAGE.word("handled")
_FAILED: Final = PAGE.word("failed")
_RETRIED: Final = PAGE.word("retried")
_IN_FLIGHT: Final = PAGE.word("in_flight")


class _Batch:
    """A decoded batch. Events that were handed out are `None`: who has them may change them."""

    __slots__ = ("_columns", "base", "body", "events", "spare")

    def __init__(self, stored: StoredBatch, path: str) -> None:
        self.base = stored.header.base_seq_no
        envelopes = stored.envelopes(path)
        self.events: list[EventEnvelope | None] = [*envelopes]
        """For handlers."""
        self.spare: list[EventEnvelope | None] | None = None
        """For dead letters, once there are some."""
        self._columns = envelopes[0].columns
        start = stored.position + stored.header.body_offset
        self.body = bytes(stored.segment.view[start : stored.position + stored.header.length])
        """Kept, because retention may delete an event while its handler fails."""

    def decoded(self) -> list[EventEnvelope | None]:
        """All events, as they were appended."""
        return [*unpack_body(self.body, len(self.events), self.base)]

    def key_of(self, seq_no: int) -> str | None:
        """The key of one of the events."""
        keys: list[str | None] | None = self._columns.keys
        return None if keys is None else keys[seq_no - self.base]


class GroupMember:
    """A process's part in a group; close it, or use it in a `with` block."""

    def __init__(self, handle: LocalHandle, group: str, pool_id: int) -> None:
        self._handle = handle
        self._group = group
        self._pipe = MemberPipe(handle, group, pool_id)
        self._reader: BatchReader | None = None
        self._reading = threading.Lock()
        """Guards the batches and their reader."""
        self._batches: OrderedDict[int, _Batch] = OrderedDict()
        self._letters = StoredLetters(handle.path, group)
        self._base = 0
        self._events: list[EventEnvelope | None] = []
        """The batch that was last asked for, from event `_base` on."""
        self._outputs: list[LocalHandle] = []

    def __enter__(self) -> GroupMember:
        """The member itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the group."""
        self.close()

    def __repr__(self) -> str:
        """Which group, and what it holds."""
        left = self._pipe.not_begun
        return f"<GroupMember of {self._group!r} {self.member_id:#x} not begun: {left}>"

    @property
    def member_id(self) -> int:
        """Random, with the pool's id in its upper half."""
        return self._pipe.member_id

    @property
    def slot(self) -> int:
        """The place of this member's page."""
        return self._pipe.slot

    # --- the main thread: work ---------------------------------------------------------------

    def lease(self, count: int, least: int = 1) -> Lease | None:
        """Wait for at most `count` events; `None` after `stop`.

        While others might do some of them it is a share of what there is, but up to `least`.

        Raises:
            InvalidArgument, InvalidArgumentType: a number is none, or less than 1.
            EventLogError: the log cannot be reached.
        """
        _check_count("count", count)
        _check_count("least", least)
        lease = self._pipe.ask(count, least)
        while self._pipe.passed:
            events, first, last = self._pipe.passed.popleft()
            logger.warning(
                "retention of the log %s deleted %s events (%d to %d) before the group %s handled"
                " them",
                *(self._handle.path, f"{events:,}", first, last, self._group),
            )
        return lease

    def stop(self) -> None:
        """Make `lease` return `None`, now and from now on; callable from any thread."""
        self._pipe.stop()

    def envelope(self, seq_no: int) -> EventEnvelope:
        """One of the leased events, as it was appended: no two calls give the same object.

        A dead letter that is retried comes from its letter, if retention has deleted the event.

        Raises:
            CorruptLog, EventsTruncated: it cannot be read.
        """
        index = seq_no - self._base
        if not 0 <= index < len(self._events) or self._events[index] is None:
            try:
                index = self._turn_to(seq_no)
            except (CorruptLog, EventsTruncated) as error:
                return self._copy_of(seq_no, error)
        envelope, self._events[index] = self._events[index], None
        assert envelope is not None
        return envelope

    def _turn_to(self, seq_no: int) -> int:
        """Make the batch with that event the current one; the event's index in it."""
        with self._reading:
            batch = self._batch_of(seq_no)
            index = seq_no - batch.base
            if batch.events[index] is None:
                batch.events = batch.decoded()
        self._base, self._events = batch.base, batch.events
        return index

    def appended(self, seq_no: int) -> EventEnvelope:
        """An event as it was appended, whatever a handler did to it; callable from any thread.

        Raises:
            CorruptLog, EventsTruncated: it cannot be read.
        """
        try:
            with self._reading:
                batch = self._batch_of(seq_no)
                index = seq_no - batch.base
                if batch.spare is None or batch.spare[index] is None:
                    batch.spare = batch.decoded()
                envelope, batch.spare[index] = batch.spare[index], None
        except (CorruptLog, EventsTruncated) as error:
            return self._copy_of(seq_no, error)
        assert envelope is not None
        return envelope

    def _batch_of(self, seq_no: int) -> _Batch:
        for batch in self._batches.values():
            if batch.base <= seq_no < batch.base + len(batch.events):
                return batch
        if self._reader is None or self._reader.next_seq_no != seq_no:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._handle.reader.batches(seq_no)
        stored = self._reader.next_batch()
        if stored is None:
            raise CorruptLog(f"event {seq_no} was leased and is not published", seq_no=seq_no)
        batch = _Batch(stored, self._handle.path)
        self._batches[batch.base] = batch
        while len(self._batches) > BATCHES_KEPT:
            self._batches.popitem(last=False)
        return batch

    def _copy_of(self, seq_no: int, error: EventLogError) -> EventEnvelope:
        """The copy in the dead letter of an event that cannot be read."""
        letter = self.letter(seq_no)
        copy = None if letter is None else envelope_of_letter(letter, seq_no)
        if copy is None:
            raise error
        return copy

    def letter(self, seq_no: int) -> bytes | None:
        """The dead letter of an event that is retried; `None` if it has none."""
        return self._letters.find(seq_no)

    def begin(self, row: int, seq_no: int, now_ns: int) -> None:
        """Note, where this process's death cannot take it, that the event's handler begins."""
        page = self._pipe.page
        assert page is not None
        page.states[row] = STARTED
        page.words[_RUNNING] = seq_no
        page.words[_STARTED_NS] = now_ns

    def end(self, row: int) -> None:
        """Note that the event is done."""
        page = self._pipe.page
        assert page is not None
        page.states[row] = DONE
        page.words[_HANDLED] += 1

    def count_handled(self, events: int) -> None:
        """Events whose results are about to be stored; fewer again, if they were not.

        Before it, because who waits for the group may look as soon as the writer has them.
        """
        page = self._pipe.page
        assert page is not None
        page.words[_HANDLED] += events

    def stored(self, row: int) -> None:
        """Note that the event's result is stored."""
        page = self._pipe.page
        assert page is not None
        page.states[row] = DONE

    def refused(self, row: int) -> None:
        """Note that the event's result was refused: its delivery has failed, whoever dies next."""
        page = self._pipe.page
        assert page is not None
        page.states[row] = STARTED

    def returned(self, row: int) -> None:
        """Note that the handler returned a result, which is not stored yet."""
        page = self._pipe.page
        assert page is not None
        page.states[row] = RETURNED

    def show(self, seq_no: int, started_ns: int, in_flight: int) -> None:
        """Note what runs: the oldest event, when it began (0: nothing runs), and how many do."""
        if self._pipe.page is not None:
            self._pipe.page.words[_RUNNING] = seq_no
            self._pipe.page.words[_STARTED_NS] = started_ns
            self._pipe.page.words[_IN_FLIGHT] = in_flight

    def results(self, path: str) -> ResultWriter:
        """A producer of results for the log at `path`; it is closed with the member.

        On the member's own log a result and the word that its event is done are stored in one step;
        on another one, the result goes first.
        """
        handle = LocalHandle(path, AskedOptions())
        handle.open()
        self._outputs.append(handle)
        log_id = self._handle.reader.control.log_id
        is_same = handle.reader.control.log_id == log_id
        acks = Acks(self._group, self.member_id, 0, []) if is_same else None
        return ResultWriter(handle, UUID(bytes=log_id), self._group, acks)

    def settle(self, lease: Lease, ranges: list[Range]) -> None:
        """These events are done."""
        self._pipe.say_of(lease, Settle, lease.lease_id, tuple(ranges))

    def nack(self, lease: Lease, seq_no: int, delay_s: float) -> None:
        """The event's handler failed: hand it out again, not before `delay_s` have passed.

        Its row in the page stays: should both the writer and this process die before the writer
        has heard it, the page says that a delivery began. Afterwards the lease is without it.
        """
        self._count_failure(retried=1)
        self._pipe.say_of(lease, Nack, lease.lease_id, seq_no, int(delay_s * 1e9))

    def bury(self, lease: Lease, seq_no: int, letter: bytes) -> None:
        """The event is a dead letter."""
        self._count_failure(retried=0)
        self._pipe.say_of(lease, Bury, self._group, lease.lease_id, seq_no, letter)

    def _count_failure(self, retried: int) -> None:
        """First, because who waits for the group may look as soon as the writer knows."""
        page = self._pipe.page
        assert page is not None
        page.words[_FAILED] += 1
        page.words[_RETRIED] += retried

    def fitting_letter(self, seq_no: int, error: str, traceback: str | None = None) -> bytes:
        """A dead letter of an event, as it was appended, that fits a frame."""
        try:
            envelope = self.appended(seq_no)
        except EventLogError:  # deleted or damaged meanwhile: the letter says the rest
            envelope = None
        limit = letter_bytes_max(self._handle, self._group)
        return fitting_letter(limit, envelope, error=error, traceback=traceback)

    def release_key(self, lease: Lease, envelope: EventEnvelope) -> None:
        """Give back the later events of a key whose event failed: they have to wait for it."""
        wanted = key_hash(envelope.key)
        with self._pipe.changed:
            todo = list(lease.todo)
            behind = {n for _, n in todo if self._may_be_of(n, wanted)}
            if behind:
                lease.todo.clear()
                lease.todo.extend(entry for entry in todo if entry[1] not in behind)
                self._pipe.say_of(lease, Release, lease.lease_id, tuple(ranges_of(behind)))

    def _may_be_of(self, seq_no: int, wanted: int) -> bool:
        """Whether the event has a key of that hash, or nobody can tell."""
        try:
            with self._reading:
                return key_hash(self._batch_of(seq_no).key_of(seq_no)) == wanted
        except (CorruptLog, EventsTruncated):
            return True

    def release(self, lease: Lease) -> None:
        """Give back everything of the lease that was not begun."""
        with self._pipe.changed:
            numbers = [n for _, n in lease.todo]
            lease.todo.clear()
            if numbers:
                self._pipe.say_of(lease, Release, lease.lease_id, tuple(ranges_of(numbers)))

    def flush(self) -> None:
        """Wait until the writer has answered everything.

        Raises:
            EventLogError: the log cannot be reached.
        """
        self._pipe.flush()

    def close(self) -> None:
        """Leave the group, and give everything back; may be called twice."""
        self._pipe.close()
        for handle in self._outputs:
            handle.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _check_count(name: str, number: object) -> None:
    if not isinstance(number, int) or isinstance(number, bool):
        raise InvalidArgumentType(f"{name}={number!r}; give a whole number")
    if not 1 <= number <= SEQ_NO_MAX:
        raise InvalidArgument(f"{name}={number}; give 1 or more")
