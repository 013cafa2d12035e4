"""The other end of a pipe, as whoever answers its messages sees it."""

from __future__ import annotations

from typing import Protocol

from eventlog.local.wire.messages import FromWriter


class Peer(Protocol):
    """A client of the writer."""

    is_gone: bool

    def say(self, message: FromWriter) -> None:
        """Send, or queue, an answer; never blocks."""
