from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import SeekPosition
from eventlog.config import Retention
from eventlog.errors import CorruptLog, EventsTruncated, LogDeleted, LogNotFound, NotALog
from eventlog.event.record_batch import PackedBatch
from eventlog.local.storage.formats import format  # noqa: A004 - its name
from eventlog.local.storage.formats.format import segment_name
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.reading import batch_reader
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import CountingFiles, batch_of, open_storage, stored_events

BATCHES = 2000
SMALL: dict[str, Any] = {"segment_bytes": 16 * 1024}


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """2,000 batches of two events, ten nanoseconds apart, in some forty segments."""
    directory = str(tmp_path_factory.mktemp("long") / "log")
    now = [0]
    log = open_storage(directory, clock=lambda: now[0], durability="memory", **SMALL)
    for n in range(BATCHES):
        now[0] = n * 10
        log.append(batch_of(f"{n} a" + "." * 100, f"{n} b" + "." * 100))
    log.close()
    return directory


@pytest.fixture
def log(tmp_path: Path) -> Iterator[WritableLog]:
    opened = open_storage(str(tmp_path / "log"), **SMALL)
    yield opened
    opened.abandon()


@given(st.integers(1, 2 * BATCHES), st.integers(0, 30))
def test_any_range_can_be_read(long_log: str, start: int, length: int) -> None:
    found = stored_events(long_log, start, start + length)
    assert list(found) == list(range(start, min(start + length, 2 * BATCHES + 1)))
    for seq_no, event in found.items():
        assert event.split(".")[0] == f"{(seq_no - 1) // 2} {'ab'[(seq_no - 1) % 2]}"


@given(st.integers(-5, BATCHES * 10 + 20))
def test_any_time_can_be_found(long_log: str, moment: int) -> None:
    reader = LogReader(long_log)
    wanted = min(max(math.ceil(moment / 10), 0), BATCHES) * 2 + 1
    assert reader.find_time(max(moment, 0)) == wanted
    reader.close()


