"""Indexes by key: what they name, what damage does to them, and what the writer makes of them."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog.checksum import crc32c
from eventlog.config import Retention
from eventlog.errors import CorruptLog
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.filters import EventFilter
from eventlog.event.record_batch import PackedBatch, key_hash
from eventlog.local.storage.files import FILES, Files
from eventlog.local.storage.formats.format import base_of_name, key_index_name, segment_name
from eventlog.local.storage.formats.key_runs import RUN_ENTRIES, KeyRuns
from eventlog.local.storage.key_index import index_fault, look_up
from eventlog.local.storage.log.last_of_keys import LastOfKeys, NotIndexed
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.make_key_index import make_key_index
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import open_storage
from eventlog.tools.backup import back_up
from eventlog.tools.doctor.content import name_findings
from eventlog.tools.repair import repair_log
from eventlog.tools.verify import verify_log

SEGMENT_BYTES = 4096
COLLIDING = ("plumless", "buckeroo")
KEYS = ("a", "b", "c", "", *COLLIDING, None)
Row = tuple[int, str | None]


def batch(*keys: str | None, padding: int = 0) -> PackedBatch:
    builder = BatchBuilder(1 << 20)
    for key in keys:
        builder.add(bytes(padding), key)
    return builder.build()


def fill(log: WritableLog, rng: random.Random, batches: int) -> list[Row]:
    """Append batches of keys by chance; the number and key of each event."""
    rows: list[Row] = []
    for _ in range(batches):
        keys = [rng.choice(KEYS) for _ in range(rng.choice([1, 1, 2, 5, 20]))]
        base = log.append(batch(*keys, padding=rng.choice([0, 20])))
        rows += enumerate(keys, base)
    return rows


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def make_all(directory: str) -> list[int]:
    """Index every full segment; their numbers."""
    reader = LogReader(directory)
    *full, _ = reader.segment_bases()
    reader.close()
    for base in full:
        for _ in make_key_index(directory, base, FILES):
            pass
    return full


def read(directory: str, wanted: EventFilter, start: int = 0, **options: Any) -> list[Row]:
    log = LogReader(directory)
    try:
        batches = read_range(log, start, None, wanted, **options)
        return [(one.seq_no or 0, one.key) for batch in batches for one in batch]
    finally:
        log.close()


def test_what_a_reader_finds_by_indexes_is_what_it_finds_without(directory: str) -> None:
    rng = random.Random(7)
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    rows = fill(log, rng, 400)
    log.close()
    full = make_all(directory)
    assert len(full) > 3
    for keys in [["a"], ["plumless"], [""], ["nobody's"], ["a", "buckeroo"]]:
        wanted = EventFilter(keys=keys)
        for start in (1, 2, rng.randrange(1, len(rows)), len(rows)):
            expected = [row for row in rows if row[1] in keys and row[0] >= start]
            assert read(directory, wanted, start) == expected


def test_a_reader_passes_the_segments_without_a_key_unread(directory: str) -> None:
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    for number in range(40):
        log.append(batch("mine" if number in (0, 39) else "theirs", padding=1000))
    log.close()
    first, *others = make_all(directory)
    for base in others:  # nobody looks into these: their first batches are gone
        path = Path(directory, segment_name(base))
        data = bytearray(path.read_bytes())
        data[64:128] = bytes(64)
        path.write_bytes(data)
    assert read(directory, EventFilter(keys=["mine"])) == [(1, "mine"), (40, "mine")]
    with pytest.raises(CorruptLog):
        read(directory, EventFilter(keys=["theirs"]))
    assert first == 1


def test_a_range_that_may_write_makes_the_indexes_that_it_needs(directory: str) -> None:
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    rows = fill(log, random.Random(3), 300)
    log.close()
    wanted = EventFilter(keys=["a"])
    expected = [row for row in rows if row[1] == "a"]
    assert read(directory, wanted) == expected
    assert not list(Path(directory).glob("*.keys"))
    assert read(directory, wanted, makes_index=True) == expected
    made = sorted(path.name for path in Path(directory).glob("*.keys"))
    reader = LogReader(directory)
    assert made == [key_index_name(base) for base in reader.segment_bases()[:-1]]
    reader.close()
    assert not list(Path(directory).glob("*.new"))
    assert read(directory, wanted) == expected


def test_without_room_for_an_index_the_segment_is_walked(directory: str) -> None:
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    rows = fill(log, random.Random(3), 300)
    log.close()
    os.chmod(directory, 0o500)
    expected = [row for row in rows if row[1] == "a"]
    try:
        assert read(directory, EventFilter(keys=["a"]), makes_index=True) == expected
    finally:
        os.chmod(directory, 0o700)


class Prepared(NamedTuple):
    """A log of two segments, of which the first has an index."""

    directory: str
    rows: list[Row]
    batches: list[tuple[str | None, ...]]
    """Keys of those of the first segment."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    found = Prepared(str(tmp_path_factory.mktemp("prepared") / "log"), [], [])
    log = open_storage(found.directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    rng = random.Random(1)
    while not log._sealed:
        keys = tuple(rng.choice(KEYS) for _ in range(rng.choice([1, 2, 3])))
        found.rows.extend(enumerate(keys, log.append(batch(*keys))))
        found.batches.append(keys)
    found.batches.pop()  # it is in the second one
    log.close()
    make_all(found.directory)
    return found


@given(st.data())
@settings(max_examples=60)
def test_a_damaged_index_is_no_worse_than_none(prepared: Prepared, data: st.DataObject) -> None:
    directory = prepared.directory
    path = Path(directory, key_index_name(1))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:place]
    if data.draw(st.booleans()):
        size = min(data.draw(st.sampled_from([1, 8, 4096])), len(whole) - place)
        damaged += data.draw(st.sampled_from([b"\0", b"\xff"])) * size + whole[place + size :]
    path.write_bytes(damaged)
    try:
        assert (index_fault(directory, 1, FILES) is None) == (damaged == whole)
        for key in ("a", "plumless", "", "nobody's"):
            found = look_up(directory, 1, [key_hash(key)], FILES)
            if found is not None:
                assert len(found.positions) == _batches_with(key, prepared)
            expected = [row for row in prepared.rows if row[1] == key]
            assert read(directory, EventFilter(keys=[key])) == expected
    finally:
        path.write_bytes(whole)


