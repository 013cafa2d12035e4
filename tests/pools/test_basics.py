"""The rows of the contract, in each flavour of the pool: trio, asyncio, and without a loop."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

import eventlog
from eventlog import EventLog, LogDeleted
from tests.pools import handlers
from tests.pools.facade import AnyPool, Flavour
from tests.pools.parts import AT_ONCE, WAIT_S, descriptors, in_order_by_key, kill
from tests.pools.records import Record
from workers import Pool, PoolError, PoolFailed, PoolStats

pytestmark = pytest.mark.anyio


async def drained(pool: AnyPool) -> None:
    with anyio.fail_after(WAIT_S):
        await pool.drained()


async def until_noted(record: Record, word: str, count: int) -> None:
    with anyio.fail_after(WAIT_S):
        while len(record.numbers(word)) < count:  # noqa: ASYNC110 - what a file holds
            await anyio.sleep(0.002)


async def stored(log: EventLog) -> list[Any]:
    return [envelope.event for envelope in await log.read(1)]


async def test_each_event_goes_to_one_worker_and_every_worker_has_some(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        await log.append_many(range(40))
        handler = partial(handlers.meet, record, 2)
        async with flavour.pool(log, group="g", handler=handler, processes=2) as pool:
            await drained(pool)
            began = [line[2] for line in record.lines() if line[0] == "began"]
            assert set(began[:2]) == {str(worker.pid) for worker in pool.stats().workers}
            assert sorted(record.numbers()) == list(range(40))
            await log.append_many(range(40, 60))
            await drained(pool)
            assert sorted(record.numbers()) == list(range(60))
            stats = pool.stats()
        assert (stats.handled, stats.failed, stats.retried) == (60, 0, 0)
        assert (stats.in_flight, stats.lag) == (0, 0)
        assert sum(worker.handled for worker in stats.workers) == 60
        assert not any(worker.busy or worker.restarts for worker in stats.workers)
        [consumer] = await log.consumers()
        assert (consumer.name, consumer.last_acked, consumer.lag) == ("g", 60, 0)


async def test_an_empty_log_is_drained_and_an_idle_pool_is_left(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        handler = partial(handlers.note, record)
        async with flavour.pool(log, group="g", handler=handler, processes=1) as pool:
            await drained(pool)
            await drained(pool)
            stats = pool.stats()
            assert stats == PoolStats(
                handled=0, failed=0, retried=0, in_flight=0, lag=0, workers=stats.workers
            )
            assert [letter async for letter in pool.dead_letters()] == []
            await log.append(7)
            await drained(pool)
    assert record.numbers() == [7]


async def test_with_broadcast_each_worker_is_a_consumer_of_its_own(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        await log.append_many(range(10))
        handler = partial(handlers.note, record)
        options: dict[str, Any] = {"processes": 2, "broadcast": True}
        async with flavour.pool(log, group="g", handler=handler, **options) as pool:
            await drained(pool)
            stats = pool.stats()
            pids = {worker.pid for worker in stats.workers}
            assert (stats.handled, stats.lag) == (20, 0)
        consumers = [(state.name, state.last_acked) for state in await log.consumers()]
    assert consumers == [("g/0", 10), ("g/1", 10)]
    for pid in pids:
        own = [int(line[1]) for line in record.lines() if line[0] == "did" and int(line[2]) == pid]
        assert own == list(range(10)), "each worker sees every event, in order"


async def test_a_failure_is_tried_again_and_ends_as_a_dead_letter(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        await log.append(1, key="one")
        await log.append(-2, key="two", headers={"h": "v"})
        await log.append(3)
        handler = partial(handlers.fail_if_negative, record)
        options: dict[str, Any] = {"processes": 1, "max_deliveries": 3, "backoff": AT_ONCE}
        async with flavour.pool(log, group="g", handler=handler, **options) as pool:
            await drained(pool)
            [letter] = [letter async for letter in pool.dead_letters()]
            stats = pool.stats()
    assert (letter.event, letter.key, letter.headers) == (-2, "two", {"h": "v"})
    assert (letter.seq_no, letter.deliveries, letter.group) == (2, 3, "g")
    assert (letter.error, letter.exit_code) == ("ValueError: no -2", None)
    assert letter.traceback is not None
    assert "in fail_if_negative" in letter.traceback
    assert letter.traceback.rstrip().endswith("ValueError: no -2")
    assert letter.failed_at.tzinfo is not None
    assert Counter(record.numbers("began")) == {1: 1, -2: 3, 3: 1}
    assert (stats.handled, stats.failed, stats.retried, stats.lag) == (2, 3, 2, 0)


async def test_events_of_a_key_are_handled_in_order(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        async with log.publisher() as publisher:
            for number in range(200):
                await publisher.send(number, key=f"k{number % 5}")
        handler = partial(handlers.work, record)
        options: dict[str, Any] = {"processes": 2, "ordering": "key"}
        async with flavour.pool(log, group="g", handler=handler, **options) as pool:
            await drained(pool)
    by_key = in_order_by_key(record.lines())
    assert by_key == {f"k{key}": list(range(key, 200, 5)) for key in range(5)}


async def test_results_go_to_the_log_that_was_given(
    flavour: Flavour, log_path: str, tmp_path: Path, record: Record
) -> None:
    output_path = str(tmp_path / "output")
    async with flavour.open(log_path) as log, flavour.open(output_path) as output:
        await log.append_many(range(30))
        handler = partial(handlers.result_of, record)
        options: dict[str, Any] = {"processes": 2, "output": output}
        async with flavour.pool(log, group="g", handler=handler, **options) as pool:
            await drained(pool)
            results = await stored(output)
            assert await log.last_seq_no() == 30
    assert sorted(result["of"] for result in results) == list(range(30))


async def test_results_on_the_same_log_are_there_once_and_not_handed_out(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        await log.append_many(range(30))
        handler = partial(handlers.result_of, record)
        options: dict[str, Any] = {"processes": 2, "output": log}
        async with flavour.pool(log, group="g", handler=handler, **options) as pool:
            await drained(pool)
            await drained(pool)
            stats = pool.stats()
        events = await stored(log)
    assert events[:30] == list(range(30))
    assert sorted(result["of"] for result in events[30:]) == list(range(30))
    assert sorted(record.numbers("began")) == list(range(30))
    assert (stats.handled, stats.lag) == (30, 0)


async def test_leaving_lets_handlers_end_and_gives_the_rest_back(
    flavour: Flavour, log_path: str, record: Record, gate: Path
) -> None:
    async with flavour.open(log_path) as log:
        await log.append_many(range(50))
        handler = partial(handlers.pass_gate, record, str(gate))
        async with flavour.pool(log, group="g", handler=handler, processes=2) as pool:
            await until_noted(record, "began", 2)
            assert (pool.stats().in_flight, pool.stats().lag) == (2, 50)
            assert all(worker.busy for worker in pool.stats().workers)

            async with anyio.create_task_group() as tasks:
                # Opened when leaving has begun, or a little before: it ends in order either way.
                tasks.start_soon(anyio.Path(gate).touch)
        begun, done = record.numbers("began"), record.numbers()
        assert Counter(done) == Counter(begun), "what was begun was ended"
        again = partial(handlers.note, record)
        async with flavour.pool(log, group="g", handler=again, processes=2) as pool:
            await drained(pool)
            assert pool.stats().failed == 0
            assert [letter async for letter in pool.dead_letters()] == []
    assert sorted(record.numbers()) == list(range(50)), "each once, over both pools"


async def test_leaving_does_not_wait_longer_than_it_was_told(
    flavour: Flavour, log_path: str, record: Record, gate: Path
) -> None:
    async with flavour.open(log_path) as log:
        await log.append_many(range(4))
        handler = partial(handlers.pass_gate, record, str(gate))
        options: dict[str, Any] = {"processes": 2, "stop_s": 0.2, "max_deliveries": 1}
        with anyio.fail_after(handlers.GATE_S / 2):
            async with flavour.pool(log, group="g", handler=handler, **options) as pool:
                await until_noted(record, "began", 2)
                pids = [worker.pid for worker in pool.stats().workers]
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        again = partial(handlers.note, record)
        options |= {"processes": 1}
        async with flavour.pool(log, group="g", handler=again, **options) as pool:
            await drained(pool)
            dead = [letter async for letter in pool.dead_letters()]
    # To leave a pool is no failed delivery: what was killed for that has its one delivery still.
    assert dead == []
    assert sorted(record.numbers()) == list(range(4))


@pytest.mark.parametrize(
    ("initializer", "error"),
    [
        (handlers.initialize_badly, "RuntimeError: no database here"),
        (handlers.exit_at_start, "no licence"),
        (handlers.segfault_at_start, "SIGSEGV"),
    ],
)
async def test_workers_that_cannot_start_fail_the_pool_with_the_real_error(
    flavour: Flavour, log_path: str, record: Record, initializer: Any, error: str
) -> None:
    async with flavour.open(log_path) as log:
        await log.append(1)
        options: dict[str, Any] = {"processes": 2, "initializer": initializer}
        with anyio.fail_after(WAIT_S), pytest.raises(PoolFailed, match=error) as caught:
            async with flavour.pool(
                log, group="g", handler=partial(handlers.note, record), **options
            ):
                pytest.fail("the pool has started")
        assert isinstance(caught.value, PoolError)
        if initializer is handlers.initialize_badly:
            assert "in initialize_badly" in (caught.value.worker_traceback or "")
        async with flavour.pool(
            log, group="g", handler=partial(handlers.note, record), processes=1
        ) as pool:
            await drained(pool)
    assert record.numbers() == [1]


async def test_an_output_that_cannot_be_opened_fails_the_pool_with_the_real_error(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        options: dict[str, Any] = {"processes": 1, "output": "/dev/null/output"}
        with anyio.fail_after(WAIT_S), pytest.raises(PoolFailed, match="/dev/null") as caught:
            async with flavour.pool(
                log, group="g", handler=partial(handlers.note, record), **options
            ):
                pytest.fail("the pool has started")
    assert "Traceback" in (caught.value.worker_traceback or "")


async def test_a_pool_whose_workers_cannot_start_any_more_fails_whoever_waits(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        await log.append_many(["kill", 1, 2, 3])
        options: dict[str, Any] = {
            "processes": 2,
            "initializer": partial(handlers.start_only_twice, record),
        }
        with (  # noqa: PT012 - either line of the block may raise it
            anyio.fail_after(WAIT_S),
            pytest.raises(PoolFailed, match="database has gone away"),
        ):
            async with flavour.pool(
                log, group="g", handler=partial(handlers.go_wrong, record), **options
            ) as pool:
                # The event that kills goes round until both workers are dead and none can start.
                await pool.drained()
                pytest.fail("there is nobody who could have handled them")


async def test_an_error_in_the_block_comes_out_as_it_is(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        await log.append_many(range(5))
        with pytest.raises(ZeroDivisionError):
            async with flavour.pool(
                log, group="g", handler=partial(handlers.note, record), processes=1
            ):
                _ = 1 // 0
        assert await log.append("the log goes on") == 6


async def test_cancelling_a_block_leaves_no_process(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    if flavour.is_blocking:
        pytest.skip("what has no loop cannot be cancelled")
    async with flavour.open(log_path) as log:
        await log.append_many(range(10))
        handler = partial(handlers.sleep, record, 0.05)
        with anyio.CancelScope() as scope:
            async with flavour.pool(log, group="g", handler=handler, processes=2) as pool:
                pids = [worker.pid for worker in pool.stats().workers]
                scope.cancel()
                await pool.drained()
        assert scope.cancelled_caught
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_pool_can_be_cancelled_at_every_await(log_path: str, anyio_backend: str) -> None:
    class CancelAt(trio.abc.Instrument):
        def __init__(self, step: int, scope: trio.CancelScope) -> None:
            self.task = trio.lowlevel.current_task()
            self.steps_left, self.scope = step, scope

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task is self.task:
                self.steps_left -= 1
                if self.steps_left == 0:
                    self.scope.cancel()

    async with eventlog.open(log_path) as log:
        await log.append_many(range(3))
        step, is_through, opened = 0, False, 0
        while not is_through:
            with trio.CancelScope() as scope:
                trio.lowlevel.add_instrument(instrument := CancelAt(step, scope))
                async with Pool(log, group="g", handler=handlers.nothing, processes=2) as pool:
                    await pool.drained()
                    assert [letter async for letter in pool.dead_letters()] == []
            trio.lowlevel.remove_instrument(instrument)
            is_through = instrument.steps_left > 0
            opened = opened or len(
                descriptors()
            )  # what is kept is open after the first, whole turn
            assert len(descriptors()) == opened
            step += 1
        assert step > 5
        assert await log.append("the log goes on") == 4


async def test_a_log_that_was_deleted_ends_its_pool_with_one_clear_error(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        await log.append(1)
        writer = (await log.status()).writer_pid
        with pytest.raises(LogDeleted, match="was deleted while it"):  # noqa: PT012 - or leaving it
            async with flavour.pool(
                log, group="g", handler=partial(handlers.note, record), processes=1
            ) as pool:
                await drained(pool)
                shutil.rmtree(log_path)
                kill(writer)
                await drained(pool)


async def test_an_async_handler_takes_several_events_at_a_time(
    flavour: Flavour, log_path: str, record: Record
) -> None:
    async with flavour.open(log_path) as log:
        await log.append_many(range(8))
        handler = partial(handlers.meet_async, record, 8)
        options: dict[str, Any] = {"processes": 1, "concurrency": 8}
        async with flavour.pool(log, group="g", handler=handler, **options) as pool:
            await drained(pool)
            assert pool.stats().handled == 8
    assert sorted(record.numbers()) == list(range(8))
