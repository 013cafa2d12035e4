"""The other end of a pipe, as whoever answers its messages sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from eventlog.local.wire.connection import frame
from eventlog.local.wire.messages import FromWriter


class Peer(Protocol):
    """A client of the writer."""

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
