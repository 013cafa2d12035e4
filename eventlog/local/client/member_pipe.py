"""A member's pipe to the writer: the thread that reads it, and another pipe when it breaks.

    the member's thread   ask() ... say_of() ... flush()
    reader thread         answers, revocations, and a new pipe when the writer was replaced

What is said and heard is the `membership`'s; both threads use it under one lock.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Final

from eventlog.api import forks
from eventlog.api.refusals import closed
from eventlog.errors import EventLogError, WriterUnavailable
from eventlog.local.client.conversations import ATTEMPTS_MAX, OpenPipe, Operation, PipeBroken, Send
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.launch import find_for
from eventlog.local.client.membership import HeldEvents, Membership
from eventlog.local.storage.identity import process_start
from eventlog.local.storage.members import MemberPage
from eventlog.local.wire.connection import frame
from eventlog.local.wire.group_messages import Leave
from eventlog.local.wire.messages import MEMBER_VERSION, Request
from eventlog.system import start_thread

RECEIVE_BYTES: Final = 64 * 1024
LEAVE_S_MAX: Final = 5.0
UNANSWERED_MAX: Final = 256
OTHERS_CLOSED: Final = (errno.EBADF, errno.ENOTSOCK)


class MemberPipe:
    """The pipe and the thread of one member."""

    def __init__(self, handle: LocalHandle, group: str, owner: int) -> None:
        self._handle = handle
        self.member_id = (owner << 32) | (secrets.randbits(32) or 1)
        self._channel = handle.new_channel()
        self.membership = Membership(
            self._channel,
            group,
            self.member_id,
            self._send,
            lambda slot: MemberPage(handle.path, slot, self.member_id),
        )
        self.passed = self.membership.passed
        self._socket: socket.socket | None = None
        self.changed = threading.Condition()
        """Guards all that follows, and the membership."""
        self._attempts = 0
        """Pipes lost since the member was last known to a writer."""
        self._is_closed = False
        self._is_cut_off = False
        """Others have closed the pipe, so the thread that reads from it waits for ever."""
        self._thread = threading.Thread(target=self._run, name=f"member of {group}", daemon=True)
        start_thread(self._thread, self._handle.path)
        with self.changed:
            self.changed.wait_for(lambda: self.page is not None or self._is_over)
            if self.membership.failure is not None:
                raise self.membership.failure
        handle.adopt(self)  # closing the log ends the wait for events

    @property
    def page(self) -> MemberPage | None:
        """The member's page, once it has one and until it is closed."""
        return self.membership.page

    @property
    def slot(self) -> int:
        """The slot of the page."""
        return self.membership.slot

    @property
    def is_open(self) -> bool:
        """Whether this process is a member, and can say so."""
        has_failed = self._is_over or self.page is None
        return not has_failed and self._handle.generation == forks.generation

    @property
    def not_begun(self) -> int:
        """Events of the lease that were not begun."""
        lease = self.membership.lease
        return len(lease.todo) if lease else 0

    # --- the member's thread -----------------------------------------------------------------

    def ask(self, count: int, least: int, call: threading.Event | None = None) -> HeldEvents | None:
        """Wait for at most `count` events; `None` after `stop`, and once `call` is called off.

        A lease that comes after that is given back.

        Raises:
            EventLogError: the log cannot be reached.
        """
        self._check_process()
        member = self.membership
        with self.changed:
            if not member.is_stopped:
                self._wait_for_answers()
                member.ask(count, least)
                self.changed.wait_for(
                    lambda: (
                        member.fresh
                        or member.failure
                        or member.is_stopped
                        or (call is not None and call.is_set())
                    )
                )
            if member.failure is not None:
                raise member.failure
            return member.take_fresh()

    def call_off(self, call: threading.Event) -> None:
        """Make the `ask` return that was given this; callable from any thread."""
        with self.changed:
            call.set()
            self.changed.notify_all()

    def _check_process(self) -> None:
        """Pass where the reader thread is: a forked child has none, and would wait for ever."""
        if self._handle.generation != forks.generation:
            forks.check(self._handle.generation, self._handle.path)

    def stop(self) -> None:
        """Make `lease` return `None`, now and from now on; callable from any thread."""
        with self.changed:
            self.membership.is_stopped = True
            self.changed.notify_all()

    def say_of(self, lease: HeldEvents, kind: Any, *fields: Any) -> None:
        """Say something of a lease; of one that is somebody else's by now, nothing."""
        self._check_process()
        with self.changed:
            self._wait_for_answers()
            self.membership.say_of(lease, kind, *fields)

    def _wait_for_answers(self) -> None:
        """Let the writer answer some of what was said before more is; the caller holds the lock."""
        unanswered = self.membership.unanswered
        self.changed.wait_for(lambda: len(unanswered) < UNANSWERED_MAX or self._is_over)

    def _send(self, message: Request) -> None:
        """Send on the pipe that there is; the caller holds the lock."""
        if self._socket is None:
            return
        try:
            self._socket.sendall(frame(message))
        except TimeoutError:  # a part may be sent, so only another pipe can say all of it
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:  # the reader thread sees it too, and says everything again
            if error.errno in OTHERS_CLOSED:
                self._is_cut_off = True
                self._fail(self._closed_by_others())

    def flush(self) -> None:
        """Wait until the writer has answered everything.

        Raises:
            EventLogError: the log cannot be reached.
            LogClosed: another thread has closed the member before that.
        """
        self._check_process()
        member = self.membership
        with self.changed:
            self.changed.wait_for(lambda: not member.unanswered or self._is_over)
            if member.failure is not None:
                raise member.failure
            if member.unanswered:
                raise closed("member", self._handle.path)

    @property
    def _is_over(self) -> bool:
        """Whether nothing is answered any more."""
        return self._is_closed or self.membership.failure is not None

    def close(self) -> None:
        """Leave the group, and give everything back; may be called twice."""
        if self._is_closed or self._handle.generation != forks.generation:
            return
        self._handle.pipes.discard(self)
        self.stop()
        end = time.monotonic() + LEAVE_S_MAX
        with self.changed:
            # One after the other: if the writer died with both answers, what this member did would
            # be said again by one that has left, and refused.
            if self._are_answered_by(end) and self._socket is not None:
                self.membership.say(Leave)
                self._are_answered_by(end)
            self._is_closed = self._channel.is_closed = True
            self.changed.notify_all()
            pipe = self._socket
            if pipe is not None:
                with suppress(OSError):
                    pipe.shutdown(socket.SHUT_RDWR)
        if not self._is_cut_off:
            self._thread.join()
        self.membership.close()

    def _are_answered_by(self, end: float) -> bool:
        """Wait until all that was said is answered, but no longer than to `end`."""
        member = self.membership
        is_over = self.changed.wait_for(
            lambda: not member.unanswered or member.failure is not None, end - time.monotonic()
        )
        return is_over and member.failure is None

    # --- the reader thread -------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_closed:
            try:
                self._be_member()
            except (PipeBroken, OSError) as error:
                if isinstance(error, OSError) and error.errno in OTHERS_CLOSED:
                    self._fail(self._closed_by_others())
                    return
                self._attempts += 1
                if self._attempts >= ATTEMPTS_MAX:
                    self._fail(self._unavailable(error))
                    return
            except EventLogError as error:
                self._fail(error)
                return
            finally:
                self._hang_up()

    def _be_member(self) -> None:
        """Be the member on a fresh pipe, as long as it lasts."""
        pipe = find_for(self._channel)
        with self.changed:
            self._socket = pipe
            if self._is_closed:
                return
        pid = os.getpid()
        steps = self.membership.converse(pid, process_start(pid))
        data: bytes | None = None
        while True:
            with self.changed:
                wanted = steps.send(data)
                if self.membership.has_joined:
                    self._attempts = 0
                self.changed.notify_all()
            data = _perform(wanted, pipe)

    def _unavailable(self, error: Exception) -> EventLogError:
        return WriterUnavailable(
            f"the writer of {self._handle.path} ended {ATTEMPTS_MAX} times before it answered"
            f" ({error}); see writer.log there: perhaps it is of an earlier release, which does not"
            f" speak protocol version {MEMBER_VERSION}, and has to be stopped first",
            path=self._handle.path,
        )

    def _closed_by_others(self) -> EventLogError:
        """The reader thread does not see that, nor does the writer, while that thread waits."""
        return WriterUnavailable(
            f"the member's pipe to the writer of {self._handle.path} was closed by other code of"
            " this process, which closes descriptors that are not its own",
            path=self._handle.path,
        )

    def _fail(self, error: EventLogError) -> None:
        with self.changed:
            self.membership.fail(error)
            self.changed.notify_all()

    def _hang_up(self) -> None:
        with self.changed:
            pipe, self._socket = self._socket, None
            self.membership.lose_pipe()
        if pipe is not None:
            with suppress(OSError):  # other code has closed it
                pipe.close()


def _perform(wanted: Operation, pipe: socket.socket) -> bytes | None:
    """What the conversation wants of the pipe, which is open already; what was received."""
    if isinstance(wanted, OpenPipe):
        return None
    if isinstance(wanted, Send):
        pipe.sendall(b"".join(wanted.parts))
        return None
    while True:
        with suppress(TimeoutError):  # nothing has come so far (see `rendezvous.connect`)
            if data := pipe.recv(RECEIVE_BYTES):
                return data
            raise PipeBroken("the writer closed the pipe")
