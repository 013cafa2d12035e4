"""What handlers are given and what their errors mean: `type=`, `retry_on=`, `Reject`, `attempt`."""

from __future__ import annotations

import inspect
import threading
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

import workers
from eventlog import EventEnvelope, InvalidArgument, InvalidArgumentType, blocking
from tests.pools.handlers import Order
from tests.pools.parts import drained
from workers.blocking import Pool
from workers.options import DEFAULTS, PoolOptions
from workers.relay import RELAY


@dataclass
class Line:
    item: str
    amount: int


class Busy(Exception):
    """Passes by itself."""


def amount_of(order: Order) -> int:
    return order.amount * 10


def kinds_of(envelope: EventEnvelope) -> list[Any]:
    return [type(envelope.event).__name__, envelope.seq_no, envelope.key, envelope.attempt]


def fail_in_its_way(event: str) -> None:
    if event == "rejected":
        raise workers.Reject("no such customer")
    if event == "busy":
        raise Busy("try again")
    raise LookupError("no such item")


NO_WAIT = workers.Backoff(first_s=0.0, max_s=0.0)


def run(log: blocking.EventLog, **options: Any) -> list[workers.DeadLetter]:
    """Handle what is in the log now; the letters that there are then."""
    given: Any = {"group": "g", "processes": 1, "backoff": NO_WAIT, "max_deliveries": 3} | options
    with Pool(log, **given) as pool:
        pool.drained()
        return list(pool.dead_letters())


def results_of(log: blocking.EventLog) -> list[Any]:
    return [one.event for one in log.read(start=0) if one.cause is not None]


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize("kind", [Order, Line, "tests.pools.handlers:Order"], ids=str)
def test_events_are_of_the_type(log: blocking.EventLog, kind: Any, processes: int) -> None:
    log.append_many([{"item": "pen", "amount": number} for number in range(3)])
    letters = run(log, handler=amount_of, type=kind, output=log.path, processes=processes)
    assert letters == []
    assert sorted(results_of(log)) == [0, 10, 20]


def test_an_envelope_keeps_all_but_its_events_type(log: blocking.EventLog) -> None:
    log.append({"item": "pen", "amount": 1}, key="k")
    assert run(log, handler=kinds_of, type=Order, output=log.path) == []
    assert results_of(log) == [["Order", 1, "k", 1]]


@pytest.mark.parametrize("processes", [0, 1])
def test_an_event_that_marks_its_key_as_deleted_is_of_every_type(
    log: blocking.EventLog, processes: int
) -> None:
    log.append({"item": "pen", "amount": 1}, key="k")
    log.delete("k")

    def what(envelope: EventEnvelope) -> list[Any]:
        return [type(envelope.event).__name__, envelope.is_deletion]

    assert run(log, handler=what, type=Order, output=log.path, processes=processes) == []
    assert sorted(results_of(log)) == [["NoneType", True], ["Order", False]]


@pytest.mark.parametrize("processes", [0, 1])
def test_what_is_not_of_the_type_is_a_dead_letter_at_once(
    log: blocking.EventLog, processes: int
) -> None:
    log.append_many([{"item": "pen", "amount": 1}, {"item": "pen"}, "pen", {"amount": "x"}])
    letters = run(log, handler=amount_of, type=Order, processes=processes)
    assert [(one.seq_no, one.deliveries) for one in letters] == [(2, 1), (3, 1), (4, 1)]
    assert "missing required field `amount`" in letters[0].error
    assert all("is not of the type that the pool was given" in one.error for one in letters)


def test_payloads_of_bytes_come_as_views(log: blocking.EventLog) -> None:
    log.append(b"abc")

    def view(event: memoryview) -> list[Any]:
        return [type(event).__name__, bytes(event)]

    assert run(log, handler=view, type=memoryview, output=log.path) == []
    assert results_of(log) == [["memoryview", b"abc"]]


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize("retry_on", [Busy, (OSError, Busy), ("OSError", Busy)], ids=str)
def test_only_chosen_exceptions_are_tried_again(
    log: blocking.EventLog, retry_on: Any, processes: int
) -> None:
    log.append_many(["busy", "lookup", "rejected"])
    letters = run(log, handler=fail_in_its_way, retry_on=retry_on, processes=processes)
    assert {one.event: one.deliveries for one in letters} == {
        "busy": 3,
        "lookup": 1,
        "rejected": 1,
    }