def _batches_with(key: str, prepared: Prepared) -> int:
    """How many batches have a key of that hash."""
    keyed = [keys for keys in prepared.batches if any(one is not None for one in keys)]
    return sum(any(key_hash(one) == key_hash(key) for one in keys) for keys in keyed)


def test_an_index_of_a_segment_that_is_another_one_now_is_not_used(directory: str) -> None:
    """A loss of power cuts a segment after it was indexed, and it is filled otherwise."""
    twin = directory + ".twin"
    for path, key in ((directory, "a"), (twin, "b")):
        log = open_storage(path, durability="memory", segment_bytes=SEGMENT_BYTES)
        for _ in range(60):
            log.append(batch(key, padding=50))
        log.close()
        assert make_all(path)[0] == 1
    os.replace(Path(twin, key_index_name(1)), Path(directory, key_index_name(1)))
    assert look_up(directory, 1, [], FILES) is None
    assert "not what it was" in (index_fault(directory, 1, FILES) or "")
    assert len(read(directory, EventFilter(keys=["a"]))) == 60
    assert len(read(directory, EventFilter(keys=["a"]), makes_index=True)) == 60
    assert index_fault(directory, 1, FILES) is None


def test_damage_in_an_indexed_segment_is_told_and_not_passed(directory: str) -> None:
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    for number in range(60):
        log.append(batch("mine" if number in (0, 59) else "theirs", padding=50))
    log.close()
    path = Path(directory, segment_name(1))
    data = bytearray(path.read_bytes())
    data[1000:1010] = b"\xff" * 10
    path.write_bytes(data)
    make_all(directory)
    found = look_up(directory, 1, [key_hash("mine")], FILES)
    assert found is not None
    assert not found.extent.is_whole
    with pytest.raises(CorruptLog):
        read(directory, EventFilter(keys=["theirs"]))


