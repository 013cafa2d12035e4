"""What a worker's loop decides, without a log, a process or a clock."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from eventlog import EventEnvelope, EventTooLarge, Failure, Lease
from eventlog.event.envelope import envelope_of
from workers.loop import WorkerLoop
from workers.policy import LEASE_S
from workers.results import Results


class NotedLease(Lease):
    """A lease in memory, which notes what is said of its events."""

    def __init__(self, *keys: str | None) -> None:
        self.events = [event(number, key) for number, key in enumerate(keys, start=1)]
        self.said: list[Any] = []

    @property
    def count(self) -> int:
        return len(self.events)

    @property
    def is_lost(self) -> bool:
        return False

    def __iter__(self) -> Iterator[tuple[int, EventEnvelope]]:
        while self.events:
            yield 1, self.events.pop(0)

    def begin(self, envelope: EventEnvelope) -> bool:
        return True

    def done(self, envelope: EventEnvelope) -> None:
        self.said.append(("done", envelope.event))

    def done_with(self, envelope: EventEnvelope, results: Collection[Any]) -> None:
        if "large" in results:
            raise EventTooLarge("that is too large")
        self.said.append(("done", envelope.event, *results))

    def failed(self, envelope: EventEnvelope, failure: Failure) -> None:
        self.said.append(("failed", envelope.event, failure.error))

    def give_back(self) -> None:
        self.said.append("give back")


def event(number: int, key: str | None = None) -> EventEnvelope:
    return envelope_of(number, id_bytes=bytes(16), timestamp_ns=1, key=key, headers=None)


def failure_of(_envelope: EventEnvelope, _attempt: int, error: BaseException) -> Failure:
    return Failure(error=type(error).__name__)


def one_by_one() -> Iterator[int]:
    yield 1


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def loop_of(concurrency: int = 1, **options: Any) -> WorkerLoop:
    return WorkerLoop(concurrency, failure_of, Clock(), **{"in_order": True, **options})


def begun(deliveries: Iterator[tuple[int, EventEnvelope]]) -> int | None:
    delivery = next(deliveries, None)
    return None if delivery is None else delivery[1].event


def test_what_a_handler_returns_or_raises_is_said_of_its_event() -> None:
    loop, lease = loop_of(), NotedLease()
    loop.take(lease)
    loop.returned(event(1), 1, None)
    loop.returned(event(2), 1, "result")
    loop.returned(event(3), 1, Results(["one", "two"]))
    loop.returned(event(4), 1, Results())
    loop.raised(event(5), 1, ValueError())
    loop.returned(event(6), 1, "large")
    loop.returned(event(7), 1, one_by_one())
    assert lease.said == [
        ("done", 1),
        ("done", 2, "result"),
        ("done", 3, "one", "two"),
        ("done", 4),
        ("failed", 5, "ValueError"),
        ("failed", 6, "EventTooLarge"),
        ("failed", 7, "TypeError"),
    ]
    assert loop.ended == 7


def test_an_event_whose_key_is_at_work_waits_for_the_task_that_has_the_key() -> None:
    loop = loop_of(concurrency=2)
    loop.take(NotedLease("a", "a", "b", "a", None))
    one, other = loop.deliveries(), loop.deliveries()
    assert [begun(one), begun(other)] == [1, 3]  # 2 waits for 1
    assert [begun(other), begun(other)] == [5, None]
    assert [begun(one), begun(one), begun(one)] == [2, 4, None]


def test_without_an_order_no_event_waits_for_another() -> None:
    loop = loop_of(concurrency=2, in_order=False)
    loop.take(NotedLease("a", "a"))
    assert [begun(loop.deliveries()), begun(loop.deliveries())] == [1, 2]


def test_a_loop_that_is_told_to_stop_begins_nothing_and_leases_nothing() -> None:
    loop = loop_of(concurrency=2)
    loop.take(NotedLease("a", "a", "b"))
    one, other = loop.deliveries(), loop.deliveries()
    assert [begun(one), begun(other)] == [1, 3]
    loop.stop()
    assert [begun(one), begun(other)] == [None, None]
    assert loop.wanted() is None


def test_a_lease_lasts_as_long_as_leases_should() -> None:
    clock = Clock()
    loop = WorkerLoop(1, failure_of, clock, in_order=False)
    assert loop.wanted() == (1, 1)
    lease = NotedLease(*[None] * 4)
    loop.take(lease)
    clock.now_s += LEASE_S
    loop.give_back()
    assert lease.said == ["give back"]
    assert loop.wanted() == (4, 1)


def test_a_worker_asks_for_no_more_events_than_it_may_still_handle() -> None:
    loop = loop_of(concurrency=4, events_max=3)
    assert loop.wanted() == (3, 4)
    loop.take(NotedLease())
    loop.returned(event(1), 1, None)
    loop.raised(event(2), 1, ValueError())
    assert loop.wanted() == (1, 4)
    loop.returned(event(3), 1, None)
    assert loop.wanted() == (1, 4)  # whoever drives it has it stop
