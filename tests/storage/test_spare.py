"""The next segment, made ready ahead; and retired ones, used again only if nobody maps them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from eventlog import Retention
from eventlog.errors import EventsTruncated, LogFull
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.spare import FILE_NAME
from eventlog.testing import (
    CountingFiles,
    FailingFiles,
    Killed,
    KillingFiles,
    batch_of,
    open_storage,
    stored_events,
)

SEGMENT_BYTES = 8192
EVENT = "x" * 500


def open_log(path: Path, **asked: Any) -> WritableLog:
    return open_storage(str(path), segment_bytes=SEGMENT_BYTES, **{"durability": "memory"} | asked)


def append(log: WritableLog, count: int, *, prepares: bool = True) -> None:
    """Append events, and make the next segment ready when that is wanted, as the writer does."""
    wanted: list[bool] = []
    log.on_spare_wanted = lambda: wanted.append(True)
    for _ in range(count):
        log.append(batch_of(EVENT))
        if wanted and prepares:
            wanted.clear()
            work = log.spare.begin()
            assert work is not None
            log.spare.finish(work.run())


def inodes(path: Path) -> set[int]:
    return {entry.stat().st_ino for entry in path.iterdir() if entry.name.endswith(".seg")}


@pytest.mark.parametrize("durability", ["memory", "disk", "sync"])
def test_a_roll_takes_the_prepared_file(tmp_path: Path, durability: str) -> None:
    files = CountingFiles()
    log = open_log(tmp_path / "log", files=files, durability=durability)
    append(log, 10)
    spare = (tmp_path / "log" / FILE_NAME).stat().st_ino
    allocated = files.calls["allocate"]
    append(log, 10)
    assert spare in inodes(tmp_path / "log")
    # the next spare one and two indexes at most: no segment was allocated by the roll itself
    assert files.calls["allocate"] - allocated <= 3
    log.close()
    assert stored_events(str(tmp_path / "log")) == dict.fromkeys(range(1, 21), EVENT)


def test_a_log_whose_segment_is_not_half_full_takes_no_more_room(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    append(log, 5)
    assert not (tmp_path / "log" / FILE_NAME).exists()
    log.close()


def test_an_orderly_end_removes_the_file(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    append(log, 10)
    assert (tmp_path / "log" / FILE_NAME).exists()
    log.close()
    assert not (tmp_path / "log" / FILE_NAME).exists()


def test_what_a_killed_writer_prepared_is_removed_at_the_next_start(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    append(log, 10)
    log.abandon()
    log = open_log(tmp_path / "log")
    assert not (tmp_path / "log" / FILE_NAME).exists()
    append(log, 30)
    log.close()
    assert len(stored_events(str(tmp_path / "log"))) == 40


def test_a_disk_without_room_for_the_next_segment_fails_no_append_before_the_roll(
    tmp_path: Path,
) -> None:
    files = FailingFiles(errno.ENOSPC, ["allocate"], 10**9, for_ever=True)
    log = open_log(tmp_path / "log", files=files)
    append(log, 1)
    files._at = files.calls + 1
    append(log, 12)  # the work is tried once, and not again for each event
    assert not (tmp_path / "log" / FILE_NAME).exists()
    with pytest.raises(LogFull):
        append(log, 10, prepares=False)
    last = log.last_seq_no
    files.heal()
    append(log, 10)
    log.close()
    assert len(stored_events(str(tmp_path / "log"))) == last + 10


RETENTION = Retention(max_bytes=4 * SEGMENT_BYTES, keep_unacked=False)


def test_retired_segments_are_used_again(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", retention=RETENTION)
    append(log, 200)
    there = inodes(tmp_path / "log")
    seen = set(there)
    for _ in range(20):
        append(log, 20)
        seen |= inodes(tmp_path / "log")
    assert len(seen) <= len(there) + 2
    first = log.control.first_available
    log.close()
    stored = stored_events(str(tmp_path / "log"), first)
    assert list(stored) == list(range(first, 601))


def test_with_durability_disk_they_are_deleted(tmp_path: Path) -> None:
    """Zeros in a used file would be written to the disk for nothing."""
    log = open_log(tmp_path / "log", retention=RETENTION, durability="disk")
    append(log, 200)
    first = log.control.first_available
    log.close()
    assert list(stored_events(str(tmp_path / "log"), first)) == list(range(first, 201))


def test_a_segment_that_somebody_maps_is_never_written_over(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", retention=RETENTION)
    append(log, 30)
    reader = LogReader(str(tmp_path / "log"))
    batches = reader.batches(log.control.first_available)
    first = batches.next_batch()
    assert first is not None
    before = bytes(first.segment.view)
    inside_to = next(base for base in reader.segment_bases() if base > first.header.last_seq_no)
    append(log, 300)
    assert log.control.first_available > first.header.last_seq_no
    assert bytes(first.segment.view) == before
    inside = []
    while batches.next_seq_no < inside_to:
        batch = batches.next_batch()
        assert batch is not None
        inside.append(batch.header.base_seq_no)
        assert [e.event for e in batch.envelopes("log")] == [EVENT]
    with pytest.raises(EventsTruncated):
        batches.next_batch()
    assert inside == list(range(first.header.last_seq_no + 1, inside[-1] + 1))
    batches.close()
    reader.close()
    log.close()


def test_a_reader_that_comes_while_a_segment_is_taken_finds_it_gone(tmp_path: Path) -> None:
    """It has opened the file, and the writer takes it before the reader has its lock."""
    log = open_log(tmp_path / "log", retention=RETENTION)
    append(log, 50)
    first = log.control.first_available

    class Late(CountingFiles):
        def lock_shared(self, descriptor: int) -> None:
            append(log, 100)
            super().lock_shared(descriptor)

    reader = LogReader(str(tmp_path / "log"), Late())
    with pytest.raises(EventsTruncated):
        reader.batches(first).next_batch()
    reader.close()
    log.close()


@pytest.mark.parametrize("each", [3, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "each"])
def test_a_kill_at_every_step_of_a_recycling_loses_nothing(tmp_path: Path, each: int) -> None:
    """At every third step; with the slow tests, at every one."""
    at, is_over = 1, False
    while not is_over:
        directory = tmp_path / str(at)
        log = open_log(directory, retention=RETENTION)
        append(log, 60)
        log.abandon()
        files = KillingFiles(None)
        log = open_log(directory, retention=RETENTION, files=files)
        files.calls, files._at = 0, at
        acknowledged = log.last_seq_no
        try:
            for _ in range(40):
                append(log, 1)
                acknowledged = log.last_seq_no
            is_over = True
        except Killed:
            pass
        log_first = log.control.first_available
        files.bury()
        after = open_log(directory, retention=RETENTION)
        assert all(damage.last_seq_no is None for damage in after.damages)
        assert after.last_seq_no in (acknowledged, acknowledged + 1)
        first = after.control.first_available
        assert first >= log_first
        stored = stored_events(str(directory), first)
        assert list(stored) == list(range(first, after.last_seq_no + 1))
        after.close()
        at += each
    assert at > 50
