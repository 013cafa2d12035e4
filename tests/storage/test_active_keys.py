"""The keys of the active segment: what readers know of them, and leave to those that come after."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog.errors import CorruptLog
from eventlog.event.filters import EventFilter
from eventlog.local.storage import active_keys
from eventlog.local.storage.active_keys import FILE_NAME
from eventlog.local.storage.files import FILES, Files
from eventlog.local.storage.formats.format import FIRST_BATCH, aligned, segment_name
from eventlog.local.storage.reading import ranges
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import open_storage
from eventlog.tools.backup import back_up
from eventlog.tools.doctor.content import name_findings
from tests.storage.test_key_index import KEYS, SEGMENT_BYTES, Row, batch, fill, verify_log_is_whole


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few events are many here."""
    monkeypatch.setattr(ranges, "WALKED_EVENTS", 2)
    monkeypatch.setattr(active_keys, "SAVED_AFTER_BATCHES", 3)
    monkeypatch.setattr(active_keys, "STEP_BATCHES", 4)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def rows_of(log: LogReader, key: str, start: int = 0, **options: Any) -> list[Row]:
    batches = read_range(log, start, None, EventFilter(keys=[key]), **options)
    return [(one.seq_no or 0, one.key) for events in batches for one in events]


def read_anew(directory: str, key: str, start: int = 0, *, makes_index: bool = True) -> list[Row]:
    """As a process that has just begun."""
    log = LogReader(directory)
    try:
        return rows_of(log, key, start, makes_index=makes_index)
    finally:
        log.close()


@pytest.mark.parametrize("seed", range(4))
def test_readers_find_a_key_whatever_they_know_of_the_active_segment(
    directory: str, seed: int
) -> None:
    """Appends, restarts, readers that stay and readers that come, lost and stale files."""
    rng = random.Random(seed)
    log = open_storage(directory, durability="memory", segment_bytes=4 * SEGMENT_BYTES)
    rows = fill(log, rng, 3)
    staying = LogReader(directory)
    path, stale = Path(directory, FILE_NAME), b""
    for _ in range(25):
        rows += fill(log, rng, rng.choice([0, 1, 8, 30]))
        match rng.randrange(5):
            case 0:
                rng.choice([log.close, log.abandon])()
                log = open_storage(directory)
            case 1 if path.exists():
                stale = stale or path.read_bytes()
                path.unlink()
            case 2 if stale:
                path.write_bytes(stale)
        key, start = rng.choice(KEYS[:-1]), rng.choice([1, rng.randrange(1, len(rows) + 1)])
        expected = [row for row in rows if row[1] == key and row[0] >= start]
        saves = rng.random() < 0.7
        assert read_anew(directory, key, start, makes_index=saves) == expected
        assert rows_of(staying, key, start) == expected
    assert path.exists() or stale
    staying.close()
    log.close()


def filled(directory: str, batches: int = 40) -> bytearray:
    """A log of one segment, in which the first and the last event are of another key; its bytes."""
    log = open_storage(directory, durability="memory", segment_bytes=64 * 1024)
    for number in range(batches):
        log.append(batch("mine" if number in (0, batches - 1) else "theirs", padding=200))
    log.close()
    return bytearray(Path(directory, segment_name(1)).read_bytes())


def lose_second_batch(directory: str, data: bytearray) -> None:
    place = aligned(FIRST_BATCH + int.from_bytes(data[FIRST_BATCH + 4 : FIRST_BATCH + 8], "little"))
    data[place : place + 64] = bytes(64)
    Path(directory, segment_name(1)).write_bytes(data)


def test_the_next_process_looks_at_no_batch_that_one_before_it_has_looked_at(
    directory: str,
) -> None:
    data = filled(directory)
    mine = [(1, "mine"), (40, "mine")]
    assert read_anew(directory, "mine") == mine
    lose_second_batch(directory, data)
    assert read_anew(directory, "mine", makes_index=False) == mine
    with pytest.raises(CorruptLog, match="events 2 to 2"):
        read_anew(directory, "theirs")
    Path(directory, FILE_NAME).unlink()
    with pytest.raises(CorruptLog, match="events 2 to 2"):
        read_anew(directory, "mine")


def test_a_reader_looks_through_what_is_new_alone(directory: str) -> None:
    data = filled(directory)
    log = LogReader(directory)
    assert rows_of(log, "mine") == [(1, "mine"), (40, "mine")]
    lose_second_batch(directory, data)
    writer = open_storage(directory)
    writer.append(batch("mine", "theirs"))
    assert rows_of(log, "mine") == [(1, "mine"), (40, "mine"), (41, "mine")]
    writer.close()
    log.close()


