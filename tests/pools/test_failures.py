"""Events that go wrong: each in its own way, none of them at the cost of another event."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from eventlog import blocking
from eventlog.local.groups import stored
from tests.pools import handlers
from tests.pools.parts import AT_ONCE, WAIT_S, drained, kill, until, until_noted
from tests.pools.records import Record
from workers import Backoff, DeadLetter
from workers.blocking import Pool
from workers.relay import RELAY

EXCEPTIONS = {
    "plain": r"ValueError: boom",
    "chained": r"LookupError: the consequence",
    "group": r"ExceptionGroup: both \(2 sub-exceptions\)",
    "surrogates": r"ValueError: odd .* name",
    "huge": r"ValueError: xxx",
    "recursion": r"RecursionError",
    "exit": r"SystemExit: enough",
    "exit zero": r"SystemExit",
    "interrupt": r"KeyboardInterrupt",
    "base": r"BaseException: base",
    "generator exit": r"GeneratorExit",
    "memory": r"MemoryError",
    "stop iteration": r"StopIteration: stop",
    "os error": r"FileNotFoundError: .*/no/such/file",
}
DEATHS = {
    "exit 7": ("the worker exited with code 7", 7),
    "exit 0": ("the worker exited with code 0", 0),
    "kill": ("the worker was killed by SIGKILL", -signal.SIGKILL),
    "abort": ("the worker was killed by SIGABRT", -signal.SIGABRT),
    "segfault": ("the worker was killed by SIGSEGV", -signal.SIGSEGV),
    "null": ("the worker was killed by SIGSEGV", -signal.SIGSEGV),
}


def letters_of(pool: Pool) -> dict[Any, DeadLetter]:
    """By event; no event is dead twice."""
    letters = list(pool.dead_letters())
    found = {letter.event: letter for letter in letters}
    assert len(found) == len(letters)
    return found


def mixed(names: Any) -> list[Any]:
    """The names, each between numbers that nothing is wrong with."""
    events: list[Any] = []
    for number, name in enumerate(names):
        events += [2 * number, name, 2 * number + 1]
    return events


def test_no_exception_of_whatever_kind_ends_its_worker(
    log: blocking.EventLog, record: Record
) -> None:
    assert EXCEPTIONS.keys() | {"unprintable"} == handlers.EXCEPTIONS.keys()
    log.append_many(mixed(EXCEPTIONS))
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 2, "backoff": AT_ONCE}
    with Pool(log, group="g", handler=partial(handlers.go_wrong, record), **options) as pool:
        drained(pool)
        letters, stats = letters_of(pool), pool.stats()
    assert letters.keys() == EXCEPTIONS.keys()
    for name, pattern in EXCEPTIONS.items():
        letter = letters[name]
        assert re.match(pattern, letter.error), letter.error[:200]
        assert "\n" not in letter.error
        assert len(letter.error) < 64_000
        assert letter.traceback, name
        assert "Traceback" in letter.traceback or len(letter.traceback) > 8_000, name
        assert (letter.deliveries, letter.exit_code) == (2, None)
    assert "the cause" in (letters["chained"].traceback or "")
    assert "TypeError: two" in (letters["group"].traceback or "")
    assert sorted(record.numbers()) == list(range(2 * len(EXCEPTIONS)))
    assert [worker.restarts for worker in stats.workers] == [0]
    assert (stats.failed, stats.retried) == (2 * len(EXCEPTIONS), len(EXCEPTIONS))


def test_an_exception_that_has_no_words_is_an_exception_too(
    log: blocking.EventLog, record: Record
) -> None:
    """Its `__str__` raises: that must not end the worker, nor hide what kind it is."""
    log.append_many([1, "unprintable", 2])
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 2, "backoff": AT_ONCE}
    with Pool(log, group="g", handler=partial(handlers.go_wrong, record), **options) as pool:
        drained(pool)
        [letter] = pool.dead_letters()
        assert [worker.restarts for worker in pool.stats().workers] == [0]
    assert "Unprintable" in letter.error
    assert "in go_wrong" in (letter.traceback or "")
    assert sorted(record.numbers()) == [1, 2]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_handler_of_which_nothing_has_run_has_not_handled_its_event(
    log: blocking.EventLog, record: Record, concurrency: int
) -> None:
    """A lambda around a coroutine, or a function with a `yield` in it, would lose every event."""
    log.append_many([1, *handlers.NOT_RUN, 2])
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 1, "concurrency": concurrency}
    handler = partial(handlers.return_what_has_not_run, record)
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
        letters = letters_of(pool)
    assert letters.keys() == handlers.NOT_RUN.keys()
    for name, letter in letters.items():
        by_trio = "appears to be asynchronous"
        assert f"returned a {name}, so nothing" in letter.error or by_trio in letter.error
    assert sorted(record.numbers()) == [1, 2]


def test_every_way_to_die_is_named_and_takes_no_other_event_along(
    log: blocking.EventLog, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    assert DEATHS.keys() == handlers.DEATHS.keys()
    log.append_many(mixed(DEATHS))
    options: dict[str, Any] = {"processes": 2, "max_deliveries": 1}
    with Pool(log, group="g", handler=partial(handlers.go_wrong, record), **options) as pool:
        drained(pool)
        letters, stats = letters_of(pool), pool.stats()
    assert {name: (one.error, one.exit_code) for name, one in letters.items()} == DEATHS
    RELAY.flush(10.0)
    said = [text for text in caplog.messages if "is a dead letter now, after 1 delivery: " in text]
    assert sorted(text.rpartition(": ")[2] for text in said) == sorted(
        e for e, _ in DEATHS.values()
    )
    for letter in letters.values():
        assert (letter.deliveries, letter.traceback) == (1, None)
        assert letter.peak_rss_bytes is not None
        assert 1 << 20 < letter.peak_rss_bytes < 1 << 32
    assert sorted(record.numbers()) == list(range(2 * len(DEATHS)))
    began = Counter(line[1] for line in record.lines() if line[0] == "began")
    assert set(began.values()) == {1}
    assert (stats.handled, stats.failed, stats.retried) == (2 * len(DEATHS), len(DEATHS), 0)
    assert sum(worker.restarts for worker in stats.workers) >= len(DEATHS) - 2


def test_a_handler_that_hangs_is_killed_when_its_time_is_over(
    log: blocking.EventLog, record: Record
) -> None:
    """Also one that holds the interpreter's lock, and one whose process is stopped."""
    log.append_many(mixed(handlers.HANGS))
    options: dict[str, Any] = {"processes": 2, "max_deliveries": 1, "timeout": 0.5}
    with Pool(log, group="g", handler=partial(handlers.go_wrong, record), **options) as pool:
        drained(pool)
        letters = letters_of(pool)
    assert letters.keys() == handlers.HANGS.keys()
    for letter in letters.values():
        assert letter.error == "the worker was killed: over its timeout of 0.5 s"
        assert (letter.deliveries, letter.traceback, letter.exit_code) == (1, None, -9)
    assert sorted(record.numbers()) == list(range(2 * len(handlers.HANGS)))


