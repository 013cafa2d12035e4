"""The writer's trio loop: pipes in and out, syncs, signals, and leaving when nobody is there.

nursery
|-- entrance         one task for each pipe: bytes -> Connection -> Actor -> answers
|-- spare            makes the next segment ready when the active one is half full
|-- sync             waits until something is to be synced; one sync covers all that came
|-- index            waits until an index by key is to be made, and makes it in short steps
|-- expire           sleeps until the oldest segment may be too old, or options are changed
|-- place            looks once a second whether the log was deleted, and ends the loop if so
|-- resume           sleeps until the next backoff of a group is over
|-- await member     one for each member of a group that an earlier writer knew
|-- idle             ends the loop `linger_s` after the last pipe closed
`-- signals          SIGTERM and SIGINT end it in order
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from eventlog.config import SYNC_INTERVAL_S
from eventlog.errors import (
    EventLogError,
    LogDeleted,
    PermissionDenied,
    ProtocolError,
    WriterUnavailable,
)
from eventlog.local import rendezvous
from eventlog.local.groups.membership import Absent
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.wire.connection import AnswerQueue, Connection
from eventlog.local.wire.messages import (
    AppendStaged,
    Done,
    Hello,
    Request,
    Stage,
    StandDown,
    failed,
)
from eventlog.local.wire.table import Role
from eventlog.local.writer.actor import Actor
from eventlog.local.writer.entrance import Entrance
from eventlog.local.writer.pipe import Pipe
from eventlog.local.writer.processes import wait_member_end
from eventlog.local.writer.service import Blocking, Service
from eventlog.local.writer.staging import StagingArea

logger = logging.getLogger("eventlog.writer")

RECEIVE_BYTES: Final = 256 * 1024
LEAVE_LOCK_S: Final = 0.3
LOOK_AGAIN_S: Final = 0.01
PLACE_LOOK_S: Final = 1.0
"""How long those who only wait may not know that the log was deleted."""
INLINE_SYNC_S_MAX: Final = 0.001
"""On a disk whose last sync took less, the next one is made in the loop: going to a thread and back
costs as much again, and appends can be handled only after it anyway. When one turns out to be slow,
everybody has waited for that one, and the following are a thread's."""