class Walk:
    """Counts the batches that are checked, and what is read of the files."""

    def __init__(self, directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = CountingFiles()
        self.log = LogReader(directory, self.files)
        self.batches = 0
        real = format.batch_fault

        def counted(*args: Any, **options: Any) -> str | None:
            self.batches += 1
            return real(*args, **options)

        monkeypatch.setattr(batch_reader, "batch_fault", counted)


BATCHES_PER_PAGE = 4096 // 300 + 2
INDEX_BYTES = 24 * 5
"""Bytes of the index of one segment of this size."""


def test_a_seek_to_a_number_is_no_scan(long_log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = sum(name.endswith(".seg") for name in os.listdir(long_log))
    assert segments > 30
    for seq_no in (1, 777, 2000, 3333, 2 * BATCHES):
        walk = Walk(long_log, monkeypatch)
        before = walk.files.calls.total()
        batches = walk.log.batches(seq_no)
        batch = batches.next_batch()
        assert batch is not None
        assert batch.header.base_seq_no <= seq_no <= batch.header.last_seq_no
        batches.close()
        walk.log.close()
        assert walk.batches <= BATCHES_PER_PAGE
        assert walk.files.calls["open_read"] <= 3  # control page, segment, index
        assert walk.files.calls.total() - before <= 8
        assert walk.files.read_bytes <= 64 + INDEX_BYTES


def test_a_seek_to_a_time_is_no_scan(long_log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = sum(name.endswith(".seg") for name in os.listdir(long_log))
    for moment in (0, 5000, 12_345, BATCHES * 10 - 15):
        walk = Walk(long_log, monkeypatch)
        walk.log.find_time(moment)
        walk.log.close()
        assert walk.batches <= 2 * BATCHES_PER_PAGE
        looks = math.ceil(math.log2(segments)) + 1
        assert walk.files.calls["open_read"] <= looks + 4
        assert walk.files.read_bytes <= 64 * (looks + 2) + 2 * INDEX_BYTES


def test_a_time_past_the_last_event_is_the_next_number(long_log: str) -> None:
    reader = LogReader(long_log)
    assert reader.find_time(2**62) == 2 * BATCHES + 1
    reader.close()


def test_an_empty_log(tmp_path: Path) -> None:
    open_storage(str(tmp_path / "log")).close()
    reader = LogReader(str(tmp_path / "log"))
    assert (reader.last_seq_no, reader.first_available, reader.stored_bytes()) == (0, 1, 0)
    assert reader.find_time(5) == 1
    assert list(read_range(reader, 0, None)) == []
    assert reader.consumers() == []
    assert reader.batches(1).next_batch() is None
    assert reader.batches(100).next_batch() is None
    reader.close()
    reader.close()


@pytest.mark.parametrize(
    ("position", "wanted"),
    [
        (SeekPosition.BEGINNING, 1),
        (SeekPosition.LATEST, 11),
        (SeekPosition.LAST_ACKNOWLEDGED, 5),
        (SeekPosition.sequence(0), 1),
        (SeekPosition.sequence(7), 7),
        (SeekPosition.sequence(99), 99),
        (SeekPosition("timestamp", 0), 1),
        (SeekPosition("timestamp", 2**62), 11),
    ],
)
def test_positions_are_resolved(log: WritableLog, position: SeekPosition, wanted: int) -> None:
    log.append(batch_of(*range(10)))
    log.ack("c", 4)
    reader = LogReader(log.directory)
    assert reader.resolve(position, "c") == wanted
    assert reader.resolve(SeekPosition.LAST_ACKNOWLEDGED, "unknown") == 1
    reader.close()


def test_consumers_and_their_lag(log: WritableLog) -> None:
    log.append(batch_of(*range(10)))
    log.ack("a", 4)
    log.seek("b", 0)
    log.seek("c", 50)
    reader = LogReader(log.directory)
    states = [(state.name, state.last_acked, state.lag) for state in reader.consumers()]
    assert states == [("a", 4, 6), ("b", None, 10), ("c", 50, 0)]
    assert (reader.position_of("a"), reader.position_of("unknown")) == (4, 0)
    reader.close()


def test_lag_counts_only_what_is_still_stored(tmp_path: Path) -> None:
    retention = Retention(max_bytes=8192, keep_unacked=False)
    log = open_storage(str(tmp_path / "log"), segment_bytes=4096, retention=retention)
    log.ack("slow", 0)
    for n in range(10):
        log.append(batch_of(str(n) * 1500))
    reader = LogReader(log.directory)
    (state,) = reader.consumers()
    assert state.lag == 10 - reader.first_available + 1
    reader.close()
    log.close()


def test_a_reader_never_goes_past_the_mark(log: WritableLog) -> None:
    log.append(batch_of("published"))
    log.append(batch_of("not yet"))
    log.control.high_water = 1
    reader = LogReader(log.directory)
    batches = reader.batches(1)
    assert batches.next_batch() is not None
    assert batches.next_batch() is None
    log.control.high_water = 2
    assert batches.next_batch() is not None
    batches.close()
    reader.close()


def test_a_body_that_is_none_is_said_to_be_its_producers_fault(log: WritableLog) -> None:
    log.append(batch_of("good"))
    log.append(PackedBatch(3, 0, 0, b"nonsense"))
    log.append(batch_of("good too"))
    with pytest.raises(CorruptLog, match="producer") as caught:
        stored_events(log.directory, 2)
    assert (caught.value.seq_no, caught.value.last_seq_no) == (2, 4)
    assert stored_events(log.directory, 5) == {5: "good too"}


def test_a_missing_segment_is_reported_with_its_range(long_log: str, tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(long_log, directory)
    bases = sorted(int(path.stem) for path in directory.glob("*.seg"))
    (directory / segment_name(bases[5])).unlink()
    assert list(stored_events(str(directory), 1, bases[5])) == list(range(1, bases[5]))
    with pytest.raises(CorruptLog) as caught:
        stored_events(str(directory), bases[5] - 1)
    assert (caught.value.seq_no, caught.value.last_seq_no) == (bases[5], bases[6] - 1)
    assert next(iter(stored_events(str(directory), bases[6]))) == bases[6]


def test_a_log_without_the_right_to_write_can_be_read(long_log: str, tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(long_log, directory)
    for path in directory.iterdir():
        path.chmod(0o400)
    directory.chmod(0o500)
    try:
        assert len(stored_events(str(directory))) == 2 * BATCHES
    finally:
        directory.chmod(0o700)


def test_a_log_without_an_offset_table_has_no_consumers(long_log: str, tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(long_log, directory)
    (directory / "offsets").unlink()
    reader = LogReader(str(directory))
    assert reader.consumers() == []
    assert reader.position_of("any") == 0
    reader.close()


def test_where_there_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogNotFound):
        LogReader(str(tmp_path / "nothing"))
    with pytest.raises(NotALog):
        LogReader(str(tmp_path))


def test_a_range_that_retention_deleted_is_an_error(tmp_path: Path) -> None:
    retention = Retention(max_bytes=8192)
    log = open_storage(str(tmp_path / "log"), segment_bytes=4096, retention=retention)
    for n in range(10):
        log.append(batch_of(str(n) * 1500))
    log.close()
    with pytest.raises(EventsTruncated) as caught:
        stored_events(log.directory, 1)
    assert caught.value.first_available == 7
    assert list(stored_events(log.directory)) == [7, 8, 9, 10]


def test_a_log_that_was_made_anew_is_not_read_on(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    log = open_storage(str(directory), segment_bytes=4096)
    for n in range(4):
        log.append(batch_of(str(n) * 1500))
    reader = LogReader(str(directory))
    log.close()
    shutil.rmtree(directory)
    open_storage(str(directory), segment_bytes=4096).close()
    with pytest.raises(LogDeleted):
        reader.batches(1).next_batch()
    reader.close()


def test_a_reader_leaves_no_descriptor_open(long_log: str) -> None:
    files = CountingFiles()
    reader = LogReader(long_log, files)
    batches = reader.batches(500)
    batches.next_batch()
    reader.find_time(777)
    reader.consumers()
    reader.stored_bytes()
    batches.close()
    batches.close()
    reader.close()
    assert files.open_descriptors == set()
