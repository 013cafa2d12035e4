"""One end of a pipe: bytes in, messages out, in their order; and who is at the other end. Pure.

A frame is a length (4 bytes, little-endian) and one message of that many bytes. Each end decodes
only what the other may say in the state that the connection is in (`table.MAY_SAY`): a client
begins with `Hello`, the writer answers with `Welcome`, or with `Failed`, and then it is OPEN.

A length above the limit, bytes that are no message, and a message out of turn are `ProtocolError`;
after it the connection is CLOSED and only fit to be dropped.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, Protocol, Union

import msgspec

from eventlog.errors import ProtocolError
from eventlog.local.wire.messages import (
    HELLO_MAGIC,
    VERSIONS,
    Append,
    AppendIf,
    FromWriter,
    Hello,
    Message,
    Welcome,
)
from eventlog.local.wire.table import MAY_SAY, Role, State

_LENGTH: Final = struct.Struct("<I")
_BIN_32: Final = struct.Struct(">BI")
_encode: Final = msgspec.msgpack.Encoder().encode
HELLO_BYTES_MAX: Final = 256
"""What an end accepts before the other has said who it is."""


@cache
def _decoder(speaker: Role, state: State) -> Callable[[bytes | bytearray], Any]:
    """What decodes and checks all that the speaker may say then; made when it is first needed."""
    kinds = tuple(MAY_SAY[speaker, state])
    return msgspec.msgpack.Decoder(Union[kinds]).decode  # noqa: UP007 - made of a tuple


def frame(message: Message) -> bytes:
    """The bytes that carry a message."""
    packed = _encode(message)
    return _LENGTH.pack(len(packed)) + packed


def append_head(message: Append | AppendIf, payload_bytes: int) -> bytes:
    """What comes before the payload, of that size, of a batch: so it need not be put together.

    The message's own payload is empty: its two bytes give way to the header of a "bin 32".
    """
    head = _encode(message)[:-2]
    length = len(head) + _BIN_32.size + payload_bytes
    return b"".join((_LENGTH.pack(length), head, _BIN_32.pack(0xC6, payload_bytes)))


class Connection:
    """The receiving side of one end; `receive` is given bytes as they come, in any pieces."""

    def __init__(self, role: Role, frame_bytes_max: int) -> None:
        self._peer = Role.WRITER if role is Role.CLIENT else Role.CLIENT
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self.state = State.OPENING
        self._decode = _decoder(self._peer, self.state)
        self._limit = HELLO_BYTES_MAX if self._peer is Role.CLIENT else frame_bytes_max

    @property
    def buffered_bytes(self) -> int:
        """What has come and is no whole frame yet."""
        return len(self._buffer)

    def receive(self, data: bytes | bytearray | memoryview) -> Iterator[Message]:
        """The messages that `data` completes, each one that the other end may say then.

        Raises:
            ProtocolError: the other end does not keep to the protocol.
        """
        if self.state is State.CLOSED:
            raise ProtocolError(f"the {self._peer.value} goes on after the end")
        buffer, start = self._buffer, 0
        if buffer:
            buffer += data
            data = buffer
        try:
            while len(data) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(data, start)
                if length > self._limit:
                    raise ProtocolError(f"a frame of {length} bytes; the limit is {self._limit}")
                begin = start + _LENGTH.size
                end = begin + length
                if len(data) < end:
                    return
                packed = data[begin:end] if data is buffer else bytes(data[begin:end])
                message = self._decoded(packed)  # of a copy: a payload is a view of it
                start = end
                yield message
        except ProtocolError:
            self.state = State.CLOSED
            start = len(data)
            raise
        finally:
            if data is buffer:
                del buffer[:start]
            else:
                buffer += data[start:]

    def _decoded(self, packed: bytes | bytearray) -> Message:
        try:
            message: Message = self._decode(packed)
        except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ProtocolError(
                f"what the {self._peer.value} said in the state {self.state.value} is no message"
                f" that it may say then: {error}"
            ) from error
        if self.state is State.OPENING and isinstance(message, Hello | Welcome):
            self._open(message)
        return message

    def _open(self, message: Hello | Welcome) -> None:
        if isinstance(message, Hello) and message.magic != HELLO_MAGIC:
            raise ProtocolError("a peer that speaks something else")
        if message.version not in VERSIONS:
            raise ProtocolError(
                f"a peer that speaks protocol version {message.version}, not one of {VERSIONS}:"
                " both ends must be of releases that share one"
            )
        self.state = State.OPEN
        self._decode = _decoder(self._peer, self.state)
        self._limit = self._frame_bytes_max


class Peer(Protocol):
    """A client of the writer, as whoever answers its messages sees it."""

    is_gone: bool

    def say(self, message: FromWriter) -> None:
        """Send, or queue, an answer; never blocks."""


class AnswerQueue(ABC):
    """A peer whose answers are kept until the end of the step that caused them.

    `to_flush` is shared by all peers of a writer: those that were told something in this step.
    """

    def __init__(self, to_flush: dict[AnswerQueue, None]) -> None:
        self.is_gone = False
        self.unsent = bytearray()
        self._to_flush = to_flush

    def say(self, message: FromWriter) -> None:
        """Queue an answer."""
        if not self.is_gone:
            self.unsent += frame(message)
            self._to_flush[self] = None

    @abstractmethod
    def flush(self) -> None:
        """Send what can be sent without waiting."""
