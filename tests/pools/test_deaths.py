"""Events that kill their workers, time limits, and whatever else dies: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eventlog import blocking
from tests.pools import handlers
from tests.pools.records import Record
from workers import Backoff
from workers.blocking import Pool

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("handler", "error", "exit_code"),
    [
        (handlers.kill_myself, "the worker was killed by SIGKILL", -9),
        (handlers.exit_hard, "the worker exited with code 7", 7),
        (handlers.crash, "the worker was killed by SIGSEGV", -11),
        (handlers.never_return, "the worker was killed: over its timeout of 0.3 s", -9),
        (handlers.eat_memory, "MemoryError", None),
        (handlers.exit_softly, "SystemExit: enough", None),
        (handlers.return_nonsense, "cannot be stored", None),
    ],
)
def test_a_poisoned_event_becomes_a_dead_letter_and_all_others_are_handled(
    log: blocking.EventLog, record: Record, handler: Any, error: str, exit_code: int | None
) -> None:
    log.append_many(range(20))
    options: dict[str, Any] = {"processes": 2, "max_deliveries": 2, "timeout": 0.3}
    options |= {"backoff": Backoff(0.0, 1.0, 0.0), "output": log}
    with Pool(log, group="g", handler=partial(handler, record), **options) as pool:
        pool.drained()
        [letter] = pool.dead_letters()
        stats = pool.stats()
    assert (letter.event, letter.deliveries, letter.exit_code) == (handlers.POISON, 2, exit_code)
    assert error in letter.error
    assert (letter.traceback is None) == (exit_code is not None)
    if exit_code is not None:
        assert letter.peak_rss_bytes is not None
        assert letter.peak_rss_bytes > 1_000_000
    began = Counter(record.numbers("began"))
    assert began.pop(handlers.POISON) == 2
    assert began == Counter(set(range(20)) - {handlers.POISON})
    assert (stats.handled, stats.failed, stats.retried) == (19, 2, 1)


def test_the_last_log_lines_of_a_worker_that_died_are_in_the_letter(
    log: blocking.EventLog,
) -> None:
    def handle(event: int) -> None:
        import logging
        import os

        logging.getLogger("mine").warning("about to end, at %d", event)
        os._exit(1)

    log.append(3)
    with Pool(log, group="g", handler=handle, processes=1, max_deliveries=1) as pool:
        pool.drained()
        [letter] = pool.dead_letters()
    assert letter.log_lines == ("WARNING mine: about to end, at 3",)


def test_an_event_of_a_killed_worker_runs_elsewhere_at_once(
    log: blocking.EventLog, record: Record
) -> None:
    with Pool(log, group="g", handler=partial(handlers.spin, record, 0.3), processes=2) as pool:
        log.append(1)
        while not record.numbers("began"):
            time.sleep(0.001)  # until the handler says that it runs
        [busy] = [worker.pid for worker in pool.stats().workers if worker.busy]
        os.kill(busy, signal.SIGKILL)
        pool.drained()
    assert record.numbers("began") == [1, 1]
    assert record.numbers() == [1]


def test_workers_die_with_their_pool(log_path: str, record: Record) -> None:
    program = f"""
        import os, time, eventlog.blocking
        from functools import partial
        from tests.pools import handlers
        from tests.pools.records import Record
        from workers.blocking import Pool
        with eventlog.blocking.open({log_path!r}) as log:
            log.append_many(range(4))
            handler = partial(handlers.spin, Record({record.path!r}), 30.0)
            with Pool(log, group="g", handler=handler, processes=2) as pool:
                print(*[worker.pid for worker in pool.stats().workers], flush=True)
                pool.drained()
    """
    source = "\n".join(line[8:] for line in program.splitlines())
    with subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        watched = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
    for descriptor in watched:
        signal.pidfd_send_signal  # noqa: B018 - there, or this system has no pidfds
        assert _ends(descriptor)
        os.close(descriptor)


def _ends(descriptor: int) -> bool:
    import select

    return bool(select.select([descriptor], [], [], 10.0)[0])


def test_what_is_done_is_not_done_again_after_the_writer_was_killed(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(400))
    with Pool(log, group="g", handler=partial(handlers.spin, record, 0.001), processes=2) as pool:
        for part in (1, 2, 3):
            while len(record.numbers()) < 100 * part:
                time.sleep(0.001)  # until that many are done
            writer_pid = log.status().writer_pid
            assert writer_pid is not None
            os.kill(writer_pid, signal.SIGKILL)
        pool.drained()
    assert Counter(record.numbers()) == Counter(range(400))


def audit(record: Record, total: int, deaths: int, in_hand: int) -> None:
    """Every event was done; again only what a worker that died had in its hands."""
    done = Counter(record.numbers())
    assert set(done) == set(range(total))
    assert sum(done.values()) - total <= deaths * in_hand
    began = Counter(record.numbers("began"))
    assert sum(began.values()) - total <= deaths * in_hand


@pytest.mark.parametrize(
    ("seed", "total"),
    [(1, 2_000), *[pytest.param(seed, 20_000, marks=pytest.mark.slow) for seed in range(2, 6)]],
)
@pytest.mark.parametrize("ordering", [None, "key"])
def test_nothing_is_lost_whatever_is_killed(
    log: blocking.EventLog, record: Record, seed: int, total: int, ordering: str | None
) -> None:
    chance = random.Random(seed)
    with log.publisher() as publisher:
        for number in range(total):
            publisher.send(number, key=f"k{number % 23}")
    options: dict[str, Any] = {"processes": 3, "max_deliveries": 100, "ordering": ordering}
    deaths = 0
    with Pool(log, group="g", handler=partial(handlers.spin, record, 0.0005), **options) as pool:
        goal = 0
        while (goal := goal + chance.randrange(100, 400)) < total:
            while pool.stats().handled < goal:
                time.sleep(0.001)  # until that many are done
            if chance.random() < 0.3:
                victim = log.status().writer_pid
            else:
                victim = chance.choice(pool.stats().workers).pid
                deaths += 1
            assert victim
            with suppress(ProcessLookupError):  # killed before, and not replaced yet
                os.kill(victim, signal.SIGKILL)
        pool.drained()
        assert list(pool.dead_letters()) == []
    audit(record, total, deaths, in_hand=1)
    if ordering == "key":
        for key in range(23):
            mine = [number for number in record.numbers() if number % 23 == key]
            assert mine == sorted(mine)


def test_results_are_stored_exactly_once_whatever_is_killed(log: blocking.EventLog) -> None:
    log.append_many(range(1_500))
    chance = random.Random(7)

    def handle(event: int) -> dict[str, int]:
        import time

        end = time.thread_time() + 0.0005
        while time.thread_time() < end:
            pass
        return {"of": event}

    options: dict[str, Any] = {"processes": 3, "max_deliveries": 100, "output": log}
    with Pool(log, group="g", handler=handle, **options) as pool:
        for part in range(1, 8):
            while (log.last_seq_no() or 0) < 1_500 + 180 * part:
                time.sleep(0.001)  # until that many results are there
            if part % 3 == 0:
                victim = log.status().writer_pid
            else:
                victim = chance.choice(pool.stats().workers).pid
            assert victim
            with suppress(ProcessLookupError):  # killed before, and not replaced yet
                os.kill(victim, signal.SIGKILL)
        pool.drained()
        assert list(pool.dead_letters()) == []
    results = Counter(e.event["of"] for e in log.read(1) if isinstance(e.event, dict))
    assert results == Counter(range(1_500))
