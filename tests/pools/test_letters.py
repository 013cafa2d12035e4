"""What each delivery is given, and what becomes of dead letters and of their neighbours."""

from __future__ import annotations

import logging
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eventlog import EventEnvelope, Retention, blocking
from tests.pools import handlers
from tests.pools.parts import AT_ONCE, drained, kill, until, until_noted, within
from tests.pools.records import Record
from workers import Backoff, PoolFailed
from workers.blocking import Pool

SMALL: dict[str, Any] = {
    "segment_bytes": 1 << 16,
    "retention": Retention(max_bytes=3 << 16, keep_unacked=False),
}


def overtake(log: blocking.EventLog) -> None:
    """Append until retention has deleted all that was stored before."""
    last = log.last_seq_no() or 0
    while (log.status().first_seq_no or 0) <= last:
        log.append_many(["pad" * 1000] * 10)


# --- what was given to a handler -------------------------------------------------------------


def double_and_fail_first(record: Record, envelope: EventEnvelope) -> dict[str, Any]:
    event, headers = envelope.event, envelope.headers
    event["total"] *= 2
    assert headers is not None
    headers["seen"] = headers.get("seen", "") + "x"
    record.note("did", envelope.seq_no)
    if record.numbers().count(envelope.seq_no or 0) == 1:
        raise ConnectionError("the network was down")
    return {"total": event["total"], "headers": headers}


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_retry_gets_the_event_as_it_was_appended(
    log: blocking.EventLog, record: Record, tmp_path: Path, concurrency: int
) -> None:
    # A member decodes a batch once, and handed the same objects out again: what a failed attempt
    # had done to its event was there in the next one, and the total was four times what it was.
    log.append_many(EventEnvelope({"total": 100}, headers={"h": "v"}) for _ in range(3))
    options: dict[str, Any] = {"processes": 1, "backoff": AT_ONCE, "concurrency": concurrency}
    handler = partial(double_and_fail_first, record)
    with blocking.open(str(tmp_path / "out")) as out:
        with Pool(log, group="g", handler=handler, output=out, **options) as pool:
            drained(pool)
        results = [one.event for one in out.read(1)]
        kill(out.status().writer_pid)
    assert results == [{"total": 200, "headers": {"h": "v", "seen": "x"}}] * 3


def spoil_and_fail(record: Record, event: dict[str, Any]) -> None:
    record.note("did", event["number"], len(event))
    event["lock"] = threading.Lock()
    event["number"] = -1
    raise ValueError("not today")


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_letter_holds_the_event_as_it_was_appended(
    log: blocking.EventLog, record: Record, concurrency: int
) -> None:
    # The letter was made of the event that the handler had changed. One that cannot be packed
    # ended the worker, so that the letter told of its exit code and not of the handler's error.
    log.append_many(EventEnvelope({"number": n}, headers={"h": "v"}) for n in range(1, 4))
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 2, "backoff": AT_ONCE}
    options |= {"concurrency": concurrency}
    with Pool(log, group="g", handler=partial(spoil_and_fail, record), **options) as pool:
        drained(pool)
        letters = list(pool.dead_letters())
        assert log.retry_dead("g", [1, 2, 3]) == 3
        drained(pool)
        again = list(pool.dead_letters())
        assert [worker.restarts for worker in pool.stats().workers] == [0]
    for found in (letters, again):
        assert sorted(one.event["number"] for one in found) == [1, 2, 3]
        assert {one.error for one in found} == {"ValueError: not today"}
        assert [one.headers for one in found] == [{"h": "v"}] * 3
    assert sorted(record.numbers()) == [1] * 4 + [2] * 4 + [3] * 4
    assert {line[2] for line in record.lines()} == {"1"}


# --- neighbours ------------------------------------------------------------------------------


async def wait_and_kill(record: Record, together: int, event: int) -> None:
    import trio

    record.note("began", event)
    if event < 0:
        while len(record.numbers("began")) < together:  # noqa: ASYNC110 - a file says it
            await trio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    if len(record.numbers("began")) <= together:
        await trio.sleep(0.2)
    record.note("did", event)


