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
from collections.abc import Mapping
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from eventlog.api.batches import SentBatch
from eventlog.api.statistics import Counters, PublisherStatistics
from eventlog.api.waiting import SLOW_S, warn_of_wait
from eventlog.errors import EventLogError, LogFull
from eventlog.remote.calls import ROOM_PAUSE_S, Calls
from eventlog.remote.driver import Driver, OutOfTurn, Unreachable
from eventlog.remote.record import Limits, RecordBuilder, bytes_of


class Batch(SentBatch):
    """Records that are stored together."""

    __slots__ = ("expect_last", "producer", "producer_seq", "records", "turn")

    def __init__(self, records: list[bytes] | None = None, expect_last: int | None = None) -> None:
        super().__init__()
        self.records = records or []
        self.rows = len(self.records)
        self.expect_last = expect_last
        """The number that the last event must have, in a conditional append."""
        self.producer: Producer | None = None
        self.producer_seq = 0
        self.turn: anyio.Lock | None = None
        """The lock of the task that sends the batch; others whose event is in it wait for it."""

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
        numbers, records = (batch.producer.producer_id, batch.producer_seq), batch.records
        more = {} if batch.expect_last is None else {"expect_last": batch.expect_last}
        base = await self.calls.until_closed(lambda: self.driver.append(*numbers, records, **more))
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
                refuse(batch, gave_up, counters)
                return None
        except OutOfTurn:  # the server has forgotten the producer
            batch.producer, producer = None, Producer()
        except EventLogError as error:
            if not store.is_worth_waiting(error):
                refuse(batch, error, counters)
                return None
            batch.producer, producer = None, Producer()
            room = room or RoomWait(store)
            await room.pause()
        else:
            usable = batch.producer
            batch.finish(base)
            counters.add_batch(count, size)
            return usable


def refuse(batch: Batch, error: EventLogError, counters: Counters[PublisherStatistics]) -> None:
    """Answer a batch with an error, and count its events."""
    counters.refused += batch.rows
    batch.refuse(error)


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