def test_the_time_limit_is_for_one_event_and_not_for_many(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(30))
    handler = partial(handlers.sleep, record, 0.05)
    with Pool(log, group="g", handler=handler, processes=1, timeout=0.75) as pool:
        drained(pool)
        stats = pool.stats()
    assert record.numbers() == list(range(30))
    assert (stats.failed, [worker.restarts for worker in stats.workers]) == (0, [0])


def test_the_time_limit_holds_for_each_of_several_handlers_at_a_time(
    log: blocking.EventLog, record: Record
) -> None:
    """One hangs while others come and go beside it."""

    def handle(event: int | str) -> None:
        if event == "hangs":
            time.sleep(10 * WAIT_S)
        time.sleep(0.05)
        record.note("did", event)

    log.append_many(["hangs", *range(12)])
    options: dict[str, Any] = {"processes": 1, "concurrency": 2, "max_deliveries": 1}
    with Pool(log, group="g", handler=handle, timeout=0.75, **options) as pool:
        drained(pool)
        letters = letters_of(pool)
        stats = pool.stats()
    assert letters.keys() == {"hangs"}
    assert letters["hangs"].error == "the worker was killed: over its timeout of 0.75 s"
    assert (sorted(set(record.numbers())), stats.handled) == (list(range(12)), 12)


def test_the_time_limit_is_not_for_storing_results(
    log: blocking.EventLog, record: Record, tmp_path: Path
) -> None:
    log.append(1)
    with blocking.open(tmp_path / "output") as output:
        options: dict[str, Any] = {"processes": 1, "timeout": 0.3, "output": output}
        with Pool(log, group="g", handler=partial(handlers.late_result, record), **options) as pool:
            drained(pool)
            writer = output.status().writer_pid
            kill(writer, signal.SIGSTOP)
            log.append(2)
            until_noted(record, "began", 2)
            time.sleep(1.0)  # what is tested is that nothing happens in this time
            kill(writer, signal.SIGCONT)
            drained(pool)
            stats = pool.stats()
    assert record.numbers("began") == [1, 2]
    assert (stats.handled, stats.failed, stats.workers[0].restarts) == (2, 0, 0)


