"""Pipes for processes without an event loop: performs what the conversations ask for, blocking.

Imports neither trio nor asyncio. A pipe is used by one thread at a time (its lock); a conversation
that an exception such as `KeyboardInterrupt` ends leaves it usable, as in `asynchronous`.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from eventlog.api.refusals import closed
from eventlog.api.waiting import SLOW_S
from eventlog.errors import EventLogError
from eventlog.local.client.calls import Ask, Call, Work
from eventlog.local.client.conversations import (
    Channel,
    OpenPipe,
    Operation,
    PipeBroken,
    Send,
    Steps,
    Unsent,
)
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.launch import find_for
from eventlog.local.client.requests import Requests
from eventlog.local.client.staging import RECEIVE_BYTES, drop_descriptors, receive_descriptors

T = TypeVar("T")
SILENCE: Final = (BlockingIOError, TimeoutError)
"""What a socket raises after the kernel's limit (`_limit_silence`), and after Python's."""


class OutOfTime(Exception):
    """The pipe's `end_s` has come; never leaves this package."""


class BlockingPipe:
    """One conversation's pipe, opened when it is first needed and again when it broke."""

    def __init__(
        self,
        path: str,
        channel: Channel,
        on_slow: Callable[[], None] | None = None,
        find: Callable[[Channel], socket.socket] = find_for,
    ) -> None:
        self._path = path
        self.channel = channel
        self._on_slow = on_slow
        """Called whenever the pipe has been silent for `SLOW_S`."""
        self._find = find
        self.end_s: float | None = None
        """When to give up, by the monotonic clock."""
        self.lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._unsent = Unsent()
        self._is_closed = False

    def run(self, steps: Steps[T]) -> T:
        """Carry a conversation out and return what it returns; the caller holds the lock."""
        try:
            operation = next(steps)
            while True:
                try:
                    outcome = self._perform(operation)
                except (PipeBroken, EventLogError) as error:
                    operation = steps.throw(error)  # an outbox drops what it has queued
                else:
                    operation = steps.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except (EventLogError, OutOfTime):
            raise
        except Exception as error:
            if self._is_closed:  # by another thread, under this one's feet
                raise closed("handle", self._path) from error
            raise
        except BaseException:
            self._hang_up()  # as of Ctrl-C, in the middle of it: only another pipe begins anew
            raise
        finally:
            steps.close()

    def _perform(self, operation: Operation) -> bytes | None:
        match operation:
            case Send(parts):
                self._unsent.add(*parts)
                self._send_all()
                return None
            case OpenPipe():
                self._open()
                return None
        return self._receive()

    def _open(self) -> None:
        self._hang_up()
        if not self._is_closed:
            pipe = self._find(self.channel)
            if self._on_slow is not None:
                _limit_silence(pipe, SLOW_S)
            self._socket = pipe
        if self._is_closed:
            self._hang_up()
            raise closed("handle", self._path)

    def _send_all(self) -> None:
        while self._unsent:
            try:
                sent = self._socket_in_time().sendmsg(self._unsent.parts())
            except SILENCE:
                self._note_silence()
                continue
            except OSError as error:
                raise PipeBroken(str(error)) from error
            self._unsent.sent(sent)

    def _receive(self) -> bytes:
        while True:
            try:
                pipe, found = self._socket_in_time(), self.channel.descriptors
                if found is None:
                    data = pipe.recv(RECEIVE_BYTES)
                else:
                    data = receive_descriptors(pipe, found)
            except SILENCE:
                self._note_silence()
                continue
            except OSError as error:
                raise PipeBroken(str(error)) from error
            if not data:
                raise PipeBroken("the writer closed the pipe")
            return data

    def _socket_in_time(self) -> socket.socket:
        pipe = self._socket
        if pipe is None:
            raise PipeBroken("the pipe is closed")
        if self.end_s is not None:
            left_s = self.end_s - time.monotonic()
            if left_s <= 0:
                raise OutOfTime
            pipe.settimeout(left_s)
        return pipe

    def _note_silence(self) -> None:
        if self._on_slow is not None:
            self._on_slow()

    def _hang_up(self) -> None:
        pipe, self._socket = self._socket, None  # in one step: two threads may hang up at once
        if pipe is not None:
            # A thread that waits in the pipe is woken by this, and not by `close`.
            with suppress(OSError):
                pipe.shutdown(socket.SHUT_RDWR)
            pipe.close()
        self._unsent.clear()
        drop_descriptors(self.channel)
        self.channel.is_open = False

    def close(self) -> None:
        """Close the pipe for good: a thread that still waits in it gets `LogClosed`."""
        self._is_closed = self.channel.is_closed = True
        self._hang_up()


def _limit_silence(pipe: socket.socket, seconds: float) -> None:
    """Have calls of a blocking socket give up after so long.

    By the kernel: for `settimeout`, Python asks before each call whether it would block, which
    makes two calls of each.
    """
    pipe.settimeout(None)
    limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        pipe.setsockopt(socket.SOL_SOCKET, option, limit)


class BlockingRequests(Requests[BlockingPipe]):
    """See `Requests`, in threads."""

    def __init__(self, handle: LocalHandle, what: str) -> None:
        super().__init__(handle, what, BlockingPipe)

    def run(self, call: Call[T]) -> T:
        """Carry a call out, and return what it returns.

        Raises:
            LogClosed: another thread closed what this one uses, whatever came of that.
        """
        return self.attempt(lambda: self._run(call))

    def attempt(self, step: Callable[[], T]) -> T:
        """What `step` gives, which uses what this object may be asked to close.

        Raises:
            LogClosed: another thread closed it, whatever came of that.
        """
        self.check_open()
        try:
            return step()
        except Exception:
            self.check_open()
            raise

    def _run(self, call: Call[T]) -> T:
        outcome: Any = None
        try:
            while True:
                match call.send(outcome):
                    case Ask(kind, fields):
                        pipe = self.pipe_for(kind)
                        with pipe.lock:
                            outcome = pipe.run(pipe.channel.request(kind, *fields))
                    case Work(function, arguments):
                        outcome = function(*arguments)
                    case _:
                        pass  # other threads run anyway
        except StopIteration as stop:
            result: T = stop.value
            return result
