"""SIGKILL for parents, workers and the writer at random, while thousands of events pass.

Then an audit: every event was handled, again only what was in the hands of the dead, keys in order,
dead letters exact, results there once. When somebody is killed goes by how many events are done,
so that no machine is too fast or too slow for it. The seed is in the test's name.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from eventlog import blocking
from tests.pools import handlers
from tests.pools.parts import (
    AT_ONCE,
    Parent,
    drained,
    in_order_by_key,
    kill,
    marked_workers,
    until,
)
from tests.pools.records import Record
from workers.blocking import Pool

KEYS = 17
slow = pytest.mark.slow


class Cast:
    """Two processes that run a pool of one group each, and a pool of this one."""

    def __init__(self, log: blocking.EventLog, arguments: tuple[object, ...], mark: str) -> None:
        self._log = log
        self._arguments = arguments
        self._mark = mark
        self.parents = [self._start() for _ in range(2)]
        self.deaths = 0
        """Deaths of workers, whoever killed them; the writer's costs no event a second delivery."""

    def _start(self) -> Parent:
        running = Parent("serve", *self._arguments)
        running.line()
        return running

    def kill_one(self, chance: random.Random) -> None:
        role = chance.choice(("writer", "writer", "worker", "worker", "parent"))
        if role == "writer":
            kill(self._log.status().writer_pid)
        elif role == "worker":
            victims = marked_workers(self._mark)
            if victims:
                self.deaths += 1
                kill(chance.choice(victims))
        else:
            index = chance.randrange(len(self.parents))
            # Its workers, and one that may just have been started in the place of another.
            self.deaths += 2
            self.parents[index].close()
            self.parents[index] = self._start()

    def close(self) -> None:
        for running in self.parents:
            running.close()


def play(
    cast: Cast, pool: Pool, progress: Callable[[], int], total: int, chance: random.Random
) -> int:
    """Kill until the end is near, then wait for it; how many workers died."""
    try:
        goal = 0
        while (goal := goal + chance.randrange(60, 240)) < total - 100:
            until(lambda: progress() >= goal, 60)
            cast.kill_one(chance)
        drained(pool, 90)
    finally:
        cast.close()
    return cast.deaths


@pytest.mark.parametrize(
    ("seed", "total"),
    [(1, 900), *[pytest.param(seed, 8_000, marks=slow) for seed in range(10, 16)]],
)
@pytest.mark.timeout(300)
def test_every_event_is_handled_in_the_order_of_its_key_whoever_is_killed(
    log: blocking.EventLog, log_path: str, record: Record, mark: str, seed: int, total: int
) -> None:
    with log.publisher() as publisher:
        for number in range(total):
            publisher.send(number, key=f"k{number % KEYS}")
    options: dict[str, Any] = {"processes": 1, "ordering": "key", "max_deliveries": 100}
    arguments = (log_path, record.path, 1, "key")
    with Pool(log, group="g", handler=partial(handlers.work, record), **options) as pool:
        deaths = play(
            Cast(log, arguments, mark),
            pool,
            lambda: record_length(record),
            total,
            random.Random(seed),
        )
        assert list(pool.dead_letters()) == []
    for word in ("began", "did"):
        counts = Counter(record.numbers(word))
        assert set(counts) == set(range(total))
        again = sum(counts.values()) - total
        assert again <= deaths, f"{again} were {word} again after {deaths} deaths"
    for numbers in in_order_by_key(record.lines()).values():
        assert numbers == sorted(numbers)


def record_length(record: Record) -> int:
    """About how many events are done, without reading the file: two lines of about 12 bytes."""
    import os

    try:
        return os.stat(record.path).st_size // 26
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("seed", [4, *[pytest.param(seed, marks=slow) for seed in (40, 41)]])
@pytest.mark.timeout(300)
def test_without_an_order_every_event_is_handled_too(
    log: blocking.EventLog, record: Record, seed: int
) -> None:
    """One pool; and no more is done again than what the dead had in their hands."""
    total, chance, deaths, goal = 1_500, random.Random(seed), 0, 0
    log.append_many(range(total))
    options: dict[str, Any] = {"processes": 3, "max_deliveries": 100}
    with Pool(log, group="g", handler=partial(handlers.work, record), **options) as pool:
        while (goal := goal + chance.randrange(100, 300)) < total:
            until(lambda: pool.stats().handled >= goal)
            if chance.random() < 0.3:
                kill(log.status().writer_pid)
            else:
                deaths += 1
                kill(chance.choice(pool.stats().workers).pid)
        drained(pool, 90)
        assert list(pool.dead_letters()) == []
    for word in ("began", "did"):
        counts = Counter(record.numbers(word))
        assert set(counts) == set(range(total))
        assert sum(counts.values()) - total <= deaths


@pytest.mark.parametrize(
    ("seed", "total"),
    [(2, 800), *[pytest.param(seed, 6_000, marks=slow) for seed in range(20, 24)]],
)
@pytest.mark.timeout(300)
def test_results_are_there_once_whoever_is_killed(
    log: blocking.EventLog, log_path: str, record: Record, mark: str, seed: int, total: int
) -> None:
    log.append_many(range(total))
    options: dict[str, Any] = {"processes": 1, "output": log, "max_deliveries": 100}
    arguments = (log_path, record.path, 1, "", log_path)
    with Pool(log, group="g", handler=partial(handlers.result_of, record), **options) as pool:
        play(
            Cast(log, arguments, mark),
            pool,
            lambda: (log.last_seq_no() or 0) - total,
            total,
            random.Random(seed),
        )
        assert list(pool.dead_letters()) == []
        assert pool.stats().lag == 0
    events = [envelope.event for envelope in log.read(1)]
    assert events[:total] == list(range(total))
    assert Counter(result["of"] for result in events[total:]) == Counter(range(total))


@pytest.mark.parametrize(
    ("seed", "total"),
    [(3, 600), *[pytest.param(seed, 5_000, marks=slow) for seed in range(30, 34)]],
)
@pytest.mark.timeout(300)
def test_dead_letters_are_exact_whoever_is_killed(
    log: blocking.EventLog, record: Record, seed: int, total: int
) -> None:
    """Events that always fail use up their deliveries, all of them and not one more."""
    chance = random.Random(seed)
    poison = set(chance.sample(range(1, total), total // 40))
    log.append_many(-number if number in poison else number for number in range(total))
    options: dict[str, Any] = {"processes": 2, "max_deliveries": 12, "backoff": AT_ONCE}
    handler = partial(handlers.fail_if_negative, record)
    with Pool(log, group="g", handler=handler, **options) as pool:
        goal = 0
        while (goal := goal + chance.randrange(60, 240)) <= total - len(poison):
            until(lambda: pool.stats().handled >= goal)
            if chance.random() < 0.5:
                kill(log.status().writer_pid)
            else:
                kill(chance.choice(pool.stats().workers).pid)
        drained(pool, 90)
        letters = list(pool.dead_letters())
    assert sorted(-letter.event for letter in letters) == sorted(poison)
    assert {letter.deliveries for letter in letters} == {12}
    began = Counter(record.numbers("began"))
    assert all(began[-number] <= 12 for number in poison)
    assert sum(began[-number] for number in poison) >= 12 * len(poison) - total // 60
    assert set(record.numbers()) == set(range(total)) - poison