class Refusing(Files):
    """A directory in which this process may make no file, or a disk that is full."""

    def __init__(self, call: str) -> None:
        self.call = call

    def create(self, path: str) -> int:
        if self.call == "create":
            raise PermissionError(errno.EACCES, "not yours", path)
        return super().create(path)

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview], position: int) -> None:
        if self.call == "write":
            raise OSError(errno.ENOSPC, "no room")
        super().write(descriptor, parts, position)


@pytest.mark.parametrize("call", ["none", "create", "write"])
def test_who_can_leave_no_file_finds_the_key_all_the_same(directory: str, call: str) -> None:
    filled(directory)
    before = sorted(os.listdir(directory))
    log = LogReader(directory, Refusing(call))
    for _ in range(2):
        found = rows_of(log, "mine", makes_index=call != "none")
        assert found == [(1, "mine"), (40, "mine")]
    log.close()
    assert sorted(os.listdir(directory)) == before


def test_a_file_of_a_segment_that_is_another_one_now_is_not_used(directory: str) -> None:
    """A loss of power cuts a segment after it was looked through, and it is filled otherwise."""
    filled(directory)
    twin = directory + ".twin"
    log = open_storage(twin, durability="memory", segment_bytes=64 * 1024)
    for _ in range(40):
        log.append(batch("mine", padding=200))
    log.close()
    assert len(read_anew(directory, "mine")) == 2
    shutil.copy(Path(directory, FILE_NAME), Path(twin, FILE_NAME))
    assert len(read_anew(twin, "mine")) == 40
    assert Path(twin, FILE_NAME).read_bytes() != Path(directory, FILE_NAME).read_bytes()


def test_threads_share_what_a_handle_knows(directory: str) -> None:
    log = open_storage(directory, durability="memory", segment_bytes=1 << 20)
    reader, found = LogReader(directory), dict[int, list[Row]]()
    rows = fill(log, random.Random(5), 400)

    def read(number: int) -> None:
        key = KEYS[number % 3]
        for _ in range(5):
            found[number] = rows_of(reader, str(key), makes_index=True)

    threads = [threading.Thread(target=read, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        assert found[number] == [row for row in rows if row[1] == KEYS[number % 3]]
    reader.close()
    log.close()


def test_tools_know_the_file(directory: str, tmp_path: Path) -> None:
    filled(directory)
    read_anew(directory, "mine")
    assert Path(directory, FILE_NAME).exists()
    assert list(name_findings(directory)) == []
    assert verify_log_is_whole(directory)
    copy = str(tmp_path / "copy")
    back_up(directory, copy)
    assert not Path(copy, FILE_NAME).exists()
    open_storage(directory).close()
    assert Path(directory, FILE_NAME).exists(), "a writer's start keeps it"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Row]]:
    directory = str(tmp_path_factory.mktemp("prepared") / "log")
    log = open_storage(directory, durability="memory", segment_bytes=64 * 1024)
    rows = fill(log, random.Random(1), 60)
    log.close()
    return directory, rows


@given(st.data())
@settings(max_examples=60)
def test_a_damaged_file_is_no_worse_than_none(
    prepared: tuple[str, list[Row]], data: st.DataObject
) -> None:
    directory, rows = prepared
    path = Path(directory, FILE_NAME)
    path.unlink(missing_ok=True)
    read_anew(directory, "a")
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    size = data.draw(st.sampled_from([1, 8, 4096, len(whole)]))
    byte = data.draw(st.sampled_from([b"", b"\0", b"\xff"]))
    path.write_bytes(whole[:place] + byte * size + whole[place + size * len(byte) :])
    for key in ("a", "plumless", "", "nobody's"):
        expected = [row for row in rows if row[1] == key]
        assert read_anew(directory, key, makes_index=False) == expected


def test_what_nobody_has_published_is_not_looked_at(directory: str) -> None:
    """A batch behind the mark may be one in the making, or be cut by the next writer."""
    log = open_storage(directory, durability="memory", segment_bytes=64 * 1024)
    for _ in range(20):
        log.append(batch("mine"))
    log.control.high_water = 12
    reader = LogReader(directory, FILES)
    assert [number for number, _ in rows_of(reader, "mine")] == list(range(1, 13))
    assert reader.active_keys is not None
    assert reader.active_keys.known == range(1, 13)
    reader.close()
    log.abandon()
