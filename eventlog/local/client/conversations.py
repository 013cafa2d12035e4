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

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from eventlog.api.statistics import WriterStatistics, statistics_of
from eventlog.errors import EventLogError, LogDeleted, ProtocolError, WriterUnavailable
from eventlog.local.wire.connection import Connection, Role, frame
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Dismiss,
    DropDead,
    OpenGroup,
    RetryDead,
)
from eventlog.local.wire.messages import (
    HELLO_MAGIC,
    PROTOCOL_VERSION,
    Ack,
    AwaitSynced,
    Failed,
    Forget,
    Hello,
    Message,
    Park,
    Seek,
    Statistics,
    StatisticsReport,
    Status,
    Welcome,
    WriterMessage,
    error_of,
)

ATTEMPTS_MAX: Final = 10
"""Pipes lost in a row, with a fresh writer each time, before a call gives up."""


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
Request = (
    Ack
    | Seek
    | Forget
    | Park
    | AwaitSynced
    | Status
    | OpenGroup
    | Bury
    | RetryDead
    | DropDead
    | Dismiss
    | AwaitCondemned
    | AwaitDrained
)
"""What may be said twice without harm, so that it is repeated after a lost pipe."""
WAITS: Final = frozenset({Park, AwaitSynced, AwaitCondemned, AwaitDrained})
"""Requests that are answered when something happens, perhaps in a month."""
Operation = OpenPipe | Send | Receive
Result = TypeVar("Result")
Steps = Generator[Operation, Any, Result]


class Channel:
    """The state of one pipe's conversation, which outlives the pipe."""

    def __init__(self, path: str, log_id: bytes, frame_bytes_max: int, pid: int) -> None:
        self.path = path
        self._pid = pid
        self._log_id = log_id
        self._frame_bytes_max = frame_bytes_max
        self._connection = Connection(Role.CLIENT, frame_bytes_max)
        self._request_id = 0
        self.is_open = False
        self.descriptors: list[int] | None = None
        """Those received and not used yet; `None` while none can come."""

    def next_request_id(self) -> int:
        """A number that no earlier request on this channel had."""
        self._request_id += 1
        return self._request_id

    def open(self) -> Steps[None]:
        """A pipe on which both sides have said who they are.

        Raises:
            LogDeleted: the writer serves another log, made anew at the path.
            PipeBroken: the writer ended meanwhile; try again.
        """
        self.is_open = False
        yield OPEN_PIPE
        self._connection = Connection(Role.CLIENT, self._frame_bytes_max)
        yield Send([frame(Hello(HELLO_MAGIC, PROTOCOL_VERSION, self._pid))])
        welcome: Message | None = None
        while welcome is None:
            for message in (yield from self.receive()):
                welcome = message
        if isinstance(welcome, Failed):
            raise error_of(welcome)
        assert isinstance(welcome, Welcome)
        if welcome.log_id != self._log_id:
            raise LogDeleted(
                f"the log {self.path} was deleted and another one made in its place; open it"
                " again to use that one",
                path=self.path,
            )
        self.is_open = True

    def receive(self) -> Steps[list[WriterMessage]]:
        """The messages that the next bytes complete, perhaps none."""
        data = yield RECEIVE
        return self.messages_of(data)

    def messages_of(self, data: bytes) -> list[WriterMessage]:
        """The messages that these bytes complete.

        Raises:
            PipeBroken: they make no sense, so the pipe is given up.
        """
        try:
            return list(self._connection.receive(data))  # type: ignore[arg-type]
        except ProtocolError as error:
            raise PipeBroken(str(error)) from error

    def request(self, kind: type[Request], *fields: Any) -> Steps[WriterMessage]:
        """Say one message, which may safely be said twice, and return its answer.

        One that is answered only when something happens outlives any number of writers, as long as
        each of them took it.

        Raises:
            WriterUnavailable: writer after writer ended before it answered.
            EventLogError: the writer refused the request.
        """
        attempt = 0
        while True:
            try:
                if not self.is_open:
                    yield from self.open()
                    if kind in WAITS:
                        attempt = 0
                request_id = self.next_request_id()
                yield Send([frame(kind(request_id, *fields))])
                while True:
                    for message in (yield from self.receive()):
                        if message[0] == request_id:
                            return _checked(message)
            except PipeBroken as error:
                self.is_open = False
                broken = self.gave_up(attempt, error)
                attempt += 1
                if broken:
                    raise broken from error

    def statistics(self) -> Steps[WriterStatistics | None]:
        """What the writer has counted; `None` if it hangs up, twice, instead of telling.

        A writer of an older release does that at a request that it does not know.
        """
        for _ in range(2):
            try:
                if not self.is_open:
                    yield from self.open()
                request_id = self.next_request_id()
                yield Send([frame(Statistics(request_id))])
                while True:
                    for message in (yield from self.receive()):
                        if message[0] == request_id:
                            report = _checked(message)
                            assert isinstance(report, StatisticsReport)
                            return statistics_of(report.numbers)
            except PipeBroken:
                self.is_open = False
        return None

    def gave_up(self, attempt: int, error: PipeBroken) -> EventLogError | None:
        """The error for the last of the attempts; `None` while there are more."""
        if attempt + 1 < ATTEMPTS_MAX:
            return None
        return WriterUnavailable(
            f"the writer of {self.path} ended {ATTEMPTS_MAX} times before it answered ({error});"
            " see writer.log there",
            path=self.path,
        )


def _checked(message: WriterMessage) -> WriterMessage:
    if isinstance(message, Failed):
        raise error_of(message)
    return message
