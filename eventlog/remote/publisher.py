"""Publishing to a log on a server, on trio and asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from eventlog.api import forks
from eventlog.api.arguments import PublisherOptions
from eventlog.api.batches import HandleOfMany, HandleOfRow, ManyBatches, copy_of
from eventlog.api.publisher import AppendHandle, ManyHandle
from eventlog.api.publisher_block import FlushedAtEnd
from eventlog.api.refusals import closed
from eventlog.api.statistics import PublisherStatistics
from eventlog.errors import EventLogError
from eventlog.event.texts import Headers, Keys
from eventlog.remote.pipeline import Pipeline, in_a_row
from eventlog.remote.producing import Batch
from eventlog.remote.record import Limits, ManyRecords, RecordBuilder

if TYPE_CHECKING:
    from eventlog.remote.handle import RemoteHandle


class RemotePublisher(FlushedAtEnd):
    """See `Publisher`.

    Two tasks: the sealer ends the open batch as soon as the producer lets other tasks run (or
    `linger` later) and fewer than `max_in_flight` batches are on their way, and the pipeline sends.
    """

    def __init__(self, handle: RemoteHandle, options: PublisherOptions) -> None:
        limits = handle.limits
        self._handle = handle
        self.path = handle.path
        self.flush_s = options.flush_s
        self._linger_s = options.linger
        self._thread_id = get_ident()
        self._limits = Limits(
            limits.max_event_bytes,
            limits.record_bytes_max,
            min(options.max_batch_bytes, limits.batch_bytes),
            limits.batch_events,
        )
        self._max_in_flight = options.max_in_flight
        self._builder = RecordBuilder(limits, handle.path)
        self._pipeline = Pipeline(handle.store, options.max_in_flight)
        self._open = Batch()
        self._open_bytes = 0
        self._to_seal = anyio.Event()
        self._failure: EventLogError | None = None
        self._generation = handle.generation
        """The process that may use it; `forks.UNUSABLE` once it is closed or has failed."""

    def __repr__(self) -> str:
        """What is on its way."""
        return f"<Publisher to {self.path!r} batches on their way: {self._pipeline.pending}>"

    async def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        if self._generation != forks.generation or self._thread_id != get_ident():
            self._refuse()
        batch = self._open
        if batch.rows == 0:
            self.check_usable()  # the whole check, once for each batch
        record = self._builder.pack(event, key, headers)
        row = batch.rows
        batch.records.append(record)
        batch.rows = row + 1
        self._open_bytes += len(record)
        is_full = row + 1 >= self._limits.batch_events
        if is_full or self._open_bytes >= self._limits.batch_bytes:
            self._seal()
            await checkpoint()
            await self._wait_pending(self._max_in_flight)
        elif row == 0:
            self._to_seal.set()
        return HandleOfRow(self, batch, row)  # type: ignore[return-value]  # registered

    async def send_many(
        self,
        events: Iterable[Any] | AsyncIterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
    ) -> ManyHandle:
        if self._generation != forks.generation or self._thread_id != get_ident():
            self._refuse()
        self.check_usable()
        packed = await ManyRecords(self._limits, self.path, keys, headers).pack_any(events)
        if self._generation != forks.generation:  # closed while an iterable was waited for
            self._refuse()
        self._seal()
        batches = in_a_row(packed)
        for batch in batches:
            self._pipeline.add(batch)
        await checkpoint()
        await self._wait_pending(self._max_in_flight)
        return HandleOfMany(self, ManyBatches(batches))

    @property
    def is_inherited(self) -> bool:
        return self._handle.generation != forks.generation

    def check_usable(self) -> None:
        self._handle.check_place()

    def _refuse(self) -> None:
        self.check_usable()
        if self._failure is not None:
            raise copy_of(self._failure)
        raise closed("publisher", self.path)

    async def flush(self) -> None:
        self.check_usable()
        self._seal()
        await checkpoint()
        await self._wait_pending(0)
        if self._failure is not None:
            raise copy_of(self._failure)
        self._pipeline.check_stored()

    def _seal(self) -> None:
        """The open batch gets no more events."""
        if self._open.rows and self._failure is None:
            self._pipeline.add(self._open)
            self._open = Batch()
            self._open_bytes = 0

    async def _wait_pending(self, pending_max: int) -> None:
        while self._pipeline.pending > pending_max and self._failure is None:
            await self._pipeline.wait_changed()

    async def run_sealer(self) -> None:
        """Seal when the producer pauses and the batch can be sent; until then it takes more."""
        while True:
            await self._to_seal.wait()
            self._to_seal = anyio.Event()
            if self._linger_s:
                await anyio.sleep(self._linger_s)
            await self._wait_pending(self._max_in_flight - 1)
            self._seal()

    async def run_pipeline(self) -> None:
        """Send what is sealed."""
        try:
            await self._pipeline.run()
        except EventLogError as error:
            self._fail(error)

    def _fail(self, error: EventLogError) -> None:
        """Answer all that is on its way, and what is still to be sealed, with this error."""
        self._seal()
        self._failure = error
        self._generation = forks.UNUSABLE
        self._pipeline.give_up(error)

    async def wait_done(self, batch: Batch) -> None:
        """Wait until the batch is answered."""
        self.check_usable()
        if batch is self._open:
            self._seal()
        await checkpoint()
        while not batch.is_done:
            await self._pipeline.wait_changed()

    @property
    def unstored(self) -> int:
        return self._open.rows + self._pipeline.events

    def drop_half(self) -> None:
        del self._open.records[self._open.rows :]

    def statistics(self) -> PublisherStatistics:
        return self._pipeline.statistics()

    def close(self) -> None:
        self._generation = forks.UNUSABLE
        if self.is_inherited:
            return
        if self._failure is None:
            self._fail(closed("publisher", self.path))