# --- tools -----------------------------------------------------------------------------------


def test_tools_know_an_index_by_key(directory: str, tmp_path: Path) -> None:
    """A damaged one is noted, and removed by a repair; a backup does without."""
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    rows = fill(log, random.Random(4), 100)
    log.close()
    first, second, *_ = make_all(directory)
    reader = LogReader(directory)
    assert verify_log(reader).notes == []
    assert list(name_findings(directory)) == []
    path = Path(directory, key_index_name(second))
    path.write_bytes(path.read_bytes()[:-1])
    [note] = verify_log(reader).notes
    reader.close()
    assert f"the index by key of segment {second}" in note
    assert verify_log_is_whole(directory)
    report = repair_log(directory)
    assert [f"segment {second} is too short" in one for one in report.done] == [True]
    assert report.kept == [path.name + ".damaged"]
    assert not path.exists()
    assert Path(directory, key_index_name(first)).exists()
    copy = str(tmp_path / "copy")
    back_up(directory, copy)
    assert not list(Path(copy).glob("*.keys"))
    wanted = EventFilter(keys=["a"])
    assert read(copy, wanted, makes_index=True) == [row for row in rows if row[1] == "a"]


def verify_log_is_whole(directory: str) -> bool:
    reader = LogReader(directory)
    try:
        return verify_log(reader).is_whole
    finally:
        reader.close()


@pytest.mark.parametrize("name", ["orderly", "killed", "causes", "groups"])
def test_logs_of_earlier_releases_are_read_by_key_and_appended_to_conditionally(
    name: str, tmp_path: Path
) -> None:
    directory = str(tmp_path / "log")
    shutil.copytree(Path(__file__).parents[1] / "golden" / "v1" / name, directory)
    log = open_storage(directory)
    keys = log.keep_keys()
    rows = [
        (one.seq_no or 0, one.key)
        for events in read_range(LogReader(directory), 0, None)
        for one in events
    ]
    for key in {key for _, key in rows if key is not None} | {"nobody's"}:
        expected = [row for row in rows if row[1] == key]
        assert last_of(keys, key) == max((number for number, _ in expected), default=0)
        assert read(directory, EventFilter(keys=[key]), makes_index=True) == expected
    log.close()


# --- the entries -----------------------------------------------------------------------------


@given(st.lists(st.sets(st.integers(0, 2**32 - 1) | st.integers(0, 3), max_size=5), max_size=60))
def test_runs_name_the_positions_of_each_hash_the_last_one_first(batches: list[set[int]]) -> None:
    runs = KeyRuns()
    for place, hashes in enumerate(batches):
        runs.add(hashes, place * 8)
        if place % 7 == 6 and len(runs):
            runs._sort()
    for one in {0, 1, *(one for hashes in batches for one in hashes)}:
        expected = [place * 8 for place, hashes in enumerate(batches) if one in hashes]
        assert list(runs.newest_first(one)) == expected[::-1]
    entries = sorted(one << 32 | place * 8 for place, all_ in enumerate(batches) for one in all_)
    assert len(runs) == len(entries)
    merged = [entry for part in runs.merged(8) for entry in part]
    assert sorted(merged) == entries
    assert [entry >> 32 for entry in merged] == [entry >> 32 for entry in entries]


def test_a_run_is_sorted_when_there_is_enough_for_it() -> None:
    runs = KeyRuns()
    for place in range(RUN_ENTRIES + 1):
        runs.add([zlib.crc32(struct.pack("I", place)), 7], place * 8)
    assert len(runs) == 2 * (RUN_ENTRIES + 1)
    assert list(runs.newest_first(7)) == [place * 8 for place in range(RUN_ENTRIES, -1, -1)]


# --- the writer ------------------------------------------------------------------------------


