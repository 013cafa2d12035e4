"""Records on their way to one topic: a thread with a producer, which sends one batch at a time.

::

    append -> pending -> thread: produce all that wait, as one batch -> flush -> numbers
                           `- fatal error: another producer, and a look for our marks in the topic

Each record's key is a mark: producer, batch, and row. The library sends a batch again until it is
answered, and the broker stores it once. Only when the broker has lost what it knew of the producer
does the library give up (a fatal error); then what became of the batch is read from the topic.

A call that is given up or made again changes nothing: its batch stays pending until it is answered.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
from confluent_kafka import KafkaError, KafkaException, Producer

from eventlog.api.loops import call_in_this_loop
from eventlog.errors import EventLogError, StorageFailed
from eventlog.kafka.client import CALL_S, PARTITION, POLL_S, Client
from eventlog.kafka.refusals import TOO_LARGE, deleted, error_of, refusal_of
from eventlog.kafka.topics import PER_RECORD_BYTES
from eventlog.remote.driver import OutOfTurn, Unreachable

MARK: Final = struct.Struct(">QQI")
REMEMBERED: Final = 4096
"""Batches whose numbers are known, for calls that are made again."""

TRIES_MAX: Final = 5
"""So many producers may fail with one batch."""
PAUSE_S: Final = 0.2

Find = Callable[[int, "list[Batch]"], "list[int | None]"]
"""Reads the topic from an offset on; the first offset of each batch, or `None`."""


class Batch:
    """Records that are stored whole or not at all."""

    def __init__(self, producer_id: int, producer_seq: int, records: Sequence[bytes]) -> None:
        self.producer_id = producer_id
        self.producer_seq = producer_seq
        self.records = records
        self.cost = sum(map(len, records)) + PER_RECORD_BYTES * len(records)
        self.offset: int | None = None
        """Offset of the first record."""
        self.error: Exception | None = None
        self.callbacks: list[Callable[[], object]] = []
        self.is_done = False
        self.tries = 0

    def mark(self, row: int) -> bytes:
        """The key of a record."""
        return MARK.pack(self.producer_id, self.producer_seq, row)

    def finish(self, offset: int | None, error: Exception | None = None) -> None:
        """It is stored, or is not; tell whoever waits."""
        self.offset, self.error, self.is_done = offset, error, True
        self.records = ()
        for callback in self.callbacks:
            callback()


class _Report:
    """What the library says of a batch's first and last record."""

    def __init__(self, batch: Batch) -> None:
        self.rows = len(batch.records)
        self.first = self.last = -1
        self.error: KafkaError | None = None

    def note_first(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.first = message.offset()
        self.error = self.error or error

    def note_last(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.last = message.offset()
        self.error = self.error or error

    @property
    def is_whole(self) -> bool:
        return self.error is None and 0 <= self.first == self.last - self.rows + 1


class Sender:
    """The sender of one topic of a handle."""

    def __init__(
        self, client: Client, topic: str, end: int, batch_bytes_max: int, find: Find
    ) -> None:
        self._client = client
        self._topic = topic
        self._end = end
        """One past the last offset that is known to hold nothing of ours that is not known."""
        self._batch_bytes_max = batch_bytes_max
        self._find = find
        self._waiting: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._batches: dict[tuple[int, int], Batch] = {}
        self._failed: dict[int, None] = {}
        """Producers that have lost a batch: nothing of theirs is stored after it."""
        self._producer: Producer | None = None
        self._is_closed = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eventlog-kafka", daemon=True)
        self._thread.start()

    # --- in the event loop -------------------------------------------------------------------

    def submit(self, producer_id: int, producer_seq: int, records: Sequence[bytes]) -> Batch:
        """Put a batch behind the others; one that was put there before is the same one."""
        name = (producer_id, producer_seq)
        batch = self._batches.get(name)
        if batch is None or isinstance(batch.error, Unreachable):
            batch = self._batches[name] = Batch(producer_id, producer_seq, records)
            self._waiting.put(batch)
            if len(self._batches) > REMEMBERED:
                self._forget_one()
        return batch

    def _forget_one(self) -> None:
        name = next(iter(self._batches))
        if self._batches[name].is_done:
            del self._batches[name]

    async def stored(self, batch: Batch) -> int:
        """Wait for a batch's offset.

        Raises:
            Unreachable: nobody has answered yet; the batch goes on being sent.
            OutOfTurn, EventLogError: it is not stored.
        """
        ended = anyio.Event()
        batch.callbacks.append(call_in_this_loop(ended.set))
        if not batch.is_done:
            with anyio.move_on_after(CALL_S):
                await ended.wait()
        batch.callbacks.clear()
        if not batch.is_done:
            raise self._client.unanswered()
        if batch.error is not None:
            raise batch.error
        assert batch.offset is not None
        return batch.offset

    def close(self) -> None:
        """End the thread: what is not answered by now is given up."""
        self._is_closed = True
        self._closing.set()
        self._waiting.put(None)
        producer = self._producer
        if producer is not None:
            producer.purge()

    # --- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        with suppress(EventLogError):  # it is told when something is to be sent
            # A new producer has half a second to wait for its id: it waits beside `open`.
            self._producer = self._client.producer()
        left: Batch | None = None
        while not self._is_closed:
            batch = left or self._waiting.get()
            if batch is None:
                break
            together, left = self._together_with(batch)
            self._send(together)
        self._producer = None

    def _together_with(self, batch: Batch) -> tuple[list[Batch], Batch | None]:
        """All that wait and fit into one batch of the server's, and the one that does not."""
        together, cost = [batch], batch.cost
        while True:
            try:
                other = self._waiting.get_nowait()
            except queue.Empty:
                return together, None
            if other is None:
                return together, None
            cost += other.cost
            if cost > self._batch_bytes_max:
                return together, other
            together.append(other)

    def _send(self, batches: list[Batch]) -> None:
        """Store them, or answer them with why not."""
        batches = [batch for batch in batches if not self._is_out_of_turn(batch)]
        if not batches or self._is_closed:
            return
        try:
            reports = self._produce(batches)
        except KafkaException as raised:
            self._recover(batches, error_of(raised))
            return
        except EventLogError as error:  # no producer can be made with these settings
            for batch in batches:
                self._refuse(batch, error)
            return
        if all(report.is_whole for report in reports) and reports[0].first < self._end:
            for batch in batches:  # another topic has taken the place of the log's
                self._refuse(batch, deleted(self._client.path))
        elif all(report.is_whole for report in reports):
            for batch, report in zip(batches, reports, strict=True):
                batch.finish(report.first)
            self._end = reports[-1].last + 1
        elif not self._is_closed:
            self._recover(batches, next((one.error for one in reports if one.error), None))

    def _is_out_of_turn(self, batch: Batch) -> bool:
        if batch.producer_id in self._failed:
            batch.finish(None, OutOfTurn())
            return True
        return False

    def _refuse(self, batch: Batch, error: Exception) -> None:
        self._failed[batch.producer_id] = None
        if len(self._failed) > REMEMBERED:
            del self._failed[next(iter(self._failed))]
        batch.finish(None, error)

    def _produce(self, batches: list[Batch]) -> list[_Report]:
        producer = self._producer = self._producer or self._client.producer()
        messages: list[dict[str, Any]] = []
        reports = [_Report(batch) for batch in batches]
        for batch, report in zip(batches, reports, strict=True):
            rows: list[dict[str, Any]] = [
                {"value": record, "key": batch.mark(row)}
                for row, record in enumerate(batch.records)
            ]
            rows[0]["callback"] = report.note_first
            if len(rows) == 1:
                report.rows = 1
                rows[0]["callback"] = _both(report)
            else:
                rows[-1]["callback"] = report.note_last
            messages += rows
        producer.produce_batch(self._topic, messages, partition=PARTITION)
        for message in messages:
            if "_error" in message:
                raise KafkaException(message["_error"])
        try:
            while producer.flush(POLL_S) and not self._is_closed:
                pass
        except (KafkaException, SystemError) as raised:
            # A fatal error, which the library raises between two reports, or even in one of them.
            with suppress(KafkaException, SystemError):
                producer.flush(0)
            if all(report.error is None for report in reports):
                reports[0].error = error_of(raised) or KafkaError(KafkaError._FATAL)
        return reports

    def _recover(self, batches: list[Batch], error: KafkaError | None) -> None:
        """After an error that the library does not repeat: look for what is stored of them."""
        self._producer = None
        if error is not None and error.code() in TOO_LARGE and len(batches) > 1:
            for batch in batches:
                self._send([batch])
            return
        refusal = refusal_of(error, self._client.path)
        for batch, offset in zip(batches, self._found(batches), strict=True):
            batch.tries += 1
            if isinstance(offset, Exception):
                self._refuse(batch, offset)
            elif offset is not None:
                batch.finish(offset)
                self._end = offset + 1
            elif isinstance(refusal, Unreachable | StorageFailed) and batch.tries < TRIES_MAX:
                self._send([batch])
            else:
                self._refuse(batch, refusal)

    def _found(self, batches: list[Batch]) -> Sequence[int | Exception | None]:
        """The first offset of each, as the topic has it, or why nobody can know."""
        while not self._is_closed:
            try:
                return self._find(self._end, batches)
            except KafkaException as raised:
                refusal = refusal_of(error_of(raised), self._client.path)
                if not isinstance(refusal, Unreachable):
                    return [refusal for _ in batches]
                self._closing.wait(PAUSE_S)
            except EventLogError as refusal:
                return [refusal for _ in batches]
        return [Unreachable("the handle is closed") for _ in batches]


def _both(report: _Report) -> Callable[[KafkaError | None, Any], None]:
    def note(error: KafkaError | None, message: Any) -> None:
        report.note_first(error, message)
        report.note_last(error, message)

    return note