@pytest.mark.parametrize("max_deliveries", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_event_that_kills_its_worker_is_the_only_letter_among_its_neighbours(
    log: blocking.EventLog, record: Record, max_deliveries: int
) -> None:
    # All that its worker had in its hands counted a delivery, and what came back was leased in the
    # same company: up to nineteen events became dead letters with the one that killed.
    log.append_many([*range(10), -1, *range(10, 20)])
    options: dict[str, Any] = {"processes": 1, "concurrency": 21, "max_deliveries": max_deliveries}
    with Pool(log, group="g", handler=partial(wait_and_kill, record, 21), **options) as pool:
        drained(pool)
        [letter] = pool.dead_letters()
    assert (letter.event, letter.exit_code) == (-1, -signal.SIGKILL)
    assert letter.deliveries == max_deliveries
    assert set(record.numbers()) == set(range(20))
    deaths = record.numbers("began").count(-1)
    assert deaths == max(max_deliveries, 2), "one together with the others, the rest alone"


# --- leaving ---------------------------------------------------------------------------------


def note_attempt_and_wait(record: Record, gate: str, envelope: EventEnvelope) -> None:
    record.note("attempt", envelope.event)
    handlers.wait_for(Path(gate).exists)
    record.note("did", envelope.event)


@pytest.mark.parametrize("how", [pytest.param("left", marks=pytest.mark.slow), "killed"])
def test_leaving_a_pool_is_no_failed_delivery(
    log: blocking.EventLog, record: Record, gate: Path, how: str
) -> None:
    # A pool that is left kills its workers after `stop_s`. Their events' deliveries counted, and
    # after three such ends a slow event was a dead letter, although nothing had failed.
    log.append(7)
    handler = partial(note_attempt_and_wait, record, str(gate))
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 2}
    for times in range(1, 4):
        with Pool(log, group="g", handler=handler, stop_s=0.0, **options) as pool:
            until_noted(record, "attempt", times)
            if how == "killed":
                pool.kill()
        assert (pool.stats().failed, pool.stats().retried) == (0, 0)
    gate.touch()
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
    assert record.numbers() == [7]


# --- retention -------------------------------------------------------------------------------


def note_unless_closed(record: Record, gate: str, envelope: EventEnvelope) -> None:
    if isinstance(envelope.event, dict):
        if not os.path.exists(gate):
            raise ValueError("not yet")
        record.note("did", envelope.event["n"], envelope.key, envelope.headers, envelope.id)


@pytest.mark.parametrize("ordering", [None, "key"])
def test_a_letter_whose_event_is_deleted_is_retried_from_its_own_copy(
    log_path: str, record: Record, gate: Path, ordering: str | None
) -> None:
    # "retried 1", and then the group was moved past it: letter and event were gone, the handler
    # never ran, and whoever waited in `drained` did so for ever.
    handler = partial(note_unless_closed, record, str(gate))
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 1, "ordering": ordering}
    with blocking.open(log_path, **SMALL) as log:
        log.append({"n": 1}, key="k", headers={"h": "v"})
        [stored] = log.read(1, 2)
        with Pool(log, group="g", handler=handler, **options) as pool:
            drained(pool)
            overtake(log)
            assert log.retry_dead("g", [1]) == 1
            drained(pool)
            [letter] = pool.dead_letters()
            assert (letter.event, letter.key, letter.headers) == ({"n": 1}, "k", {"h": "v"})
            gate.touch()
            assert log.retry_dead("g", [1]) == 1
            drained(pool)
            assert list(pool.dead_letters()) == []
        assert log.retry_dead("g", [1]) == 0
    words = ["did", "1", "k", "{'h':", "'v'}", str(stored.id)]
    assert [" ".join(line) for line in record.lines()] == [" ".join(words)]


def open_slowly(gate: str, event: Any) -> None:
    if event == "first":
        handlers.wait_for(Path(gate).exists)