def last_of(keys: LastOfKeys, key: str) -> int:
    """What the writer finds, after it has indexed what it needs."""
    for _ in count():
        try:
            return keys.find(key)
        except NotIndexed as missing:
            for _ in keys.index(missing.base_seq_no):
                pass
    raise AssertionError


@pytest.mark.parametrize("seed", range(8))
def test_the_writer_finds_the_last_event_of_each_key(directory: str, seed: int) -> None:
    """Appends, look-ups, retention, restarts and lost indexes, in any order."""
    rng = random.Random(seed)
    retention = Retention(max_bytes=rng.choice([4, 40]) * SEGMENT_BYTES, keep_unacked=False)
    options: dict[str, Any] = {"segment_bytes": SEGMENT_BYTES, "retention": retention}
    log = open_storage(directory, durability="memory", **options)
    rows: list[Row] = []
    for _ in range(60):
        match rng.randrange(6):
            case 0 | 1 | 2:
                rows += fill(log, rng, rng.choice([1, 3, 10]))
            case 3 if log.keys is not None:
                for _ in log.keys.save():
                    rows += fill(log, rng, rng.choice([0, 1]))
            case 4:
                for path in Path(directory).glob("*.keys"):
                    path.unlink() if rng.random() < 0.3 else None
            case 5 if rng.random() < 0.3:
                rng.choice([log.close, log.abandon])()
                log = open_storage(directory, **options)
        first = log.control.first_available
        for key in rng.sample(KEYS[:-1], 2):
            expected = max((n for n, one in rows if one == key and n >= first), default=0)
            assert last_of(log.keep_keys(), key) == expected, (key, first)
    log.close()


def test_a_segment_that_fills_while_it_is_looked_through_is_indexed_again(directory: str) -> None:
    log = open_storage(directory, durability="memory", segment_bytes=1 << 20)
    for _ in range(3):
        log.append(batch(*["a"] * 1000, padding=100))
    keys = log.keep_keys()
    with pytest.raises(NotIndexed) as caught:
        keys.find("a")
    looking: Iterator[None] = keys.index(caught.value.base_seq_no)
    next(looking)
    last = 0
    while log._active is not None and log._active.base_seq_no == 1:
        last = log.append(batch("a", *["b"] * 999, padding=100))
    assert list(looking) is not None
    assert last_of(keys, "a") == last
    log.close()


def test_without_room_for_an_index_the_writer_keeps_it(directory: str) -> None:
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    rows = fill(log, random.Random(2), 200)
    log.close()
    log = open_storage(directory, FullFiles())
    for key in ("a", "plumless", "nobody's"):
        expected = max((n for n, one in rows if one == key), default=0)
        assert last_of(log.keep_keys(), key) == expected
    assert not list(Path(directory).glob("*.keys*"))
    log.close()


class FullFiles(Files):
    """There is no room for an index by key."""

    def create(self, path: str) -> int:
        if ".keys" in path:
            raise OSError(errno.ENOSPC, "no room")
        return super().create(path)


def test_an_unreadable_batch_of_the_key_refuses_the_append(directory: str) -> None:
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    log.append(batch("a"))
    keys = log.keep_keys()
    assert last_of(keys, "a") == 1
    log.append(batch("a", "b"))
    path = Path(directory, segment_name(1))
    data = path.read_bytes()
    path.write_bytes(data[:210] + bytes(8) + data[218:])
    with pytest.raises(CorruptLog, match="verify"):
        keys.find("a")
    log.close()


@pytest.mark.parametrize("seed", range(8))
def test_a_number_is_known_only_if_all_events_after_it_are_whole(directory: str, seed: int) -> None:
    """A key whose last event was in a damaged batch counted as having an older one, or none.

    Whoever expected that was let through: the same money was drawn twice.
    """
    rng = random.Random(seed)
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    rows = fill(log, rng, rng.choice([20, 150]))
    log.abandon()
    first, last = damage_a_batch(directory, rng)
    log = open_storage(directory)
    keys = log.keep_keys()
    for key in KEYS[:-1]:
        known = max((n for n, one in rows if one == key and not first <= n <= last), default=0)
        if known > last:
            assert last_of(keys, key) == known
            continue
        with pytest.raises(CorruptLog, match=re.escape(f"last one of the key {key!r}")) as caught:
            last_of(keys, key)
        assert (caught.value.seq_no or 0) <= first <= last <= (caught.value.last_seq_no or 0)
        number = log.append(batch(key))  # as the error says: from now on it is known
        assert last_of(keys, key) == number
    fill(log, rng, 60)
    for key in KEYS[:-1]:
        assert last_of(keys, key) > last, "also when the segment is full"
    log.close()


