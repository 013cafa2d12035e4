"""What a client says on its pipes, and again after a pipe was lost. Pure: generators, no I/O.

Each function here is a generator that yields what it wants done and is sent the outcome, so that
one text serves trio, asyncio and threads (psycopg 3 is built this way). A shell performs:

=============  ================================================================================
`OpenPipe`     a fresh pipe to the log's writer, which is started if need be
`Send`         all of its bytes, or as many as a cancelled caller allows: the rest goes first later
`RECEIVE`      the next bytes
=============  ================================================================================

and throws `PipeBroken` into the generator when the pipe turns out to be gone.

One pipe carries one conversation. Answers carry the number of their request, so that an answer
whose caller was cancelled is recognised and passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from eventlog.errors import EventLogError, LogDeleted, ProtocolError, WriterUnavailable
from eventlog.local.wire.connection import Connection, frame
from eventlog.local.wire.messages import (
    HELLO_MAGIC,
    PROTOCOL_VERSION,
    Answer,
    Failed,
    Hello,
    Request,
    Welcome,
    error_of,
)
from eventlog.local.wire.table import Role

ATTEMPTS_MAX: Final = 10
"""Pipes lost in a row, with a fresh writer each time, before a call gives up."""
PARTS_AT_ONCE: Final = 64
"""What one `sendmsg` is given; the kernel's own limit is 1,024."""


class PipeBroken(Exception):
    """The other end is gone; never leaves this package."""


class OpenPipe(NamedTuple):
    """Open a fresh pipe."""


class Send(NamedTuple):
    """Send these bytes, one after the other."""

    parts: Sequence[bytes | memoryview]


class Receive(NamedTuple):
    """Receive some bytes."""


RECEIVE: Final = Receive()
OPEN_PIPE: Final = OpenPipe()
Operation = OpenPipe | Send | Receive
Result = TypeVar("Result")
Steps = Generator[Operation, Any, Result]


class Unsent:
    """Bytes on their way into a pipe, not copied together: what a shell keeps between two sends."""

    def __init__(self) -> None:
        self._parts: deque[bytes | memoryview] = deque()

    def __bool__(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._parts)

    def add(self, *parts: bytes | memoryview) -> None:
        """Put bytes behind what is there."""
        self._parts.extend(filter(None, parts))

    def parts(self) -> list[bytes | memoryview]:
        """What to give to `sendmsg` now."""
        return list(islice(self._parts, PARTS_AT_ONCE))

    def sent(self, count: int) -> None:
        """Note that the first `count` bytes are gone."""
        while count:
            first = self._parts.popleft()
            if count < len(first):
                self._parts.appendleft(memoryview(first)[count:])
                return
            count -= len(first)

    def clear(self) -> None:
        """Forget all: the pipe that they were for is gone."""
        self._parts.clear()


class Channel:
    """The state of one pipe's conversation, which outlives the pipe."""

    def __init__(
        self,
        path: str,
        log_id: bytes,
        frame_bytes_max: int,
        pid: int,
        *,
        starts_writer: bool = True,
        writer_cpus: Collection[int] = (),
    ) -> None:
        self.path = path
        self.starts_writer = starts_writer
        """Whether a writer is started if none serves the log."""
        self.writer_cpus = writer_cpus
        """The processors on which that one runs; none: those of this process."""
        self.was_open = False
        """A writer has welcomed this channel before."""
        self.is_closed = False
        """Closed for good, while another thread may look for a writer."""
        self._pid = pid
        self._log_id = log_id
        self._frame_bytes_max = frame_bytes_max
        self._connection = Connection(Role.CLIENT, frame_bytes_max)
        self._request_id = 0
        self.is_open = False
        self.epoch = 0
        """Epoch of the writer that was talked to last: another one has another."""
        self.descriptors: list[int] | None = None
        """Those received and not used yet; `None` while none can come."""

    def next_request_id(self) -> int:
        """A number that no earlier request on this channel had."""
        self._request_id += 1
        return self._request_id

    def open(self, version: int = PROTOCOL_VERSION) -> Steps[None]:
        """A pipe on which both sides have said who they are.

        Raises:
            LogDeleted: the writer serves another log, made anew at the path.
            PipeBroken: the writer ended meanwhile; try again.
        """
        self.is_open = False
        yield OPEN_PIPE
        self._connection = Connection(Role.CLIENT, self._frame_bytes_max)
        yield Send([frame(Hello(HELLO_MAGIC, version, self._pid))])
        said: list[Any] = []
        while not said:
            said = yield from self.receive()
        welcome: Welcome | Failed = said[0]
        if isinstance(welcome, Failed):
            raise error_of(welcome)
        if welcome.log_id != self._log_id:
            raise LogDeleted(
                f"the log {self.path} was deleted and another one made in its place; open it"
                " again to use that one",
                path=self.path,
            )
        self.is_open = self.was_open = True
        self.epoch = welcome.epoch

    def receive(self) -> Steps[list[Answer]]:
        """The messages that the next bytes complete, perhaps none."""
        data = yield RECEIVE
        return self.messages_of(data)

    def messages_of(self, data: bytes) -> list[Answer]:
        """The messages that these bytes complete.

        Raises:
            PipeBroken: they make no sense, so the pipe is given up.
        """
        try:
            return list(self._connection.receive(data))  # type: ignore[arg-type]  # or a Welcome
        except ProtocolError as error:
            raise PipeBroken(str(error)) from error

    def request(self, kind: type[Request], *fields: Any) -> Steps[Any]:
        """Say one message, again after each lost pipe, and return its answer.

        One that waits outlives any number of writers, as long as each of them took it. One that the
        writer may not know is answered with `None` if the same writer hangs up on it twice: one
        that was killed is another one then.

        Raises:
            WriterUnavailable: writer after writer ended before it answered.
            EventLogError: the writer refused the request.
        """
        assert kind.is_repeatable
        attempt, hung_up = 0, -1
        while True:
            try:
                if not self.is_open:
                    yield from self.open()
                    attempt = 0 if kind.waits else attempt
                return (yield from self.answer_to(kind, *fields))
            except PipeBroken as error:
                broken = self.gave_up(attempt, error)
                attempt += 1
                was_open, self.is_open = self.is_open, False
                if was_open and kind.may_be_unknown:
                    if hung_up == self.epoch:
                        return None
                    hung_up = self.epoch
                if broken:
                    raise broken from error

    def answer_to(self, kind: type[Request], *fields: Any) -> Steps[Any]:
        """Say one message on the open pipe, and return its answer.

        Raises:
            EventLogError: the writer refused the request.
            PipeBroken: the pipe is gone, and whether the request was carried out is not known.
        """
        request_id = self.next_request_id()
        yield Send([frame(kind(request_id, *fields))])
        while True:
            for message in (yield from self.receive()):
                if message.request_id == request_id:
                    return _checked(message, kind)

    def gave_up(self, attempt: int, error: PipeBroken) -> EventLogError | None:
        """The error for the last of the attempts; `None` while there are more."""
        if attempt + 1 < ATTEMPTS_MAX:
            return None
        return WriterUnavailable(
            f"the writer of {self.path} ended {ATTEMPTS_MAX} times before it answered ({error});"
            " see writer.log there",
            path=self.path,
        )


def _checked(message: Answer, kind: type[Request]) -> Answer:
    if isinstance(message, Failed):
        raise error_of(message)
    if not isinstance(message, kind.answer):
        raise PipeBroken(f"the writer answered {kind.__name__} with {type(message).__name__}")
    return message
