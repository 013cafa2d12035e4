"""What a worker does with its leases, event by event.

Where an event stands is noted before and after its handler, by the lease; what becomes of one that
failed is decided by the group.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from eventlog import EventEnvelope, EventLogError
from workers import forks
from workers.child import ControlEnd, WorkerSpec, private_bytes
from workers.failing import Failing
from workers.handlers import Code, wants_envelope
from workers.policy import RETIRE_EARLY, LeaseSize
from workers.results import results_of
from workers.timing import timed

if TYPE_CHECKING:
    from eventlog.blocking import EventLog, Lease, Member

logger = logging.getLogger("workers")
LOOK_S: Final = 0.05
"""How often a worker looks, between two events, whether it has done enough."""
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

    member: Member
    """Set by `join`."""

    def __init__(
        self, spec: WorkerSpec, control: ControlEnd, code: Code, times: int | None
    ) -> None:
        self.spec = spec
        self.handler = code.handler if times is None else timed(code.handler, times)
        self.is_stopping = False
        self.size = LeaseSize(at_least=2 * spec.concurrency if spec.concurrency > 1 else 1)
        self._control = control
        failing = Failing(spec.group, spec.max_deliveries, spec.backoff, code.retry_on)
        self._failure_of = failing.failure_of
        self._wants_envelope = wants_envelope(code.handler)
        self._recycling = spec.recycling.for_worker(random.random)
        self._started_s = time.monotonic()
        self._looked_s = 0.0
        self._events = 0
        self._has_announced = False

    def join(self, log: EventLog) -> None:
        """Become a member of the group."""
        with log.group(
            self.spec.group,
            ordering="key" if self.spec.ordering else None,
            max_deliveries=self.spec.max_deliveries,
        ) as group:
            self.member = group.open_member(self.spec.pool_id, self.spec.output, self._failure_of)

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
            self._work_through(lease)
            self.size.note(lease.count, time.monotonic() - started_s)
        self.member.flush()

    def _work_through(self, lease: Lease) -> None:
        # What runs for every event is bound, and written out, here: a pool of trivial handlers is
        # bound by this loop.
        begin, done, handler = lease.begin, lease.done, self.handler
        wants_envelope, may_retire = self._wants_envelope, self._recycling.has_limits
        for attempt, envelope in lease:
            if self.is_stopping:
                break
            if not begin(envelope):
                continue
            try:
                result = handler(envelope if wants_envelope else envelope.event)
            except BaseException as error:  # noqa: BLE001 - SystemExit too: the event failed
                if forks.is_child:
                    forks.end(error)
                self.failed(lease, envelope, attempt, error)
            else:
                if result is None and not forks.is_child:
                    done(envelope)
                    self._events += 1
                else:
                    if forks.is_child:
                        forks.end()
                    self.succeeded(lease, envelope, attempt, result)
            if may_retire:
                self.look()
        lease.give_back()

    def lease_count(self) -> int:
        """How many events to ask for."""
        if self._recycling.max_events is None:
            return self.size.count
        return max(min(self.size.count, self._recycling.max_events - self._events), 1)

    # --- what becomes of an event ------------------------------------------------------------

    def argument(self, envelope: EventEnvelope) -> Any:
        """What the handler is called with."""
        return envelope if self._wants_envelope else envelope.event

    def succeeded(self, lease: Lease, envelope: EventEnvelope, attempt: int, result: Any) -> None:
        """The handler returned."""
        if (not_begun := not_run(result)) is not None:
            self.failed(lease, envelope, attempt, not_begun)
            return
        try:
            lease.done_with(envelope, results_of(result))
        except EventLogError as error:
            self.failed(lease, envelope, attempt, error)
        else:
            self._events += 1

    def failed(
        self, lease: Lease, envelope: EventEnvelope, attempt: int, error: BaseException
    ) -> None:
        """The handler raised: tell the group, which tries again later, or gives up."""
        self._events += 1
        lease.failed(envelope, self._failure_of(envelope, attempt, error))

    # --- retiring ----------------------------------------------------------------------------

    def look_if_limited(self) -> None:
        """After an event: as `look`, where there is anything to look at."""
        if self._recycling.has_limits:
            self.look()

    def look(self) -> None:
        """Between two events, now and then: announce the end when it is near, or there."""
        now_s = time.monotonic()
        is_through = self._recycling.max_events is not None
        if is_through or now_s - self._looked_s > LOOK_S:
            self._looked_s = now_s
            self._retire_if_due()

    def _retire_if_due(self) -> None:
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
