"""Pools in processes of their own: several in a group, signals, and the death of a parent."""

from __future__ import annotations

import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eventlog import blocking
from tests.pools import handlers
from tests.pools.parts import (
    Parent,
    drained,
    ends_within,
    kill,
    marked_workers,
    parent,
    until,
    until_noted,
)
from tests.pools.records import Record
from workers.blocking import Pool

SIGNALS = pytest.mark.parametrize(
    ("number", "loop"),
    [
        (signal.SIGTERM, "blocking"),
        (signal.SIGINT, "trio"),
        (signal.SIGTERM, "asyncio"),
        pytest.param(signal.SIGINT, "blocking", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "trio", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "asyncio", marks=pytest.mark.slow),
    ],
)


def ready(running: Parent) -> list[int]:
    """Wait for the pool of the process: the pids of its workers."""
    word, *pids = running.line()
    assert word == "ready"
    return [int(pid) for pid in pids]


def drain_here(log: blocking.EventLog, record: Record, **options: Any) -> Pool:
    """Handle whatever is left, with a pool of this process; the pool, after its end."""
    arguments: dict[str, Any] = {"processes": 1} | options
    with Pool(log, group="g", handler=partial(handlers.note, record), **arguments) as pool:
        drained(pool)
    return pool


def test_pools_of_several_processes_share_a_group(
    log: blocking.EventLog, log_path: str, record: Record, gate: Path
) -> None:
    log.append_many(range(8))
    with (
        parent("gated", log_path, record.path, gate, 10) as one,
        parent("gated", log_path, record.path, gate, 10) as other,
    ):
        pids = [*ready(one), *ready(other)]
        until_noted(record, "began", 4)
        assert sorted(int(line[2]) for line in record.lines()) == sorted(pids)
        gate.touch()
        until_noted(record, "did", 8)
        for running in (one, other):
            kill(running.pid, signal.SIGTERM)
            assert running.line() == ["stopping"]
            assert running.line() == ["stopped"]
            assert running.end() == 0
    assert Counter(record.numbers("began")) == Counter(range(8))


@SIGNALS
def test_a_signal_to_all_of_a_terminals_processes_drains_and_ends(
    log: blocking.EventLog, record: Record, gate: Path, loop: str, number: signal.Signals
) -> None:
    """Ctrl-C reaches the workers too; what they were doing ends in order all the same."""
    log.append_many(range(6))
    with parent("gated", log.path, record.path, gate, 60, loop) as running:
        pids = ready(running)
        until_noted(record, "began", 2)
        os.killpg(running.pid, number)
        assert running.line() == ["stopping"]
        assert not record.numbers(), "it waits for them"
        gate.touch()
        assert running.line() == ["stopped"]
        assert running.end() == 0
        assert all(ends_within(pid, 0.0) for pid in pids)
    handled = record.numbers()
    assert sorted(handled) == sorted(record.numbers("began")), "what was begun was ended"
    rest = drain_here(log, record)
    assert (rest.stats().handled, rest.stats().failed) == (6 - len(handled), 0)
    assert Counter(record.numbers("began")) == Counter(record.numbers()) == Counter(range(6))


@SIGNALS
def test_a_second_signal_kills_the_workers_and_nothing_else(
    log: blocking.EventLog, record: Record, gate: Path, loop: str, number: signal.Signals
) -> None:
    """The pool is left then, as after the first one, and the program goes on."""
    log.append_many(range(6))
    with parent("gated", log.path, record.path, gate, 90, loop) as running:
        pids = ready(running)
        until_noted(record, "began", 2)
        kill(running.pid, number)
        assert running.line() == ["stopping"]
        kill(running.pid, number)
        assert running.line() == ["stopped"]
        assert running.end() == 0
        assert all(ends_within(pid, 0.0) for pid in pids)
    assert record.numbers() == []
    drain_here(log, record)
    assert sorted(record.numbers()) == list(range(6))


def test_ctrl_c_in_a_script_lets_handlers_end_and_a_second_one_kills(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    """Neither leaves a process or a thread that keeps the script from ending."""
    log.append_many(range(2))
    with parent("drain", log.path, record.path, gate, "run") as running:
        assert running.line() == ["entered"], "handlers may begin before that"
        until_noted(record, "began", 2)
        kill(running.pid, signal.SIGINT)
        assert running.line() == ["leaving"]
        kill(running.pid, signal.SIGINT)
        assert running.line() == ["interrupted"]
        assert running.end() == 0
    assert record.numbers() == []
    drain_here(log, record)
    assert sorted(record.numbers()) == [0, 1]


def test_ctrl_c_while_workers_start_ends_them(
    log: blocking.EventLog, record: Record, gate: Path, mark: str
) -> None:
    with parent("drain", log.path, record.path, gate, "start") as running:
        until_noted(record, "began", 2)
        kill(running.pid, signal.SIGINT)
        assert running.line() == ["interrupted"]
        assert running.end() == 0
        assert marked_workers(mark) == []
    assert record.numbers() == []


def test_workers_die_with_a_parent_that_is_killed_and_others_go_on(
    log: blocking.EventLog, log_path: str, record: Record, gate: Path, mark: str
) -> None:
    log.append_many(range(8))
    with parent("gated", log_path, record.path, gate, 10) as running:
        pids = ready(running)
        until_noted(record, "began", 2)
        held = record.numbers("began")
        with Pool(log, group="g", handler=partial(handlers.note, record), processes=1) as pool:
            until(lambda: pool.stats().handled == 6)
            running.process.kill()
            assert all(ends_within(pid, 5.0) for pid in pids)
            drained(pool)
            assert pool.stats().handled == 8
            assert list(pool.dead_letters()) == []
        until(lambda: not marked_workers(mark))
    began = Counter(record.numbers("began"))
    assert began == Counter([*range(8), *held]), "twice only what the dead had begun"
    assert Counter(record.numbers()) == Counter(range(8))


@pytest.mark.parametrize("is_there", [True, False], ids=["beside", "after"])
def test_what_died_with_its_pool_for_the_last_time_is_a_dead_letter_of_another(
    log: blocking.EventLog, log_path: str, record: Record, gate: Path, is_there: bool
) -> None:
    """There is nobody left who knows how the worker ended; that must not hold up the group."""
    log.append_many(range(8))
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 1}
    with parent("gated", log_path, record.path, gate, 10, "blocking", 1) as running:
        ready(running)
        until_noted(record, "began", 2)
        held = record.numbers("began")
        if not is_there:
            running.process.kill()
            running.end()
        handler = partial(handlers.note, record)
        with Pool(log, group="g", handler=handler, **options) as pool:
            running.process.kill()
            drained(pool)
            letters = list(pool.dead_letters())
    assert sorted(letter.event for letter in letters) == sorted(held)
    for letter in letters:
        assert letter.deliveries == 1
        assert "worker" in letter.error
    assert sorted([*record.numbers(), *held]) == list(range(8))


def test_a_parent_killed_while_it_starts_leaves_nothing(
    log: blocking.EventLog, log_path: str, record: Record, gate: Path, mark: str
) -> None:
    """At the moment when its first worker is seen: that one has hardly begun to live."""
    log.append(1)
    with parent("gated", log_path, record.path, gate, 10) as running:
        until(lambda: marked_workers(mark))
        running.process.kill()
        running.end()
        until(lambda: not marked_workers(mark), 10)
    drain_here(log, record)
    assert record.numbers() == [1]
