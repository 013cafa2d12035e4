"""Records on their way to a server: batches that are sent in order and repeated safely.

::

    append       -> open batch of all tasks -> one of them sends it, with a producer of the pool
    append_many  -> batches ------------------> Pipeline -> several on their way, one producer
    publisher    -> open batch -> sealed -----> Pipeline

A producer's batches have numbers, and the driver stores each once. A producer whose last batch was
refused, or nobody knows what became of it, is given up: the next batch is the first of another one.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from eventlog.api.batches import SentBatch, copy_of
from eventlog.api.statistics import Counters, PublisherStatistics
from eventlog.api.waiting import SLOW_S, warn_of_wait
from eventlog.errors import EventLogError, LogFull
from eventlog.remote.calls import ROOM_PAUSE_S, Calls, Pauses
from eventlog.remote.driver import Driver, OutOfTurn, Unreachable
from eventlog.remote.record import Limits, RecordBuilder, bytes_of


class Batch(SentBatch):
    """Records that are stored together."""

    __slots__ = ("producer", "producer_seq", "records", "turn")

    def __init__(self, records: list[bytes] | None = None) -> None:
        super().__init__()
        self.records = records or []
        self.rows = len(self.records)
        self.producer: Producer | None = None
        self.producer_seq = 0
        self.turn: anyio.Lock | None = None
        """Of the task that sends it, for those that share it."""

    def finish(self, base_seq_no: int) -> None:
        """It is stored."""
        self.base_seq_no = base_seq_no
        self.records = []
        self.before = None

    def refuse(self, error: EventLogError) -> None:
        """It is not stored."""
        self.error = error
        self.records = []
        self.before = None


class Producer:
    """Numbers its batches."""

    def __init__(self) -> None:
        self.producer_id = secrets.randbits(63) | 1
        self._last_seq = 0

    def take(self, batch: Batch) -> None:
        """Give the batch its number."""
        self._last_seq += 1
        batch.producer, batch.producer_seq = self, self._last_seq


class Store:
    """What stores batches: a driver, and the way in which its log takes them."""

    def __init__(self, driver: Driver, calls: Calls, *, waits_for_room: bool) -> None:
        self.driver = driver
        self.calls = calls
        self.waits_for_room = waits_for_room
        self.last = 0
        """The last number that this handle knows of."""
        self.counters = Counters(PublisherStatistics)

    def note_last(self, seq_no: int) -> None:
        """There is such an event."""
        self.last = max(self.last, seq_no)

    async def send(self, batch: Batch) -> int:
        """Send a batch that has its producer, once; the number of its first event."""
        assert batch.producer is not None
        producer_id, seq, records = batch.producer.producer_id, batch.producer_seq, batch.records
        base = await self.calls.until_closed(lambda: self.driver.append(producer_id, seq, records))
        self.note_last(base + len(records) - 1)
        return base

    def is_worth_waiting(self, error: EventLogError) -> bool:
        """Whether the batch is to wait for room."""
        return isinstance(error, LogFull) and error.is_by_retention and self.waits_for_room

    async def last_consumer(self) -> tuple[str, int] | None:
        """The consumer that is furthest behind, and its first event."""
        found = await self.calls.until_closed(self.driver.positions)
        behind = [(one.position, name) for name, one in found.items()]
        return (min(behind)[1], min(behind)[0] + 1) if behind else None


class RoomWait:
    """The pauses of a batch that waits for room, which are told when they get long."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._since = anyio.current_time()
        self._next_s = 0.01
        self._is_told = False

    async def pause(self) -> None:
        """Wait before the next try."""
        await self._store.calls.pause(self._next_s)
        self._next_s = min(2 * self._next_s, ROOM_PAUSE_S)
        if not self._is_told and anyio.current_time() - self._since >= SLOW_S:
            self._is_told = True
            try:
                consumer = await self._store.last_consumer()
            except Unreachable:
                consumer = None
            warn_of_wait(self._store.calls.path, consumer)


