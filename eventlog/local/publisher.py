"""Publishing to a local log on trio and asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from threading import get_ident
from typing import Any

import anyio
import anyio.lowlevel

from eventlog.api import forks
from eventlog.api.arguments import PublisherOptions
from eventlog.api.batches import HandleOfMany, HandleOfRow, ManyBatches
from eventlog.api.publisher import AppendHandle, ManyHandle
from eventlog.api.publisher_block import FlushedAtEnd
from eventlog.api.refusals import closed
from eventlog.errors import EventLogError
from eventlog.event.texts import Headers, Keys
from eventlog.local.client.asynchronous import AsyncPipe
from eventlog.local.client.conversations import PipeBroken
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.publishing import LAST_ROW, Publishing


class LocalPublisher(Publishing[AsyncPipe], FlushedAtEnd):
    """See `Publisher`.

    Two tasks: the sender seals the open batch as soon as the producer lets other tasks run (or
    `linger` later) and sends; the receiver owns the pipe, takes the answers, and opens a new pipe
    when it breaks. `send` itself sends a batch that is full, without waiting for a task.
    """

    def __init__(self, handle: LocalHandle, options: PublisherOptions) -> None:
        super().__init__(handle, AsyncPipe, options)
        self._linger_s = options.linger
        self.path = handle.path
        self.flush_s = options.flush_s
        self._thread_id = get_ident()
        self._channel = self._outbox.channel
        self._to_send = anyio.Event()
        self._answered = anyio.Event()
        self._is_awaited = anyio.Event()

    async def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        if self._generation != forks.generation or self._thread_id != get_ident():
            self._refuse()
        # As `Outbox.add`, written out: this is the one line that runs for every event.
        batch, builder = self._outbox.open_batch, self._builder
        if batch.rows == 0:
            self.check_usable()  # the whole check, once for each batch
        row = builder.add(event, key, headers)
        batch.rows = row + 1
        if builder.bytes >= self._max_batch_bytes or row >= LAST_ROW:
            self._outbox.seal()
            await self._send_queued()
        elif row == 0:
            self._to_send.set()
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
        outbox = self._outbox
        rows = outbox.add_list(events, keys, headers, self._max_batch_bytes)
        if rows is None and outbox.open_batch.rows:
            outbox.seal()
            rows = outbox.add_list(events, keys, headers, self._max_batch_bytes)
        if rows is not None and not outbox.unsent:
            self._to_send.set()
            return HandleOfMany(self, rows)
        many = rows or await self._add_batches(events, keys, headers)
        await self._send_queued()
        return HandleOfMany(self, many)

    async def _add_batches(
        self, events: Iterable[Any] | AsyncIterable[Any], keys: Keys, headers: Headers
    ) -> ManyBatches[OutBatch]:
        """Queue what is no short list, as batches of its own."""
        many_events = self._handle.many_events(keys, headers, self._max_batch_bytes)
        packed = await many_events.pack_any(events)
        if self._generation != forks.generation:  # closed while an iterable was waited for
            self._refuse()
        return self._outbox.add_many(packed)

    @property
    def is_inherited(self) -> bool:
        return self._handle.generation != forks.generation

    @property
    def unstored(self) -> int:
        return self._outbox.unstored

    async def _send_queued(self) -> None:
        self._pump()
        await anyio.lowlevel.checkpoint()
        await self._wait_pending(self._max_in_flight)

    async def flush(self) -> None:
        self.check_usable()
        self._outbox.seal()
        self._pump()
        await anyio.lowlevel.checkpoint()
        await self._wait_pending(0)
        self._check_stored()

    async def _wait_pending(self, pending_max: int) -> None:
        while self._outbox.pending > pending_max and self._failure is None:
            await self._answered.wait()

    def _pump(self) -> None:
        """Send what the window allows, as far as the pipe takes it without waiting."""
        outbox = self._outbox
        if not self._channel.is_open:
            self._is_awaited.set()
            return
        while outbox.unsent and len(outbox.in_flight) < self._max_in_flight:
            self._pipe.queue(*outbox.next_frame())
        try:
            if not self._pipe.send_now():
                self._to_send.set()
        except PipeBroken:
            pass  # the receiver sees it too, and it is the one who opens another pipe

    async def run_sender(self) -> None:
        """Seal and send whenever the producer pauses."""
        while True:
            await self._to_send.wait()
            self._to_send = anyio.Event()
            if self._linger_s:
                await anyio.sleep(self._linger_s)
            self._outbox.seal()
            self._pump()
            if self._channel.is_open:
                try:
                    await self._pipe.send_rest()
                except PipeBroken:
                    continue  # as in `_pump`

    async def run_receiver(self) -> None:
        """Open the pipe when there is something to send, and take answers."""
        while True:
            if not self._outbox.pending:
                await self._is_awaited.wait()
            self._is_awaited = anyio.Event()
            try:
                await self._receive_all()
            except EventLogError as error:
                self._fail(error)
                return

    async def _receive_all(self) -> None:
        attempt = 0
        while True:
            try:
                await self._pipe.run(self._channel.open())
                self._pump()
                while True:
                    data = await self._pipe.receive()
                    self._outbox.take_answers(self._channel.messages_of(data))
                    attempt = 0  # a publisher outlives any number of writers that did something
                    self._note_answers()
                    self._pump()
            except PipeBroken as error:
                self._outbox.pipe_broke()
                if not self._outbox.pending:
                    return
                gave_up = self._channel.gave_up(attempt, error)
                attempt += 1
                if gave_up is not None:
                    raise gave_up from error

    def _fail(self, error: EventLogError) -> None:
        """Answer all that is on its way, and what is still to be sealed, with this error."""
        self._failure = error
        self._generation = forks.UNUSABLE
        self._outbox.seal()
        self._outbox.give_up(error)
        self._note_answers()

    def _note_answers(self) -> None:
        self._answered.set()
        self._answered = anyio.Event()

    async def wait_done(self, batch: OutBatch) -> None:
        """Wait until the writer has answered the batch."""
        self.check_usable()
        if not batch.is_sealed:
            self._outbox.seal()
            self._pump()
        await anyio.lowlevel.checkpoint()
        while not batch.is_done:
            await self._answered.wait()

    def drop_half(self) -> None:
        self._outbox.drop_half()

    def close(self) -> None:
        self._generation = forks.UNUSABLE
        if self._handle.generation != forks.generation:
            return
        if len(self._builder) or self._outbox.pending:
            self._fail(closed("publisher", self._handle.path))
        self._handle.pipes.discard(self._pipe)
        self._pipe.close()
