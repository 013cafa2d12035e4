"""Events of the log: a range of them at once, or one after the other as they come.

The library's consumers block, so they are called in threads. A thread whose caller was cancelled
ends within `POLL_S`, and closes its consumer itself.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import anyio
from anyio import to_thread
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from eventlog.api.refusals import truncated
from eventlog.kafka.client import CALL_S, PARTITION, POLL_S, Client
from eventlog.kafka.refusals import deleted, error_of, missing, refusal_of
from eventlog.kafka.sender import MARK, Batch
from eventlog.remote.driver import Stored, Unreachable

T = TypeVar("T")
READ_MAX: Final = 1024
MS_NS: Final = 1_000_000
_OUT_OF_RANGE: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


class Truncated(Exception):
    """The wanted offset is not among those that the topic has."""


class Cursor:
    """A consumer at one offset of one topic; used by one thread at a time."""

    def __init__(self, client: Client, topic: str, *, is_waiting: bool) -> None:
        self._client = client
        self._topic = topic
        self._consumer: Consumer = client.consumer(is_waiting=is_waiting)
        self._offset: int | None = None
        self._lock = threading.Lock()
        self.is_closed = False

    def poll(self, offset: int, count: int, wait_s: float) -> list[Message]:
        """What is at the offset and behind it, if anything comes in time.

        The end of the partition is told as a message with an error: its offset shows a gap before.

        Raises:
            Truncated: the offset is not there, or not yet.
            KafkaException
        """
        with self._lock:
            if self.is_closed:
                return []  # as its caller was cancelled
            try:
                return self._poll(offset, count, wait_s)
            finally:
                self._close_if_asked()

    def _close_if_asked(self) -> None:
        if self.is_closed:
            self._consumer.close()

    def _poll(self, offset: int, count: int, wait_s: float) -> list[Message]:
        if self._offset != offset:
            self._consumer.assign([TopicPartition(self._topic, PARTITION, offset)])
            self._offset = offset
        first = self._consumer.poll(wait_s)
        if first is None:
            return []
        found = [first, *self._consumer.consume(count - 1, 0)] if count > 1 else [first]
        errors = [message.error() for message in found if message.error() is not None]
        for error in errors:
            if error.code() != KafkaError._PARTITION_EOF:
                self._offset = None  # what came before the error comes again
                raise Truncated if error.code() in _OUT_OF_RANGE else KafkaException(error)
        stored = [message for message in found if message.error() is None]
        if stored:
            self._offset = int(stored[-1].offset() or 0) + 1
        return found

    def first_offset(self) -> int:
        """The oldest offset that the topic has; blocks."""
        partition = TopicPartition(self._topic, PARTITION)
        low, _ = self._consumer.get_watermark_offsets(partition, timeout=CALL_S)
        return int(low)

    def end_offset(self) -> int:
        """One past the last offset of the topic; blocks."""
        partition = TopicPartition(self._topic, PARTITION)
        _, high = self._consumer.get_watermark_offsets(partition, timeout=CALL_S)
        return int(high)

    def rest(self) -> None:
        """Ask the broker for nothing until the next call."""
        if self._lock.acquire(blocking=False):
            try:
                if not self.is_closed:
                    self._consumer.unassign()
                self._offset = None
            finally:
                self._lock.release()

    def close(self) -> None:
        """Give the consumer back: now, or when the thread that uses it returns."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._consumer.close()
            finally:
                self._lock.release()


