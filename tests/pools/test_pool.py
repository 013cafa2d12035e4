"""What every row of the contract's section on workers promises, while nothing dies."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import eventlog
from eventlog import GroupMismatch, InvalidArgument, InvalidName, SeekPosition, blocking
from tests.pools import handlers
from tests.pools.records import Record
from workers import Backoff, InvalidHandler, Pool, PoolFailed, PoolStats
from workers.blocking import Pool as BlockingPool

AT_ONCE = Backoff(first_s=0.0, max_s=0.0)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_a_pool_handles_every_event_once(log_path: str, record: Record) -> None:
    async with eventlog.open(log_path) as log:
        await log.append_many(range(100))
        handler = partial(handlers.do, record)
        async with Pool(log, group="g", handler=handler, processes=2) as pool:
            await pool.drained()
            assert sorted(record.numbers()) == list(range(100))
            await log.append_many(range(100, 200))
            await pool.drained()
            stats = pool.stats()
        assert sorted(record.numbers()) == list(range(200))
        assert (stats.handled, stats.failed, stats.retried, stats.lag) == (200, 0, 0, 0)
        assert [worker.restarts for worker in stats.workers] == [0, 0]
        assert sum(worker.handled for worker in stats.workers) == 200
        assert pool.stats().handled == 200, "stats are there after the end"
        [state] = await log.consumers()
        assert (state.name, state.last_acked, state.lag) == ("g", 200, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_the_error_of_the_block_comes_through_as_it_is(log_path: str) -> None:
    async with eventlog.open(log_path) as log:
        with pytest.raises(ZeroDivisionError):
            async with Pool(log, group="g", handler=handlers.double, processes=1):
                _ = 1 // 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_cancelling_a_block_leaves_no_process(log_path: str, record: Record) -> None:
    async with eventlog.open(log_path) as log:
        await log.append_many(range(10))
        handler = partial(handlers.spin, record, 0.05)
        with anyio.CancelScope() as scope:
            async with Pool(log, group="g", handler=handler, processes=2) as pool:
                pids = [worker.pid for worker in pool.stats().workers]
                scope.cancel()
                await pool.drained()
        assert scope.cancelled_caught
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_a_drained_empty_log_is_drained(log: blocking.EventLog) -> None:
    with BlockingPool(log, group="g", handler=handlers.double, processes=1) as pool:
        pool.drained()
        assert pool.stats() == PoolStats(
            handled=0, failed=0, retried=0, in_flight=0, lag=0, workers=pool.stats().workers
        )


def test_two_pools_share_a_group(log: blocking.EventLog, record: Record) -> None:
    handler = partial(handlers.spin, record, 0.002)
    with (
        BlockingPool(log, group="g", handler=handler, processes=1) as one,
        BlockingPool(log, group="g", handler=handler, processes=1) as other,
    ):
        log.append_many(range(200))
        one.drained()
        assert one.stats().handled + other.stats().handled == 200
        assert one.stats().handled > 0
        assert other.stats().handled > 0
    assert Counter(record.numbers()) == Counter(range(200))


def test_a_pool_goes_on_where_the_last_one_stopped(log: blocking.EventLog, record: Record) -> None:
    for start in (0, 10, 20):
        log.append_many(range(start, start + 10))
        handler = partial(handlers.do, record)
        with BlockingPool(log, group="g", handler=handler, processes=1) as pool:
            pool.drained()
    assert record.numbers() == list(range(30))


def test_a_new_group_begins_where_it_is_told(log: blocking.EventLog, record: Record) -> None:
    log.append_many(range(10))
    handler = partial(handlers.do, record)
    position = SeekPosition.sequence(8)
    with BlockingPool(log, group="g", handler=handler, processes=1, position=position) as pool:
        pool.drained()
    assert record.numbers() == [7, 8, 9]


def test_seek_moves_a_group_back(log: blocking.EventLog, record: Record) -> None:
    log.append_many(range(10))
    with BlockingPool(log, group="g", handler=partial(handlers.do, record), processes=1) as pool:
        pool.drained()
        log.seek("g", SeekPosition.sequence(6))
        pool.drained()
    assert record.numbers() == [*range(10), *range(5, 10)]


def test_with_broadcast_every_worker_handles_every_event(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(20))
    handler = partial(handlers.do, record)
    with BlockingPool(log, group="g", handler=handler, processes=2, broadcast=True) as pool:
        pool.drained()
        assert pool.stats().handled == 40
    assert Counter(record.numbers()) == Counter([*range(20), *range(20)])
    assert [state.name for state in log.consumers()] == ["g/0", "g/1"]


def test_a_key_is_handled_in_order_by_one_at_a_time(log: blocking.EventLog, record: Record) -> None:
    with log.publisher() as publisher:
        for number in range(600):
            publisher.send(number, key=f"k{number % 7}" if number % 10 else None)
    handler = partial(handlers.do_keyed, record)
    with BlockingPool(log, group="g", handler=handler, processes=3, ordering="key") as pool:
        pool.drained()
        assert sum(worker.handled > 0 for worker in pool.stats().workers) > 1
    by_key: dict[str, list[int]] = {}
    for _, text, key in record.lines():
        if key != "None":
            by_key.setdefault(key, []).append(int(text))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert sorted(record.numbers()) == list(range(600))


def test_a_failed_event_of_a_key_holds_the_later_ones(
    log: blocking.EventLog, record: Record
) -> None:
    for number in range(30):
        log.append(number, key=f"k{number % 3}")
    handler = partial(handlers.fail_once, record)
    options: dict[str, Any] = {"ordering": "key", "backoff": Backoff(0.01, 1.0, 0.01)}
    with BlockingPool(log, group="g", handler=handler, processes=2, **options) as pool:
        pool.drained()
        assert (pool.stats().failed, pool.stats().retried) == (30, 30)
    for key in range(3):
        mine = [number for number in record.numbers() if number % 3 == key]
        assert mine == sorted(mine)
        assert len(mine) == 10


# --- results ---------------------------------------------------------------------------------


def test_results_go_to_another_log(log: blocking.EventLog, tmp_path: Path) -> None:
    log.append_many(range(300))
    output = str(tmp_path / "output")
    options: dict[str, Any] = {"processes": 2, "output": output}
    with BlockingPool(log, group="g", handler=handlers.double, **options) as pool:
        pool.drained()
    with blocking.open(output) as results:
        doubles = sorted(envelope.event["double"] for envelope in results.read(1))
        pid = results.status().writer_pid
    assert doubles == [2 * number for number in range(300)]
    assert pid is not None
    os.kill(pid, 15)


def test_results_in_the_same_log_are_never_handed_to_the_group(log: blocking.EventLog) -> None:
    log.append_many(range(300))
    options: dict[str, Any] = {"processes": 2, "output": log}
    with BlockingPool(log, group="g", handler=handlers.double, **options) as pool:
        pool.drained()
        pool.drained()  # with the results that the first wait saw appended
        assert (pool.stats().handled, pool.stats().failed) == (300, 0)
    results = [e.event["double"] for e in log.read(1) if isinstance(e.event, dict)]
    assert sorted(results) == [2 * number for number in range(300)]


# --- handlers --------------------------------------------------------------------------------


class Adder:
    def __init__(self, record: Record) -> None:
        self._record = record

    def add(self, event: int) -> None:
        self._record.note("did", event)

    def __call__(self, event: int) -> None:
        self.add(event)


@pytest.mark.parametrize("kind", ["lambda", "closure", "method", "object", "partial", "name"])
def test_a_handler_is_anything_that_can_be_called(
    log: blocking.EventLog, record: Record, kind: str
) -> None:
    def closure(event: int) -> None:
        record.note("did", event)

    handler: Any = {
        "lambda": lambda event: record.note("did", event),
        "closure": closure,
        "method": Adder(record).add,
        "object": Adder(record),
        "partial": partial(handlers.do, record),
        "name": "tests.pools.handlers:double",
    }[kind]
    log.append_many(range(3))
    with BlockingPool(log, group="g", handler=handler, processes=1) as pool:
        pool.drained()
        assert pool.stats().handled == 3
    assert kind == "name" or record.numbers() == [0, 1, 2]


@pytest.mark.parametrize(
    "handler", [handlers.sleep_together, handlers.sleep_in_a_thread], ids=["async", "threads"]
)
def test_a_worker_handles_several_events_at_a_time(
    log: blocking.EventLog, record: Record, handler: Any
) -> None:
    log.append_many(range(8))
    options: dict[str, Any] = {"processes": 1, "concurrency": 8}
    with BlockingPool(log, group="g", handler=partial(handler, record), **options) as pool:
        pool.drained()
    words = [line[0] for line in record.lines()]
    assert Counter(words) == Counter({"began": 8, "did": 8})
    assert words.index("did") >= 2, "the second began before the first was done"


def test_what_cannot_travel_is_refused_before_a_process_is_started(
    log: blocking.EventLog,
) -> None:
    generator = (number for number in range(3))
    with pytest.raises(InvalidHandler, match="cannot be sent to a worker"):
        BlockingPool(log, group="g", handler=lambda event: next(generator))
    for nonsense in (7, "no colon", ":", "a:b c"):
        with pytest.raises(InvalidHandler):
            BlockingPool(log, group="g", handler=nonsense)


def test_arguments_that_mean_nothing_are_refused(log: blocking.EventLog) -> None:
    for options in (
        {"processes": 0}, {"ordering": "random"}, {"max_deliveries": 0}, {"concurrency": 0},
        {"timeout": -1}, {"max_events_per_worker": 0}, {"output": "memory:x"},
    ):  # fmt: skip
        with pytest.raises(InvalidArgument):
            BlockingPool(log, group="g", handler=handlers.double, **options)
    with (
        pytest.raises(InvalidName),
        BlockingPool(log, group="", handler=handlers.double, processes=1),
    ):
        pass
    with (
        blocking.open("memory:") as memory,
        pytest.raises(InvalidArgument, match="memory"),
        BlockingPool(memory, group="g", handler=handlers.double, processes=1),
    ):
        pass


def test_pools_of_one_group_work_alike(log: blocking.EventLog) -> None:
    options: dict[str, Any] = {"group": "g", "handler": handlers.double, "processes": 1}
    with (
        BlockingPool(log, **options),
        pytest.raises(GroupMismatch),
        BlockingPool(log, ordering="key", **options),
    ):
        pass
    with BlockingPool(log, ordering="key", **options):
        pass  # the others have left


# --- failures --------------------------------------------------------------------------------


def test_a_failure_is_tried_again_and_then_dead(log: blocking.EventLog, record: Record) -> None:
    log.append(1, key="k", headers={"a": "b"})
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 3, "backoff": AT_ONCE}
    with BlockingPool(log, group="g", handler=partial(handlers.fail, record), **options) as pool:
        pool.drained()
        [letter] = pool.dead_letters()
        stats = pool.stats()
    assert record.numbers("began") == [1, 1, 1]
    assert (letter.event, letter.key, letter.headers) == (1, "k", {"a": "b"})
    assert (letter.seq_no, letter.deliveries, letter.group) == (1, 3, "g")
    assert letter.error == "ValueError: no 1 ever"
    assert letter.traceback is not None
    assert "in fail" in letter.traceback
    assert (stats.handled, stats.failed, stats.retried) == (0, 3, 2)


def test_dead_letters_are_retried_or_dropped_once(log: blocking.EventLog, record: Record) -> None:
    log.append_many(range(4))
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 1}
    with BlockingPool(log, group="g", handler=partial(handlers.fail, record), **options) as pool:
        pool.drained()
        assert [letter.seq_no for letter in pool.dead_letters()] == [1, 2, 3, 4]
    assert log.drop_dead("g", [1, 99]) == 1
    assert log.retry_dead("g", [2, 3]) == 2
    assert log.retry_dead("g", [2, 3]) == 0
    with BlockingPool(log, group="g", handler=partial(handlers.do, record), **options) as pool:
        pool.drained()
        assert [letter.seq_no for letter in pool.dead_letters()] == [4]
    assert sorted(record.numbers()) == [1, 2]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"initializer": handlers.initialize_badly}, "RuntimeError: no database here"),
        ({"handler": "no.such.module:f"}, "ModuleNotFoundError: No module named 'no'"),
        ({"handler": "os:path"}, "cannot be called"),
        ({"initializer": handlers.die_at_start}, "exited with code 9"),
    ],
)
def test_workers_that_cannot_start_fail_the_pool_with_their_error(
    log: blocking.EventLog, options: dict[str, Any], error: str
) -> None:
    arguments = {"handler": handlers.double, **options}
    with pytest.raises(PoolFailed, match=error), BlockingPool(log, group="g", **arguments):
        pass


def test_what_workers_log_appears_here(
    log: blocking.EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(event: int) -> None:
        logging.getLogger("mine").info("handling %d", event)

    log.append(7)
    with (
        caplog.at_level(logging.INFO),
        BlockingPool(log, group="g", handler=handle, processes=1) as pool,
    ):
        pool.drained()
    [entry] = [one for one in caplog.records if one.name == "mine"]
    assert entry.getMessage() == "handling 7"
    assert (vars(entry)["group"], vars(entry)["worker"]) == ("g", "g/0")


def test_workers_are_replaced_when_they_have_done_enough(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(100))
    options: dict[str, Any] = {"processes": 2, "max_events_per_worker": 15}
    with BlockingPool(log, group="g", handler=partial(handlers.do, record), **options) as pool:
        pool.drained()
        assert pool.stats().handled == 100
    by_pid = Counter(pid for _, _, pid in record.lines())
    assert max(by_pid.values()) <= 15
    assert Counter(record.numbers()) == Counter(range(100))


def test_a_pool_ends_from_another_thread_too(log: blocking.EventLog) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with BlockingPool(log, group="g", handler=handlers.double, processes=1) as pool:
                pool.drained()
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == []
