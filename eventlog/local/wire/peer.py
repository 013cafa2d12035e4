"""The other end of a pipe, as whoever answers its messages sees it."""

from __future__ import annotations

from typing import Protocol

from eventlog.local.wire.messages import WriterMessage


class Peer(Protocol):
    """A client of the writer."""

    is_gone: bool

    def say(self, message: WriterMessage) -> None:
        """Send, or queue, an answer; never blocks."""
