"""Pipes for trio and asyncio: performs what the conversations ask for, through anyio.

A pipe is used by one task at a time (its lock). A cancelled task leaves it usable: what was to be
sent and wasn't is kept and goes first, and an answer that nobody waits for is passed over.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from eventlog.api.refusals import closed
from eventlog.api.waiting import SLOW_S
from eventlog.errors import EventLogError
from eventlog.local.client.adoption import await_adopted
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
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.outbox import Outbox
from eventlog.local.client.requests import Requests
from eventlog.local.client.staging import RECEIVE_BYTES, drop_descriptors, receive_descriptors
from eventlog.local.rendezvous import connect

T = TypeVar("T")


class AsyncPipe:
    """One conversation's pipe, opened when it is first needed and again when it broke."""

    def __init__(
        self, path: str, channel: Channel, on_slow: Callable[[], None] | None = None
    ) -> None:
        self._path = path
        self.channel = channel
        self._on_slow = on_slow
        """Called whenever the pipe has been silent for `SLOW_S`."""
        # What follows waits for the pipe, so a free lock need not be a checkpoint of its own.
        self.lock = anyio.Lock(fast_acquire=True)
        self._socket: socket.socket | None = None
        self._unsent = Unsent()
        self._is_closed = False

    async def run(self, steps: Steps[T]) -> T:
        """Carry a conversation out and return what it returns; the caller holds the lock."""
        try:
            operation = next(steps)
            while True:
                try:
                    outcome = await self._perform(operation)
                except (PipeBroken, EventLogError) as error:
                    operation = steps.throw(error)  # an outbox drops what it has queued
                else:
                    operation = steps.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    async def _perform(self, operation: Operation) -> bytes | None:
        match operation:
            case Send(parts):
                self._unsent.add(*parts)
                await self.send_rest()
                return None
            case OpenPipe():
                await self._open()
                return None
        return await self.receive()

    async def _open(self) -> None:
        self._hang_up()
        self._check_not_closed()
        found = connect(self._path)
        pipe = await_adopted(found) if found else await self._start_writer()
        if self._is_closed:
            pipe.close()
            self._check_not_closed()
        pipe.setblocking(False)
        self._socket = pipe

    async def _start_writer(self) -> socket.socket:
        """Find or start the writer in a thread, which is left to itself if this is cancelled.

        The pipe is always somebody's: a cancelled caller closes it, or the thread does, later.
        """
        lock, found, is_abandoned = threading.Lock(), list[socket.socket](), threading.Event()

        def find() -> None:
            pipe = find_for(self.channel)
            with lock:
                if is_abandoned.is_set():
                    pipe.close()
                else:
                    found.append(pipe)

        try:
            await anyio.to_thread.run_sync(find, abandon_on_cancel=True)
        except BaseException:
            with lock:
                is_abandoned.set()
                for pipe in found:
                    pipe.close()
            raise
        return found[0]

    def _check_not_closed(self) -> None:
        if self._is_closed:
            raise closed("handle", self._path)

    async def send_rest(self) -> None:
        """Send all that is queued."""
        while not self.send_now():
            await self._wait(anyio.wait_writable)

    def queue(self, *parts: bytes | memoryview) -> None:
        """Put bytes behind those that are not sent yet."""
        self._unsent.add(*parts)

    def send_now(self) -> bool:
        """Send what can be sent without waiting; whether that was all.

        Raises:
            PipeBroken: the other end is gone.
        """
        while self._unsent:
            try:
                sent = self._open_socket().sendmsg(self._unsent.parts())
            except BlockingIOError:
                return False
            except OSError as error:
                raise PipeBroken(str(error)) from error
            self._unsent.sent(sent)
        return True

    async def receive(self) -> bytes:
        """The next bytes.

        Raises:
            PipeBroken: the other end is gone.
        """
        while True:
            if self._on_slow is not None:
                await self._wait_noting_silence(self._on_slow)
            else:
                await self._wait(anyio.wait_readable)
            try:
                pipe, found = self._open_socket(), self.channel.descriptors
                if found is None:
                    data = pipe.recv(RECEIVE_BYTES)
                else:
                    data = receive_descriptors(pipe, found)
            except BlockingIOError:
                continue  # readiness is a hint
            except OSError as error:
                raise PipeBroken(str(error)) from error
            if not data:
                raise PipeBroken("the writer closed the pipe")
            return data

    async def _wait_noting_silence(self, on_slow: Callable[[], None]) -> None:
        while True:
            with anyio.move_on_after(SLOW_S) as silence:
                await self._wait(anyio.wait_readable)
            if not silence.cancelled_caught:
                return
            on_slow()

    async def _wait(self, wait: Callable[..., object]) -> None:
        try:
            await wait(self._open_socket())  # type: ignore[misc]
        except (anyio.ClosedResourceError, OSError) as error:
            raise PipeBroken(str(error)) from error

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise PipeBroken("the pipe is closed")
        return self._socket

    def close(self) -> None:
        """Close the pipe for good: who still waits in it gets `LogClosed`."""
        self._is_closed = self.channel.is_closed = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            anyio.notify_closing(self._socket)
            self._socket.close()
            self._socket = None
        self._unsent.clear()
        drop_descriptors(self.channel)
        self.channel.is_open = False


class AppendPipe:
    """A pipe and its outbox; one task at a time sends and receives, for all that wait.

    The others wait for the end of its round, and are woken together: a lock that goes from hand to
    hand would take a turn of the event loop for each of them. Who is not answered by then leads the
    next round, or waits for it.
    """

    def __init__(self, pipe: AsyncPipe, outbox: Outbox) -> None:
        self.outbox = outbox
        self._pipe = pipe
        self._is_led = False
        """Whether a task sends and receives now."""
        self._ended: anyio.Event | None = None
        """Set at the end of its round; there is one as soon as somebody waits for that."""
        self._had_company = False
        """Whether others waited for the end of the last round."""

    async def deliver(self, batch: OutBatch) -> None:
        """Return when the batch is answered.

        Raises:
            EventLogError: the log cannot be reached; everything on its way got that error.
        """
        while not batch.is_done:
            if not self._is_led:
                await self._lead()
                continue
            if self._ended is None:
                self._ended = anyio.Event()
            await self._ended.wait()

    async def _lead(self) -> None:
        self._is_led = True
        try:
            if self._had_company:
                # They were woken with this task and are about to append again: let them, or this
                # round would be for one event, and they would wait for two. In its next turn trio
                # may run this task before them, in the one after that it can't.
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
            self.outbox.seal()
            await self._pipe.run(self.outbox.deliver(0))
        finally:
            # Also after a cancellation: one of those that wait goes on with what was left.
            self._is_led = False
            ended, self._ended = self._ended, None
            self._had_company = ended is not None
            if ended is not None:
                ended.set()


class AsyncRequests(Requests[AsyncPipe]):
    """See `Requests`, on trio and asyncio."""

    def __init__(self, handle: LocalHandle, what: str) -> None:
        super().__init__(handle, what, AsyncPipe)

    async def run(self, call: Call[T]) -> T:
        """Carry a call out, and return what it returns."""
        self.check_open()
        outcome: Any = None
        try:
            while True:
                match call.send(outcome):
                    case Ask(kind, fields):
                        pipe = self.pipe_for(kind)
                        async with pipe.lock:
                            outcome = await pipe.run(pipe.channel.request(kind, *fields))
                    case Work(function, arguments):
                        outcome = await anyio.to_thread.run_sync(function, *arguments)
                    case _:
                        await anyio.lowlevel.checkpoint()
        except StopIteration as stop:
            result: T = stop.value
            return result