async def deliver(store: Store, batch: Batch, producer: Producer) -> Producer | None:
    """Store a batch that is alone on its way; its answer is noted in it.

    The producer that may take the next batch is returned, if there is one.

    Raises:
        LogClosed: the handle was closed before the answer.
    """
    counters = store.counters
    pauses, room = store.calls.pauses(), None
    size, count = bytes_of(batch.records), batch.rows
    while True:
        if batch.producer is None:
            producer.take(batch)
        try:
            base = await store.send(batch)
        except Unreachable as error:
            counters.repeated += 1
            try:
                await pauses.pause(error)
            except EventLogError as gave_up:
                _refuse(batch, gave_up, counters)
                return None
        except OutOfTurn:  # the server has forgotten the producer
            batch.producer, producer = None, Producer()
        except EventLogError as error:
            if not store.is_worth_waiting(error):
                _refuse(batch, error, counters)
                return None
            batch.producer, producer = None, Producer()
            room = room or RoomWait(store)
            await room.pause()
        else:
            usable = batch.producer
            batch.finish(base)
            counters.add_batch(count, size)
            return usable


def _refuse(batch: Batch, error: EventLogError, counters: Counters[PublisherStatistics]) -> None:
    counters.refused += batch.rows
    batch.refuse(error)


class Pipeline:
    """Sends batches of one producer in order, several at once.

    A round lasts until a call fails. Then all that are on their way end, and what was not answered
    begins the next round: nothing overtakes, whatever becomes of a call.
    """

    def __init__(self, store: Store, max_in_flight: int) -> None:
        self._store = store
        self._max_in_flight = max_in_flight
        self._producer = Producer()
        self._pauses: Pauses = store.calls.pauses()
        self._room: RoomWait | None = None
        self.counters = Counters(PublisherStatistics)
        self._first_error: EventLogError | None = None
        self._unsent: deque[Batch] = deque()
        self._in_flight: list[Batch] = []
        self._changed = anyio.Event()
        self._failed: Unreachable | LogFull | None = None
        """Why this round ends, if its batches are to be sent again after a pause."""
        self._is_broken = False

    @property
    def pending(self) -> int:
        """Batches that are not answered."""
        return len(self._unsent) + len(self._in_flight)

    @property
    def events(self) -> int:
        """Their events."""
        return sum(batch.rows for batch in [*self._in_flight, *self._unsent])

    def add(self, batch: Batch) -> None:
        """Put a batch behind the others."""
        self._unsent.append(batch)
        self._note()

    def _note(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_changed(self) -> None:
        """Wait until a batch comes, or an answer."""
        await self._changed.wait()

    async def run(self) -> None:
        """Send whatever comes, until cancelled.

        Raises:
            WriterUnavailable: nobody answers.
            LogClosed: the handle was closed.
        """
        while True:
            self._failed, self._is_broken = None, False
            async with anyio.create_task_group() as tasks:
                while not self._is_broken:
                    if self._may_send_next():
                        await self._send_next(tasks)
                    else:
                        await self.wait_changed()
            await self._begin_again()

    def _may_send_next(self) -> bool:
        if not self._unsent or len(self._in_flight) >= self._max_in_flight:
            return False
        # Nothing keeps the order between two producers but waiting for the one.
        producer = self._unsent[0].producer or self._producer
        return not self._in_flight or self._in_flight[-1].producer is producer

    async def _send_next(self, tasks: TaskGroup) -> None:
        batch = self._unsent.popleft()
        before = batch.before
        if before is not None and before.error is not None:
            self._refuse(batch, copy_of(before.error))
            return
        if batch.producer is None:
            self._producer.take(batch)
        self._in_flight.append(batch)
        # `start` returns after the call has begun, so calls begin in the order of their batches.
        await tasks.start(self._send, batch)

    async def _send(self, batch: Batch, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        size, count = bytes_of(batch.records), batch.rows
        try:
            base = await self._store.send(batch)
        except OutOfTurn:
            self._not_taken(batch)
        except Unreachable as error:
            self._failed, self._is_broken = error, True
        except EventLogError as error:
            self._not_taken(batch)
            if isinstance(error, LogFull) and self._store.is_worth_waiting(error):
                self._failed = self._failed or error
            else:
                self._refuse(batch, error)
                self._in_flight.remove(batch)
        else:
            self._pauses.reset()
            self._room = None
            self.counters.add_batch(count, size)
            batch.finish(base)
            self._in_flight.remove(batch)
        self._note()

    def _refuse(self, batch: Batch, error: EventLogError) -> None:
        _refuse(batch, error, self.counters)
        self._first_error = self._first_error or error
        self._note()

    async def _begin_again(self) -> None:
        """After a round: what is not answered is sent again, first, perhaps after a pause."""
        self._unsent.extendleft(reversed(self._in_flight))
        repeated = len(self._in_flight)
        self._in_flight.clear()
        if isinstance(self._failed, Unreachable):
            self.counters.repeated += repeated
            await self._pauses.pause(self._failed)
        elif self._failed is not None:
            self._room = self._room or RoomWait(self._store)
            await self._room.pause()

    def _not_taken(self, batch: Batch) -> None:
        """It is not stored, and its number is lost: another producer sends what is left."""
        self._is_broken = True
        if batch.producer is self._producer:
            self._producer = Producer()
        batch.producer = None

    def check_stored(self) -> None:
        """Pass if no batch was refused since the last look."""
        error, self._first_error = self._first_error, None
        if error is not None:
            raise copy_of(error)

    def give_up(self, error: EventLogError) -> None:
        """Answer all that is not answered with this error."""
        for batch in [*self._in_flight, *self._unsent]:
            if not batch.is_done:
                self._refuse(batch, error)
        self._in_flight.clear()
        self._unsent.clear()
        self._note()

    def statistics(self) -> PublisherStatistics:
        """What was counted."""
        return self.counters.statistics(in_flight=self.pending)


class Entry:
    """An event of an `append`; its row is known once its batch is sealed."""

    __slots__ = ("record", "row")

    def __init__(self, record: bytes) -> None:
        self.record = record
        self.row = 0


class Appends:
    """What the tasks of one handle append: events that come together are one batch."""

    def __init__(self, store: Store, limits: Limits, max_in_flight: int) -> None:
        self._store = store
        self._limits = limits
        self._builder = RecordBuilder(limits, store.calls.path)
        self._slots = anyio.Semaphore(max_in_flight, fast_acquire=True)
        self._producers: list[Producer] = []
        self._begin_batch()

    def _begin_batch(self) -> None:
        self._open = Batch()
        self._entries: list[Entry] = []
        self._bytes = 0

    async def append(self, event: Any, key: str | None, headers: Mapping[str, str] | None) -> int:
        """Store an event; its number.

        Raises:
            EventLogError: it is not stored.
        """
        entry = Entry(self._builder.pack(event, key, headers))
        if self._bytes + len(entry.record) > self._limits.batch_bytes:
            self._seal(self._open)
        batch = self._open
        self._entries.append(entry)
        self._bytes += len(entry.record)
        if len(self._entries) >= self._limits.batch_events:
            self._seal(batch)
        try:
            await self._share(batch)
        finally:
            if not batch.is_done and batch is self._open:  # cancelled: nobody waits for it
                self._entries.remove(entry)
                self._bytes -= len(entry.record)
        return batch.seq_no_of(entry.row)

    async def _share(self, batch: Batch) -> None:
        """Wait until a batch of several tasks is answered: one of them sends it."""
        await checkpoint()  # whoever else is ready adds its events first
        batch.turn = batch.turn or anyio.Lock(fast_acquire=True)
        async with batch.turn:
            if batch.is_done:
                return
            async with self._slots:
                self._seal(batch)
                producer = self._producers.pop() if self._producers else Producer()
                usable = await deliver(self._store, batch, producer)
                if usable is not None:
                    self._producers.append(usable)

    def _seal(self, batch: Batch) -> None:
        """No other event comes into it."""
        if batch is self._open and self._entries:
            for row, entry in enumerate(self._entries):
                entry.row = row
            batch.records = [entry.record for entry in self._entries]
            batch.rows = len(batch.records)
            self._begin_batch()


def in_a_row(packed: Sequence[list[bytes]]) -> list[Batch]:
    """The batches of one call: after one that is refused, the next ones are refused too."""
    batches = list(map(Batch, packed))
    for before, batch in pairwise(batches):
        batch.before = before
    return batches


async def deliver_all(store: Store, batches: Sequence[Batch], max_in_flight: int) -> None:
    """Store batches of one call, all of which are answered then."""
    pipeline = Pipeline(store, max_in_flight)
    pipeline.counters = store.counters
    for batch in batches:
        pipeline.add(batch)

    async def run() -> None:
        try:
            await pipeline.run()
        except EventLogError as error:
            pipeline.give_up(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        while pipeline.pending:
            await pipeline.wait_changed()
        tasks.cancel_scope.cancel()
