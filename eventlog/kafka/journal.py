"""The journal of a log: a topic of commands, which each handle writes and follows.

::

    call -> Sender -> topic -> thread of this handle: Replay -> answer -> call
                        `----> threads of all other handles: the same

The thread begins with the first call that needs it. Whoever's command makes the journal long writes
a snapshot behind it, and has the broker delete what that stands for.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import anyio
from confluent_kafka import KafkaException, Message

from eventlog.api.loops import call_in_this_loop
from eventlog.errors import CorruptLog, EventLogError
from eventlog.kafka.client import CALL_S, POLL_S, Client
from eventlog.kafka.ledger import Ledger, Replay, packed, snapshot_of
from eventlog.kafka.reading import MS_NS, Cursor, Truncated, find_marks
from eventlog.kafka.refusals import deleted, is_unknown_topic
from eventlog.kafka.sender import MARK, Sender
from eventlog.kafka.topics import BATCH_BYTES_MAX, journal_config
from eventlog.remote.driver import OutOfTurn

T = TypeVar("T")
SNAPSHOT_EVERY: Final = 4096
"""Commands; a handle that begins reads so many at most, and one snapshot."""
READ_MAX: Final = 1024
PAUSE_S: Final = 0.1


class Journal:
    """The journal of a log as one handle has it."""

    def __init__(self, client: Client, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._starting = anyio.Lock()
        self._sender: Sender | None = None
        self._producer_id = secrets.randbits(63) | 1
        self._producer_seq = 0
        self._lock = threading.Lock()
        """Guards what stands below: the thread changes it."""
        self._replay = Replay(0)
        self._next = 0
        self._answers: dict[bytes, Any] = {}
        """Answers to this handle's commands, by their mark; `WAITED_FOR` until they come back."""
        self._waiting: list[Callable[[], object]] = []
        self._failure: Exception | None = None
        self.applied_s = 0.0
        """When the last command was applied, by this process's monotonic clock."""
        self.applied_ns = 0
        """When it was stored, by the broker's."""
        self._is_closed = False

    # --- in the event loop -------------------------------------------------------------------

    async def _start(self) -> Sender:
        if self._sender is not None:
            return self._sender
        async with self._starting:
            if self._sender is None:
                await self._client.make_topic(self._topic, journal_config())
                _, end = await self._client.bounds_of_new(self._topic)

                def find(offset: int, batches: Sequence[Any]) -> list[int | None]:
                    return find_marks(self._client, self._topic, offset, batches)

                cursor = Cursor(self._client, self._topic, is_waiting=True)
                self._sender = Sender(self._client, self._topic, end, BATCH_BYTES_MAX, find)
                thread = threading.Thread(
                    target=self._run, args=(cursor,), name="eventlog-journal", daemon=True
                )
                thread.start()
        return self._sender

    async def say(self, *command: Any) -> Any:
        """Have a command stored; its answer.

        Raises:
            Unreachable: nobody answered; whether it was done is not known.
            EventLogError: it is not stored.
        """
        sender = await self._start()
        self._producer_seq += 1
        batch_seq = self._producer_seq
        mark = MARK.pack(self._producer_id, batch_seq, 0)
        with self._lock:
            self._answers[mark] = _WAITED_FOR
        try:
            batch = sender.submit(self._producer_id, batch_seq, [packed(*command)])
            await sender.stored(batch)
            return await self.wait_for(lambda _: self._answer_to(mark), CALL_S)
        except OutOfTurn:  # an earlier command was refused, as its caller is told
            raise self._client.unanswered() from None
        except EventLogError:
            self._producer_id = secrets.randbits(63) | 1  # its later ones would not be stored
            raise
        finally:
            with self._lock:
                self._answers.pop(mark, None)

    def _answer_to(self, mark: bytes) -> tuple[Any] | None:
        answer = self._answers[mark]
        return None if answer is _WAITED_FOR else (answer,)

    async def wait_for(
        self, look: Callable[[Ledger], tuple[T] | None], limit_s: float | None = None
    ) -> T:
        """What `look` finds in the ledger, once it finds something; it looks after each change.

        Raises:
            Unreachable: nothing came in time.
        """
        await self._start()
        with anyio.move_on_after(limit_s):
            while True:
                changed = anyio.Event()
                with self._lock:
                    if self._failure is not None:
                        raise self._failure
                    if found := look(self._replay.ledger):
                        return found[0]
                    self._waiting.append(call_in_this_loop(changed.set))
                await changed.wait()
        raise self._client.unanswered()

    async def changed(self) -> anyio.Event:
        """An event that is set by the next change."""
        await self._start()
        changed = anyio.Event()
        with self._lock:
            self._waiting.append(call_in_this_loop(changed.set))
        return changed

    def seconds_until(self, time_ns: int) -> float:
        """How long until that time of the broker's, as its last record and this clock say."""
        return (time_ns - self.applied_ns) / 1e9 - (time.monotonic() - self.applied_s)

    async def current(self, look: Callable[[Ledger], T]) -> T:
        """What `look` sees once all that is stored now has been applied."""
        await self._start()
        _, end = await self._client.bounds(self._topic)

        def look_if_there(ledger: Ledger) -> tuple[T] | None:
            return (look(ledger),) if self._next >= end and self._replay.is_whole else None

        return await self.wait_for(look_if_there, CALL_S)

    def close(self) -> None:
        """End the thread; may be called twice."""
        self._is_closed = True
        if self._sender is not None:
            self._sender.close()
        with self._lock:
            self._notify()

    def _notify(self) -> None:
        waiting, self._waiting = self._waiting, []
        for notify in waiting:
            notify()

    # --- in the thread -----------------------------------------------------------------------

    def _run(self, cursor: Cursor) -> None:
        try:
            while not self._is_closed:
                try:
                    self._apply(self._poll(cursor))
                except KafkaException as raised:
                    if is_unknown_topic(raised):
                        self._fail(deleted(self._client.path))
                        return
                    time.sleep(PAUSE_S)  # the library tries again by itself
        except Exception as error:  # noqa: BLE001 - whoever waits is to be told
            self._fail(_unreadable(self._topic, self._client.path, error))
        finally:
            cursor.close()

    def _poll(self, cursor: Cursor) -> Sequence[Message]:
        try:
            return cursor.poll(self._next, READ_MAX, POLL_S)
        except Truncated:  # what was to be read next is deleted: begin with what a snapshot says
            first = cursor.first_offset()
            with self._lock:
                self._replay, self._next = Replay(first), first
            return []

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._failure = error
            self._notify()

    def _apply(self, messages: Sequence[Message]) -> None:
        with self._lock:
            for message in messages:
                if message.error() is None:
                    self._apply_one(message)
            if messages:
                self._notify()

    def _apply_one(self, message: Message) -> None:
        offset, mark = int(message.offset() or 0), message.key()
        if offset < self._next:
            return
        self.applied_ns = message.timestamp()[1] * MS_NS
        self.applied_s = time.monotonic()
        answer = self._replay.feed(offset, message.value() or b"", self.applied_ns)
        self._next = offset + 1
        if mark in self._answers:
            self._answers[mark] = answer
            if self._replay.since_snapshot >= SNAPSHOT_EVERY:
                self._write_snapshot(offset)

    def _write_snapshot(self, offset: int) -> None:
        assert self._sender is not None
        self._replay.since_snapshot = 0
        name = secrets.randbits(63) | 1
        parts = snapshot_of(self._replay.ledger, offset, name)
        batches = [self._sender.submit(name, i + 1, [part]) for i, part in enumerate(parts)]
        last = batches[-1]

        def delete_what_it_stands_for() -> None:
            if all(batch.error is None for batch in batches):
                self._client.delete_before(self._topic, offset + 1)

        last.callbacks.append(delete_what_it_stands_for)


def _unreadable(topic: str, path: str, error: Exception) -> CorruptLog:
    return CorruptLog(
        f"the topic {topic}, which has positions and groups of the log {path}, cannot be read:"
        f" {error!r}; keep other programs from writing there",
        path=path,
    )


class _WaitedFor:
    pass


_WAITED_FOR: Final = _WaitedFor()
