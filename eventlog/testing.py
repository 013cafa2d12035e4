"""Worlds that fail on demand, for tests here and of programs; the package itself uses none of it.

===================  ===========================================================================
`KillingFiles`       the process "dies" at the n-th call to the operating system
`FailingFiles`       the n-th call of some kind fails, as with a full or broken disk
`CountingFiles`      how much was read
`ConnectionPair`     two ends of a pipe in one process: each message goes through both
`ScriptedWriter`     the other side of `client.conversations`, with pipes that break on demand
`open_storage`       a log without a writer process; `batch_of` and `stored_events` go with it
===================  ===========================================================================
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, Final, TypeVar

from eventlog.api.times import LogClock
from eventlog.config import AskedOptions
from eventlog.errors import EventLogError
from eventlog.event.many_events import pack_batches
from eventlog.event.record_batch import PackedBatch
from eventlog.local.client.conversations import OpenPipe, PipeBroken, Receive, Send
from eventlog.local.storage.files import FILES, Files
from eventlog.local.storage.formats.producers import ProducerTable
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.starting.start import make_log, open_log
from eventlog.local.wire.connection import Connection, frame
from eventlog.local.wire.messages import (
    PROTOCOL_VERSION,
    Append,
    Appended,
    Done,
    Hello,
    Message,
    Park,
    Request,
    Status,
    StatusReport,
    Wake,
    Welcome,
    failed,
)
from eventlog.local.wire.table import Role

WORD_BYTES: Final = 8
Parts = Sequence[bytes | memoryview]
Result = TypeVar("Result")


class Killed(BaseException):
    """The process is dead; nothing that it would still have done happens."""


class WatchedFiles(Files):
    """Tells `before` of every call, by its kind, and knows which descriptors are open.

    `before` may raise instead of letting the call happen.
    """

    def __init__(self) -> None:
        self.open_descriptors: set[int] = set()

    def before(self, kind: str) -> None:
        """Called before each call; does nothing here."""

    def open_read(self, path: str) -> int:
        """See `Files`."""
        self.before("open_read")
        return self._opened(super().open_read(path))

    def open_write(self, path: str) -> int:
        """See `Files`."""
        self.before("open_write")
        return self._opened(super().open_write(path))

    def create(self, path: str) -> int:
        """See `Files`."""
        self.before("create")
        return self._opened(super().create(path))

    def _opened(self, descriptor: int) -> int:
        self.open_descriptors.add(descriptor)
        return descriptor

    def allocate(self, descriptor: int, size: int) -> None:
        """See `Files`."""
        self.before("allocate")
        super().allocate(descriptor, size)

    def write(self, descriptor: int, parts: Parts, position: int) -> None:
        """See `Files`."""
        self.before("write")
        super().write(descriptor, parts, position)

    def read(self, descriptor: int, size: int, position: int) -> bytes:
        """See `Files`."""
        self.before("read")
        return super().read(descriptor, size, position)

    def map(self, descriptor: int, size: int, *, writable: bool = False) -> mmap.mmap:
        """See `Files`."""
        self.before("map")
        return super().map(descriptor, size, writable=writable)

    def sync(self, descriptor: int) -> None:
        """See `Files`."""
        self.before("sync")
        super().sync(descriptor)

    def sync_directory(self, path: str) -> None:
        """See `Files`."""
        self.before("sync_directory")
        super().sync_directory(path)

    def rename(self, source: str, target: str) -> None:
        """See `Files`."""
        self.before("rename")
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        """See `Files`."""
        self.before("unlink")
        super().unlink(path)

    def names(self, path: str) -> list[str]:
        """See `Files`."""
        self.before("names")
        return super().names(path)

    def close(self, descriptor: int) -> None:
        """See `Files`."""
        self.open_descriptors.discard(descriptor)
        super().close(descriptor)

    def bury(self) -> None:
        """Close what is still open, as the operating system does for a process that ended."""
        while self.open_descriptors:
            os.close(self.open_descriptors.pop())


class KillingFiles(WatchedFiles):
    """Dies (`Killed`) instead of the call number `at`, counted from 1, and stays dead.

    With `torn`, a write that it dies at leaves the first half of its bytes in the file.
    """

    def __init__(self, at: int | None = None, *, torn: bool = False) -> None:
        super().__init__()
        self.calls = 0
        self.is_dead = False
        self._at = at
        self._torn = torn

    def before(self, kind: str) -> None:
        """Count the call, and die if it is the one."""
        self.calls += 1
        if self.is_dead or self.calls == self._at:
            self.is_dead = True
            raise Killed(f"at call {self.calls}: {kind}")

    def write(self, descriptor: int, parts: Parts, position: int) -> None:
        """See `Files`."""
        try:
            super().write(descriptor, parts, position)
        except Killed:
            if self._torn and self.calls == self._at:
                data = b"".join(parts)
                os.pwrite(descriptor, data[: len(data) // 2], position)
            raise


class FailingFiles(WatchedFiles):
    """Fails the call number `at` of the given kinds, counted from 1, with one error number.

    With `for_ever`, all such calls from there on; with `torn`, a failed write of more than a word
    leaves the first half of its bytes. `heal` ends it.
    """

    def __init__(
        self,
        error_number: int,
        kinds: Collection[str],
        at: int,
        *,
        for_ever: bool = False,
        torn: bool = False,
    ) -> None:
        super().__init__()
        self.calls = 0
        self.has_failed = False
        self._error_number = error_number
        self._kinds = kinds
        self._at: float = at
        self._for_ever = for_ever
        self._torn = torn

    def before(self, kind: str) -> None:
        """Count the call if it is of the kind, and fail if it is the one."""
        if kind not in self._kinds:
            return
        self.calls += 1
        if self.calls == self._at or (self._for_ever and self.calls > self._at):
            self.has_failed = True
            raise OSError(self._error_number, os.strerror(self._error_number))

    def write(self, descriptor: int, parts: Parts, position: int) -> None:
        """See `Files`."""
        try:
            super().write(descriptor, parts, position)
        except OSError:
            data = b"".join(parts)
            if self._torn and len(data) > WORD_BYTES:  # the kernel copies a word or it doesn't
                os.pwrite(descriptor, data[: len(data) // 2], position)
            raise

    def heal(self) -> None:
        """Fail no more."""
        self._at = float("inf")


class CountingFiles(WatchedFiles):
    """Counts the calls of each kind, and the bytes that were read."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.read_bytes = 0

    def before(self, kind: str) -> None:
        """Count the call."""
        self.calls[kind] += 1

    def read(self, descriptor: int, size: int, position: int) -> bytes:
        """See `Files`."""
        data = super().read(descriptor, size, position)
        self.read_bytes += len(data)
        return data


