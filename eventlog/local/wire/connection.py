"""One end of a pipe as a state machine: bytes in, messages out, and who may say what. Pure.

A frame is a length (4 bytes, little-endian) and one message of that many bytes. Each end accepts
only what the other may say in the state that the connection is in:

=======  ==========================  ========================================
state    a client may say            the writer may say
=======  ==========================  ========================================
OPENING  Hello                       Welcome, Failed
OPEN     Append Ack Seek Forget      Appended Done Wake StatusReport Failed
         Park Status Statistics      StatisticsReport
         OpenGroup Join Leave        Joined
         Lease Settle Nack Release   Leased Revoke Passed
         Bury FailDelivery
         AwaitCondemned              Condemned
         AwaitDrained
         RetryDead DropDead          Counted
         Dismiss Excuse
         Stage AppendStaged          Staged
         AwaitSynced StandDown
CLOSED   nothing                     nothing
=======  ==========================  ========================================

A length above the limit, bytes that are no message, and a message out of turn are `ProtocolError`;
after it the connection is CLOSED and only fit to be dropped.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final

from eventlog.errors import ProtocolError
from eventlog.local.wire.codec import pack_append_head, pack_message, unpack_message
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Condemned,
    Counted,
    Dismiss,
    DropDead,
    Excuse,
    FailDelivery,
    Join,
    Joined,
    Lease,
    Leased,
    Leave,
    Nack,
    OpenGroup,
    Passed,
    Release,
    RetryDead,
    Revoke,
    Settle,
)
from eventlog.local.wire.messages import (
    HELLO_MAGIC,
    VERSIONS,
    Ack,
    Append,
    Appended,
    AppendStaged,
    AwaitSynced,
    Done,
    Failed,
    Forget,
    Hello,
    Message,
    Park,
    Seek,
    Stage,
    Staged,
    StandDown,
    Statistics,
    StatisticsReport,
    Status,
    StatusReport,
    Wake,
    Welcome,
)

_LENGTH: Final = struct.Struct("<I")
HELLO_BYTES_MAX: Final = 256
"""What an end accepts before the other has said who it is."""


class Role(enum.Enum):
    """Which end this is."""

    CLIENT = "client"
    WRITER = "writer"


class State(enum.Enum):
    """How far the conversation is."""

    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


MAY_SAY: Final[dict[tuple[Role, State], frozenset[type[Message]]]] = {
    (Role.CLIENT, State.OPENING): frozenset({Hello}),
    (Role.CLIENT, State.OPEN): frozenset(
        {
            *(Append, Ack, Seek, Forget, Park, Status),
            *(OpenGroup, Join, Lease, Settle, Nack, Release, Bury, Leave),
            *(AwaitCondemned, AwaitDrained, RetryDead, DropDead, Dismiss, Excuse),
            FailDelivery,
            *(Stage, AppendStaged, AwaitSynced, StandDown, Statistics),
        }
    ),
    (Role.CLIENT, State.CLOSED): frozenset(),
    (Role.WRITER, State.OPENING): frozenset({Welcome, Failed}),
    (Role.WRITER, State.OPEN): frozenset(
        {
            *(Appended, Done, Wake, StatusReport, StatisticsReport, Failed),
            *(Joined, Leased, Revoke, Passed, Condemned, Counted, Staged),
        }
    ),
    (Role.WRITER, State.CLOSED): frozenset(),
}


def frame(message: Message) -> bytes:
    """The bytes that carry a message."""
    packed = pack_message(message)
    return _LENGTH.pack(len(packed)) + packed


def append_head(message: Append, payload_bytes: int) -> bytes:
    """What comes before the payload, of that size, of a batch: so it need not be put together."""
    head = pack_append_head(message, payload_bytes)
    return _LENGTH.pack(len(head) + payload_bytes) + head


class Connection:
    """The receiving side of one end; `receive` is given bytes as they come, in any pieces."""

    def __init__(self, role: Role, frame_bytes_max: int) -> None:
        self._peer = Role.WRITER if role is Role.CLIENT else Role.CLIENT
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self.state = State.OPENING

    @property
    def buffered_bytes(self) -> int:
        """What has come and is no whole frame yet."""
        return len(self._buffer)

    def receive(self, data: bytes | memoryview) -> Iterator[Message]:
        """The messages that `data` completes, checked against the table.

        Raises:
            ProtocolError: the other end does not keep to the protocol.
        """
        self._buffer += data
        try:
            yield from self._messages()
        except ProtocolError:
            self.state = State.CLOSED
            self._buffer.clear()
            raise

    def _messages(self) -> Iterator[Message]:
        start = 0
        buffer = self._buffer
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                self._check_length(length)
                begin = start + _LENGTH.size
                if len(buffer) - begin < length:
                    return
                with memoryview(buffer) as view, view[begin : begin + length] as packed:
                    message = unpack_message(packed)
                start = begin + length
                self._check_turn(message)
                yield message
        finally:
            del buffer[:start]

    def _check_length(self, length: int) -> None:
        limit = HELLO_BYTES_MAX if self._is_writer_opening() else self._frame_bytes_max
        if length > limit:
            raise ProtocolError(f"a frame of {length} bytes; the limit is {limit}")

    def _is_writer_opening(self) -> bool:
        return self.state is State.OPENING and self._peer is Role.CLIENT

    def _check_turn(self, message: Message) -> None:
        if type(message) not in MAY_SAY[self._peer, self.state]:
            raise ProtocolError(
                f"a {type(message).__name__} message of the {self._peer.value} in the state"
                f" {self.state.value}"
            )
        if isinstance(message, Hello | Welcome):
            self._check_version(message)
            self.state = State.OPEN

    def _check_version(self, message: Hello | Welcome) -> None:
        if isinstance(message, Hello) and message.magic != HELLO_MAGIC:
            raise ProtocolError("a peer that speaks something else")
        if message.version not in VERSIONS:
            raise ProtocolError(
                f"a peer that speaks protocol version {message.version}, not one of {VERSIONS}:"
                " both ends must be of releases that share one"
            )