def damage_a_batch(directory: str, rng: random.Random) -> tuple[int, int]:
    """Change a byte of a batch that is not the last one; its first and last event."""
    reader = LogReader(directory)
    with closing(reader.batches(1)) as batches:
        places = []
        while (one := batches.next_batch()) is not None:
            places.append((one.segment.base_seq_no, one.position, one.header))
    reader.close()
    base, position, header = rng.choice(places[:-1])
    path = Path(directory, segment_name(base))
    data = bytearray(path.read_bytes())
    data[position + rng.randrange(header.length)] ^= 0x10
    path.write_bytes(data)
    return header.base_seq_no, header.last_seq_no


@pytest.mark.parametrize("lost", [0, 1, -2])
def test_events_of_a_lost_segment_may_be_the_last_ones_of_any_key(
    directory: str, lost: int
) -> None:
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    fill(log, random.Random(1), 150)
    log.abandon()
    bases = sorted(base_of_name(name) or 0 for name in os.listdir(directory) if "seg" in name)
    Path(directory, segment_name(bases[lost])).unlink()
    log = open_storage(directory)
    keys = log.keep_keys()
    with pytest.raises(CorruptLog) as caught:
        last_of(keys, "nobody's")
    following = bases[bases.index(bases[lost]) + 1]
    assert (caught.value.seq_no, caught.value.last_seq_no) == (bases[lost], following - 1)
    number = log.append(batch("nobody's"))
    assert last_of(keys, "nobody's") == number
    log.close()


def test_an_index_of_before_does_not_say_where_its_damage_ends(directory: str) -> None:
    """Where that stands now were zeros: no event of the segment is known to be the last one."""
    log = open_storage(directory, durability="memory", segment_bytes=SEGMENT_BYTES)
    for number in range(40):
        log.append(batch("a" if number == 20 else "b", padding=200))
    log.close()
    path = Path(directory, segment_name(1))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    log = open_storage(directory)
    assert last_of(log.keep_keys(), "b") == 40
    make_all(directory)
    path = Path(directory, key_index_name(1))
    data = bytearray(path.read_bytes())
    extent = look_up(directory, 1, [], FILES)
    assert extent is not None
    assert (extent.extent.is_whole, extent.extent.whole_from) == (False, 2)
    data[52:60] = bytes(8)
    data[60:64] = crc32c(bytes(data[:60])).to_bytes(4, "little")
    path.write_bytes(data)
    extent = look_up(directory, 1, [], FILES)
    assert extent is not None
    assert extent.extent.whole_from == extent.extent.end_seq_no
    log.close()


def test_deleted_segments_take_their_indexes_with_them(directory: str) -> None:
    retention = Retention(max_bytes=4 * SEGMENT_BYTES, keep_unacked=False)
    log = open_storage(
        directory, durability="memory", segment_bytes=SEGMENT_BYTES, retention=retention
    )
    for _ in range(300):
        log.append(batch("a", padding=100))
        last_of(log.keep_keys(), "a")
        for _ in log.keep_keys().save():
            pass
    names = set(os.listdir(directory))
    bases = [int(name.split(".")[0]) for name in names if name.endswith(".seg")]
    indexed = {key_index_name(base) for base in bases if base != max(bases)}
    assert {name for name in names if ".keys" in name} == indexed
    log.close()
    Path(directory, key_index_name(1)).write_bytes(b"left over")
    open_storage(directory).close()
    assert not Path(directory, key_index_name(1)).exists()
