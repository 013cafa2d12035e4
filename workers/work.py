"""What a worker does with its leases, event by event.

For each event, in this order: its row in the page says "started"; the handler runs; its result is
stored; the row says "done"; later one message settles many. A kill between any two of these leaves
a page that says exactly what to do with the event: count a delivery, or nothing at all.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from eventlog import EventEnvelope, EventLogError, EventsTruncated, StaleLease
from eventlog.local.groups import ranges_of
from workers import forks
from workers.child import ControlEnd, WorkerSpec, describe, now_ns, private_bytes, traceback_of
from workers.handlers import Handler, wants_envelope
from workers.lease_timer import SETTLE_S, SETTLE_SOON_S, LeaseTimer
from workers.policy import RETIRE_EARLY, LeaseSize
from workers.results import results_of

if TYPE_CHECKING:
    from eventlog.blocking import GroupMember, Lease

logger = logging.getLogger("workers")
LOOK_S: Final = 0.05
"""How often a worker looks, between two events, whether it has to say something."""
LOOK_NS: Final = int(LOOK_S * 1e9)
NOT_RUN: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)
"""What calling a function gives whose body has not begun to run."""
_NOT_RUN_MESSAGE: Final = (
    "the handler returned a {}, so nothing of it has run: make the handler itself async, or return"
    " a list"
)


def not_run(result: object) -> TypeError | None:
    """The error of a handler that returned what has not begun to run."""
    if not isinstance(result, NOT_RUN):
        return None
    if isinstance(result, CoroutineType):
        result.close()  # or Python warns that nobody awaited it
    return TypeError(_NOT_RUN_MESSAGE.format(type(result).__name__))


class Worker:
    """One worker: its member, its handler, and what it has done."""

    def __init__(
        self, spec: WorkerSpec, control: ControlEnd, member: GroupMember, handler: Handler
    ) -> None:
        self.spec = spec
        self.member = member
        self.handler = handler
        self.is_stopping = False
        self.size = LeaseSize(at_least=2 * spec.concurrency if spec.concurrency > 1 else 1)
        self._control = control
        self._wants_envelope = wants_envelope(handler)
        self._results = None if spec.output is None else member.results(spec.output)
        self._recycling = spec.recycling.for_worker(random.random)
        self._started_s = time.monotonic()
        self._events = 0
        self._has_announced = False
        self._done: list[int] = []
        """Events that are done, and not settled."""
        self._lost: list[int] = []
        """Events of the lease that retention deleted before they were begun."""
        self._stored: list[tuple[int, EventEnvelope]] = []
        """(row, event) of those whose results wait to be stored."""
        self._stored_keys: set[str] = set()
        """Their keys, where keys are kept in order."""
        self._settled_ns = self._looked_ns = now_ns()
        self._settling = threading.RLock()
        """Guards what was returned and is not stored, and what is done and not said."""
        is_awaited = spec.output is not None or spec.ordering is not None
        settle_s = SETTLE_SOON_S if is_awaited else SETTLE_S
        self._settle_ns = int(settle_s * 1e9)
        self._timer = LeaseTimer(self._settle_if_due, settle_s)

    def stop(self) -> None:
        """Begin nothing more; callable from any thread, and from a signal handler."""
        self.is_stopping = True
        # Not here: a signal handler may have interrupted whoever holds the member's lock.
        threading.Thread(target=self.member.stop, daemon=True).start()

    # --- one event at a time -----------------------------------------------------------------

    def run(self) -> None:
        """Work until told to stop."""
        while not self.is_stopping:
            lease = self.member.lease(self.lease_count())
            if lease is None:
                break
            started_s = time.monotonic()
            with self._timer.running(lease):
                self._work_through(lease)
            self.size.note(lease.count, time.monotonic() - started_s)
        self.member.flush()

    def _work_through(self, lease: Lease) -> None:
        # What runs for every event is bound, and written out, here: a pool of trivial handlers is
        # bound by this loop.
        member, handler, wants_envelope = self.member, self.handler, self._wants_envelope
        next_event, note_done = lease.todo.popleft, self._done.append
        begun_ns = now_ns()
        while not self.is_stopping:
            try:
                row, seq_no = next_event()
            except IndexError:
                break
            envelope = self.envelope_of(lease, seq_no)
            if envelope is None:
                continue
            if self._stored_keys:
                member.show(0, 0, 0)  # storing may take long, and is no handler's time
                if not self.keep_order(lease, row, envelope):
                    continue
                begun_ns = now_ns()
            member.begin(row, seq_no, begun_ns)
            try:
                result = handler(envelope if wants_envelope else envelope.event)
            except BaseException as error:  # noqa: BLE001 - SystemExit too: the event failed
                self._raised(lease, envelope, error)
            else:
                if result is None and not forks.is_child:
                    member.end(row)
                    note_done(seq_no)
                    self._events += 1
                else:
                    self._returned(lease, row, envelope, result)
            begun_ns = now_ns()
            if begun_ns - self._looked_ns > LOOK_NS:
                member.show(0, 0, 0)
                self.look(lease)
                begun_ns = now_ns()
        member.show(0, 0, 0)
        self.end_lease(lease)

    def end_lease(self, lease: Lease) -> None:
        """Say what became of the lease, and give back what was not begun."""
        self.settle(lease)
        self.member.release(lease)
        lost, self._lost = self._lost, []
        if lost:
            logger.warning(
                "retention of the log %s deleted %s events (%d to %d) that a worker of the group %s"
                " had not begun",
                *(self.spec.path, f"{len(lost):,}", lost[0], lost[-1], self.spec.group),
            )

    def _raised(self, lease: Lease, envelope: EventEnvelope, error: BaseException) -> None:
        if forks.is_child:
            forks.end(error)
        self.member.show(0, 0, 0)
        self.failed(lease, envelope, error)

    def _returned(self, lease: Lease, row: int, envelope: EventEnvelope, result: Any) -> None:
        if forks.is_child:
            forks.end()
        self.member.show(0, 0, 0)
        self.succeeded(lease, row, envelope, result)

    def lease_count(self) -> int:
        """How many events to ask for."""
        if self._recycling.max_events is None:
            return self.size.count
        return max(min(self.size.count, self._recycling.max_events - self._events), 1)

    # --- what becomes of an event ------------------------------------------------------------

    def envelope_of(self, lease: Lease, seq_no: int) -> EventEnvelope | None:
        """The leased event, as it was appended; `None` if nobody can read it any more.

        One that retention has deleted needs no handling, and a damaged one becomes a dead letter.
        One that was a dead letter stays one.
        """
        try:
            return self.member.envelope(seq_no)
        except EventLogError as error:
            letter = self.member.letter(seq_no)
            if letter is None and isinstance(error, EventsTruncated):
                self._lost.append(seq_no)
                self._done.append(seq_no)
                return None
            logger.error("event %d of group %s: %s", seq_no, self.spec.group, error)
            letter = letter or self.member.fitting_letter(seq_no, describe(error))
            self.member.bury(lease, seq_no, letter)
            return None

    def keep_order(self, lease: Lease, row: int, envelope: EventEnvelope) -> bool:
        """Store the result of the event before this one of the same key, if it waits for that.

        Otherwise a death would bring the earlier event back after this one was handled. False if
        this one may not begin: the result was refused, so both were given back.
        """
        if envelope.key not in self._stored_keys:
            return True
        entry = (row, envelope.seq_no or 0)
        lease.todo.appendleft(entry)  # given back from there, with the others of its key
        self.settle(lease)
        try:
            lease.todo.remove(entry)
        except ValueError:
            return False
        return True

    def argument(self, envelope: EventEnvelope) -> Any:
        """What the handler is called with."""
        return envelope if self._wants_envelope else envelope.event

    def succeeded(self, lease: Lease, row: int, envelope: EventEnvelope, result: Any) -> None:
        """The handler returned."""
        seq_no = envelope.seq_no
        assert seq_no is not None
        if (not_begun := not_run(result)) is not None:
            self.failed(lease, envelope, not_begun)
            return
        results = results_of(result)
        if results and self._results is not None:
            try:
                self._keep_results(lease, row, envelope, results)
            except EventLogError as error:
                self.failed(lease, envelope, error)
                return
        else:
            self.member.end(row)
            self._done.append(seq_no)
        self._events += 1

    def _keep_results(
        self, lease: Lease, row: int, envelope: EventEnvelope, results: tuple[Any, ...]
    ) -> None:
        assert self._results is not None
        with self._settling:
            self._results.add_all(envelope, results)
            self.member.returned(row)
            self._stored.append((row, envelope))
            if self.spec.ordering == "key" and envelope.key is not None:
                self._stored_keys.add(envelope.key)
            if self._results.is_full:
                self.settle(lease)

    def failed(self, lease: Lease, envelope: EventEnvelope, error: BaseException) -> None:
        """The handler raised: try again later, or give up."""
        seq_no = envelope.seq_no
        assert seq_no is not None
        attempt = lease.attempt_of(seq_no)
        self._events += 1
        if isinstance(error, MemoryError):
            # What the handler had is held by its frames, and the memory is needed here.
            traceback.clear_frames(error.__traceback__)
        logger.warning(
            "event %d of group %s failed (attempt %d of %d): %s",
            *(seq_no, self.spec.group, attempt, self.spec.max_deliveries, describe(error)),
        )
        if attempt < self.spec.max_deliveries:
            delay_s = self.spec.backoff.delay_s(attempt, random.random)
            self.member.nack(lease, seq_no, delay_s)
            if self.spec.ordering == "key" and envelope.key is not None:
                self.member.release_key(lease, envelope)
        else:
            letter = self.member.fitting_letter(seq_no, describe(error), traceback_of(error))
            self.member.bury(lease, seq_no, letter)

    def settle(self, lease: Lease) -> None:
        """Say what is done, and store what was returned."""
        with self._settling:
            self._settled_ns = now_ns()
            if self._stored:
                self._store(lease)
                # Not before: the next event of such a key waits for the lock only while it is here.
                self._stored_keys.clear()
            if count := len(self._done):  # more may be added meanwhile, without the lock
                self.member.settle(lease, ranges_of(self._done[:count]))
                del self._done[:count]
        self._retire_if_due()

    def look(self, lease: Lease) -> None:
        """Between two events: say what is to be said by now."""
        self._looked_ns = now_ns()
        self._settle_if_due(lease)
        self._retire_if_due()

    def _settle_if_due(self, lease: Lease) -> None:
        """A handler may run for long; what was done before it is not to wait for that."""
        if now_ns() - self._settled_ns > self._settle_ns and (self._stored or self._done):
            self.settle(lease)

    def _store(self, lease: Lease) -> None:
        assert self._results is not None
        stored, self._stored = self._stored, []
        numbers = [envelope.seq_no or 0 for _, envelope in stored]
        self.member.count_handled(len(stored))
        try:
            self._results.store(lease.lease_id, ranges_of(numbers))
        except StaleLease:
            self.member.count_handled(-len(stored))
            lease.make_stale()
            return
        except EventLogError as error:
            self.member.count_handled(-len(stored))
            for row, envelope in stored:  # the output refused the results
                self.member.refused(row)
                self.failed(lease, envelope, error)
            return
        for row, _ in stored:
            self.member.stored(row)
        if not self._results.acknowledges:
            self._done += numbers

    # --- retiring ----------------------------------------------------------------------------

    def _retire_if_due(self) -> None:
        """Announce the end when it is near, and end when it is there."""
        part = self._used_part()
        if part >= RETIRE_EARLY and not self._has_announced:
            self._has_announced = True
            self._control.say("retiring")
        if part >= 1:
            self.is_stopping = True

    def _used_part(self) -> float:
        limits = self._recycling
        parts = [0.0]
        if limits.max_events is not None:
            parts.append(self._events / limits.max_events)
        if limits.max_age_s is not None:
            parts.append((time.monotonic() - self._started_s) / limits.max_age_s)
        if limits.max_rss_bytes is not None:
            parts.append(private_bytes() / limits.max_rss_bytes)
        return max(parts)
