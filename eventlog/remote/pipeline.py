"""Pipelines: batches of one producer that are sent in order, several at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import anyio
from anyio.abc import TaskGroup, TaskStatus

from eventlog.api.batches import copy_of
from eventlog.api.statistics import Counters, PublisherStatistics
from eventlog.errors import EventLogError, LogFull
from eventlog.remote.calls import Pauses
from eventlog.remote.driver import OutOfTurn, Unreachable
from eventlog.remote.producing import Batch, Producer, RoomWait, Store, refuse
from eventlog.remote.record import bytes_of


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
            elif not batch.is_done:
                self._refuse(batch, error)
                self._in_flight.remove(batch)
        else:
            self._pauses.reset()
            self._room = None
            if not batch.is_done:  # given up meanwhile
                self.counters.add_batch(count, size)
                batch.finish(base)
                self._in_flight.remove(batch)
        self._note()

    def _refuse(self, batch: Batch, error: EventLogError) -> None:
        refuse(batch, error, self.counters)
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
