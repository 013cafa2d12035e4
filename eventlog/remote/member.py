"""A member of a group on a server, and its leases, on trio and asyncio.

What is said of a lease is kept until the server has it: `Outcomes` sends it, and the group's task
sees to it, so that saying does not wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from eventlog.api.arguments import check_count
from eventlog.api.group import (
    Failure,
    Lease,
    Member,
    MemberReport,
    OnRefused,
    described,
    failed_by_refusal,
)
from eventlog.api.log import EventLog
from eventlog.api.loops import call_in_this_loop
from eventlog.errors import CorruptLog, EventLogError
from eventlog.event.envelope import EventEnvelope
from eventlog.event.results import envelopes_of_results
from eventlog.remote.driver import Delivery, Done, Failed, GivenBack, GivenUp, Outcome
from eventlog.remote.producing import RoomWait
from eventlog.remote.record import ANY, RecordBuilder, envelope_of

if TYPE_CHECKING:
    from eventlog.remote.group import RemoteGroup


class Pending(NamedTuple):
    """Results that wait until they are stored in another log."""

    lease: RemoteLease
    envelope: EventEnvelope
    results: list[EventEnvelope]


class RemoteMember(Member):
    """See `Member`; `output` takes the results, unless they go to the group's own log."""

    def __init__(
        self,
        group: RemoteGroup,
        member_id: int,
        owner: int,
        on_refused: OnRefused | None,
        output: EventLog | None,
        output_path: str | None,
    ) -> None:
        self.group = group
        self.owner = owner
        # An address may have a password, which a path has not.
        self.is_own_output = group.path in (output_path, None if output is None else output.path)
        self.has_output = output_path is not None
        self.pending: list[Pending] = []
        self.is_given_up = False
        """The group took it for dead: it joins again before its next lease."""
        self._member_id = member_id
        self._on_refused = on_refused or failed_by_refusal
        self._output = output
        self.stack = AsyncExitStack()
        """Closes the output."""
        self._lease: RemoteLease | None = None
        self._outcomes: list[tuple[RemoteLease, Outcome]] = []
        self._settling = anyio.Lock()
        self._lock = threading.Lock()
        self._is_stopped = False
        self._waiting = anyio.CancelScope()
        self._wake = call_in_this_loop(self._end_wait)
        self._counts = {"handled": 0, "failed": 0, "retried": 0}

    def __repr__(self) -> str:
        """Which member, of which group."""
        return f"<Member {self._member_id:#x} of {self.group.name!r}>"

    @property
    def member_id(self) -> int:
        return self._member_id

    # --- leases ------------------------------------------------------------------------------

    async def lease(self, count: int = 1, least: int = 1) -> Lease | None:
        self.group.check_place()
        count, least = check_count("count", count), check_count("least", least)
        await checkpoint()
        self.end_lease()
        await self.settle()
        deliveries: list[Delivery] = []
        with anyio.CancelScope() as self._waiting:
            if self._is_stopped:
                return None
            deliveries = await self._take(count, least)
        if not deliveries:
            return None
        self._lease = RemoteLease(self, deliveries)
        return self._lease

    async def _take(self, count: int, least: int) -> list[Delivery]:
        """Wait for events, as a member that the group has not given up."""
        group = self.group
        while True:
            if self.is_given_up:
                await group.join_again(self)
                self.is_given_up = False
            take = partial(group.driver.take, self._member_id, count, least)
            try:
                return await group.calls.repeated(take)
            except GivenUp:
                self.is_given_up = True

    def stop(self) -> None:
        self._is_stopped = True
        self._wake()

    def _end_wait(self) -> None:
        self._waiting.cancel()

    def end_lease(self) -> None:
        """Give back what was not begun."""
        if self._lease is not None:
            self._lease.give_back()

    def lose_lease(self) -> None:
        """What it has is somebody else's by now."""
        self.is_given_up = True
        if self._lease is not None:
            self._lease.lose()

    # --- what is said ------------------------------------------------------------------------

    @property
    def has_said(self) -> bool:
        """Whether the server is to be told something."""
        return bool(self._outcomes or self.pending)

    def say(self, lease: RemoteLease, outcome: Outcome, count: str = "") -> None:
        """Note what became of a delivery, for the group's task to send."""
        with self._lock:
            self._outcomes.append((lease, outcome))
            if count:
                self._counts[count] += 1
        self.group.note_said()

    def note_retried(self) -> None:
        """One of the failed is tried again."""
        self._counts["retried"] += 1

    async def flush(self) -> None:
        self.group.check_place()
        await self.settle()
        await self.group.refresh()

    async def settle(self) -> None:
        """Send what was said, and the results before it.

        Raises:
            EventLogError: the server cannot be reached; what was said is kept.
        """
        async with self._settling:
            await self._store_results()
            while self._outcomes:
                said = self._next_said()
                stale = await self._send([outcome for _, outcome in said])
                del self._outcomes[: len(said)]
                for lease, outcome in said:
                    if outcome.seq_no in stale:
                        lease.lose()

    def _next_said(self) -> list[tuple[RemoteLease, Outcome]]:
        """What is sent together; results are sent alone, for they may be refused."""
        said = self._outcomes
        alone = [i for i, (_, one) in enumerate(said) if isinstance(one, Done) and one.results]
        end = alone[0] if alone else len(said)
        return said[: max(end, 1)]

    async def _send(self, outcomes: list[Outcome]) -> set[int]:
        group, room = self.group, None
        while True:
            settle = partial(group.driver.settle, self._member_id, outcomes)
            try:
                return await group.calls.repeated(settle)
            except EventLogError as error:
                [outcome, *others] = outcomes
                if others or not isinstance(outcome, Done) or not outcome.results:
                    raise
                if group.store.is_worth_waiting(error):
                    room = room or RoomWait(group.store)
                    await room.pause()
                    continue
                lease, _ = self._outcomes[0]
                envelope, attempt = lease.said[outcome.seq_no]
                failure = self._on_refused(envelope, attempt, error)
                outcomes = [Failed(outcome.seq_no, failure)]

    async def _store_results(self) -> None:
        """Store results in the other log, and say that their events are done."""
        while self.pending:
            lease, envelope, results = self.pending[0]
            assert self._output is not None
            try:
                await self._output.append_many(results)
            except EventLogError as error:
                _, attempt = lease.said[envelope.seq_no or 0]
                lease.say_failed(envelope, attempt, self._on_refused(envelope, attempt, error))
            else:
                self.say(lease, Done(envelope.seq_no or 0), "handled")
            del self.pending[0]

    # --- the end -----------------------------------------------------------------------------

    def report(self, pid: int) -> MemberReport:
        """What is known here."""
        begun = {} if self._lease is None else self._lease.begun
        return MemberReport(
            member_id=self._member_id,
            owner=self.owner,
            pid=pid,
            in_flight=len(begun),
            busy_since_ns=min(begun.values(), default=None),
            **self._counts,
        )

    async def aclose(self) -> None:
        self.stop()
        with anyio.CancelScope(shield=True):
            async with self.stack:
                try:
                    self.end_lease()
                    await self.settle()
                finally:
                    await self.group.leave(self)


