"""Pools from start to end: sharing, replacing workers, statistics, leaving, what is left over."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import eventlog
import workers
from eventlog import (
    InvalidArgument,
    InvalidArgumentType,
    InvalidName,
    SeekPosition,
    WrongEventLoop,
    blocking,
)
from tests.pools import handlers
from tests.pools.parts import (
    descriptors,
    drained,
    ends_within,
    kill,
    marked_workers,
    until,
    until_noted,
    within,
)
from tests.pools.records import Record
from workers import Pool as AsyncPool
from workers import PoolError
from workers.blocking import Pool
from workers.options import PoolOptions


def pids_of(pool: Pool) -> list[int]:
    return [worker.pid for worker in pool.stats().workers]


def has_handled(pool: Pool, number: int) -> bool:
    return pool.stats().handled == number


# --- sharing ---------------------------------------------------------------------------------


def test_two_pools_of_a_group_share_and_two_groups_do_not(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(2))
    handler = partial(handlers.meet, record, 2)
    options: dict[str, Any] = {"processes": 1}
    with (
        Pool(log, group="g", handler=handler, **options) as one,
        Pool(log, group="g", handler=handler, **options) as other,
    ):
        drained(one)
        drained(other)
        assert (one.stats().handled, other.stats().handled) == (1, 1)
    with Pool(log, group="h", handler=partial(handlers.note, record), **options) as pool:
        drained(pool)
        assert pool.stats().handled == 2
    assert sorted(record.numbers()) == [0, 0, 1, 1]


def test_idle_workers_take_what_a_straggler_has_not_begun(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    """By then leases are large, so the straggler has many events behind the one it is stuck in."""
    log.append_many(range(2_000))
    handler = partial(handlers.gate_at, record, str(gate), 1_000)
    with Pool(log, group="g", handler=handler, processes=2) as pool:
        until_noted(record, "did", 1_999)
        assert (pool.stats().in_flight, 1_000 in record.numbers()) == (1, False)
        gate.touch()
        drained(pool)
        assert pool.stats().failed == 0
    assert Counter(record.numbers()) == Counter(range(2_000))


def test_a_worker_that_joins_later_gets_its_share(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    log.append_many(range(100))
    options: dict[str, Any] = {"processes": 1}
    handler = partial(handlers.pass_gate, record, str(gate))
    with Pool(log, group="g", handler=handler, **options) as stuck:
        until_noted(record, "began")
        with Pool(log, group="g", handler=partial(handlers.note, record), **options) as pool:
            until(lambda: pool.stats().handled == 99)
        gate.touch()
        drained(stuck)
        assert stuck.stats().handled == 1
    assert sorted(record.numbers()) == list(range(100))


def test_an_event_of_a_killed_worker_runs_elsewhere_at_once(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    """Within 50 ms is the goal; a busy machine is given ten times that."""
    handler = partial(handlers.pass_gate, record, str(gate))
    with Pool(log, group="g", handler=handler, processes=2) as pool:
        log.append(1)
        until_noted(record, "began")
        [busy] = [worker.pid for worker in pool.stats().workers if worker.busy]
        begun_s = time.monotonic()
        kill(busy)
        until_noted(record, "began", 2)
        assert time.monotonic() - begun_s < 0.5
        gate.touch()
        drained(pool)
        until(lambda: busy not in pids_of(pool))
        stats = pool.stats()
    assert (record.numbers("began"), record.numbers()) == ([1, 1], [1])
    assert (stats.handled, stats.failed, stats.retried) == (1, 1, 1)
    assert sorted(worker.restarts for worker in stats.workers) == [0, 1]
    by_pid = [int(line[2]) for line in record.lines() if line[0] == "began"]
    assert by_pid[0] == busy != by_pid[1]


def test_of_events_in_the_lease_of_a_killed_worker_only_the_running_one_counts(
    log: blocking.EventLog, record: Record
) -> None:
    """One delivery is all they have: one that was leased and not begun must not lose it."""
    log.append_many(range(600))
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 1}
    with Pool(log, group="g", handler=partial(handlers.die_at, record, 400), **options) as pool:
        drained(pool)
        [letter] = pool.dead_letters()
        assert (pool.stats().handled, pool.stats().failed) == (599, 1)
    assert (letter.event, letter.exit_code) == (400, -signal.SIGKILL)
    assert Counter(record.numbers("began")) == Counter(range(600)), "each was begun once"


def test_drained_is_about_what_was_appended_before_it(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    """Handlers that append go on for ever; the wait ends all the same."""
    log.append(0)
    handler = partial(handlers.append_next, record, log.path, str(gate))
    with Pool(log, group="g", handler=handler, processes=1) as pool:
        drained(pool)
        assert record.numbers()[0] == 0
        within(20, pool.drained)
        gate.touch()
        until(lambda: pool.stats().lag == 0)
    assert record.numbers() == list(range(len(record.numbers())))


def test_several_threads_may_wait(log: blocking.EventLog, record: Record, gate: Path) -> None:
    log.append_many(range(3))
    handler = partial(handlers.pass_gate, record, str(gate))
    with Pool(log, group="g", handler=handler, processes=1) as pool:
        threads = [threading.Thread(target=pool.drained, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        until_noted(record, "began")
        assert all(thread.is_alive() for thread in threads)
        gate.touch()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def test_a_group_goes_on_where_it_was_and_a_new_one_where_it_is_told(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(10))
    options: dict[str, Any] = {"processes": 1, "handler": partial(handlers.note, record)}
    with Pool(log, group="g", position=SeekPosition.sequence(8), **options) as pool:
        drained(pool)
    log.append(10)
    with Pool(log, group="g", position=SeekPosition.BEGINNING, **options) as pool:
        drained(pool)
    assert record.numbers() == [7, 8, 9, 10], "a position that a group has is kept"
    with Pool(log, group="new", position=SeekPosition.LATEST, **options) as pool:
        drained(pool)
        log.append(11)
        drained(pool)
    assert record.numbers()[4:] == [11]


def test_seek_moves_a_group_back(log: blocking.EventLog, record: Record) -> None:
    log.append_many(range(10))
    with Pool(log, group="g", handler=partial(handlers.note, record), processes=1) as pool:
        drained(pool)
        log.seek("g", SeekPosition.sequence(6))
        drained(pool)
    assert record.numbers() == [*range(10), *range(5, 10)]


# --- replacing workers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "at_most"),
    [
        ({"max_events_per_worker": 1}, 1),
        ({"max_events_per_worker": 2, "concurrency": 2}, 3),
        ({"max_events_per_worker": 2, "ordering": "key"}, 2),
    ],
    ids=["one", "together", "by key"],
)
def test_a_backlog_never_strands_though_workers_do_little_each(
    log: blocking.EventLog, record: Record, options: dict[str, Any], at_most: int
) -> None:
    with log.publisher() as publisher:
        for number in range(6):
            publisher.send(number, key=f"k{number % 2}")
    with Pool(
        log, group="g", handler=partial(handlers.note, record), processes=1, **options
    ) as pool:
        drained(pool)
        stats = pool.stats()
    assert Counter(record.numbers()) == Counter(range(6))
    by_pid = Counter(line[2] for line in record.lines() if line[0] == "did")
    assert max(by_pid.values()) <= at_most
    assert (stats.handled, stats.failed) == (6, 0)
    assert stats.workers[0].restarts >= len(by_pid) - 1


def test_a_replacement_is_started_before_the_old_worker_leaves(
    log: blocking.EventLog, record: Record
) -> None:
    """A worker that comes to its 20th event does not end it alone; another one is told to leave."""
    log.append_many(range(40))
    options: dict[str, Any] = {"processes": 1, "max_events_per_worker": 20}
    options |= {"initializer": partial(handlers.note_birth, record)}
    handler = partial(handlers.wait_for_a_birth_at_the_end, record, 20)
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
        assert pool.stats().failed == 0
    assert len(set(record.numbers("born"))) > 1


@pytest.mark.parametrize("limit", [{"max_age_s": 0.3}, {"max_rss_bytes": 128 << 20}])
def test_workers_are_replaced_for_age_and_memory(
    log: blocking.EventLog, record: Record, limit: dict[str, Any]
) -> None:
    log.append_many(range(12))
    handler = partial(handlers.sleep_pid, record, 0.1)
    if "max_rss_bytes" in limit:
        handler = partial(handlers.leak, record)
    with Pool(log, group="g", handler=handler, processes=1, **limit) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
        assert pool.stats().workers[0].restarts > 0
    assert sorted(record.numbers()) == list(range(12))
    assert len({line[2] for line in record.lines()}) > 1


def test_a_pool_outlives_the_death_of_all_its_workers_again_and_again(
    log: blocking.EventLog, record: Record
) -> None:
    with Pool(log, group="g", handler=partial(handlers.note, record), processes=2) as pool:
        for number in range(3):
            for pid in pids_of(pool):
                kill(pid)
            log.append(number)
            drained(pool)
            # The log knows what a worker did before the pool hears of it.
            until(partial(has_handled, pool, number + 1))
        stats = pool.stats()
    assert record.numbers() == [0, 1, 2]
    assert (stats.handled, stats.failed) == (3, 0)


# --- statistics ------------------------------------------------------------------------------


def test_statistics_are_of_this_moment(log: blocking.EventLog, record: Record, gate: Path) -> None:
    log.append_many([-1, 0, 1, 2])
    handler = partial(handlers.fail_or_pass, record, str(gate))
    with Pool(log, group="g", handler=handler, processes=2, max_deliveries=1) as pool:
        until_noted(record, "began", 2)
        until(lambda: pool.stats().failed == 1)
        stats = pool.stats()
        assert (stats.handled, stats.retried, stats.in_flight) == (0, 0, 2)
        assert [worker.busy for worker in stats.workers] == [True, True]
        assert 3 <= stats.lag <= 4
        assert {worker.pid for worker in stats.workers} == {
            int(line[2]) for line in record.lines() if line[0] == "began"
        }
        assert "g" in repr(pool)
        gate.touch()
        drained(pool)
        until(lambda: not any(worker.busy for worker in pool.stats().workers))
        stats = pool.stats()
        assert (stats.handled, stats.failed, stats.in_flight, stats.lag) == (3, 1, 0, 0)
        with pytest.raises(AttributeError):
            stats.handled = 7  # type: ignore[misc]
    assert pool.stats().handled == 3, "they stay after the end"


def test_what_workers_log_appears_here(
    log: blocking.EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(event: int) -> None:
        logging.getLogger("mine").info("handling %d", event)

    log.append(7)
    with (
        caplog.at_level(logging.INFO),
        Pool(log, group="g", handler=handle, processes=1) as pool,
    ):
        drained(pool)
    [entry] = [one for one in caplog.records if one.name == "mine"]
    assert entry.getMessage() == "handling 7"
    assert (vars(entry)["group"], vars(entry)["worker"]) == ("g", "g/0")
    # They were of the moment at which the pool got the record.
    assert entry.msecs == int(entry.created % 1 * 1000)


def test_a_signal_handler_may_log_in_a_worker(
    log: blocking.EventLog, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    log.append(1)
    handler = partial(handlers.log_in_a_signal_handler, record)
    with (
        caplog.at_level(logging.WARNING),
        Pool(log, group="g", handler=handler, processes=1) as pool,
    ):
        drained(pool)
    texts = [one.getMessage() for one in caplog.records if one.name == "mine"]
    assert texts.count("interrupted") > 1
    assert [text for text in texts if text != "interrupted"] == [
        f"line {number} of 1" for number in range(3_000)
    ]


def test_an_idle_pool_uses_no_cpu(log: blocking.EventLog, record: Record) -> None:
    log.append(1)
    with Pool(log, group="g", handler=partial(handlers.note, record), processes=2) as pool:
        drained(pool)
        writer = log.status().writer_pid
        assert writer is not None
        pids = [writer, *pids_of(pool)]
        before, own_s = sum(map(cpu_ticks, pids)), time.process_time()
        time.sleep(1.5)  # what is measured is that nothing happens in this time
        assert sum(map(cpu_ticks, pids)) - before <= 2
        assert time.process_time() - own_s < 0.05


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# --- the end ---------------------------------------------------------------------------------


def test_nothing_is_left_open_after_pools_with_deaths_and_replacements(
    log: blocking.EventLog, record: Record, log_path: str, mark: str
) -> None:
    def use() -> None:
        options: dict[str, Any] = {"processes": 2, "max_deliveries": 1, "output": log}
        options |= {"timeout": 30.0}
        with Pool(log, group="g", handler=partial(handlers.go_wrong, record), **options) as pool:
            log.append_many([1, "kill", 2, "plain", 3, "exit 7"])
            drained(pool)
            kill(log.status().writer_pid)
            log.append(4)
            drained(pool)
            pids.extend(pids_of(pool))

    pids: list[int] = []
    use()  # what is opened once and kept is open now
    log.status()
    open_before, files_before = descriptors(), set(os.listdir(log_path))
    threads_before = threading.active_count()
    for _ in range(2):
        use()
    log.status()
    assert Counter(map(kind_of, descriptors().values())) == Counter(
        map(kind_of, open_before.values())
    )
    assert threading.active_count() <= threads_before
    assert set(os.listdir(log_path)) == files_before
    assert marked_workers(mark) == []
    for pid in pids:
        assert ends_within(pid, 0.0)
    assert "/memfd:" not in Path("/proc/self/maps").read_text()


def kind_of(target: str) -> str:
    """What a descriptor is, without its number."""
    return target.partition(":")[0]


def test_workers_end_though_a_handler_left_a_thread_that_never_does(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(3))
    handler = partial(handlers.leave_a_thread, record)
    with Pool(log, group="g", handler=handler, processes=1, stop_s=1.0) as pool:
        drained(pool)
        begun_s = time.monotonic()
        pids = pids_of(pool)
    assert time.monotonic() - begun_s < 5
    for pid in pids:
        assert ends_within(pid, 0.0)
    assert record.numbers() == [0, 1, 2]


def test_a_worker_that_is_told_to_end_by_somebody_else_is_replaced(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    """As `systemctl stop` and shells do, which signal every process: what runs ends in order."""
    log.append(1)
    handler = partial(handlers.pass_gate, record, str(gate))
    with Pool(log, group="g", handler=handler, processes=1) as pool:
        until_noted(record, "began")
        [pid] = pids_of(pool)
        for number in (signal.SIGINT, signal.SIGTERM):
            kill(pid, number)
        assert not ends_within(pid, 0.2)
        gate.touch()
        drained(pool)
        assert ends_within(pid)
        log.append(2)
        drained(pool)
        assert pids_of(pool) != [pid]
        assert (pool.stats().handled, pool.stats().failed) == (2, 0)
    assert (record.numbers("began"), record.numbers()) == ([1, 2], [1, 2])


def test_workers_are_named_in_the_list_of_processes(log: blocking.EventLog, record: Record) -> None:
    with Pool(log, group="sizes", handler=partial(handlers.note, record), processes=2) as pool:
        lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids_of(pool)]
        names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids_of(pool)]
    assert ["sizes/0" in lines[0], "sizes/1" in lines[1]] == [True, True]
    assert names == ["sizes/0", "sizes/1"]


def test_a_pool_is_used_once(log: blocking.EventLog, record: Record, mark: str) -> None:
    pool = Pool(log, group="g", handler=partial(handlers.note, record), processes=1)
    with pool:
        drained(pool)
    with pytest.raises(PoolError), pool:
        pytest.fail("the pool has started again")
    assert marked_workers(mark) == []


def test_a_pool_that_is_not_entered_or_has_ended_says_so(
    log: blocking.EventLog, record: Record
) -> None:
    pool = Pool(log, group="g", handler=partial(handlers.note, record), processes=1)
    calls = (pool.drained, pool.run_forever, pool.kill, pool.dead_letters)
    for call in (*calls, pool.stats):
        with pytest.raises(PoolError, match="enter it first"):
            call()
    with pool:
        drained(pool)
    for call in calls:
        with pytest.raises(PoolError, match="has ended"):
            call()
    # Whoever asked a pool to run that had ended could not be interrupted any more.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    "options",
    [
        {"log": "images"},
        {"log": None},
        {"output": 7},
        {"backoff": 0.5},
        {"processes": 2.0},
        {"concurrency": True},
        {"timeout": "1"},
        {"stop_s": None},
        {"max_age_s": "1"},
    ],
    ids=str,
)
def test_options_of_the_wrong_type_are_refused(
    log: blocking.EventLog, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgumentType):
        Pool(**{"log": log, "group": "g", "handler": handlers.itself, **options})


@pytest.mark.trio
async def test_each_kind_of_log_is_sent_to_its_kind_of_pool(log: blocking.EventLog) -> None:
    other: Any = eventlog.open(log.path)
    with pytest.raises(InvalidArgumentType, match=r"workers\.Pool"):
        Pool(other, group="g", handler=handlers.itself)
    with pytest.raises(InvalidArgumentType, match=r"workers\.blocking\.Pool"):
        AsyncPool(log, group="g", handler=handlers.itself)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"processes": -1},
        {"max_deliveries": 0},
        {"concurrency": 0},
        {"timeout": -0.1},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"stop_s": -1},
        {"max_events_per_worker": 0},
        {"max_rss_bytes": -1},
        {"max_age_s": float("nan")},
        {"ordering": "keys"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(
    log: blocking.EventLog, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument):
        Pool(log, group="g", handler=handlers.itself, **options)


def test_names_and_logs_that_make_no_sense_are_refused(log: blocking.EventLog) -> None:
    with pytest.raises(InvalidName), Pool(log, group="", handler=handlers.itself):
        pytest.fail("the pool has started")
    with blocking.open("memory:") as memory:
        for events, output in ((memory, None), (log, memory)):
            with pytest.raises(InvalidArgument, match="memory"):
                Pool(events, group="g", handler=handlers.itself, output=output)


def test_both_pools_take_the_same() -> None:
    taken = inspect.signature(workers.Pool).parameters.keys() - {"log"}
    assert PoolOptions.__annotations__.keys() == taken


def test_thousands_of_trivial_events_are_each_handled_once(
    log: blocking.EventLog,
) -> None:
    log.append_many(range(20_000))
    with Pool(log, group="g", handler=handlers.nothing, processes=2) as pool:
        drained(pool)
        stats = pool.stats()
    assert (stats.handled, stats.failed, stats.lag) == (20_000, 0, 0)
    [consumer] = log.consumers()
    assert consumer.last_acked == 20_000


def test_a_blocking_pool_works_where_asyncio_runs_as_in_a_notebook(
    log: blocking.EventLog,
) -> None:
    # It never began, as parts of it belonged to the event loop of the caller.
    log.append_many(range(3))

    async def cell() -> int:
        with Pool(log, group="g", handler=handlers.nothing, processes=1) as pool:
            drained(pool)
        return pool.stats().handled

    assert asyncio.run(cell()) == 3


def test_a_blocking_pool_is_refused_in_a_task_of_trio_and_works_in_a_thread(
    log: blocking.EventLog,
) -> None:
    def handled() -> int:
        with Pool(log, group="g", handler=handlers.nothing, processes=0) as pool:
            drained(pool)
        return pool.stats().handled

    async def main() -> int:
        with pytest.raises(WrongEventLoop, match=r"use workers\.Pool"):  # it hung
            handled()
        log.append(1)
        return await trio.to_thread.run_sync(handled)

    assert trio.run(main) == 1
