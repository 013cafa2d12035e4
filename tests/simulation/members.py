"""Members of a group: the real membership, lease and results, without the threads around them.

What the reader thread does (connect, hear) and what the worker's thread does (lease, begin, end,
settle) are actions of their own here, in any order that the threads could have. Where a thread
would wait, its next action is not offered yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from eventlog.api.expectation import Expectation
from eventlog.api.group import Failure
from eventlog.errors import EventLogError, LogDeleted
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import PackedBatch
from eventlog.local.client.conversations import RECEIVE, Send, Steps
from eventlog.local.client.held_events import HeldEvents
from eventlog.local.client.lease import LocalLease
from eventlog.local.client.member_events import MemberEvents
from eventlog.local.client.membership import Membership
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.outbox import Outbox
from eventlog.local.client.results import ResultWriter
from eventlog.local.groups.acks import Acks
from eventlog.local.storage.members import MemberPage
from eventlog.local.wire.connection import frame
from eventlog.local.wire.group_messages import Leave, Settle
from eventlog.local.wire.messages import Answer, Failed, Request
from tests.simulation.clients import Client, Ways, note_answer
from tests.simulation.group_checker import RESULT
from tests.simulation.writer import Action, Link, piece_of

GROUP = "g"
POOL_ID = 5
NEVER_NS = 2**62


class NotedOutbox(Outbox):
    """An outbox whose batches are told."""

    note: Callable[[OutBatch], None]

    def add_packed(
        self,
        packed: PackedBatch,
        before: OutBatch | None = None,
        expected: Expectation | None = None,
    ) -> OutBatch:
        """See `Outbox`."""
        batch = super().add_packed(packed, before, expected)
        self.note(batch)
        return batch


class NotedMembership(Membership):
    """A membership whose answers are told."""

    note: Callable[[Answer], None]

    def hear(self, message: Answer) -> None:
        """See `Membership`."""
        self.note(message)
        super().hear(message)


class Member(Client):
    """A worker process: one member, one handler, and perhaps results."""

    def __init__(self, name: str, ways: Ways, pid: int, ordering: str, max_deliveries: int) -> None:
        super().__init__(name, ways)
        self.pid = pid
        self.group, self.max_deliveries, self.is_ordered = GROUP, max_deliveries, bool(ordering)
        self.path = ways.directory
        self.settle_ns = NEVER_NS  # it is an action
        member_id = POOL_ID << 32 | self.rng.getrandbits(32) | 1 << 31
        log_id = self.handle.reader.control.log_id
        self.membership = NotedMembership(
            self.new_channel(),
            GROUP,
            member_id,
            self._send,
            lambda slot: MemberPage(self.path, slot, member_id),
        )
        self.membership.note = self._note_answer
        self.events = MemberEvents(self.handle, GROUP)
        self.results: ResultWriter | None = None
        if self.rng.random() < 0.6:
            acks, outbox = Acks(GROUP, member_id, 0, []), self.new_outbox(NotedOutbox)
            outbox.note = self._note_results
            self.results = ResultWriter(self.handle, outbox, UUID(bytes=log_id), GROUP, acks)
            self._results_line = self.line_of(outbox.channel)
        self.link: Link | None = None
        self._steps: Steps[None] | None = None
        """The member's conversation on the link."""
        self._is_leaving = False
        self._lease: LocalLease | None = None
        self._out: Iterator[tuple[int, EventEnvelope]] = iter(())
        self._running: EventEnvelope | None = None
        self._next: tuple[int, EventEnvelope] | None = None
        """It came out, and waits until results of its key are stored."""
        self._storing: list[int] = []
        """Events whose results are on their way."""
        self._settles: dict[int, int] = {}
        """The numbers in the history of what was said to be done, by request."""

    # --- what a lease needs of its member ----------------------------------------------------

    @property
    def pipe(self) -> Member:
        """What the member says something by: itself."""
        return self

    @property
    def changed(self) -> nullcontext[None]:
        """There are no threads, so nothing is guarded."""
        return nullcontext()

    @property
    def is_running(self) -> bool:
        """Whether its handler runs."""
        return self._running is not None

    @property
    def is_storing(self) -> bool:
        """Whether results of it are on their way."""
        return self.results is not None and not self._results_line.is_idle

    @property
    def told(self) -> EventLogError | None:
        """Why it is no member any more."""
        return self.membership.failure

    @property
    def page(self) -> MemberPage | None:
        return self.membership.page

    def say_of(self, lease: HeldEvents, kind: Any, *fields: Any) -> None:
        """Say something of a lease; what is said to be done is told."""
        if kind is Settle and not lease.is_stale:
            op = next(self.ways.serial)
            done = [number for first, last in fields[1] for number in range(first, last + 1)]
            self.note("settle", op=op, seq_nos=done, lease=lease.lease_id)
            self.membership.say_of(lease, kind, *fields)
            self._settles[next(reversed(self.membership.unanswered))] = op
        else:
            self.membership.say_of(lease, kind, *fields)

    def on_refused(self, envelope: EventEnvelope, _attempt: int, _error: EventLogError) -> Failure:
        """The output has refused the results of an event."""
        self._note_handled(envelope.seq_no or 0, "failed")
        return self._failure()

    def carry_out(self, settling: Steps[None]) -> None:
        """Perform what settling asks for, step by step; the worker waits for that."""
        if self.results is None:
            assert next(settling, None) is None, "only results are stored"
            return
        assert self._lease is not None
        self._storing = [envelope.seq_no or 0 for _, envelope in self._lease._returned]
        self._results_line.begin(settling, lambda _result, _error: None)

    def _note_results(self, batch: OutBatch) -> None:
        """Tell which results are appended, and what becomes of them."""
        assert self._lease is not None
        number, lease_id = next(self.ways.serial), self._lease.held.lease_id
        batch.on_done = lambda: note_answer(self, number, batch)
        values = [f"{RESULT}{seq_no} by {lease_id}" for seq_no in self._storing]
        self.note("append", batch=number, values=values, acks=self._storing, lease=lease_id)

    # --- the reader thread -------------------------------------------------------------------

    def own_actions(self) -> list[Action]:
        if isinstance(self.membership.failure, LogDeleted):
            return []
        if self._is_leaving and self.membership.has_joined and not self.membership.unanswered:
            return [self._left]
        found: list[Action] = []
        if self.link is None:
            found.append(self._connect)
        elif self.link.to_client or self.link.is_gone:
            found.append(self._hear)
        if self.page is not None and not self._is_leaving:
            found += self._work()
        return found

    def _connect(self) -> None:
        self.link = self.ways.open_link(self.name)
        if self.link is not None:
            self._steps = self.membership.converse(self.pid, self.pid)
            self._converse_on(self._steps, self.link, None)

    def _converse_on(self, steps: Steps[None], link: Link, data: bytes | None) -> None:
        """Carry the conversation on, up to where it waits."""
        while (wanted := steps.send(data)) is not RECEIVE:
            data = None
            if isinstance(wanted, Send):
                link.to_writer += b"".join(wanted.parts)

    def _send(self, message: Request) -> None:
        """What is said to a writer that has gone is said again to the next one."""
        if self.link is not None and not self.link.is_gone:
            self.link.to_writer += frame(message)

    def _hear(self) -> None:
        assert self.link is not None
        assert self._steps is not None
        if not self.link.to_client:
            self.membership.lose_pipe()
            self.link = self._steps = None
            return
        try:
            data = piece_of(self.link.to_client, self.rng)
            self._converse_on(self._steps, self.link, data)
        except LogDeleted as error:
            self.membership.fail(error)

    def _note_answer(self, message: Answer) -> None:
        """Tell whether what was said to be done was taken."""
        op = self._settles.pop(message.request_id, None)
        if op is not None:
            self.note("settled", op=op, is_taken=not isinstance(message, Failed))

    # --- the worker's thread -----------------------------------------------------------------

    def _work(self) -> list[Action]:
        if self.membership.failure is not None:
            raise self.membership.failure
        if self.is_storing:
            return []  # it waits until its results are stored
        if self._running is not None:
            assert self._lease is not None
            is_due = self._lease._done or self._lease._returned
            return [self._end_handler, self._settle] if is_due else [self._end_handler]
        if self.membership.is_asking:
            return [self._take_lease] if self.membership.fresh is not None else []
        if self._lease is None:
            if self._may_leave():
                return [] if self.membership.unanswered else [self._leave]
            return [self._ask]
        return [self._go_on]

    def _may_leave(self) -> bool:
        return not self.ways.is_settling and self.rng.random() < 0.02

    def _ask(self) -> None:
        self.membership.ask(self.rng.randint(1, 6), 1)

    def _take_lease(self) -> None:
        held = self.membership.take_fresh()
        assert held is not None
        self._lease = LocalLease(self, held)
        self._out = iter(self._lease)

    def _go_on(self) -> None:
        """Begin the next event, or end the lease."""
        lease = self._lease
        assert lease is not None
        delivery, self._next = self._next or next(self._out, None), None
        if delivery is None:
            if lease._returned:  # it gives nothing back before that is stored
                self._settle()
            else:
                lease.end()
                self._lease = None
            return
        attempt, envelope = delivery
        if envelope.key is not None and envelope.key in lease._returned_keys:
            # As `begin` does it, which waits: it is given back if the result is refused.
            self._next = delivery
            self._settle()
        elif lease.begin(envelope):
            self._running = envelope
            self.note(
                "handling",
                seq_no=envelope.seq_no,
                key=envelope.key,
                attempt=attempt,
                lease=lease.held.lease_id,
                value=envelope.event[0],
            )

    def _end_handler(self) -> None:
        envelope, self._running = self._running, None
        lease = self._lease
        assert envelope is not None
        assert lease is not None
        seq_no = envelope.seq_no or 0
        envelope.event[0] = "changed by a handler"
        fails = not self.ways.is_settling and self.rng.random() < 0.25
        if fails:
            self._note_handled(seq_no, "failed")
            lease.failed(envelope, self._failure())
        elif self.results is not None and self.rng.random() < 0.8:
            self._note_handled(seq_no, "returned")
            lease.done_with(envelope, [[f"{RESULT}{seq_no} by {lease.held.lease_id}", b""]])
        else:
            self._note_handled(seq_no, "done")
            lease.done(envelope)
        if self.rng.random() < 0.3 and not self.is_storing:
            self._settle()

    def _note_handled(self, seq_no: int, how: str) -> None:
        assert self._lease is not None
        self.note("handled", seq_no=seq_no, lease=self._lease.held.lease_id, how=how)

    def _failure(self) -> Failure:
        return Failure(error="ValueError: no", delay_s=self.rng.choice([0, 0.1, 1]))

    def _settle(self) -> None:
        """What the worker does between two events, and its timer while a handler runs."""
        assert self._lease is not None
        self._lease.settle()

    # --- the end -----------------------------------------------------------------------------

    def _leave(self) -> None:
        """As `MemberPipe.close`, which waits."""
        self._is_leaving = True
        self.membership.say(Leave)

    def _left(self) -> None:
        self.die()
        self.ways.left.append(self.name)

    def leave(self) -> None:
        self.ways.hang_up([self.link])
        self.link = None
        self.membership.close()
        self.events.close()
        super().leave()
