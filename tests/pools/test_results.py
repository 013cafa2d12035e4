"""What handlers return: which of it is stored, where, and how often."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from eventlog import Cause, EventEnvelope, InvalidArgumentType, NotSupported, blocking
from eventlog.event.results import result_id
from tests.pools import handlers
from tests.pools.parts import AT_ONCE, drained, kill, until, until_noted
from tests.pools.records import Record
from workers import Results
from workers.blocking import Pool


def results_in(log: blocking.EventLog) -> list[int]:
    """The numbers whose results are stored, in any order."""
    found = [one.event for one in log.read(1) if isinstance(one.event, dict)]
    return sorted(result["of"] for result in found)


def test_all_that_is_not_none_is_a_result(log: blocking.EventLog, tmp_path: Path) -> None:
    events: list[Any] = [0, None, "", False, [], {}, b"", 1.5, "text", None, {"a": [1, None]}]
    log.append_many(events)
    options: dict[str, Any] = {"processes": 1, "output": tmp_path / "output"}
    with Pool(log, group="g", handler=handlers.itself, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
    with blocking.open(tmp_path / "output") as output:
        results = [envelope.event for envelope in output.read(1)]
    assert results == [event for event in events if event is not None]


def test_a_result_may_be_an_envelope_with_a_key_and_headers(
    log: blocking.EventLog, tmp_path: Path
) -> None:
    log.append(4, key="k")
    options: dict[str, Any] = {"processes": 1, "output": str(tmp_path / "output")}
    with Pool(log, group="g", handler=handlers.keyed_result, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
    with blocking.open(tmp_path / "output") as output:
        [result] = output.read(1)
    assert (result.event, result.key, result.headers) == (40, "rk", {"from": "handler"})
    assert result.seq_no == 1


@pytest.mark.parametrize("spelling", ["handle", "path", "relative path", "symlink"])
def test_the_same_log_is_the_same_however_it_is_named(
    log: blocking.EventLog,
    log_path: str,
    record: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spelling: str,
) -> None:
    log.append_many(range(20))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(log_path)
    output: Any = {
        "handle": log,
        "path": log_path,
        "relative path": "../" + tmp_path.name + "/log",
        "symlink": tmp_path / "link",
    }[spelling]
    handler = partial(handlers.result_if_number, record)
    with Pool(log, group="g", handler=handler, processes=2, output=output) as pool:
        drained(pool)
        drained(pool)
        stats = pool.stats()
    assert results_in(log) == list(range(20))
    assert sorted(record.numbers("began")) == list(range(20)), "not handed its own results"
    assert record.numbers("own") == []
    assert (stats.handled, stats.lag) == (20, 0)


def test_results_of_one_group_are_events_of_another(log: blocking.EventLog, record: Record) -> None:
    log.append_many(range(10))
    first = partial(handlers.result_if_number, record)
    options: dict[str, Any] = {"processes": 1, "output": log}
    with (
        Pool(log, group="first", handler=first, **options) as pool,
        Pool(
            log, group="second", handler=partial(handlers.note_results, record), processes=1
        ) as next_,
    ):
        drained(pool)
        drained(next_)
    assert sorted(record.numbers("result")) == list(range(10))
    assert record.numbers("own") == []


def test_a_result_that_cannot_be_stored_is_a_failure_of_its_event(
    log: blocking.EventLog, record: Record, tmp_path: Path
) -> None:
    log.append_many([1, "object", 2, "large", 3, "function", 4])
    with blocking.open(tmp_path / "output", max_event_bytes=10_000) as output:
        options: dict[str, Any] = {"processes": 2, "max_deliveries": 2, "backoff": AT_ONCE}
        handler = partial(handlers.odd_result, record)
        with Pool(log, group="g", handler=handler, output=output, **options) as pool:
            drained(pool)
            letters = {letter.event: letter for letter in pool.dead_letters()}
            stats = pool.stats()
        assert sorted(envelope.event for envelope in output.read(1)) == [1, 2, 3, 4]
    assert letters.keys() == {"object", "large", "function"}
    for letter in letters.values():
        assert (letter.deliveries, letter.exit_code) == (2, None)
        assert "InvalidEvent" in letter.error or "EventTooLarge" in letter.error
    assert "EventTooLarge" in letters["large"].error
    assert (stats.handled, stats.failed, stats.retried) == (4, 6, 3)


def test_without_an_output_results_are_nobodys_affair(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(["object", 1])
    handler = partial(handlers.odd_result, record)
    with Pool(log, group="g", handler=handler, processes=1) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
        assert pool.stats().handled == 2


def test_results_are_there_once_though_workers_and_the_writer_die(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(600))
    options: dict[str, Any] = {"processes": 2, "output": log, "max_deliveries": 20}
    with Pool(log, group="g", handler=partial(handlers.slow_result, record), **options) as pool:
        for step in range(1, 5):
            until(lambda: (log.last_seq_no() or 0) > 600 + 120 * step)  # noqa: B023
            kill(log.status().writer_pid if step % 2 else pool.stats().workers[0].pid)
        drained(pool)
        assert list(pool.dead_letters()) == []
    assert results_in(log) == list(range(600))
    assert log.last_seq_no() == 1_200
    begun = Counter(record.numbers("began"))
    assert set(begun) == set(range(600))


def test_a_result_does_not_wait_for_a_later_event_that_takes_long(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    log.append_many(range(100))
    handler = partial(handlers.gated_result, record, str(gate), 60)
    with Pool(log, group="g", handler=handler, processes=1, output=log) as pool:
        until_noted(record, "waits")
        returned = sorted(record.numbers("began"))
        until(lambda: results_in(log) == returned, handlers.GATE_S / 3)
        gate.touch()
        drained(pool)
    assert results_in(log) == list(range(100))


def test_broadcast_workers_each_store_their_results(
    log: blocking.EventLog, record: Record, tmp_path: Path
) -> None:
    log.append_many(range(5))
    options: dict[str, Any] = {"processes": 2, "broadcast": True, "output": tmp_path / "output"}
    with Pool(log, group="g", handler=partial(handlers.result_of, record), **options) as pool:
        drained(pool)
    with blocking.open(tmp_path / "output") as output:
        assert results_in(output) == sorted([*range(5), *range(5)])


def test_an_envelope_that_is_returned_as_it_came_is_a_new_event(
    log: blocking.EventLog, tmp_path: Path
) -> None:
    log.append_many(["a", "b"])

    def same(envelope: EventEnvelope) -> EventEnvelope:
        return envelope

    options: dict[str, Any] = {"processes": 1, "output": tmp_path / "output"}
    with Pool(log, group="g", handler=same, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
    with blocking.open(tmp_path / "output") as output:
        assert [(one.seq_no, one.event) for one in output.read(1)] == [(1, "a"), (2, "b")]


# --- what results came from ----------------------------------------------------------------------


@pytest.mark.parametrize("is_same", [True, False], ids=["same log", "other log"])
def test_a_result_has_cause_key_and_id_of_its_event(
    log: blocking.EventLog, tmp_path: Path, is_same: bool
) -> None:
    for n in range(5):
        log.append(n, key=f"k{n}" if n else None, headers={"h": "v"})
    sources = {one.seq_no: one for one in log.read(1)}
    output = log if is_same else str(tmp_path / "output")
    with Pool(log, group="g", handler=lambda event: event * 10, processes=1, output=output) as pool:
        drained(pool)
    with blocking.open(log.path if is_same else tmp_path / "output") as stored:
        results = [one for one in stored.read(1) if one.cause is not None]
    assert len(results) == 5
    log_id = log.status().log_id
    for result in results:
        assert result.cause is not None
        source = sources[result.cause.seq_no]
        assert result.cause == Cause(log_id, source.seq_no or 0, "g")
        assert (result.event, result.key) == (source.event * 10, source.key)
        assert result.headers is None
        assert result.id == UUID(bytes=result_id(result.cause, source.timestamp_ns))
    assert all(one.cause is None for one in log.read(1, 6))


@pytest.mark.parametrize("is_same", [True, False], ids=["same log", "other log"])
def test_one_event_may_have_several_results_or_none(
    log: blocking.EventLog, tmp_path: Path, is_same: bool
) -> None:
    log.append_many([3, 0, 1], keys=["a", "b", "c"])
    output = log if is_same else str(tmp_path / "output")
    options: dict[str, Any] = {"processes": 1, "output": output}
    with Pool(log, group="g", handler=handlers.several_results, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
        stats = pool.stats()
    assert (stats.handled, stats.failed, stats.lag) == (3, 0, 0)
    with blocking.open(log.path if is_same else tmp_path / "output") as stored:
        results = [one for one in stored.read(1) if one.cause is not None]
    assert [(one.cause and one.cause.seq_no, one.event, one.key) for one in results] == [
        *((1, 0, "a"), (1, 1, "a"), (1, 2, "own 2")),
        (3, 0, "c"),
    ]
    assert len({one.id for one in results}) == 4


def test_of_several_results_all_are_stored_or_none(log: blocking.EventLog, tmp_path: Path) -> None:
    log.append_many([["good", "x" * 2_000], ["x" * 600] * 3, ["both", "good"]])
    with blocking.open(tmp_path / "output", segment_bytes=4096, max_event_bytes=1024) as output:
        options: dict[str, Any] = {"processes": 1, "max_deliveries": 1, "output": output}
        with Pool(log, group="g", handler=handlers.several_results, **options) as pool:
            drained(pool)
            letters = {letter.seq_no: letter.error for letter in pool.dead_letters()}
        assert [one.event for one in output.read(1)] == ["both", "good"]
    assert letters.keys() == {1, 2}
    assert "EventTooLarge" in letters[1]
    assert "the 3 results of one event take" in letters[2]


def test_a_double_in_another_log_has_the_id_of_the_first(
    log: blocking.EventLog, tmp_path: Path
) -> None:
    """A worker is killed between storing results and saying that their events are done."""
    log.append_many(range(20))
    mark = str(tmp_path / "died")
    options: dict[str, Any] = {"processes": 1, "output": tmp_path / "output"}
    options["initializer"] = partial(handlers.die_once_behind_stored_results, mark)
    with Pool(log, group="g", handler=lambda event: event, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
    with blocking.open(tmp_path / "output") as output:
        results = list(output.read(1))
    assert len(results) > 20, "some are there twice"
    once = {one.id: one for one in results}
    assert sorted(one.event for one in once.values()) == list(range(20))
    for one in results:
        assert (once[one.id].event, once[one.id].cause) == (one.event, one.cause)


@pytest.mark.parametrize("values", ["text", b"bytes", {"a": 1}, 7, None])
def test_what_is_no_list_of_results_is_refused(values: Any) -> None:
    with pytest.raises(InvalidArgumentType, match="give a list of results"):
        Results(values)


@pytest.mark.parametrize("address", ["redis://user:secret@nowhere/0/results", "memory:results"])
def test_results_of_a_directory_do_not_go_to_another_engine(
    log: blocking.EventLog, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They went into a directory of that name, below the working directory of the worker."""
    monkeypatch.chdir(tmp_path)
    with log.group("g") as group, pytest.raises(NotSupported, match="give a directory") as raised:
        group.open_member(output=address)
    assert (raised.value.engine, raised.value.option) == ("local", "output")
    assert "secret" not in str(raised.value)
    assert not any(name.startswith(address[:5]) for name in os.listdir())
