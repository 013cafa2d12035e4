"""`ordering="key"`: one at a time and in order for each key, whatever happens to the workers."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eventlog import GroupMismatch, blocking
from tests.pools import handlers
from tests.pools.parts import (
    AT_ONCE,
    drained,
    in_order_by_key,
    kill,
    until,
    until_noted,
)
from tests.pools.records import Record
from workers import Backoff
from workers.blocking import Pool


def append_keyed(log: blocking.EventLog, count: int, keys: int, start: int = 0) -> None:
    with log.publisher() as publisher:
        for number in range(start, start + count):
            publisher.send(number, key=f"k{number % keys}")


def check_each_key_in_order(record: Record, count: int, keys: int) -> None:
    """Every event was done once, and those of each key in order."""
    by_key = in_order_by_key(record.lines())
    assert by_key == {f"k{key}": list(range(key, count, keys)) for key in range(keys)}


def check_one_at_a_time(record: Record) -> None:
    """Between the beginning and the end of a handler no other of its key begins."""
    running: dict[str, str] = {}
    for word, number, key in record.lines():
        if word == "began":
            assert key not in running, f"{number} began while {running[key]} ran"
            running[key] = number
        else:
            assert running.pop(key) == number


def test_one_at_a_time_and_in_order_over_two_pools(log: blocking.EventLog, record: Record) -> None:
    append_keyed(log, 300, 7)
    options: dict[str, Any] = {"processes": 1, "ordering": "key"}
    handler = partial(handlers.work, record)
    with (
        Pool(log, group="g", handler=handler, **options) as one,
        Pool(log, group="g", handler=handler, **options) as other,
    ):
        append_keyed(log, 300, 7, start=300)
        drained(one)
        assert min(one.stats().handled, other.stats().handled) > 0
    check_each_key_in_order(record, 600, 7)
    check_one_at_a_time(record)


def test_order_is_kept_through_the_death_of_workers(log: blocking.EventLog, record: Record) -> None:
    """Each death happens in a handler; its event is repeated, and nothing of its key overtakes."""
    append_keyed(log, 150, 5)
    options: dict[str, Any] = {"processes": 2, "ordering": "key", "max_deliveries": 2}
    handler = partial(handlers.die_once, record, 30)
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
        assert pool.stats().failed == 5
    check_each_key_in_order(record, 150, 5)
    twice = {number for number, times in Counter(record.numbers("began")).items() if times == 2}
    assert twice == {29, 59, 89, 119, 149}, "nothing else was begun again"


def test_order_is_kept_when_a_worker_is_killed_from_outside(
    log: blocking.EventLog, record: Record
) -> None:
    append_keyed(log, 400, 4)
    options: dict[str, Any] = {"processes": 2, "ordering": "key"}
    with Pool(log, group="g", handler=partial(handlers.work, record), **options) as pool:
        for goal in (100, 200, 300):
            until(lambda: pool.stats().handled >= goal)  # noqa: B023
            kill(pool.stats().workers[goal // 100 % 2].pid)
        drained(pool)
        assert list(pool.dead_letters()) == []
    done = Counter(record.numbers())
    assert set(done) == set(range(400))
    assert sum(done.values()) <= 400 + 3, "again only what was in the hands of the dead"
    for numbers in in_order_by_key(record.lines()).values():
        first_times = list(dict.fromkeys(numbers))
        assert first_times == sorted(first_times)
        assert numbers == sorted(numbers), "a repetition comes before anything later"


def test_order_is_kept_through_the_death_of_the_writer(
    log: blocking.EventLog, record: Record
) -> None:
    append_keyed(log, 400, 5)
    options: dict[str, Any] = {"processes": 2, "ordering": "key"}
    with Pool(log, group="g", handler=partial(handlers.work, record), **options) as pool:
        for goal in (100, 200, 300):
            until(lambda: pool.stats().handled >= goal)  # noqa: B023
            kill(log.status().writer_pid)
        drained(pool)
    check_each_key_in_order(record, 400, 5)
    check_one_at_a_time(record)


def test_a_key_that_fails_waits_and_other_keys_go_on(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    append_keyed(log, 60, 3)
    options: dict[str, Any] = {"processes": 2, "ordering": "key"}
    handler = partial(handlers.gate_at, record, str(gate), 3)
    with Pool(log, group="g", handler=handler, **options) as pool:
        until_noted(record, "did", 41)  # all of two keys, and the first of the third
        assert sorted(number for number in record.numbers() if number % 3 == 0) == [0]
        gate.touch()
        drained(pool)
    check_each_key_in_order(record, 60, 3)


def test_what_follows_a_failed_event_of_its_key_waits_for_its_next_attempt(
    log: blocking.EventLog, record: Record
) -> None:
    append_keyed(log, 30, 3)
    options: dict[str, Any] = {"processes": 2, "ordering": "key"}
    options |= {"backoff": Backoff(first_s=0.01, factor=1.0, max_s=0.01)}
    handler = partial(handlers.fail_first, record, 1)
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
        assert (pool.stats().failed, pool.stats().retried) == (30, 30)
    check_each_key_in_order(record, 30, 3)


def test_what_follows_a_dead_letter_of_its_key_is_handled(
    log: blocking.EventLog, record: Record
) -> None:
    for event, key in ((1, "a"), (-2, "a"), (3, "a"), (4, "b"), (-5, "b"), (6, "b")):
        log.append(event, key=key)
    options: dict[str, Any] = {"processes": 2, "ordering": "key", "max_deliveries": 3}
    handler = partial(handlers.fail_if_negative, record)
    with Pool(log, group="g", handler=handler, backoff=AT_ONCE, **options) as pool:
        drained(pool)
        assert sorted(letter.event for letter in pool.dead_letters()) == [-5, -2]
    assert in_order_by_key(record.lines()) == {"a": [1, 3], "b": [4, 6]}
    for key, numbers in (("a", [1, -2, -2, -2, 3]), ("b", [4, -5, -5, -5, 6])):
        mine = [int(n) for word, n, *_ in record.lines() if word == "began" and int(n) in numbers]
        assert mine == numbers, key


def test_events_without_a_key_are_free(log: blocking.EventLog, record: Record) -> None:
    log.append_many(range(2))
    options: dict[str, Any] = {"processes": 2, "ordering": "key"}
    with Pool(log, group="g", handler=partial(handlers.meet, record, 2), **options) as pool:
        drained(pool)
    assert sorted(record.numbers()) == [0, 1]


def test_one_key_is_one_at_a_time_inside_a_worker_too(
    log: blocking.EventLog, record: Record
) -> None:
    append_keyed(log, 120, 3)
    options: dict[str, Any] = {"processes": 1, "ordering": "key", "concurrency": 4}
    with Pool(log, group="g", handler=partial(handlers.work, record), **options) as pool:
        drained(pool)
    check_each_key_in_order(record, 120, 3)
    check_one_at_a_time(record)


def test_leaving_does_not_wait_for_all_that_waits_for_a_key(
    log: blocking.EventLog, record: Record
) -> None:
    """What waits behind a handler that runs was not begun: it is given back."""
    append_keyed(log, 200, 1)
    options: dict[str, Any] = {"processes": 1, "ordering": "key", "concurrency": 4}
    with Pool(log, group="g", handler=partial(handlers.sleep, record, 0.1), **options):
        until_noted(record, "did", 1)
    assert len(record.numbers()) <= 3
    with Pool(log, group="g", handler=partial(handlers.note, record), **options) as pool:
        drained(pool)
        assert pool.stats().failed == 0
    assert record.numbers() == list(range(200))


def test_pools_of_one_group_agree_on_the_order(log: blocking.EventLog) -> None:
    options: dict[str, Any] = {"group": "g", "handler": handlers.itself, "processes": 1}
    with Pool(log, ordering="key", **options) as pool:
        with pytest.raises(GroupMismatch), Pool(log, **options):
            pytest.fail("the pool has started")
        log.append(1)
        drained(pool)
    with Pool(log, **options) as pool:
        drained(pool)  # the others have left
