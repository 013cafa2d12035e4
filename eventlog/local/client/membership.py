"""A process as a member of a group: what it says to the writer, and what it makes of the answers.

No thread, no socket: `member_pipe` has those, and calls this under its lock.

What is said of events is not waited for: it is kept until the writer has answered, and said again
on the next pipe. A member keeps its id over lost pipes, so the next writer knows its lease.

::

    converse ---> Join ... Joined ---> what was not answered is said again
    ask --------> Lease ... Leased --> `fresh` ---> take_fresh
    hear <------- answers, `Revoke` (share what was not begun), `Passed`
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from eventlog.errors import EventLogError, StaleLease
from eventlog.local.client.conversations import Channel, PipeBroken, Send, Steps
from eventlog.local.groups.ranges import Range, ranges_of
from eventlog.local.storage.members import MemberPage
from eventlog.local.wire.connection import frame
from eventlog.local.wire.group_messages import Join, Joined, Leased, Passed, Release, Revoke
from eventlog.local.wire.group_messages import Lease as AskLease
from eventlog.local.wire.messages import MEMBER_VERSION, Answer, Failed, Request, error_of

LEASES_KNOWN: Final = 16


class HeldEvents:
    """The events of a lease. `todo` has (row, number) of those that did not come out yet."""

    def __init__(self, lease_id: int, ranges: Iterable[Range], failures: Iterable[Range]) -> None:
        self.lease_id = lease_id
        self.numbers = [n for first, last in ranges for n in range(first, last + 1)]
        self.count = len(self.numbers)
        self.todo = deque(enumerate(self.numbers))
        self.failures = dict(failures)
        """How often an event's handler failed before, for those where it did."""
        self.gone: set[int] = set()
        """Events that were given back, or died, before they were begun."""
        self.is_stale = False
        """The events are somebody else's by now; what becomes of them here does not count."""

    def make_stale(self) -> None:
        """Begin nothing more of it."""
        self.is_stale = True
        self.todo.clear()