def open_storage(
    directory: str,
    files: Files = FILES,
    clock: Callable[[], int] | LogClock | None = None,
    **asked: Any,
) -> WritableLog:
    """The log as its writer has it, made if there is none; a function as `clock` never jumps."""
    os.makedirs(directory, exist_ok=True)
    make_log(directory, AskedOptions(**asked), files)
    if clock is not None and not isinstance(clock, LogClock):
        clock = LogClock(clock)
    return open_log(directory, files, clock)


def batch_of(*events: Any) -> PackedBatch:
    """One batch of the events."""
    (batch,) = pack_batches(events, 1 << 24, 1 << 24)
    return batch


def stored_events(directory: str, start: int = 0, stop: int | None = None) -> dict[int, Any]:
    """What a reader finds: the payload of each number, which are checked to have no gap."""
    log = LogReader(directory)
    try:
        found: dict[int, Any] = {}
        following = start or log.first_available
        for envelopes in read_range(log, start, stop):
            for envelope in envelopes:
                assert envelope.seq_no == following, f"event {envelope.seq_no} after {found}"
                found[following] = envelope.event
                following += 1
        return found
    finally:
        log.close()


class ConnectionPair:
    """A client's and a writer's end; what one says, the other hears, `piece_bytes` at a time."""

    def __init__(self, *, frame_bytes_max: int = 1 << 16, piece_bytes: int | None = None) -> None:
        self.ends: Final = {role: Connection(role, frame_bytes_max) for role in Role}
        self._piece_bytes = piece_bytes

    @classmethod
    def opened(cls, **options: Any) -> ConnectionPair:
        """A pair that has said hello."""
        pair = cls(**options)
        pair.say(Role.CLIENT, Hello("eventlog", PROTOCOL_VERSION, 1))
        pair.say(Role.WRITER, Welcome(PROTOCOL_VERSION, 2, 1, bytes(16)))
        return pair

    def say(self, speaker: Role, *messages: Message) -> list[Message]:
        """Send the messages in one go; what the other end made of them.

        Raises:
            ProtocolError: the speaker may not say that now.
        """
        return self.say_bytes(speaker, b"".join(map(frame, messages)))

    def say_bytes(self, speaker: Role, data: bytes) -> list[Message]:
        """The same for any bytes."""
        hearer = self.ends[Role.WRITER if speaker is Role.CLIENT else Role.CLIENT]
        step = self._piece_bytes or max(len(data), 1)
        heard: list[Message] = []
        for start in range(0, len(data), step):
            heard += hearer.receive(data[start : start + step])
        return heard


