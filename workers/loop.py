"""The loop of a worker: what it does next, and what it says of each event, without any waiting.

::

    wanted ---> Member.lease ---> take ---> deliveries ---> Lease.begin and the handler
      ^                                      |      ^                  |
      |                                 none is left `--- returned, raised
      `---------- give_back <----------------'

Who drives the loop leases, waits and calls handlers: `worker` (one event at a time) and
`work_together` (several) in a worker process, `in_process` in the pool's own process, and the
simulation of the tests. The group decides what becomes of an event that failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from eventlog import EventEnvelope, EventLogError, Failure
from workers.policy import LeaseSize
from workers.results import not_run, results_of

if TYPE_CHECKING:
    from eventlog import Lease

Delivery = tuple[int, EventEnvelope]
"""An event and its attempt."""
FailureOf = Callable[[EventEnvelope, int, BaseException], Failure]


class WorkerLoop:
    """The loop of one worker, whose handlers run `concurrency` events at a time.

    With `in_order`, events of one key run one after the other. `events_max` limits how many events
    the worker ever handles.
    """

    def __init__(
        self,
        concurrency: int,
        failure_of: FailureOf,
        clock: Callable[[], float],
        *,
        in_order: bool,
        events_max: int | None = None,
    ) -> None:
        self.is_stopping = False
        """Nothing more is begun."""
        self.ended = 0
        """Deliveries whose handler has ended."""
        self.lease: Lease
        """The lease that was taken last."""
        self.concurrency = concurrency
        self._failure_of = failure_of
        self._clock = clock
        self._events_max = events_max
        self._size = LeaseSize(at_least=2 * concurrency if concurrency > 1 else 1)
        self._behind: dict[str, deque[Delivery]] | None = None
        """By key: events that wait for one of theirs that runs; with one handler none waits."""
        if in_order and concurrency > 1:
            self._behind = {}

    def wanted(self) -> tuple[int, int] | None:
        """How many events to lease, and how many of them at least; `None`: leave the group."""
        if self.is_stopping:
            return None
        count = self._size.count
        if self._events_max is not None:
            count = max(min(count, self._events_max - self.ended), 1)
        return count, self.concurrency

    def take(self, lease: Lease) -> None:
        """Work on these events from now on."""
        self.lease = lease
        self._begun_s = self._clock()
        self._done = lease.done
        self._out = iter(lease)

    def deliveries(self) -> Iterator[Delivery]:
        """What one task handles, one event after the other; each task has its own iterator."""
        behind = self._behind
        for delivery in self._out:
            if self.is_stopping:
                return
            key = None if behind is None else delivery[1].key
            if behind is None or key is None:
                yield delivery
            elif key in behind:
                behind[key].append(delivery)
            else:
                line = behind[key] = deque([delivery])
                while line and not self.is_stopping:
                    yield line.popleft()
                del behind[key]  # what is left was not begun: it is given back with the rest

    def returned(self, envelope: EventEnvelope, attempt: int, result: Any) -> None:
        """The handler returned."""
        if result is None:
            self.ended += 1
            self._done(envelope)
            return
        if (error := not_run(result)) is not None:
            self.raised(envelope, attempt, error)
            return
        try:
            self.lease.done_with(envelope, results_of(result))
        except EventLogError as refusal:  # no log can store the result
            self.raised(envelope, attempt, refusal)
        else:
            self.ended += 1

    def raised(self, envelope: EventEnvelope, attempt: int, error: BaseException) -> None:
        """The handler raised: tell the group, which tries again later, or gives up."""
        self.ended += 1
        self.lease.failed(envelope, self._failure_of(envelope, attempt, error))

    def give_back(self) -> None:
        """No handler runs, and no delivery is left or wanted: end the lease."""
        self.lease.give_back()
        self._size.note(self.lease.count, self._clock() - self._begun_s)

    def stop(self) -> None:
        """Begin nothing more; callable from any thread, and from a signal handler."""
        self.is_stopping = True
