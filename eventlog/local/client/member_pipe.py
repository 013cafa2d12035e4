"""A member's pipe to the writer: requests, answers, revocations, and another pipe when it breaks.

    the member's thread   ask() ... say() ... flush()
    reader thread         answers, revocations, and a new pipe when the writer was replaced

What is said of events is not waited for: it is kept until the writer has answered, and said again
on the next pipe. A member keeps its id over lost pipes, so the next writer knows its lease.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from eventlog.api import forks
from eventlog.api.refusals import closed
from eventlog.errors import EventLogError, StaleLease, WriterUnavailable
from eventlog.local.client.conversations import ATTEMPTS_MAX, RECEIVE, PipeBroken, Send, Steps
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.held_events import HeldEvents
from eventlog.local.client.launch import find_or_start
from eventlog.local.groups.ranges import Range, ranges_of
from eventlog.local.storage.identity import process_start
from eventlog.local.storage.members import MemberPage
from eventlog.local.wire.connection import frame
from eventlog.local.wire.group_messages import Join, Joined, Leased, Leave, Passed, Release, Revoke
from eventlog.local.wire.group_messages import Lease as AskLease
from eventlog.local.wire.messages import MEMBER_VERSION, Failed, Request, error_of
from eventlog.system import start_thread

RECEIVE_BYTES: Final = 64 * 1024
LEASES_KNOWN: Final = 16
LEAVE_S_MAX: Final = 5.0
UNANSWERED_MAX: Final = 256
OTHERS_CLOSED: Final = (errno.EBADF, errno.ENOTSOCK)


class MemberPipe:
    """See the module."""

    def __init__(self, handle: LocalHandle, group: str, owner: int) -> None:
        self._handle = handle
        self._group = group
        self.member_id = (owner << 32) | (secrets.randbits(32) or 1)
        self.page: MemberPage | None = None
        self.slot = -1
        self._socket: socket.socket | None = None
        self.changed = threading.Condition()
        """Guards all that follows."""
        self._unanswered: OrderedDict[int, Request] = OrderedDict()
        self._request_id = 0
        self._lease: HeldEvents | None = None
        self._fresh: HeldEvents | None = None
        self._leases_known: deque[int] = deque(maxlen=LEASES_KNOWN)
        self.passed: deque[tuple[int, int, int]] = deque()
        """Events that retention deleted before the group had them: how many, first and last."""
        self._failure: EventLogError | None = None
        self._is_stopped = False
        self._is_asking = False
        """Somebody waits for the lease that was asked for."""
        self._is_closed = False
        self._is_cut_off = False
        """Others have closed the pipe, so the thread that reads from it waits for ever."""
        self._channel = handle.new_channel()
        self._thread = threading.Thread(target=self._run, name=f"member of {group}", daemon=True)
        start_thread(self._thread, self._handle.path)
        with self.changed:
            self.changed.wait_for(lambda: self.page is not None or self._failure is not None)
            if self._failure is not None:
                raise self._failure
        handle.adopt(self)  # closing the log ends the wait for events

    @property
    def is_open(self) -> bool:
        """Whether this process is a member, and can say so."""
        has_failed = self._is_over or self.page is None
        return not has_failed and self._handle.generation == forks.generation

    @property
    def not_begun(self) -> int:
        """Events of the lease that were not begun."""
        return len(self._lease.todo) if self._lease else 0

    # --- the member's thread -----------------------------------------------------------------

    def ask(self, count: int, least: int, call: threading.Event | None = None) -> HeldEvents | None:
        """Wait for at most `count` events; `None` after `stop`, and once `call` is called off.

        A lease that comes after that is given back.

        Raises:
            EventLogError: the log cannot be reached.
        """
        self._check_process()
        with self.changed:
            if not self._is_stopped:
                if not self._has_asked:  # before it was interrupted
                    self._say(AskLease, count, least)
                self._is_asking = True
                self.changed.wait_for(
                    lambda: (
                        self._fresh
                        or self._failure
                        or self._is_stopped
                        or (call is not None and call.is_set())
                    )
                )
                self._is_asking = False
            if self._failure is not None:
                raise self._failure
            lease, self._fresh = self._fresh, None
            if lease is None:
                if self._is_stopped:
                    self._take_back_request()
                return None
            self._lease = lease
            return lease

    @property
    def _has_asked(self) -> bool:
        return any(isinstance(one, AskLease) for one in self._unanswered.values())

    def call_off(self, call: threading.Event) -> None:
        """Make the `ask` return that was given this; callable from any thread."""
        with self.changed:
            call.set()
            self.changed.notify_all()

    def _check_process(self) -> None:
        """Pass where the reader thread is: a forked child has none, and would wait for ever."""
        forks.check(self._handle.generation, self._handle.path)

    def _take_back_request(self) -> None:
        """Nobody waits for a lease any more: one that still comes is given back by leaving."""
        for number in [n for n, one in self._unanswered.items() if isinstance(one, AskLease)]:
            del self._unanswered[number]

    def stop(self) -> None:
        """Make `lease` return `None`, now and from now on; callable from any thread."""
        with self.changed:
            self._is_stopped = True
            self.changed.notify_all()

    def say_of(self, lease: HeldEvents, kind: Any, *fields: Any) -> None:
        """Say something of a lease; of one that is somebody else's by now, nothing."""
        self._check_process()
        with self.changed:
            if not lease.is_stale:
                self._say(kind, *fields)

    def _say(self, kind: Any, *fields: Any) -> None:
        """Send a request, and keep it until it is answered; the caller holds the lock."""
        if threading.current_thread() is not self._thread:
            self.changed.wait_for(lambda: len(self._unanswered) < UNANSWERED_MAX or self._is_over)
        self._request_id += 1
        message = kind(self._request_id, *fields)
        self._unanswered[self._request_id] = message
        if self._socket is not None:
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
        with self.changed:
            self.changed.wait_for(lambda: not self._unanswered or self._is_over)
            if self._failure is not None:
                raise self._failure
            if self._unanswered:
                raise closed("member", self._handle.path)

    @property
    def _is_over(self) -> bool:
        """Whether nothing is answered any more."""
        return self._is_closed or self._failure is not None

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
                self._say(Leave)
                self._are_answered_by(end)
            self._is_closed = True
            self.changed.notify_all()
            pipe = self._socket
            if pipe is not None:
                with suppress(OSError):
                    pipe.shutdown(socket.SHUT_RDWR)
        if not self._is_cut_off:
            self._thread.join()
        if self.page is not None:
            self.page.close()
            self.page = None

    def _are_answered_by(self, end: float) -> bool:
        """Wait until all that was said is answered, but no longer than to `end`."""
        is_over = self.changed.wait_for(
            lambda: not self._unanswered or self._failure is not None, end - time.monotonic()
        )
        return is_over and self._failure is None

    # --- the reader thread -------------------------------------------------------------------

    def _run(self) -> None:
        attempt = 0
        while not self._is_closed:
            try:
                self._connect()
                attempt = 0
                self._read_on()
            except (PipeBroken, OSError) as error:
                if isinstance(error, OSError) and error.errno in OTHERS_CLOSED:
                    self._fail(self._closed_by_others())
                    return
                attempt += 1
                if attempt >= ATTEMPTS_MAX:
                    self._fail(self._unavailable(error))
                    return
            except EventLogError as error:
                self._fail(error)
                return
            finally:
                self._hang_up()

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
            self._failure = error
            if self._lease is not None:
                self._lease.make_stale()
            self.changed.notify_all()

    def _hang_up(self) -> None:
        with self.changed:
            pipe, self._socket = self._socket, None
        if pipe is not None:
            with suppress(OSError):  # other code has closed it
                pipe.close()

    def _connect(self) -> None:
        """A fresh pipe, on which this process is the member again."""
        pipe = find_or_start(self._handle.path)
        try:
            pid = os.getpid()
            joined = self._carry_out(self._join(pid, process_start(pid)), pipe)
        except BaseException:
            pipe.close()
            raise
        with self.changed:
            if self._is_closed:
                pipe.close()
                raise closed("member", self._handle.path)
            self._go_on(pipe, joined)
            self.changed.notify_all()

    def _join(self, pid: int, start: int) -> Steps[Joined]:
        """Say who this is, and become the member, or go on as the member that it was."""
        yield from self._channel.open(MEMBER_VERSION)
        fields = (self._group, self.member_id, pid, start)
        joined: Joined = yield from self._channel.answer_to(Join, *fields)
        return joined

    def _carry_out(self, steps: Steps[Joined], pipe: socket.socket) -> Joined:
        outcome: bytes | None = None
        try:
            while True:
                wanted, outcome = steps.send(outcome), None
                if isinstance(wanted, Send):
                    pipe.sendall(b"".join(wanted.parts))
                elif wanted is RECEIVE:
                    outcome = self._receive(pipe)
        except StopIteration as stop:
            joined: Joined = stop.value
            return joined

    def _go_on(self, pipe: socket.socket, joined: Joined) -> None:
        """Use this pipe from now on, and say again what was not answered."""
        self._socket = pipe
        self._use_page(joined.slot)
        self._compare(joined)
        for message in self._unanswered.values():
            pipe.sendall(frame(message))

    def _use_page(self, slot: int) -> None:
        if slot == self.slot and self.page is not None:
            self.page.claim(self.member_id)
        else:
            old, self.slot = self.page, slot
            self.page = MemberPage(self._handle.path, slot, self.member_id)
            if old is not None:
                old.close()

    def _compare(self, joined: Joined) -> None:
        """What this member has, with what the writer says that it has."""
        is_new = joined.lease_id != 0 and joined.lease_id not in self._leases_known
        if is_new and self._has_asked:
            # It was leased to us, and the answer lost with the pipe.
            self._take_back_request()
            self._take_lease(joined.lease_id, joined.ranges, joined.failures)
        if self._lease is not None and joined.lease_id != self._lease.lease_id:
            self._lease.make_stale()

    def _receive(self, pipe: socket.socket) -> bytes:
        while True:
            with suppress(TimeoutError):  # nothing has come so far (see `rendezvous.connect`)
                if data := pipe.recv(RECEIVE_BYTES):
                    return data
                raise PipeBroken("the writer closed the pipe")

    def _read_on(self) -> None:
        pipe = self._socket
        while pipe is not None:
            for message in self._channel.messages_of(self._receive(pipe)):
                with self.changed:
                    self._take(message)
                    self.changed.notify_all()

    def _take(self, message: Any) -> None:
        if isinstance(message, Revoke):
            self._share(message.lease_id)
            return
        if isinstance(message, Passed):
            self.passed.append((message.events, message.first, message.last))
            return
        request = self._unanswered.pop(message.request_id, None)
        if isinstance(message, Leased) and request is not None:
            self._take_lease(message.lease_id, message.ranges, message.failures)
        elif isinstance(message, Failed) and request is not None:
            self._take_failure(request, error_of(message))

    def _take_lease(
        self, lease_id: int, ranges: Iterable[Range], failures: Iterable[Range]
    ) -> None:
        lease = HeldEvents(lease_id, ranges, failures)
        self._leases_known.append(lease_id)
        assert self.page is not None
        self.page.begin(lease_id, lease.count)
        if self._is_asking:
            self._fresh = lease
        else:  # whoever waited for it has gone
            self._say(Release, lease_id, tuple(ranges_of(lease.numbers)))

    def _take_failure(self, request: Request, error: EventLogError) -> None:
        if isinstance(error, StaleLease):
            lease = self._lease
            if lease is not None and lease.lease_id == getattr(request, "lease_id", 0):
                lease.make_stale()
        elif self._failure is None:
            self._failure = error

    def _share(self, lease_id: int) -> None:
        """Others are idle: give them half of what was not begun, from the end."""
        lease = self._fresh or self._lease
        numbers: list[int] = []
        if lease is not None and lease.lease_id == lease_id:
            for _ in range((len(lease.todo) + 1) // 2):
                with suppress(IndexError):  # the main thread was faster
                    numbers.append(lease.todo.pop()[1])
            lease.gone.update(numbers)
        self._say(Release, lease_id, tuple(ranges_of(numbers)))
