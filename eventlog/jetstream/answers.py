"""What comes over a connection, for whoever asked: taken from the bytes, past the client library.

The library's own way makes each message wait in a queue for a task that calls back, and parses
headers that nobody reads, which is most of what reading an event costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

_LINE_END: Final = b"\r\n"
_MESSAGES: Final = (b"MSG", b"HMSG")
_HEAD: Final = len(b"NATS/1.0")


class Answer(msgspec.Struct, gc=False):
    """One message; its headers are parsed when they are asked for."""

    subject: bytes
    reply: bytes
    header: bytes
    data: bytes

    @property
    def is_status(self) -> bool:
        """Whether it is a word of the server's own, and no message that somebody has sent."""
        return self.header[_HEAD : _HEAD + 1] == b" "

    @property
    def headers(self) -> dict[str, str]:
        """By name; `Status` is the server's own word, as 503."""
        first, *lines = self.header.decode(errors="surrogateescape").split("\r\n")
        status = first[_HEAD:].split(None, 1)
        found = {"Status": status[0]} if status else {}
        for line in lines:
            name, colon, value = line.partition(":")
            if colon:
                found[name.strip()] = value.strip()
        return found


Take = Callable[[Answer], None]


class AnswerParser(Parser):  # type: ignore[misc]  # the library has no types
    """Hands the messages of some subscriptions to who takes them; the rest goes the usual way."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.buf = bytearray()
        self.takers: dict[bytes, Take] = {}
        """By the subscription's number."""
        self._wanted = 0
        """Until so many bytes are there, the message that came in part is not whole."""

    async def parse(self, data: bytes = b"") -> None:
        """Take what came over the connection."""
        if self.buf:
            self.buf += data
            if len(self.buf) < self._wanted:
                return
            data, self.buf = bytes(self.buf), bytearray()
        self._wanted, at = 0, 0
        while (end := data.find(_LINE_END, at)) >= 0:
            words = data[at:end].split()
            stop = end + len(_LINE_END)
            if words and words[0] in _MESSAGES:
                stop += _size_of(words) + len(_LINE_END)
                if len(data) < stop:
                    self._wanted = stop - at
                    break
                take = self.takers.get(words[2])
                if take is not None:
                    take(_answer_of(words, data, end + len(_LINE_END), stop - len(_LINE_END)))
                    at = stop
                    continue
            await super().parse(data[at:stop])
            at = stop
        self.buf = bytearray(data[at:])


def _size_of(words: list[bytes]) -> int:
    try:
        return int(words[-1])
    except ValueError:
        raise ProtocolError("nats: a message without its size") from None


def _answer_of(words: list[bytes], data: bytes, begin: int, end: int) -> Answer:
    """MSG subject sid [reply] size, or HMSG subject sid [reply] header-size size."""
    if words[0] == b"MSG":
        return Answer(words[1], words[3] if len(words) == 5 else b"", b"", data[begin:end])
    body = begin + int(words[-2])
    reply = words[3] if len(words) == 6 else b""
    return Answer(words[1], reply, data[begin:body], data[body:end])