@pytest.mark.parametrize("processes", [0, 1])
def test_a_rejected_event_is_not_tried_again(
    log: blocking.EventLog, processes: int, caplog: pytest.LogCaptureFixture
) -> None:
    log.append_many(["rejected", "lookup"])
    letters = run(log, handler=fail_in_its_way, processes=processes)
    RELAY.flush(10.0)
    now = " and is a dead letter now"
    dead = [text for text in caplog.messages if now in text]
    assert dead == [
        f"event 1 of group g was rejected (attempt 1 of 3){now}: workers.Reject: no such customer",
        f"event 2 of group g failed (attempt 3 of 3){now}: LookupError: no such item",
    ]
    assert [(one.event, one.deliveries) for one in letters] == [("rejected", 1), ("lookup", 3)]
    assert letters[0].error == "workers.Reject: no such customer"


def test_a_handler_sees_which_attempt_it_is(log: blocking.EventLog) -> None:
    log.append_many(["a", "b"])

    def third_time(envelope: EventEnvelope) -> int:
        if envelope.event == "a" and envelope.attempt < 3:
            raise Busy(envelope.attempt)
        return envelope.attempt

    assert run(log, handler=third_time, output=log.path) == []
    assert sorted(results_of(log)) == [1, 3]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"type": msgspec.Raw}, InvalidArgumentType, "is for streams"),
        ({"type": object()}, InvalidArgumentType, "msgspec can convert to"),
        ({"type": "Order"}, workers.InvalidHandler, "the type is 'Order'"),
        ({"retry_on": "no such"}, workers.InvalidHandler, "exception in retry_on"),
        ({"retry_on": 7}, InvalidArgumentType, "give types of exceptions"),
        ({"retry_on": int}, InvalidArgumentType, "give types of exceptions"),
        ({"processes": -1}, InvalidArgument, "or 0 for none"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_the_call(
    log: blocking.EventLog, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Pool(log, group="g", handler=amount_of, **options)


def test_an_option_of_another_name_is_refused_as_by_any_function(log: blocking.EventLog) -> None:
    wrong: Any = {"group": "g", "handler": amount_of, "proceses": 2}
    with pytest.raises(TypeError, match="proceses"):
        Pool(log, **wrong)
    none: Any = {"group": "g"}
    with pytest.raises(TypeError, match="handler"):
        Pool(log, **none)


def test_every_option_has_a_default_and_stands_in_the_help() -> None:
    assert DEFAULTS.keys() == PoolOptions.__annotations__.keys() - {"group", "handler"}
    for pool in (Pool, workers.Pool):
        parameters = inspect.signature(pool).parameters
        assert [*parameters] == ["log", *PoolOptions.__annotations__]
        assert parameters["stop_s"].default == 10.0
        for name in PoolOptions.__annotations__:
            assert f"`{name}" in (workers.Pool.__doc__ or ""), name


def test_a_pool_without_processes_has_one_group_of_a_broadcast(log: blocking.EventLog) -> None:
    seen: list[int] = []
    log.append_many(range(3))
    with Pool(log, group="g", handler=seen.append, processes=0, broadcast=True) as pool:
        drained(pool)
        assert pool.stats().handled == 3
    assert seen == [0, 1, 2]
    assert [consumer.name for consumer in log.consumers()] == ["g/0"]


def test_results_go_to_another_log_in_memory_without_a_name() -> None:
    with blocking.open("memory:") as log, blocking.open("memory:") as other:
        with pytest.raises(InvalidArgument, match="the results would be lost"):
            Pool(log, group="g", handler=str, processes=0, output="memory:")
        log.append(7)
        for group, output in (("to another", other), ("to its own", log)):
            with Pool(log, group=group, handler=str, processes=0, output=output) as pool:
                drained(pool)
        assert [envelope.event for envelope in other.read(1)] == ["7"]
        assert [envelope.event for envelope in log.read(1)] == [7, "7"]


def test_events_of_one_key_meet_without_an_order_where_no_process_is(
    log: blocking.EventLog,
) -> None:
    """Threads of a pool without processes took turns by key, whether or not an order was asked."""
    meeting = threading.Barrier(2, timeout=30)
    log.append_many(range(2), keys=["k", "k"])

    def meet(_event: int) -> None:
        meeting.wait()

    assert run(log, handler=meet, processes=0, concurrency=2, max_deliveries=1) == []
