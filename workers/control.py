"""What a pool and its worker say to each other, over a pair of sockets of their own.

Each message is a MessagePack array whose first element names it; nothing is unpickled.

=========  ================  =========================================================
from       message           meaning
=========  ================  =========================================================
worker     ready             it takes part: the place of its page, its member's id
worker     failed            it cannot start: the error in a line, its traceback, may it pass
worker     log               a record of `logging`: name, level, text, time, traceback
worker     retiring          it has done enough soon: start another one
pool       stop              finish what runs, give back the rest, and end
=========  ================  =========================================================
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Final

import msgpack

RECEIVE_BYTES: Final = 64 * 1024
MESSAGE_BYTES_MAX: Final = 1024 * 1024


class ControlReader:
    """Puts the bytes of one end together to messages."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=4 * MESSAGE_BYTES_MAX, unicode_errors="surrogateescape"
        )

    def receive(self, data: bytes) -> Iterator[list[Any]]:
        """The messages that the bytes complete."""
        self._unpacker.feed(data)
        for message in self._unpacker:
            if isinstance(message, list) and message:
                yield message


def packed_message(kind: str, *fields: Any) -> bytes:
    """The bytes of one message."""
    data: bytes = msgpack.packb([kind, *fields], unicode_errors="surrogateescape")
    return data


def new_pair() -> tuple[socket.socket, socket.socket]:
    """The pool's end and the worker's."""
    return socket.socketpair()
