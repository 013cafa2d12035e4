"""Publishing to a local log without an event loop; the twin of `publisher`."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from eventlog.api import forks
from eventlog.api.arguments import PublisherOptions
from eventlog.api.batches import ManyBatches, ManyRows
from eventlog.api.blocking_log import AppendHandle, ManyHandle, Publisher
from eventlog.api.leaving import (
    INTERRUPTED_FLUSH_S,
    INTERRUPTS,
    flush_limit_s,
    not_flushed,
    warn_of_unstored,
)
from eventlog.errors import EventLogError
from eventlog.event.texts import Headers, Keys
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.publishing import LAST_ROW, Publishing
from eventlog.local.client.threads import BlockingPipe, OutOfTime
from eventlog.system import start_thread

JOIN_S_MAX: Final = 1.0


class BlockingLocalPublisher(Publishing[BlockingPipe], Publisher):
    """See `eventlog.Publisher`.

    The caller's thread fills batches and sends those that are full; one more thread seals and sends
    what is left when the caller pauses for `linger`, and takes the answers then.
    """

    def __init__(self, handle: LocalHandle, options: PublisherOptions) -> None:
        super().__init__(handle, BlockingPipe, options)
        self._linger_s = options.linger
        self._flush_s = options.flush_s
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._look_after, name=f"publisher to {handle.path}", daemon=True
        )
        start_thread(self._thread, handle.path)
        _open_publishers.add(self)

    def send(
        self, event: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AppendHandle:
        if self._generation != forks.generation:
            self._refuse()
        with self._lock:
            # As `Outbox.add`, written out: this runs for every event.
            batch, builder = self._outbox.open_batch, self._builder
            try:
                row = builder.add(event, key, headers)
            except Exception:
                raise
            except BaseException:
                self._outbox.drop_half()
                raise
            batch.rows = row + 1
            if builder.bytes >= self._max_batch_bytes or row >= LAST_ROW:
                self._outbox.seal()
                self._pipe.run(self._outbox.deliver(self._max_in_flight))
            elif row == 0:
                self._opened.set()
        return BlockingLocalAppendHandle(self, batch, row)  # type: ignore[return-value]  # registered

    def send_many(
        self, events: Iterable[Any], *, keys: Keys = None, headers: Headers = None
    ) -> ManyHandle:
        if self._generation != forks.generation:
            self._refuse()
        many = self._add_rows(events, keys, headers) or self._add_batches(events, keys, headers)
        if not self._opened.is_set():
            self._opened.set()  # the thread sends, and takes the answers, should the caller pause
        return BlockingLocalManyHandle(self, many)

    def _add_rows(
        self, events: Iterable[Any], keys: Keys, headers: Headers
    ) -> ManyRows[OutBatch] | None:
        """Queue a short list in a batch that others share."""
        outbox = self._outbox
        with self._lock:
            rows = outbox.add_list(events, keys, headers, self._max_batch_bytes)
            if rows is None and outbox.open_batch.rows:
                outbox.seal()
                self._pipe.run(outbox.deliver(self._max_in_flight))
                rows = outbox.add_list(events, keys, headers, self._max_batch_bytes)
            if outbox.unsent:
                self._pipe.run(outbox.deliver(self._max_in_flight))
        return rows

    def _add_batches(
        self, events: Iterable[Any], keys: Keys, headers: Headers
    ) -> ManyBatches[OutBatch]:
        """Queue what is no short list, in batches of its own; it may use this publisher itself."""
        packed = self._handle.many_events(keys, headers, self._max_batch_bytes).pack(events)
        with self._lock:
            if self._generation != forks.generation:  # closed while the events came
                self._refuse()
            many = self._outbox.add_many(packed)
            self._pipe.run(self._outbox.deliver(self._max_in_flight))
        return many

    def flush(self) -> None:
        self.check_usable()
        with self._lock:
            self._outbox.seal()
            self._pipe.run(self._outbox.deliver(0))
            self._check_stored()

    def wait_done(self, batch: OutBatch) -> None:
        """Wait until the writer has answered the batch."""
        self.check_usable()
        with self._lock:
            if not batch.is_sealed:
                self._outbox.seal()
            while not batch.is_done:
                self._pipe.run(self._outbox.deliver(0))
                self._outbox.check_not_lost(batch)

    def _look_after(self) -> None:
        """Send a batch that nobody fills any more, and take the answers of an idle producer."""
        while True:
            self._opened.wait()
            self._opened.clear()
            if self._ended.wait(self._linger_s):
                return
            with self._lock:
                self._outbox.seal()
                try:
                    self._pipe.run(self._outbox.deliver(self._max_in_flight))
                    if not self._opened.is_set():
                        self._pipe.run(self._outbox.deliver(0))
                except (EventLogError, OutOfTime) as error:
                    if isinstance(error, OutOfTime):
                        return  # the block is being left
                    self._failure = error  # raised by the next call of the producer's thread
                    self._generation = forks.UNUSABLE
                    return

    def leave(self, error: BaseException | None) -> None:
        """Flush at the end of the block, which ends with this exception, as `leaving` says.

        Raises:
            EventLogError: the block ended without an exception, and not all could be stored.
        """
        if self._handle.generation != forks.generation:
            if error is None:
                self.check_usable()
            return
        limit_s = flush_limit_s(error, self._flush_s)
        is_told = False
        try:
            if limit_s:
                self._flush_within(limit_s)
        except EventLogError:
            is_told = error is None
            if is_told:
                raise
        except INTERRUPTS:
            if not isinstance(error, INTERRUPTS):  # the first one
                with suppress(EventLogError):
                    self._flush_within(INTERRUPTED_FLUSH_S)
            raise
        finally:
            unstored = 0 if is_told else self._outbox.unstored
            self.close()
            warn_of_unstored(self._handle.path, unstored)

    def _flush_within(self, limit_s: float) -> None:
        self._pipe.end_s = time.monotonic() + limit_s
        # Whoever else has the lock sends, or waits for answers, and gives up with the pipe.
        if not self._lock.acquire(timeout=limit_s):
            raise not_flushed(self._handle.path, self._outbox.unstored, limit_s)
        try:
            self._outbox.drop_half()
            self._outbox.seal()
            self._pipe.run(self._outbox.deliver(0))
            self._check_stored()
        except OutOfTime:
            raise not_flushed(self._handle.path, self._outbox.unstored, limit_s) from None
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the thread and give the pipe back; may be called twice."""
        _open_publishers.discard(self)
        self._generation = forks.UNUSABLE
        self._ended.set()
        self._opened.set()
        if self._handle.generation == forks.generation:
            self._handle.pipes.discard(self._pipe)
            self._pipe.close()
            # Not for ever: it may be looking for a writer, which no closed pipe ends. And the
            # garbage collector, in that very thread, may be what closes a publisher.
            if threading.current_thread() is not self._thread:
                self._thread.join(JOIN_S_MAX)