class RemoteLease(Lease):
    """See `Lease`.

    A handler's thread says what became of events while the member's event loop sends what was said
    before, and may lose the lease; a lock keeps the steps of one from those of the other.
    """

    def __init__(self, member: RemoteMember, deliveries: list[Delivery]) -> None:
        self._member = member
        self._lock = threading.Lock()
        self._count = len(deliveries)
        self._is_lost = False
        self._todo: deque[tuple[int, EventEnvelope]] = deque()
        self._out: dict[int, tuple[int, EventEnvelope]] = {}
        """Handed out, and not begun."""
        self.begun: dict[int, int] = {}
        """When each of them began, by the monotonic clock."""
        self.said: dict[int, tuple[EventEnvelope, int]] = {}
        """Event and attempt of those that were begun."""
        path = member.group.path
        try:
            envelopes = ANY.envelopes_of([one.event for one in deliveries], path)
        except CorruptLog:
            self._take_one_by_one(deliveries)
        else:
            attempts = [one.attempt for one in deliveries]
            self._todo.extend(zip(attempts, envelopes, strict=True))

    def _take_one_by_one(self, deliveries: list[Delivery]) -> None:
        """Records that are none fail, and never come again."""
        member = self._member
        for event, attempt in deliveries:
            try:
                envelope = envelope_of(event, member.group.path)
            except CorruptLog as error:
                failure = Failure(error=described(error), is_final=True)
                member.say(self, Failed(event.seq_no, failure), "failed")
            else:
                self._todo.append((attempt, envelope))

    @property
    def count(self) -> int:
        return self._count

    @property
    def is_lost(self) -> bool:
        return self._is_lost

    def lose(self) -> None:
        """What is left is somebody else's."""
        with self._lock:
            self._is_lost = True
            self._todo.clear()
            self._out.clear()
            self.begun.clear()

    def __iter__(self) -> Iterator[tuple[int, EventEnvelope]]:
        """The events that were not begun, each with its attempt."""
        while True:
            with self._lock:
                if not self._todo:
                    return
                attempt, envelope = self._todo.popleft()
                seq_no = envelope.seq_no or 0
                self._out[seq_no] = attempt, envelope
            if attempt > 1:
                envelope.columns.note_attempt(seq_no, attempt)
            yield attempt, envelope

    def begin(self, envelope: EventEnvelope) -> bool:
        seq_no = envelope.seq_no or 0
        with self._lock:
            found = self._out.pop(seq_no, None)
            if found is None:
                return False
            self.begun[seq_no] = time.monotonic_ns()
            self.said[seq_no] = envelope, found[0]
            return True

    def _is_ours(self, envelope: EventEnvelope) -> bool:
        """Whether what is said of it counts; it is said once."""
        seq_no = envelope.seq_no or 0
        if seq_no in self._out:
            self.begin(envelope)
        return self.begun.pop(seq_no, None) is not None

    def done(self, envelope: EventEnvelope) -> None:
        if self._is_ours(envelope):
            self._member.say(self, Done(envelope.seq_no or 0), "handled")

    def done_with(self, envelope: EventEnvelope, results: Collection[Any]) -> None:
        member, group = self._member, self._member.group
        if not results or not member.has_output:
            self.done(envelope)
            return
        stored = envelopes_of_results(envelope, results, group.log_id, group.name)
        # For another log too: what none can store is refused while the event is the caller's.
        packer = RecordBuilder(group.limits, group.path)
        records = [packer.pack(one) for one in stored]
        if not self._is_ours(envelope):
            return
        if member.is_own_output:
            member.say(self, Done(envelope.seq_no or 0, records), "handled")
        else:
            member.pending.append(Pending(self, envelope, stored))
            group.note_said()

    def failed(self, envelope: EventEnvelope, failure: Failure) -> None:
        if self._is_ours(envelope):
            _, attempt = self.said[envelope.seq_no or 0]
            self.say_failed(envelope, attempt, failure)

    def say_failed(self, envelope: EventEnvelope, attempt: int, failure: Failure) -> None:
        """Say it, and that later events of its key are not the member's any more."""
        group = self._member.group
        self._member.say(self, Failed(envelope.seq_no or 0, failure), "failed")
        if failure.is_final or attempt >= group.max_deliveries:
            return
        self._member.note_retried()
        if group.ordering == "key" and envelope.key is not None:
            self._drop(lambda one: one.key == envelope.key)

    def _drop(self, is_to_go: Callable[[EventEnvelope], bool]) -> list[int]:
        """Forget those that were not begun; their numbers."""
        with self._lock:
            gone = [one.seq_no or 0 for _, one in self._todo if is_to_go(one)]
            gone += [number for number, (_, one) in self._out.items() if is_to_go(one)]
            self._todo = deque(pair for pair in self._todo if not is_to_go(pair[1]))
            self._out = {n: pair for n, pair in self._out.items() if not is_to_go(pair[1])}
            return gone

    def give_back(self) -> None:
        for seq_no in self._drop(lambda _: True):
            self._member.say(self, GivenBack(seq_no))