class Server:
    """Serves one log until it is told to stop, or has been idle for `linger_s` (`None`: never)."""

    def __init__(
        self,
        log: WritableLog,
        listener: socket.socket,
        *,
        linger_s: float | None,
        gives_way: bool = False,
    ) -> None:
        self.log = log
        self._listener = listener
        self._linger_s = linger_s
        self._gives_way = gives_way
        self._pipes: set[Pipe] = set()
        self.to_flush: dict[AnswerQueue, None] = {}
        """In the order of the answers: whoever waits for an event comes before its producer."""
        self.staging = StagingArea()
        self.buffer = bytearray(RECEIVE_BYTES)
        self._dirty = trio.Event()
        self._has_moved = trio.Event()
        self._changed = trio.Event()
        self._due = trio.Event()
        self._spare_wanted = trio.Event()
        self._index_wanted = trio.Event()
        self._configured = trio.Event()
        self.actor = Actor(
            log,
            lambda: len(self._pipes),
            self._note_dirty,
            lambda: self._due.set(),  # noqa: PLW0108 - another event each time
            on_index=lambda: self._index_wanted.set(),  # noqa: PLW0108 - the same
        )
        self.service = Service(self.actor)
        log.on_spare_wanted = lambda: self._spare_wanted.set()  # noqa: PLW0108 - the same
        self.actor.on_configured = lambda: self._configured.set()  # noqa: PLW0108 - the same
        self.nursery: trio.Nursery
        self._leaving_lock: rendezvous.Lock | None = None

    def __repr__(self) -> str:
        """The state in a line."""
        return f"<Server {self.log.directory} pipes={len(self._pipes)} at={self.log.last_seq_no}>"

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve; returns after an orderly end, with everything on the disk."""
        try:
            async with trio.open_nursery() as self.nursery:
                self._listener.setblocking(False)
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
                entrance = Entrance(listener, lambda: len(self._pipes))
                self.nursery.start_soon(self._watch_signals)
                self.nursery.start_soon(self._sync_loop)
                self.nursery.start_soon(self._sync_positions_loop)
                self.nursery.start_soon(self._spare_loop)
                self.nursery.start_soon(self._index_loop)
                self.nursery.start_soon(self._expire_loop)
                self.nursery.start_soon(self._resume_loop)
                self.nursery.start_soon(self._watch_place)
                for member in self.actor.groups.absent():
                    self.nursery.start_soon(self._await_member, member)
                if self._linger_s is not None:
                    self.nursery.start_soon(self._watch_idle, self._linger_s)
                on_ready()
                await entrance.admit(self.nursery, self._serve_pipe)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.actor.end)

    def _note_dirty(self) -> None:
        self._dirty.set()
        self._has_moved.set()

    def flush(self) -> None:
        """Send the answers of a step to everybody who got one."""
        pipes = list(self.to_flush)
        self.to_flush.clear()
        for pipe in pipes:
            pipe.flush()

    # --- pipes -------------------------------------------------------------------------------

    async def _serve_pipe(self, stream: trio.SocketStream) -> None:
        pipe = Pipe(stream, self)
        self._pipes.add(pipe)
        self._note_change()
        try:
            rendezvous.check_peer(pipe.raw, self.log.directory)
            await self._converse(pipe)
        except (ProtocolError, PermissionDenied) as error:
            logger.warning("dropped a peer: %s", error)
        except Exception:
            # One peer's conversation must not end everybody's; the log is consistent after any
            # exception, because a failed append moves nothing.
            logger.exception("dropped a peer after an error of ours")
        finally:
            self._pipes.discard(pipe)
            # When this writer ends, nobody has left: members keep what they have, and go on with
            # it at the next writer, which also finds out who is gone.
            if not self.nursery.cancel_scope.cancel_called:
                self.actor.forget_peer(pipe)
                self.flush()  # what it had goes to others at once
            with trio.CancelScope(shield=True):
                await pipe.aclose()
            self._note_change()

    async def _converse(self, pipe: Pipe) -> None:
        connection = Connection(Role.WRITER, self.log.options.frame_bytes_max)
        while not pipe.is_gone:
            data = await pipe.receive()
            if not data or not self._may_go_on():
                return
            try:
                for message in connection.receive(data):
                    self._answer(pipe, message)  # type: ignore[arg-type]  # says the table
            finally:
                self.flush()
            if self.log.failure is not None:  # since one of these messages
                self._may_go_on()

    def _may_go_on(self) -> bool:
        """Look before anything is stored; this writer ends if it may not."""
        reason = self.log.reason_to_end()
        if reason is None:
            return True
        logger.error("%s, so this writer ends", reason)
        self.nursery.cancel_scope.cancel()
        return False

    def _answer(self, pipe: Pipe, message: Hello | Request) -> None:
        if isinstance(message, AppendStaged):
            message = self.staging.take(pipe.raw, message)
        if isinstance(message, Stage):
            self._open_ring(pipe, message.request_id)
        elif isinstance(message, StandDown):
            self._stand_down(pipe, message.request_id)
        else:
            self.actor.handle(pipe, message)

    def _open_ring(self, pipe: Pipe, request_id: int) -> None:
        pipe.flush()  # the ring's descriptor travels with its answer, past nothing
        try:
            if not pipe.is_flushed:
                raise EventLogError("no staging ring for a peer that does not read its answers")
            self.staging.open(pipe.raw, request_id)
        except EventLogError as error:
            pipe.say(failed(request_id, error))

    def _stand_down(self, pipe: Pipe, request_id: int) -> None:
        """Leave for a writer that was told to serve; it holds the directory's lock meanwhile."""
        if self._gives_way:
            logger.info("leaving for another writer")
            pipe.say(Done(request_id))
            self.nursery.cancel_scope.cancel()
            return
        error = WriterUnavailable(
            f"process {os.getpid()} was told to serve the log {self.log.directory}",
            path=self.log.directory,
        )
        pipe.say(failed(request_id, error))

    async def _watch_place(self) -> None:
        with suppress(LogDeleted):
            while True:  # no event tells it
                self.log.check_not_deleted()
                await trio.sleep(PLACE_LOOK_S)
        self._may_go_on()

    # --- syncing and expiry ------------------------------------------------------------------

    async def _sync_loop(self) -> None:
        durability = self.log.options.durability
        if durability == "memory":
            return
        while True:
            await self._dirty.wait()
            if durability == "disk":
                await trio.sleep(SYNC_INTERVAL_S)
            self._dirty = trio.Event()
            if not self._may_go_on():
                return
            await self._sync(with_positions=durability == "disk")

    async def _sync(self, *, with_positions: bool) -> None:
        is_inline = self.service.sync_s < INLINE_SYNC_S_MAX and not with_positions
        try:
            await self._do(self.service.syncing(with_positions=with_positions), inline=is_inline)
        except EventLogError as error:
            self._end_after_failed_sync(error)
            return
        self.flush()

    async def _do(self, work: Blocking, *, inline: bool = False) -> None:
        """Call what blocks on the disk in a thread, or here."""
        for call in work:
            if inline:
                call()
            else:
                await trio.to_thread.run_sync(call)

    async def _sync_positions_loop(self) -> None:
        """With "sync", appends do not wait for positions, which follow within a second."""
        while self.log.options.durability == "sync":
            await self._has_moved.wait()
            await trio.sleep(SYNC_INTERVAL_S)
            self._has_moved = trio.Event()
            if not self._may_go_on():
                return
            try:
                await trio.to_thread.run_sync(self.log.sync_positions)
            except EventLogError as error:
                self._end_after_failed_sync(error)

    def _end_after_failed_sync(self, error: EventLogError) -> None:
        logger.error("a sync failed, so this writer ends: %s", error)
        self.actor.on_sync_failed(error)
        self.flush()
        self.nursery.cancel_scope.cancel()

    async def _spare_loop(self) -> None:
        while True:
            await self._spare_wanted.wait()
            self._spare_wanted = trio.Event()
            # To its end, also when this writer ends: the file is somebody's until then.
            await self._do(self.service.making_spare())
            if not self._may_go_on():
                return
            self.flush()

    async def _index_loop(self) -> None:
        while True:
            await self._index_wanted.wait()
            self._index_wanted = trio.Event()
            for _ in self.service.indexing():
                self.flush()
                await trio.lowlevel.checkpoint()
            if not self._may_go_on():
                return
            self.flush()

    async def _expire_loop(self) -> None:
        while True:
            age = self.log.options.retention.max_age
            # Whole segments go, so a tenth of the age is as exact as anybody can notice.
            interval_s = math.inf if age is None else min(age.total_seconds() / 10, 60.0)
            with trio.move_on_after(interval_s):
                await self._configured.wait()
                self._configured = trio.Event()
                continue
            if not self._may_go_on():
                return
            self.service.expire()
            self.flush()

    # --- groups ------------------------------------------------------------------------------

    async def _resume_loop(self) -> None:
        """Hand events out again when their backoff is over."""
        while True:
            due_ns = self.actor.groups.next_due()
            wait_s = math.inf if due_ns is None else max(due_ns - time.monotonic_ns(), 0) / 1e9
            with trio.move_on_after(wait_s):
                await self._due.wait()
            self._due = trio.Event()
            self.actor.groups.resume_due()
            self.flush()

    async def _await_member(self, absent: Absent) -> None:
        """A member of before this writer's start keeps its lease as long as its process lives."""
        member = absent.state.members.get(absent.member_id)
        if member is not None:
            pages = self.actor.groups.store.pages
            is_held = partial(pages.is_held, member.slot)
            await wait_member_end(absent.pid, absent.start, is_held)
        self.service.end_absent(absent)
        self.flush()

    # --- the end -----------------------------------------------------------------------------

    def _note_change(self) -> None:
        """Somebody came or went."""
        self._changed.set()
        self._changed = trio.Event()

    async def _watch_idle(self, linger_s: float) -> None:
        while True:
            if self._pipes:
                await self._changed.wait()
                continue
            with trio.move_on_after(linger_s) as scope:
                await self._changed.wait()
            if scope.cancelled_caught and not self._pipes and self._may_leave():
                logger.info("nobody is there any more")
                self.nursery.cancel_scope.cancel()
                return

    def _may_leave(self) -> bool:
        """Take the directory's lock, so that nobody starts to connect, and look once more.

        A client that connected without the lock after this look finds the pipe closed before a
        Welcome, and begins again with the lock: it then starts a new writer.
        """
        try:
            self._leaving_lock = rendezvous.try_lock_directory(self.log.directory)
        except EventLogError:
            return True  # the directory was deleted, so nobody can come any more
        return self._leaving_lock is not None

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # held back until now
            async for number in signals:
                logger.info("ending on %s", signal.Signals(number).name)
                self.nursery.start_soon(self._leave)

    async def _leave(self) -> None:
        """End in order: with the directory's lock, so that clients look for the next one after it.

        Its holder may be waiting for this very end, or hang: without the lock, clients that
        connect too early find a closed pipe, and look again.
        """
        with trio.move_on_after(LEAVE_LOCK_S):
            while not self._may_leave():  # noqa: ASYNC110 - nothing tells us
                await trio.sleep(LOOK_AGAIN_S)
        self.nursery.cancel_scope.cancel()
