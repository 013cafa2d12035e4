"""One connected client, as the writer sees it.

Answers are sent straight from the task that caused them, without blocking: what does not fit into
a pipe is kept, up to a limit, and a task is started to send it; a peer past the limit is dropped.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from eventlog.local.wire.connection import AnswerQueue

if TYPE_CHECKING:
    from eventlog.local.writer.server import Server

logger = logging.getLogger("eventlog.writer")

UNSENT_BYTES_MAX: Final = 1024 * 1024
"""Answers are a few bytes each: who leaves this many unread has stopped reading."""


class Pipe(AnswerQueue):
    """One connected client; what the actor knows as a peer."""

    def __init__(self, stream: trio.SocketStream, server: Server) -> None:
        super().__init__(server.to_flush)
        self._server = server
        self._stream = stream
        # The same descriptor for calls that must not wait; trio's object owns it.
        self.raw = socket.socket(fileno=stream.socket.fileno())
        self.raw.setblocking(False)
        self._is_sending = False

    @property
    def is_flushed(self) -> bool:
        """Whether all that was said is sent."""
        return not self.unsent

    def flush(self) -> None:
        """Send what can be sent without waiting; a task sends the rest, which is bounded."""
        if self.is_gone or not self.unsent:
            return
        if not self._is_sending:
            self._send_some()
        if len(self.unsent) > UNSENT_BYTES_MAX:
            logger.warning("dropped a peer that does not read its answers")
            self.drop()
        elif self.unsent and not self._is_sending:
            self._is_sending = True
            self._server.nursery.start_soon(self._send_rest)

    def _send_some(self) -> None:
        try:
            del self.unsent[: self.raw.send(self.unsent)]
        except BlockingIOError:
            return  # the pipe is full
        except OSError:
            self.drop()

    async def _send_rest(self) -> None:
        try:
            while self.unsent and not self.is_gone:
                await trio.lowlevel.wait_writable(self.raw)
                self._send_some()
        except (OSError, trio.ClosedResourceError):
            self.drop()
        finally:
            self._is_sending = False

    def drop(self) -> None:
        """End the conversation; the receiving task sees the end and cleans up."""
        self.is_gone = True
        self.unsent.clear()
        with suppress(OSError):
            self.raw.shutdown(socket.SHUT_RDWR)

    async def receive(self) -> memoryview:
        """The next bytes, valid until the caller waits for anything; none at the end.

        All pipes share one buffer: a fresh one for each call would cost more than the copy.
        """
        buffer = self._server.buffer
        while True:
            try:
                await trio.lowlevel.wait_readable(self.raw)
                received = self.raw.recv_into(buffer)
            except BlockingIOError:
                continue  # readiness is a hint
            except (OSError, trio.ClosedResourceError):
                received = 0
            return memoryview(buffer)[:received]

    async def aclose(self) -> None:
        """Give the descriptor back, once."""
        self.is_gone = True
        self._server.staging.forget(self.raw)
        self.raw.detach()
        await self._stream.aclose()