def test_no_timer_takes_work_from_a_live_worker(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    """A worker that is stopped for a while is not dead; others wait in vain for its event."""
    log.append(1)
    handler = partial(handlers.pass_gate, record, str(gate))
    with Pool(log, group="g", handler=handler, processes=2) as pool:
        until_noted(record, "began")
        [busy] = [worker.pid for worker in pool.stats().workers if worker.busy]
        kill(busy, signal.SIGSTOP)
        time.sleep(1.0)  # what is tested is that nothing happens in this time
        assert len(record.numbers("began")) == 1
        kill(busy, signal.SIGCONT)
        gate.touch()
        drained(pool)
        assert pool.stats().failed == 0
    assert (record.numbers("began"), record.numbers()) == ([1], [1])


def test_memory_that_runs_out_is_an_error_of_the_event(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many([1, -1, 2])
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 2, "backoff": AT_ONCE}
    options |= {"initializer": handlers.limit_memory}
    with Pool(log, group="g", handler=partial(handlers.eat_memory, record), **options) as pool:
        drained(pool)
        [letter] = pool.dead_letters()
        assert [worker.restarts for worker in pool.stats().workers] == [0]
    assert (letter.event, letter.error, letter.deliveries) == (-1, "MemoryError", 2)
    assert "eaten.append" in (letter.traceback or "")
    assert sorted(record.numbers()) == [1, 2]


def test_the_wait_before_a_retry_grows_and_holds_up_nobody_else(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many([-1, *range(50)])
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 4}
    options |= {"backoff": Backoff(first_s=0.2, factor=2.0, max_s=0.5, jitter=0.0)}
    handler = partial(handlers.fail_if_negative, record)
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
    lines = record.lines()
    times = [int(line[2]) / 1e9 for line in lines if line[:2] == ["began", "-1"]]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert len(waits) == 3
    for wait, least in zip(waits, (0.2, 0.4, 0.5), strict=True):
        assert least <= wait < least + 2.0
    second = [index for index, line in enumerate(lines) if line[:2] == ["began", "-1"]][1]
    assert sum(line[0] == "did" for line in lines[:second]) == 50, "handled while it waited"


def test_jitter_makes_a_wait_shorter_and_never_longer(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(20))
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 2}
    options |= {"backoff": Backoff(first_s=1.0, jitter=1.0)}
    handler = partial(handlers.fail_first, record, 1)
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
    begun: dict[str, list[float]] = {}
    for line in record.lines():
        if line[0] == "began":
            begun.setdefault(line[1], []).append(int(line[2]) / 1e9)
    waits = sorted(second - first for first, second in begun.values())
    assert waits[0] < 0.9, "of twenty, none was shortened"
    assert waits[-1] - waits[0] > 0.1, "all waited equally long"
    assert waits[-1] < 1.0 + 2.0


def test_an_event_succeeds_at_its_last_delivery(log: blocking.EventLog, record: Record) -> None:
    log.append_many([1, 2])
    options: dict[str, Any] = {"processes": 2, "max_deliveries": 3, "backoff": AT_ONCE}
    handler = partial(handlers.fail_first, record, 2)
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
        stats = pool.stats()
    assert Counter(record.numbers("began")) == {1: 3, 2: 3}
    assert sorted(record.numbers()) == [1, 2]
    assert (stats.handled, stats.failed, stats.retried) == (2, 4, 4)


def test_deliveries_are_counted_over_pools_and_writers(
    log: blocking.EventLog, record: Record
) -> None:
    """Two die with their workers; between them both the pool and the writer end."""
    log.append_many(["kill", 1])
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 3}
    for _ in range(2):
        before = handlers.noted(record, "began", "kill")
        with Pool(log, group="g", handler=partial(handlers.go_wrong, record), **options):
            until(lambda: handlers.noted(record, "began", "kill") > before)  # noqa: B023
        kill(log.status().writer_pid)
    with Pool(log, group="g", handler=partial(handlers.go_wrong, record), **options) as pool:
        drained(pool)
        [letter] = pool.dead_letters()
    assert (letter.event, letter.deliveries) == ("kill", 3)
    assert handlers.noted(record, "began", "kill") == 3
    assert record.numbers() == [1]


def test_what_waits_for_a_retry_outlives_the_writer(log: blocking.EventLog, record: Record) -> None:
    log.append_many(range(10))
    options: dict[str, Any] = {"processes": 2, "max_deliveries": 4}
    options |= {"backoff": Backoff(first_s=0.3, factor=1.0, max_s=0.3, jitter=0.0)}
    with Pool(log, group="g", handler=partial(handlers.fail, record), **options) as pool:
        for times in (10, 20):
            until_noted(record, "began", times)
            kill(log.status().writer_pid)
        drained(pool)
        letters = letters_of(pool)
    assert letters.keys() == set(range(10))
    assert {letter.deliveries for letter in letters.values()} == {4}
    assert Counter(record.numbers("began")) == dict.fromkeys(range(10), 4)