class BlockingLocalAppendHandle(msgspec.Struct, eq=False, gc=False):
    """See `eventlog.blocking.AppendHandle`; a struct, as in `local_publisher`."""

    _publisher: BlockingLocalPublisher
    _batch: OutBatch
    _row: int

    @property
    def seq_no(self) -> int | None:
        base = self._batch.base_seq_no
        return None if base is None else base + self._row

    def result(self) -> int:
        if not self._batch.is_done:
            self._publisher.wait_done(self._batch)
        return self._batch.seq_no_of(self._row)


AppendHandle.register(BlockingLocalAppendHandle)


class BlockingLocalManyHandle(ManyHandle):
    """See `eventlog.blocking.ManyHandle`."""

    def __init__(
        self, publisher: BlockingLocalPublisher, many: ManyBatches[OutBatch] | ManyRows[OutBatch]
    ) -> None:
        self._publisher = publisher
        self._many = many

    @property
    def seq_nos(self) -> tuple[int, int] | None:
        return self._many.numbers

    def result(self) -> tuple[int, int]:
        for batch in self._many.batches:
            if not batch.is_done:
                self._publisher.wait_done(batch)
        return self._many.result()


_open_publishers: weakref.WeakSet[BlockingLocalPublisher] = weakref.WeakSet()
"""Those whose blocks have not ended."""


@atexit.register
def _leave_all() -> None:
    """The program ends, and with it every block that it has not left."""
    for publisher in list(_open_publishers):
        with suppress(EventLogError):
            publisher.leave(SystemExit())
