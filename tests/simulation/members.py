"""Members of a group: the real membership, lease, results and worker's loop, without threads.

What the reader thread does (connect, hear) and what the worker does (lease, begin, end, settle) are
actions of their own here, in any order that threads and tasks could have. Where a thread would
wait, its next action is not offered yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any
from uuid import UUID

from eventlog.api.expectation import Expectation
from eventlog.api.group import Failure
from eventlog.errors import EventLogError, LogDeleted
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import PackedBatch
from eventlog.local.client.conversations import RECEIVE, Send, Steps
from eventlog.local.client.lease import LocalLease
from eventlog.local.client.member_events import MemberEvents
from eventlog.local.client.membership import HeldEvents, Membership
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
from workers.loop import Delivery, WorkerLoop

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


class Task:
    """One of the handlers that a worker runs at a time."""

    def __init__(self, deliveries: Iterator[Delivery]) -> None:
        self.deliveries = deliveries
        self.next: Delivery | None = None
        """It came out, and waits until results of its key are stored."""
        self.running: Delivery | None = None


class Member(Client):
    """A worker process: one member, one handler or several at a time, and perhaps results."""

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
        self._loop = WorkerLoop(
            self.rng.choice([1, 1, 2, 3]),
            lambda *_: self._failure(),
            self._clock,
            in_order=self.is_ordered,
        )
        self._now_s = 0.0
        self._lease: LocalLease | None = None
        self._is_at_work = False
        """The lease was taken, and was not given back."""
        self._tasks: list[Task] = []
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
        return any(task.running is not None for task in self._tasks)

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

    # --- the worker --------------------------------------------------------------------------

    def _clock(self) -> float:
        """A lease lasts as long as chance has it."""
        self._now_s += self.rng.choice([0.05, 0.1, 0.2, 0.5])
        return self._now_s

    def _work(self) -> list[Action]:
        if self.membership.failure is not None:
            raise self.membership.failure
        if self.is_storing:
            return []  # it waits until its results are stored
        found = self._next_actions()
        if not self.ways.is_settling and not self._loop.is_stopping and self.rng.random() < 0.01:
            found.append(self._stop)
        return found

    def _next_actions(self) -> list[Action]:
        if self.membership.is_asking:
            has_come = self.membership.fresh is not None or self.membership.is_stopped
            return [self._take_lease] if has_come else []
        if self._is_at_work:
            return self._work_through()
        if (wanted := self._loop.wanted()) is not None:
            return [partial(self._ask, *wanted)]
        return [] if self.membership.unanswered else [self._leave]

    def _ask(self, count: int, least: int) -> None:
        """As `LocalMember.lease`, which waits."""
        if self._lease is not None:
            self._lease.end()
            self._lease = None
        self.membership.ask(count, least)

    def _take_lease(self) -> None:
        held = self.membership.take_fresh()
        if held is None:
            return  # it was told to stop
        self._lease = LocalLease(self, held)
        self._loop.take(self._lease)
        self._is_at_work = True
        tasks = min(self._loop.concurrency, held.count)
        self._tasks = [Task(self._loop.deliveries()) for _ in range(tasks)]

    def _work_through(self) -> list[Action]:
        """What the tasks may do next; without any left, the lease ends."""
        lease = self._lease
        assert lease is not None
        if not self._tasks:
            # It gives nothing back before what was returned is stored.
            return [self._settle if lease._returned else self._give_back]
        found: list[Action] = []
        for task in self._tasks:
            move = self._begin_next if task.running is None else self._end_handler
            found.append(partial(move, task))
        if self.is_running and (lease._done or lease._returned):
            found.append(self._settle)
        return found

    def _begin_next(self, task: Task) -> None:
        """Begin the task's next event, or end the task."""
        lease = self._lease
        assert lease is not None
        delivery, task.next = task.next or next(task.deliveries, None), None
        if delivery is None:
            self._tasks.remove(task)
            return
        attempt, envelope = delivery
        if envelope.key is not None and envelope.key in lease._returned_keys:
            # As `begin` does it, which waits: it is given back if the result is refused.
            task.next = delivery
            self._settle()
        elif lease.begin(envelope):
            task.running = delivery
            self.note(
                "handling",
                seq_no=envelope.seq_no,
                key=envelope.key,
                attempt=attempt,
                lease=lease.held.lease_id,
                value=envelope.event[0],
            )

    def _end_handler(self, task: Task) -> None:
        assert task.running is not None
        assert self._lease is not None
        (attempt, envelope), task.running = task.running, None
        seq_no = envelope.seq_no or 0
        envelope.event[0] = "changed by a handler"
        fails = not self.ways.is_settling and self.rng.random() < 0.25
        if fails:
            self._note_handled(seq_no, "failed")
            self._loop.raised(envelope, attempt, ValueError("no"))
        elif self.results is not None and self.rng.random() < 0.8:
            self._note_handled(seq_no, "returned")
            result = [f"{RESULT}{seq_no} by {self._lease.held.lease_id}", b""]
            self._loop.returned(envelope, attempt, result)
        else:
            self._note_handled(seq_no, "done")
            self._loop.returned(envelope, attempt, None)
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

    def _give_back(self) -> None:
        self._is_at_work = False
        self._loop.give_back()

    def _stop(self) -> None:
        """As `Worker.stop`: the pool is left, or the worker has done enough."""
        self._loop.stop()
        self.membership.is_stopped = True

    # --- the end -----------------------------------------------------------------------------

    def _leave(self) -> None:
        """As `LocalMember.close`, which waits."""
        if self._lease is not None:
            self._lease.end()
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
