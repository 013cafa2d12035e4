"""`eventlog mirror` and `eventlog compare`: the same events in another log, each once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from eventlog import Cause, EventEnvelope, Retention, SeekPosition, blocking
from eventlog.cli.mirror import _OpenedSource
from eventlog.demo.main_job import stop_process
from eventlog.errors import EventTooLarge
from eventlog.event.stored_batch import StoredBatch, identity
from eventlog.tools.compare import Difference, first_difference
from eventlog.tools.mirror import Mirror
from tests.pools.parts import within

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
COMMAND = [sys.executable, "-m", "eventlog"]
LIMIT_S = 60.0


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=LIMIT_S,
        check=False,
    )


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def copied(*arguments: object) -> str:
    """What a mirror says that ends well."""
    ended = run("mirror", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def raw(log: blocking.EventLog) -> list[EventEnvelope]:
    with log.subscribe("raw", SeekPosition.BEGINNING, follow=False, type=msgspec.Raw) as stream:
        return list(stream)


def same(source: Path | str, target: Path | str, *, by_order: bool = False) -> bool:
    """Whether `compare` says so, and whether it is right."""
    ended = run("compare", source, target, *(["--by-order"] if by_order else []))
    assert ended.returncode in (0, 1), ended.stderr
    with blocking.open(source) as one, blocking.open(target) as other:
        mine, others = raw(one), raw(other)
    is_same = list(map(identity, mine)) == list(map(identity, others))
    if not by_order:
        is_same = is_same and [each.seq_no for each in mine] == [each.seq_no for each in others]
    assert is_same == (ended.returncode == 0)
    return is_same


@pytest.fixture
def source(tmp_path: Path) -> Iterator[blocking.EventLog]:
    """A log with events of all kinds, in batches of all sizes."""
    with blocking.open(tmp_path / "source") as log:
        log.append({"n": 1}, key="k", headers={"h": "v"})
        log.append(b"bytes")
        log.append_many(range(1000))
        log.append_many([[n] for n in range(700)], keys=[f"k{n % 7}" for n in range(700)])
        log.append(
            EventEnvelope(
                "told",
                id=UUID(int=5),
                timestamp=datetime(1999, 1, 1, tzinfo=UTC),
                cause=Cause(UUID(int=9), 7, "g"),
            )
        )
        log.append_many([EventEnvelope(n, key=str(n)) for n in range(600)])
        yield log
        pid = log.status().writer_pid
    assert pid is not None
    stop_process(pid)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "target"
    with blocking.open(tmp_path / "target") as log:
        pid = log.status().writer_pid
    assert pid is not None
    stop_process(pid)


def test_a_mirror_has_all_of_every_event(source: blocking.EventLog, target: Path) -> None:
    assert copied(source.path, target) == "2,303 events copied, up to 2,303\n"
    assert same(source.path, target)
    assert json.loads(copied(source.path, target, "--json")) == {
        "events": 0,
        "last": 2303,
        "stored": 2303,
    }
    source.append("more")
    source.delete("k")
    assert copied(source.path, target) == "2 events copied, up to 2,305\n"
    assert same(source.path, target)
    with blocking.open(target) as log:
        assert [one.is_deletion for one in log.read(-2)] == [False, True]
        assert log.latest("k") is None


def test_a_source_needs_no_writer(source: blocking.EventLog, target: Path) -> None:
    pid = source.status().writer_pid
    assert pid is not None
    stop_process(pid)
    copied(source.path, target)
    assert json.loads(run("status", source.path, "--json").stdout)["writer_pid"] is None
    assert same(source.path, target)


def test_numbers_are_kept_from_the_first_one_still_stored(tmp_path: Path, target: Path) -> None:
    retention = Retention(max_bytes=8192)
    with blocking.open(tmp_path / "source", segment_bytes=4096, retention=retention) as log:
        for n in range(60):
            log.append(bytes([n]) * 500)
        first, pid = log.status().first_seq_no, log.status().writer_pid
        assert first is not None
        assert first > 1
        copied(log.path, target)
        assert same(log.path, target)
        with blocking.open(target) as other:
            assert other.status().first_seq_no == first
            assert other.append("own") == 61
    assert pid is not None
    stop_process(pid)


def test_a_log_with_events_takes_none_without_renumber(
    source: blocking.EventLog, target: Path
) -> None:
    with blocking.open(target) as other:
        other.append("own")
    refused = run("mirror", source.path, target)
    assert refused.returncode == 2
    assert "--renumber" in refused.stderr
    assert copied(source.path, target, "--renumber").startswith("2,303 events")
    with blocking.open(target) as other:
        assert other.append("between") == 2305
    source.append("more")
    refused = run("mirror", source.path, target)
    assert refused.returncode == 2
    assert "--renumber" in refused.stderr
    assert copied(source.path, target, "--renumber").startswith("1 events")
    with blocking.open(target) as other:
        found = [identity(one) for one in raw(other) if one.seq_no not in (1, 2305)]
    assert found == list(map(identity, raw(source)))


def test_an_event_of_somebody_else_ends_a_mirror_that_keeps_numbers(
    source: blocking.EventLog, target: Path
) -> None:
    copied(source.path, target)
    with blocking.open(target) as other:
        other.append("own")
    source.append("more")
    refused = run("mirror", source.path, target)
    assert refused.returncode == 2
    assert "event 2304" in refused.stderr
    assert not same(source.path, target)


def test_two_sources_share_a_target(
    source: blocking.EventLog, tmp_path: Path, target: Path
) -> None:
    with blocking.open(tmp_path / "second") as second:
        second.append_many([f"second {n}" for n in range(50)])
        for log in (source, second, source, second):
            copied(log.path, target, "--renumber")
            log.append("next")
        pid = second.status().writer_pid
        with blocking.open(target) as other:
            found = list(map(identity, raw(other)))
        both = [*raw(source)[:-1], *raw(second)[:-1]]
        assert sorted(found, key=repr) == sorted(map(identity, both), key=repr)
    assert pid is not None
    stop_process(pid)


def test_a_too_large_event_is_named_before_anything_is_copied(
    source: blocking.EventLog, target: Path
) -> None:
    with blocking.open(target, max_event_bytes=1000):
        pass
    source.append(bytes(2000))
    refused = run("mirror", source.path, target)
    assert refused.returncode == 1
    assert "event 2304" in refused.stderr
    with blocking.open(target) as other:
        assert other.last_seq_no() is None


def test_events_that_were_deleted_before_they_were_copied_are_an_error(
    tmp_path: Path, target: Path
) -> None:
    retention = Retention(max_bytes=8192)
    with blocking.open(tmp_path / "source", segment_bytes=4096, retention=retention) as log:
        log.append(bytes(500))
        copied(log.path, target)
        for n in range(60):
            log.append(bytes([n]) * 500)
        pid = log.status().writer_pid
        refused = run("mirror", log.path, target)
        assert refused.returncode == 1
        assert "the events 2 to" in refused.stderr
        # A consumer keeps what is not copied.
        log.seek("uplink", SeekPosition.BEGINNING)
    assert pid is not None
    stop_process(pid)


def until_last(log: blocking.EventLog, seq_no: int) -> None:
    """Wait until an event of that number is there."""
    with log.subscribe("until", SeekPosition.sequence(seq_no)) as stream:
        next(stream)


def test_follow_goes_on_until_it_is_told_to_end(source: blocking.EventLog, target: Path) -> None:
    with start("mirror", source.path, target, "--follow", "--consumer", "uplink") as mirror:
        with blocking.open(target) as other:
            until_last(other, 2303)
            source.append("later")
            until_last(other, 2304)
            second = run("mirror", source.path, target)
            assert second.returncode == 2
            assert "another process" in second.stderr
        mirror.send_signal(signal.SIGTERM)
        assert mirror.stdout is not None
        assert mirror.stdout.read() == "2,304 events copied, up to 2,304\n"
        assert mirror.wait(LIMIT_S) == 128 + signal.SIGTERM
    assert {one.name: one.lag for one in source.consumers()} == {"uplink": 0}
    assert same(source.path, target)
    with blocking.open(target) as other:
        assert [one.lag for one in other.consumers()] == [0]


def until_killed(mirror: subprocess.Popen[str], log: blocking.EventLog, pause_s: float) -> None:
    """Kill the mirror a moment after its first event, if it lives as long."""
    first_new = (log.last_seq_no() or 0) + 1
    with mirror:
        until_last(log, first_new)
        time.sleep(pause_s)  # somewhere in its work
        mirror.kill()


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("renumber", [False, True], ids=["numbers", "renumber"])
def test_a_mirror_that_is_killed_at_random_copies_each_event_once(
    tmp_path: Path, target: Path, kills: int, renumber: bool
) -> None:
    chance = random.Random(kills)
    options = ["--renumber"] if renumber else []
    with blocking.open(tmp_path / "source") as log, blocking.open(target) as other:
        pid = log.status().writer_pid
        for round_ in range(kills):
            for _ in range(40):
                log.append_many([[round_, n] * 10 for n in range(chance.randrange(1, 1500))])
            until_killed(start("mirror", log.path, target, *options), other, chance.random() / 20)
            if renumber:
                other.append("own")
        copied(log.path, target, *options)
        if renumber:
            found = [one for one in raw(other) if bytes(one.event) != b"\xa3own"]
            assert list(map(identity, found)) == list(map(identity, raw(log)))
        else:
            assert same(log.path, target)
    assert pid is not None
    stop_process(pid)


def test_a_mirror_that_follows_finds_its_place_without_waiting_for_a_new_event() -> None:
    """A kill may come between the last batch and the note of it."""
    with blocking.open("memory:") as log, blocking.open("memory:") as other:
        log.append_many(range(10))
        source = _OpenedSource(log, follow=False, consumer=None)
        first = Mirror(source, other, renumber=False)
        first.begin()
        first.run(lambda _: None)
        (note,) = other.consumers()
        other.forget(note.name)
        other.seek(f"mirror:{source.log_id}:3", SeekPosition.sequence(4))
        following = _OpenedSource(log, follow=True, consumer=None)
        found = within(LIMIT_S, Mirror(following, other, renumber=False).begin)
        assert (found.copied, found.stored) == (10, 10)


def test_an_event_that_is_too_large_is_refused_though_its_batch_comes_whole() -> None:
    """A key counts too: six characters are 18 bytes here, and 3 are the length of the payload."""
    with blocking.open("memory:") as log, blocking.open("memory:", max_event_bytes=1000) as other:
        log.append_many([b"x" * 900, b"y" * 980], keys=["k", "日本語日本語"])
        log.append_many([b"x" * 900, b"y" * 979], keys=["k", "日本語日本語"])
        events = raw(log)
        with pytest.raises(EventTooLarge, match="1000 are allowed"):
            other.append_many(StoredBatch(events[:2]))
        assert other.append_many(StoredBatch(events[2:])) == (1, 2)
        assert list(map(identity, raw(other))) == list(map(identity, events[2:]))


def changed(fields: dict[str, Any]) -> EventEnvelope:
    usual: dict[str, Any] = {
        "event": 1,
        "key": "k",
        "headers": {"h": "v"},
        "id": UUID(int=5),
        "timestamp": datetime(1999, 1, 1, tzinfo=UTC),
        "cause": Cause(UUID(int=9), 7, "g"),
    }
    return EventEnvelope(**usual | fields)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"event": 2}, "event"),
        ({"key": None}, "key"),
        ({"headers": {"h": "w"}}, "headers"),
        ({"id": UUID(int=6)}, "id"),
        ({"timestamp": datetime(1999, 1, 2, tzinfo=UTC)}, "timestamp"),
        ({"cause": None}, "cause"),
        ({"event": 1.0, "key": "l"}, "key, event"),
    ],
    ids=str,
)
def test_compare_finds_the_first_difference(fields: dict[str, Any], what: str) -> None:
    with blocking.open("memory:") as one, blocking.open("memory:") as other:
        one.append_many([changed({}), changed({})])
        other.append_many([changed({}), changed(fields)])
        pair = iter([raw(one)]), iter([raw(other)])
    found = first_difference(*pair, lambda _: None, by_order=False)
    assert found == Difference(2, 2, what)


def test_compare_says_where_two_logs_differ(source: blocking.EventLog, target: Path) -> None:
    copied(source.path, target)
    source.append("more")
    ended = run("compare", source.path, target)
    assert ended.returncode == 1
    assert ended.stdout == (
        f"the other log has ended: event 2304 in {source.path}, no event in {target}\n"
    )
    said = json.loads(run("compare", source.path, target, "--json").stdout)
    difference = {"first": 2304, "second": None, "what": "the other log has ended"}
    assert said == {"same": False, "difference": difference}
    assert run("compare", source.path, target, "--from", "2305").returncode == 0