@pytest.mark.parametrize("max_deliveries", [1, 2])
def test_a_failure_counts_though_the_writer_dies_before_it_hears_of_it_and_then_the_worker(
    log: blocking.EventLog, record: Record, gate: Path, max_deliveries: int
) -> None:
    """Nobody who was told is left; but the delivery has begun, so it was one."""
    log.append(1)
    options: dict[str, Any] = {"processes": 1, "max_deliveries": max_deliveries}
    handler = partial(handlers.pass_gate_and_fail, record, str(gate))
    with Pool(log, group="g", handler=handler, backoff=AT_ONCE, **options) as pool:
        until_noted(record, "began")
        writer, worker = log.status().writer_pid, pool.stats().workers[0].pid
        kill(writer, signal.SIGSTOP)
        gate.touch()
        until(lambda: pool.stats().failed == 1)
        kill(writer)
        kill(worker)
        drained(pool)
        [letter] = pool.dead_letters()
    assert letter.deliveries == max_deliveries
    assert len(record.numbers("began")) == max_deliveries


def test_a_letter_tells_the_last_lines_that_the_worker_logged(log: blocking.EventLog) -> None:
    log.append(3, headers={"h": "v"})
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 1}
    with Pool(log, group="g", handler=handlers.log_and_die, **options) as pool:
        drained(pool)
        [letter] = pool.dead_letters()
    assert letter.log_lines[-1] == "WARNING mine: line 99 of 3"
    assert 3 <= len(letter.log_lines) <= 100
    assert (letter.event, letter.headers, letter.exit_code) == (3, {"h": "v"}, 1)


def test_a_child_that_a_handler_left_behind_keeps_nothing_from_others(
    log: blocking.EventLog, record: Record
) -> None:
    """It has copies of the dead worker's pipes, so that nobody sees them closed."""
    log.append(1)
    with Pool(log, group="g", handler=partial(handlers.fork_and_die, record), processes=2) as pool:
        try:
            drained(pool, 15.0)
        finally:
            for child in record.numbers("child"):
                kill(child)
    assert (record.numbers("began"), record.numbers()) == ([1, 1], [1])


@pytest.mark.parametrize("wakes", [False, True], ids=["writer lives", "writer killed"])
def test_a_handler_that_closes_all_descriptors_costs_its_worker_and_no_event(
    log: blocking.EventLog, record: Record, wakes: bool
) -> None:
    """The worker's own pipes are among them; it once waited for ever, alive.

    A writer that ends then wakes the thread that reads from the pipe.
    """
    log.append_many([1, 2])
    writer_pid = log.status().writer_pid if wakes else None
    handler = partial(handlers.close_descriptors, record, writer_pid)
    with Pool(log, group="g", handler=handler, processes=1) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
    assert set(record.numbers()) == {1, 2}


def test_dead_letters_are_read_without_a_writer_and_retried_or_dropped_with_one(
    log: blocking.EventLog, log_path: str, record: Record
) -> None:
    log.append_many([-1, 2, -3])
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 1}
    with Pool(
        log, group="g", handler=partial(handlers.fail_if_negative, record), **options
    ) as pool:
        drained(pool)
        from_pool = list(pool.dead_letters())
    pid = log.status().writer_pid
    assert pid is not None
    log.close()
    os.kill(pid, signal.SIGTERM)
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert list(stored.read_dead_letters(log_path, "g")) == from_pool
    assert [letter.event for letter in from_pool] == [-1, -3]
    [report] = stored.read_groups(log_path)
    assert (report.name, report.dead_letters, report.lag, report.in_flight) == ("g", 2, 0, 0)
    with blocking.open(log_path) as again:
        assert again.drop_dead("g", [3, 99]) == 1
        assert again.retry_dead("g", [1, 2, 3]) == 1
        assert again.retry_dead("g", [1, 2, 3]) == 0, "retrying twice is harmless"
        handler = partial(handlers.note, record)
        with Pool(again, group="g", handler=handler, **options) as pool:
            drained(pool)
            assert list(pool.dead_letters()) == []
    assert sorted(record.numbers()) == [-1, 2]


def test_with_broadcast_each_worker_has_its_own_deliveries(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many([1, "kill", 2])
    options: dict[str, Any] = {"processes": 2, "max_deliveries": 1, "broadcast": True}
    with Pool(log, group="g", handler=partial(handlers.go_wrong, record), **options) as pool:
        drained(pool)
        letters = [(one.group, one.event, one.deliveries) for one in pool.dead_letters()]
    assert sorted(letters) == [("g/0", "kill", 1), ("g/1", "kill", 1)]
    assert sorted(record.numbers()) == [1, 1, 2, 2]
