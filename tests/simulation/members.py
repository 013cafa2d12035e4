"""Members of a group: the real member and its pipe, without its two threads.

What the reader thread does (connect, hear) and what the worker's thread does (lease, begin, end,
settle) are actions of their own here, in any order that the threads could have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from eventlog.api.group import Failure
from eventlog.errors import EventLogError, StaleLease
from eventlog.event.envelope import EventEnvelope
from eventlog.local.client.lease import LocalLease
from eventlog.local.client.member import LocalMember
from eventlog.local.client.member_pipe import MemberPipe
from eventlog.local.client.results import ResultWriter, _with_acks
from eventlog.local.groups.acks import Acks
from eventlog.local.groups.ranges import ranges_of
from eventlog.local.storage.members import DONE, RETURNED
from eventlog.local.wire.connection import frame
from eventlog.local.wire.group_messages import Join, Joined, Leave, Settle
from eventlog.local.wire.group_messages import Lease as AskLease
from eventlog.local.wire.messages import HELLO_MAGIC, PROTOCOL_VERSION, Failed, Hello, error_of
from tests.simulation.clients import Client, Ways, note_answer
from tests.simulation.group_checker import RESULT
from tests.simulation.writer import Action, Link, piece_of

GROUP = "g"
POOL_ID = 5


class LinkSocket:
    """What the member's pipe takes for its socket."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def sendall(self, data: bytes) -> None:
        if self.link.is_gone:
            raise BrokenPipeError
        self.link.to_writer += data

    def close(self) -> None:
        """The link ends with its writer, or its process."""