class ScriptedWriter:
    """A writer that keeps its batches in a list, behind pipes that break when they are told to.

    `breaks` is asked before each operation, with its name ("open", "send" or "receive") and its
    number, and says whether the pipe breaks instead; `"answer"` is asked after a request was
    carried out, and says whether the pipe breaks before its answer is received. `refuse` may return
    an error for an append.
    """

    def __init__(
        self,
        *,
        log_id: bytes = bytes(16),
        breaks: Callable[[str, int], bool] = lambda _kind, _number: False,
        refuse: Callable[[Append], EventLogError | None] = lambda _append: None,
        piece_bytes: int = 1 << 16,
    ) -> None:
        self.log_id = log_id
        self.stored: list[Append] = []
        self.requests: list[Message] = []
        self.pipes = 0
        self._breaks = breaks
        self._refuse = refuse
        self._piece_bytes = piece_bytes
        self._operations = 0
        self._last_seq_no = 0
        self._known = ProducerTable()
        self._connection: Connection | None = None
        self._answers = bytearray()

    def run(self, steps: Generator[Any, Any, Result]) -> Result:
        """Perform what a conversation wants done, until it returns.

        Raises:
            EventLogError: whatever the conversation raises.
        """
        outcome: Any = None
        broken: PipeBroken | None = None
        while True:
            try:
                wanted = steps.throw(broken) if broken else steps.send(outcome)
            except StopIteration as end:
                result: Result = end.value
                return result
            outcome, broken = None, None
            try:
                outcome = self._perform(wanted)
            except PipeBroken as error:
                self._connection = None
                broken = error

    def _perform(self, wanted: OpenPipe | Send | Receive) -> bytes | None:
        match wanted:
            case OpenPipe():
                self._maybe_break("open")
                self._connection = Connection(Role.WRITER, 1 << 20)
                self._answers.clear()
                self.pipes += 1
            case Send(parts):
                self._maybe_break("send")
                self._hear(b"".join(parts))
            case Receive():
                self._maybe_break("receive")
                assert self._answers, "the client waits for an answer that nobody owes it"
                piece = bytes(self._answers[: self._piece_bytes])
                del self._answers[: self._piece_bytes]
                return piece
        return None

    def _maybe_break(self, kind: str) -> None:
        self._operations += 1
        is_open = self._connection is not None or kind == "open"
        if not is_open or self._breaks(kind, self._operations):
            raise PipeBroken("scripted")

    def _hear(self, data: bytes) -> None:
        assert self._connection is not None
        for message in self._connection.receive(data):
            self.requests.append(message)
            self._answers += frame(self._answer(message))
        self._maybe_break("answer")

    def _answer(self, message: Message) -> Message:
        match message:
            case Append():
                return self._store(message)
            case Status(request_id):
                return StatusReport(request_id, 1)
            case Park(request_id, seq_no):
                return Wake(request_id, seq_no)
            case Request(request_id):
                return Done(request_id)
        return Welcome(PROTOCOL_VERSION, 1, 1, self.log_id)

    def _store(self, message: Append) -> Message:
        error = self._refuse(message)
        if error is not None:
            return failed(message.request_id, error)
        base = self._known.find(message.producer_id, message.producer_seq)
        if base is None:
            base = self._last_seq_no + 1
            self._known.note(message.producer_id, message.producer_seq, base)
            self._last_seq_no += message.count
            self.stored.append(message)
        return Appended(message.request_id, base)