@pytest.mark.parametrize("ordering", [None, "key"])
def test_retention_that_overtakes_a_group_is_one_warning_and_no_letter(
    log_path: str, gate: Path, ordering: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    # Thousands of events were never handled, and nothing was said; with keys in order there were
    # hundreds of errors instead, and as many dead letters without an event.
    handler = partial(open_slowly, str(gate))
    options: dict[str, Any] = {"processes": 1, "ordering": ordering}
    with blocking.open(log_path, **SMALL) as log:
        log.append("first", key="a")
        with Pool(log, group="g", handler=handler, **options) as pool:
            until(lambda: pool.stats().in_flight)
            log.append_many(EventEnvelope(number, key=str(number % 10)) for number in range(100))
            overtake(log)
            gate.touch()
            drained(pool)
            handled = pool.stats().handled
            assert list(pool.dead_letters()) == []
        last = log.last_seq_no() or 0
    said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    warned = [text for text in said if "retention" in text]
    assert warned == said
    assert len(warned) == 1, warned
    assert f"deleted {last - handled:,} events" in warned[0]


# --- letters that fit ------------------------------------------------------------------------


def log_much_and_abort(event: Any) -> None:
    for number in range(20):
        logging.getLogger("mine").warning("%02d %s", number, "L" * 1_000_000)
    os.abort()


def abort(event: Any) -> None:
    os.abort()


@pytest.mark.parametrize(
    ("handler", "event"),
    [
        (log_much_and_abort, "x"),
        (abort, b"x" * (16_384 - 5)),
        (log_much_and_abort, b"x" * (16_384 - 5)),
    ],
    ids=["lines", "event", "both"],
)
def test_a_letter_is_cut_to_fit_the_smallest_segment(
    log_path: str, handler: Any, event: Any
) -> None:
    # What the pool told the writer was larger than a frame may be, so the writer hung up, ten times
    # in a row; then the pool ended, and so did the next one.
    logging.getLogger("mine").propagate = False
    try:
        with blocking.open(log_path, segment_bytes=1 << 16, max_event_bytes=1 << 14) as log:
            log.append(event)
            log.append("second")
            options: dict[str, Any] = {"processes": 1, "max_deliveries": 1}
            with Pool(log, group="g", handler=handler, **options) as pool:
                drained(pool)
                letters = list(pool.dead_letters())
    finally:
        logging.getLogger("mine").propagate = True
    assert [one.event for one in letters] == [event, "second"]
    assert {one.error for one in letters} == {"the worker was killed by SIGABRT"}
    if handler is log_much_and_abort:
        assert all(one.log_lines[-1].startswith("WARNING mine: 19 L") for one in letters)


# --- deaths before a worker is ready ---------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_death_of_a_worker_that_was_not_ready_is_logged(
    log: blocking.EventLog, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    # Something killed the workers while they started: nothing was said before the pool gave up,
    # and with a worker ready now and then it never did.
    pool = Pool(
        log, group="g", handler=partial(handlers.note, record), processes=1, initializer=die
    )
    with pytest.raises(PoolFailed):
        within(40.0, pool.__enter__)
    said = [one.getMessage() for one in caplog.records if "before it was ready" in one.getMessage()]
    assert len(said) == 3
    assert all("was killed by SIGKILL before it was ready" in text for text in said)


# --- waiting ---------------------------------------------------------------------------------


def test_a_backoff_goes_on_when_the_group_is_acknowledged(
    log: blocking.EventLog, record: Record
) -> None:
    # An `ack` of the group's name forgot all backoffs: five attempts in a second, a dead letter.
    log.append_many([1, -1])
    backoff = Backoff(first_s=600.0, max_s=600.0)
    handler = partial(handlers.fail_if_negative, record)
    with Pool(log, group="g", handler=handler, processes=1, backoff=backoff) as pool:
        until(lambda: pool.stats().failed == 1)
        log.append(2)
        log.ack("g", 1)
        until_noted(record, "did", 2)
        assert record.numbers("began").count(-1) == 1