class Membership:
    """One member. `send` sends a message on the pipe that there is; `open_page` maps a slot."""

    def __init__(
        self,
        channel: Channel,
        group: str,
        member_id: int,
        send: Callable[[Request], None],
        open_page: Callable[[int], MemberPage],
    ) -> None:
        self._channel = channel
        self._group = group
        self.member_id = member_id
        self._send = send
        self._open_page = open_page
        self.page: MemberPage | None = None
        self.slot = -1
        self.has_joined = False
        """The writer at the other end of this pipe knows the member."""
        self.unanswered: OrderedDict[int, Request] = OrderedDict()
        self.lease: HeldEvents | None = None
        self.fresh: HeldEvents | None = None
        """A lease that has come, until whoever asked takes it."""
        self._leases_known: deque[int] = deque(maxlen=LEASES_KNOWN)
        self.passed: deque[tuple[int, int, int]] = deque()
        """Events that retention deleted before the group had them: how many, first and last."""
        self.failure: EventLogError | None = None
        self.is_stopped = False
        self.is_asking = False
        """Somebody waits for the lease that was asked for."""

    # --- what the member says ----------------------------------------------------------------

    def ask(self, count: int, least: int) -> None:
        """Ask for at most `count` events; `take_fresh` has them once they are there."""
        if not self._has_asked:  # before it was interrupted
            self.say(AskLease, count, least)
        self.is_asking = True

    def take_fresh(self) -> HeldEvents | None:
        """The lease that has come, if one has: nobody waits for it any more."""
        self.is_asking = False
        held, self.fresh = self.fresh, None
        if held is not None:
            self.lease = held
        elif self.is_stopped:
            self._take_back_request()
        return held

    @property
    def _has_asked(self) -> bool:
        return any(isinstance(one, AskLease) for one in self.unanswered.values())

    def _take_back_request(self) -> None:
        """Nobody waits for a lease any more: one that still comes is given back by leaving."""
        for number in [n for n, one in self.unanswered.items() if isinstance(one, AskLease)]:
            del self.unanswered[number]

    def say_of(self, lease: HeldEvents, kind: Any, *fields: Any) -> None:
        """Say something of a lease; of one that is somebody else's by now, nothing."""
        if not lease.is_stale:
            self.say(kind, *fields)

    def say(self, kind: Any, *fields: Any) -> None:
        """Send a request, and keep it until it is answered."""
        message: Request = kind(self._channel.next_request_id(), *fields)
        self.unanswered[message.request_id] = message
        if self.has_joined:
            self._send(message)

    # --- pipes -------------------------------------------------------------------------------

    def converse(self, pid: int, start: int) -> Steps[None]:
        """Be the member on a fresh pipe, as long as it lasts; pid and start name the process.

        Raises:
            EventLogError: this process cannot be a member.
            PipeBroken: the writer ended, or makes no sense; try again.
        """
        self.has_joined = False
        yield from self._channel.open(MEMBER_VERSION)
        number = self._channel.next_request_id()
        yield Send([frame(Join(number, self._group, self.member_id, pid, start))])
        while True:
            for message in (yield from self._channel.receive()):
                self.hear(message)

    def hear(self, message: Answer) -> None:
        """Take what the writer says after its welcome."""
        if self.has_joined:
            self._take(message)
        elif isinstance(message, Joined):
            self._join(message)
        elif isinstance(message, Failed):
            raise error_of(message)
        else:
            raise PipeBroken(f"the writer answered Join with {type(message).__name__}")

    def lose_pipe(self) -> None:
        """The pipe is gone: what is said from now on is said on the next one."""
        self.has_joined = False

    def _join(self, joined: Joined) -> None:
        self._use_page(joined.slot)
        self._compare(joined)
        self.has_joined = True
        for message in list(self.unanswered.values()):
            self._send(message)

    def _use_page(self, slot: int) -> None:
        if slot == self.slot and self.page is not None:
            self.page.claim(self.member_id)
        else:
            old, self.slot = self.page, slot
            self.page = self._open_page(slot)
            if old is not None:
                old.close()

    def _compare(self, joined: Joined) -> None:
        """What this member has, with what the writer says that it has."""
        is_new = joined.lease_id != 0 and joined.lease_id not in self._leases_known
        if is_new and self._has_asked:
            # It was leased to us, and the answer lost with the pipe.
            self._take_back_request()
            self._take_lease(joined.lease_id, joined.ranges, joined.failures)
        if self.lease is not None and joined.lease_id != self.lease.lease_id:
            self.lease.make_stale()

    # --- what the writer says ----------------------------------------------------------------

    def _take(self, message: Answer) -> None:
        if isinstance(message, Revoke):
            self._share(message.lease_id)
            return
        if isinstance(message, Passed):
            self.passed.append((message.events, message.first, message.last))
            return
        request = self.unanswered.pop(message.request_id, None)
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
        if self.is_asking:
            self.fresh = lease
        else:  # whoever waited for it has gone
            self.say(Release, lease_id, tuple(ranges_of(lease.numbers)))

    def _take_failure(self, request: Request, error: EventLogError) -> None:
        if isinstance(error, StaleLease):
            lease = self.lease
            if lease is not None and lease.lease_id == getattr(request, "lease_id", 0):
                lease.make_stale()
        elif self.failure is None:
            self.failure = error

    def _share(self, lease_id: int) -> None:
        """Others are idle: give them half of what was not begun, from the end."""
        lease = self.fresh or self.lease
        numbers: list[int] = []
        if lease is not None and lease.lease_id == lease_id:
            for _ in range((len(lease.todo) + 1) // 2):
                with suppress(IndexError):  # the main thread was faster
                    numbers.append(lease.todo.pop()[1])
            lease.gone.update(numbers)
        self.say(Release, lease_id, tuple(ranges_of(numbers)))

    # --- the end -----------------------------------------------------------------------------

    def fail(self, error: EventLogError) -> None:
        """Nothing is answered any more; what is done of the lease does not count."""
        self.failure = error
        if self.lease is not None:
            self.lease.make_stale()

    def close(self) -> None:
        """Unmap the page; may be called twice."""
        if self.page is not None:
            self.page.close()
            self.page = None
