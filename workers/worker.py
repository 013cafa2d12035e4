"""A worker process at work: one event at a time, until it is told to stop or has done enough.

`loop` decides what comes next; the lease notes, before and after each handler, where the event
stands.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from eventlog import EventEnvelope
from workers import forks
from workers.child import ControlEnd, WorkerSpec, private_bytes
from workers.failing import Failing
from workers.handlers import Code, wants_envelope
from workers.loop import WorkerLoop
from workers.policy import RETIRE_EARLY
from workers.timing import timed

if TYPE_CHECKING:
    from eventlog.blocking import EventLog, Member

LOOK_S: Final = 0.05
"""How often a worker looks, between two events, whether it has done enough."""


class Worker:
    """One worker: its member, its handler, and what it has done."""

    member: Member
    """Set by `join`."""

    def __init__(
        self, spec: WorkerSpec, control: ControlEnd, code: Code, times: int | None
    ) -> None:
        self.spec = spec
        self.handler = code.handler if times is None else timed(code.handler, times)
        self._control = control
        self._wants_envelope = wants_envelope(code.handler)
        self._recycling = spec.recycling.for_worker(random.random)
        failing = Failing(spec.group, spec.max_deliveries, spec.backoff, code.retry_on)
        self._failure_of = failing.failure_of
        self.loop = WorkerLoop(
            spec.concurrency,
            failing.failure_of,
            time.monotonic,
            in_order=spec.ordering == "key",
            events_max=self._recycling.max_events,
        )
        self._started_s = time.monotonic()
        self._looked_s = 0.0
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
        self.loop.stop()
        # Not here: a signal handler may have interrupted whoever holds the member's lock.
        threading.Thread(target=self.member.stop, daemon=True).start()

    # --- one event at a time -----------------------------------------------------------------

    def run(self) -> None:
        """Work until told to stop."""
        loop = self.loop
        while (wanted := loop.wanted()) is not None:
            lease = self.member.lease(*wanted)
            if lease is None:
                break
            loop.take(lease)
            self._work_through()
            loop.give_back()
        self.member.flush()

    def _work_through(self) -> None:
        # What runs for every event is bound, and written out, here: a pool of trivial handlers is
        # bound by this loop.
        loop, handler, wants_envelope = self.loop, self.handler, self._wants_envelope
        begin, returned, may_retire = loop.lease.begin, loop.returned, self._recycling.has_limits
        for attempt, envelope in loop.deliveries():
            if not begin(envelope):
                continue
            try:
                result = handler(envelope if wants_envelope else envelope.event)
            except BaseException as error:  # noqa: BLE001 - SystemExit too: the event failed
                if forks.is_child:
                    forks.end(error)
                loop.raised(envelope, attempt, error)
            else:
                if forks.is_child:
                    forks.end()
                returned(envelope, attempt, result)
            if may_retire:
                self.look()

    def argument(self, envelope: EventEnvelope) -> Any:
        """What the handler is called with."""
        return envelope if self._wants_envelope else envelope.event

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
            self.loop.stop()

    def _used_part(self) -> float:
        limits = self._recycling
        parts = [0.0]
        if limits.max_events is not None:
            parts.append(self.loop.ended / limits.max_events)
        if limits.max_age_s is not None:
            parts.append((time.monotonic() - self._started_s) / limits.max_age_s)
        if limits.max_rss_bytes is not None:
            parts.append(private_bytes() / limits.max_rss_bytes)
        return max(parts)