class Member(Client):
    """A worker process: one member, one handler, and perhaps results."""

    def __init__(self, name: str, ways: Ways, pid: int, ordering: str, max_deliveries: int) -> None:
        super().__init__(name, ways)
        self.pid = pid
        self._ordering = ordering
        self._member = LocalMember(self.handle, (GROUP, ordering, max_deliveries), POOL_ID)
        self._member.on_refused = lambda *_: self._failure()
        self.pipe: MemberPipe = self._member.pipe
        self.link: Link | None = None
        self._is_joining = False
        self._is_leaving = False
        acks = Acks(GROUP, self.pipe.member_id, 0, [])
        source = UUID(bytes=self.handle.reader.control.log_id), GROUP
        has_results = self.rng.random() < 0.6
        self._results = ResultWriter(self.handle, *source, acks) if has_results else None
        if self._results is not None:
            self._results_line = self.line_of(self._results._outbox.channel)
        self._is_asking = False
        self._lease: LocalLease | None = None
        self._out: Iterator[tuple[int, EventEnvelope]] = iter(())
        self._running: tuple[int, EventEnvelope] | None = None
        self._next: tuple[int, EventEnvelope] | None = None
        """It came out, and waits until results of its key are stored."""
        self._done: list[int] = []
        self._returned: list[tuple[int, EventEnvelope]] = []
        self._then: Callable[[], None] | None = None
        """What the worker's thread does once its results are stored."""
        self._settles: dict[int, int] = {}
        """The numbers in the history of the pipe's requests."""

    # --- the reader thread -------------------------------------------------------------------

    def own_actions(self) -> list[Action]:
        if self._is_leaving and self.pipe._socket is not None and not self.pipe._unanswered:
            return [self._left]
        found: list[Action] = []
        if self.link is None:
            found.append(self._connect)
        elif self.link.to_client or self.link.is_gone:
            found.append(self._hear)
        if self.pipe.page is not None and not self._is_leaving:
            found += self._work()
        return found

    def _connect(self) -> None:
        """The first half of `MemberPipe._connect`, which then waits."""
        self.link = self.ways.open_link(self.name)
        if self.link is None:
            return
        self._is_joining = True
        self.pipe._connection = self.pipe._new_connection()
        join = Join(0, GROUP, self.pipe.member_id, self.pid, self.pid)
        self.link.to_writer += frame(Hello(HELLO_MAGIC, PROTOCOL_VERSION, 1)) + frame(join)

    def _hear(self) -> None:
        assert self.link is not None
        if not self.link.to_client:
            self.pipe._hang_up()
            self.link = None
            return
        for message in self.pipe._connection.receive(piece_of(self.link.to_client, self.rng)):
            if isinstance(message, Joined):
                self._joined(self.link, message)
            elif self._is_joining and isinstance(message, Failed):
                raise error_of(message)
            elif not self._is_joining:
                self._take(message)

    def _joined(self, link: Link, joined: Joined) -> None:
        """The second half of `MemberPipe._connect`."""
        self._is_joining = False
        pipe: Any = self.pipe
        pipe._socket = LinkSocket(link)
        pipe._use_page(joined.slot)
        pipe._compare(joined)
        for message in pipe._unanswered.values():
            link.to_writer += frame(message)

    def _take(self, message: Any) -> None:
        op = self._settles.pop(message[0], None)
        if op is not None:
            self.note("settled", op=op, is_taken=not isinstance(message, Failed))
        self.pipe._take(message)

    # --- the worker's thread -----------------------------------------------------------------

    def _work(self) -> list[Action]:
        if self.pipe._failure is not None:
            raise self.pipe._failure
        if self._then is not None:
            return []  # it waits until its results are stored
        if self._running is not None:
            is_due = bool(self._done or self._returned)
            return [self._end_handler, self._settle] if is_due else [self._end_handler]
        if self._is_asking:
            return [self._take_lease] if self.pipe._fresh is not None else []
        if self._lease is None:
            if self._may_leave():
                return [] if self.pipe._unanswered else [self._leave]
            return [self._ask]
        return [self._begin_next]

    def _may_leave(self) -> bool:
        return not self.ways.is_settling and self.rng.random() < 0.02

    def _ask(self) -> None:
        self._is_asking = True
        with self.pipe.changed:
            self.pipe._say(AskLease, self.rng.randint(1, 6), 1)
            self.pipe._is_asking = True

    def _take_lease(self) -> None:
        """As the end of `MemberPipe.ask`."""
        self._is_asking = self.pipe._is_asking = False
        held, self.pipe._fresh = self.pipe._fresh, None
        assert held is not None
        self.pipe._lease = held
        self._lease = LocalLease(self._member, held)
        self._out = iter(self._lease)

    def _begin_next(self) -> None:
        lease = self._lease
        assert lease is not None
        delivery, self._next = self._next or next(self._out, None), None
        if delivery is None:
            self._settle(self._end_lease)
            return
        attempt, envelope = delivery
        waiting = {one.key for _, one in self._returned}
        if self._ordering == "key" and envelope.key is not None and envelope.key in waiting:
            # As `begin` does it, which waits: it is given back if the result is refused.
            self._next = delivery
            self._settle()
        elif lease.begin(envelope):
            self._running = (lease._row_of(envelope.seq_no or 0), envelope)
            self.note(
                "handling",
                seq_no=envelope.seq_no,
                key=envelope.key,
                attempt=attempt,
                lease=lease.held.lease_id,
            )

    def _end_handler(self) -> None:
        assert self._running is not None
        assert self._lease is not None
        (row, envelope), self._running = self._running, None
        seq_no = envelope.seq_no
        assert seq_no is not None
        fails = not self.ways.is_settling and self.rng.random() < 0.25
        if fails:
            self._note_handled(seq_no, "failed")
            self._lease.failed(envelope, self._failure())
        elif self._results is not None and self.rng.random() < 0.8:
            self._note_handled(seq_no, "returned")
            result = [f"{RESULT}{seq_no} by {self._lease.held.lease_id}", b""]
            self._results.add_all(envelope, [result])
            self._lease._ended(envelope)
            self._lease._page.states[row] = RETURNED
            self._returned.append((row, envelope))
        else:
            self._note_handled(seq_no, "done")
            self._lease._ended(envelope)
            self._lease._page.states[row] = DONE
            self._done.append(seq_no)
        if self.rng.random() < 0.3:
            self._settle()

    def _note_handled(self, seq_no: int, how: str) -> None:
        assert self._lease is not None
        self.note("handled", seq_no=seq_no, lease=self._lease.held.lease_id, how=how)

    def _failure(self) -> Failure:
        return Failure(error="ValueError: no", delay_s=self.rng.choice([0, 0.1, 1]))

    # --- what is done ------------------------------------------------------------------------

    def _settle(self, then: Callable[[], None] = lambda: None) -> None:
        if not self._returned:
            self._say_done()
            then()
            return

        def on_stored() -> None:
            self._say_done()
            then()

        self._then = on_stored
        self._store()

    def _store(self) -> None:
        """As `ResultWriter.store`, which waits."""
        results, lease = self._results, self._lease
        assert results is not None
        assert lease is not None
        assert results._acks is not None
        returned, self._returned = self._returned, []
        seq_nos = [one.seq_no or 0 for _, one in returned]
        values = [f"{RESULT}{seq_no} by {lease.held.lease_id}" for seq_no in seq_nos]
        acks = results._acks._replace(lease_id=lease.held.lease_id, ranges=ranges_of(seq_nos))
        batch = results._outbox.add_packed(_with_acks(results._builder.build(), acks))
        number = next(self.ways.serial)
        batch.on_done = lambda: note_answer(self, number, batch)
        self.note("append", batch=number, values=values, acks=seq_nos, lease=lease.held.lease_id)

        def on_end(_result: Any, _error: EventLogError | None) -> None:
            self._on_stored(lease, returned, batch.error)

        self._results_line.begin(results._outbox.deliver(0), on_end)

    def _on_stored(
        self,
        lease: LocalLease,
        returned: list[tuple[int, EventEnvelope]],
        error: EventLogError | None,
    ) -> None:
        if isinstance(error, StaleLease):
            lease.held.make_stale()
        elif error is not None:
            for _, envelope in returned:
                self._note_handled(envelope.seq_no or 0, "failed")
            lease.refused(returned, error)
        else:
            lease.stored(returned)
        then, self._then = self._then, None
        assert then is not None
        then()

    def _say_done(self) -> None:
        lease, done = self._lease, self._done
        assert lease is not None
        self._done = []
        if done and not lease.is_lost:
            op = next(self.ways.serial)
            self.note("settle", op=op, seq_nos=done, lease=lease.held.lease_id)
            self._settles[self.pipe._request_id + 1] = op
            self.pipe.say_of(lease.held, Settle, lease.held.lease_id, tuple(ranges_of(done)))

    def _end_lease(self) -> None:
        assert self._lease is not None
        self._lease.end()
        self._lease = None

    # --- the end -----------------------------------------------------------------------------

    def _leave(self) -> None:
        """As `MemberPipe.close`, which waits."""
        self._is_leaving = True
        with self.pipe.changed:
            self.pipe._say(Leave)

    def _left(self) -> None:
        self.die()
        self.ways.left.append(self.name)

    def leave(self) -> None:
        self.pipe._is_closed = True
        if self.link is not None:
            self.link.hang_up(self.rng)
            self.link = None
        if self.pipe.page is not None:
            self.pipe.page.close()
            self.pipe.page = None
        self._member.events.close()
        super().leave()