class Reads:
    """Reads of a handle."""

    def __init__(self, client: Client, topic: str) -> None:
        self.client = client
        self.topic = topic
        self._cursor: Cursor | None = None
        self._turn = anyio.Lock()
        self._threads = anyio.CapacityLimiter(math.inf)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Call what blocks; once cancelled, its thread goes on by itself and ends soon."""
        return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._threads)

    async def read(self, seq_no: int, count: int) -> list[Stored]:
        """Up to `count` events from `seq_no` on, of those stored now.

        Raises:
            EventsTruncated, CorruptLog, LogDeleted, Unreachable.
        """
        first, end = await self.client.bounds(self.topic)
        if seq_no <= first and end > first and seq_no - 1 < first:
            raise truncated(self.client.path, seq_no, first + 1)
        wanted = min(count, READ_MAX, end - seq_no + 1)
        if wanted <= 0:
            if seq_no - 1 < first:
                raise truncated(self.client.path, seq_no, first + 1)
            return []
        async with self._turn:
            return await self._read(seq_no, wanted, end)

    async def _read(self, seq_no: int, count: int, end: int) -> list[Stored]:
        cursor = self._cursor = self._cursor or Cursor(self.client, self.topic, is_waiting=False)
        try:
            messages = await self.in_thread(lambda: cursor.poll(seq_no - 1, count, CALL_S))
            found = await self.checked(messages, seq_no)
        except BaseException as error:
            self._cursor = None
            cursor.close()
            if isinstance(error, Truncated | KafkaException):
                raise await self.explained(error, seq_no) from None
            raise
        if not found:
            self.close()
            raise Unreachable(f"the server of {self.client.path} sends nothing")
        if found[-1].seq_no >= end:
            cursor.rest()
        return found

    async def checked(self, messages: Sequence[Message], seq_no: int) -> list[Stored]:
        """The events that messages are, from `seq_no` on.

        Raises:
            EventsTruncated, CorruptLog: one is missing.
        """
        found: list[Stored] = []
        for message in messages:
            number = int(message.offset() or 0) + 1
            if number != seq_no:
                if found:
                    break  # the next call tells
                first, _ = await self.client.bounds(self.topic)
                if seq_no - 1 < first:
                    raise truncated(self.client.path, seq_no, first + 1)
                raise missing(self.client.path, seq_no, number - 1)
            if message.error() is None:
                found.append(_stored(message))
                seq_no += 1
        return found

    async def explained(self, error: Exception, seq_no: int) -> Exception:
        """What to raise in place of what a cursor raised."""
        if not isinstance(error, Truncated):
            return refusal_of(error_of(error), self.client.path)
        first, end = await self.client.bounds(self.topic)
        if seq_no - 1 < first:
            return truncated(self.client.path, seq_no, first + 1)
        if seq_no - 1 > end:  # there were more before
            return deleted(self.client.path)
        return Unreachable(f"the server of {self.client.path} cannot read event {seq_no} now")

    def close(self) -> None:
        """Give the consumer back."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None


def _stored(message: Message) -> Stored:
    return Stored(
        int(message.offset() or 0) + 1, message.timestamp()[1] * MS_NS, message.value() or b""
    )


class EventReader:
    """Reads on from one number, and waits for what comes."""

    def __init__(self, reads: Reads, seq_no: int) -> None:
        self._reads = reads
        self._seq_no = max(seq_no, 1)
        self._cursor: Cursor | None = None

    async def next(self) -> list[Stored]:
        """See `Reader`."""
        if self._cursor is None:
            await self._wait_until_there()
            self._cursor = Cursor(self._reads.client, self._reads.topic, is_waiting=True)
        cursor = self._cursor
        while True:
            try:
                messages = await self._reads.in_thread(
                    lambda: cursor.poll(self._seq_no - 1, READ_MAX, POLL_S)
                )
            except (Truncated, KafkaException) as error:
                raise await self._reads.explained(error, self._seq_no) from None
            found = await self._reads.checked(messages, self._seq_no)
            if found:
                self._seq_no = found[-1].seq_no + 1
                return found

    async def _wait_until_there(self) -> None:
        """A consumer can begin at the end of the topic, and not past it: wait at the end."""
        client, topic = self._reads.client, self._reads.topic
        _, end = await client.bounds(topic)
        if self._seq_no - 1 <= end:
            return
        cursor = Cursor(client, topic, is_waiting=True)
        try:
            while end < self._seq_no - 1:
                poll = partial(cursor.poll, end, READ_MAX, POLL_S)
                messages = await self._reads.in_thread(poll)
                stored = [message for message in messages if message.error() is None]
                end = int(stored[-1].offset() or 0) + 1 if stored else end
        except (Truncated, KafkaException) as error:
            raise await self._reads.explained(error, end + 1) from None
        finally:
            cursor.close()

    async def aclose(self) -> None:
        """See `Reader`."""
        if self._cursor is not None:
            self._cursor.close()


def find_marks(
    client: Client, topic: str, offset: int, batches: Sequence[Batch]
) -> list[int | None]:
    """The first offset of each batch that is stored from an offset on; blocks.

    Raises:
        KafkaException: nobody answers, or the topic is gone.
    """
    cursor = Cursor(client, topic, is_waiting=False)
    wanted = {batch.mark(0): place for place, batch in enumerate(batches)}
    found: list[int | None] = [None] * len(batches)
    deadline = time.monotonic() + 12 * CALL_S
    try:
        while True:
            messages = cursor.poll(offset, READ_MAX, CALL_S)
            for message in messages:
                if message.error() is not None:
                    return found  # the end of the partition
                place = wanted.get(message.key() or b"")
                if place is not None and len(message.key() or b"") == MARK.size:
                    found[place] = message.offset()
                offset = int(message.offset() or 0) + 1
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    finally:
        cursor.close()
