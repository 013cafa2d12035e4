from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.config import NAME_CHARACTERS_MAX
from eventlog.errors import CorruptLog, EventLogError, LogFull, StorageFailed, UnknownFormat
from eventlog.local.storage.formats.offset_format import (
    FILE_NAME,
    HEADER,
    SLOT,
    SLOTS_AT_FIRST,
    Offset,
)
from eventlog.local.storage.offsets import OffsetTable, make_offset_table, open_or_make
from eventlog.testing import FailingFiles, Killed, KillingFiles


@pytest.fixture
def table(tmp_path: Path) -> Iterator[OffsetTable]:
    opened = open_or_make(str(tmp_path))
    yield opened
    opened.close()
    opened.close()


@pytest.fixture
def reader(table: OffsetTable) -> Iterator[OffsetTable]:
    opened = OffsetTable(table.directory)
    yield opened
    opened.close()


def test_positions_are_seen_by_readers_and_survive(table: OffsetTable, reader: OffsetTable) -> None:
    table.set("b", 5, 100)
    table.set("a", 7, 200)
    table.set("b", 6, 300)
    wanted = [Offset("a", 7, 200), Offset("b", 6, 300)]
    assert table.all() == reader.all() == wanted
    assert reader.find("b") == Offset("b", 6, 300)
    assert reader.find("c") is None
    table.close()
    again = open_or_make(table.directory)
    assert again.all() == wanted
    again.close()


def test_a_forgotten_consumer_is_gone_and_its_slot_is_used_again(table: OffsetTable) -> None:
    for name in "abc":
        table.set(name, 1, 1)
    table.forget("b")
    table.forget("unknown")
    assert [offset.name for offset in table.all()] == ["a", "c"]
    assert table.find("b") is None
    for n in range(SLOTS_AT_FIRST - 2):
        table.set(f"new {n}", 2, 2)
    assert table.capacity == SLOTS_AT_FIRST
    assert len(table.all()) == SLOTS_AT_FIRST


def test_a_reader_is_not_fooled_by_a_slot_that_changed_hands(
    table: OffsetTable, reader: OffsetTable
) -> None:
    table.set("old", 1, 1)
    assert reader.find("old") == Offset("old", 1, 1)
    table.forget("old")
    table.set("new", 9, 9)
    assert reader.find("old") is None
    assert reader.find("new") == Offset("new", 9, 9)


def test_the_table_grows_under_its_readers(table: OffsetTable, reader: OffsetTable) -> None:
    names = [f"consumer {n}" for n in range(3 * SLOTS_AT_FIRST)]
    for n, name in enumerate(names):
        table.set(name, n, n)
    assert reader.find(names[-1]) == Offset(names[-1], len(names) - 1, len(names) - 1)
    assert len(reader.all()) == len(names)
    assert table.capacity == 4 * SLOTS_AT_FIRST


def test_the_longest_name_fits(table: OffsetTable, reader: OffsetTable) -> None:
    name = "🎈" * NAME_CHARACTERS_MAX
    table.set(name, 3, 3)
    assert reader.find(name) == Offset(name, 3, 3)


def test_the_lowest_position_is_that_of_the_slowest(table: OffsetTable) -> None:
    assert table.lowest() is None
    for name, position in (("a", 5), ("b", 3), ("c", 9)):
        table.set(name, position, 1)
    assert table.lowest() == 3
    table.forget("b")
    assert table.lowest() == 5


positions = st.dictionaries(
    st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=20),
    st.integers(0, 2**63 - 1),
    max_size=100,
)


@given(positions, st.lists(st.integers(0, 99)))
def test_any_names_and_positions(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, int], gone: list[int]
) -> None:
    table = open_or_make(str(tmp_path_factory.mktemp("table")))
    for name, position in wanted.items():
        table.set(name, position, 1)
    for place in gone:
        if wanted:
            name = sorted(wanted)[place % len(wanted)]
            table.forget(name)
            del wanted[name]
    reader = OffsetTable(table.directory)
    assert {o.name: o.position for o in table.all()} == wanted
    assert {o.name: o.position for o in reader.all()} == wanted
    reader.close()
    table.close()


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"EVLOGOFF", bytes(1 << 16), b"\xff" * (1 << 16)])
def test_what_is_no_table_is_said_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    for writable in (False, True):
        with pytest.raises((CorruptLog, StorageFailed)):
            OffsetTable(str(tmp_path), writable=writable)


def test_a_table_of_another_version_is_said_so(table: OffsetTable) -> None:
    path = Path(table.directory, FILE_NAME)
    content = bytearray(path.read_bytes())
    content[HEADER.offset("version")] = 3
    path.write_bytes(content)
    with pytest.raises(UnknownFormat):
        OffsetTable(table.directory)


@given(st.binary(max_size=3 * SLOT.size), st.booleans())
def test_arbitrary_slots_are_consumers_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, is_used: bool
) -> None:
    directory = tmp_path_factory.mktemp("any")
    make_offset_table(str(directory))
    content = bytearray((directory / FILE_NAME).read_bytes())
    data = (b"\1" + bytes(7) + data) if is_used else data
    content[HEADER.size : HEADER.size + len(data)] = data
    (directory / FILE_NAME).write_bytes(content)
    for writable in (False, True):
        table = OffsetTable(str(directory), writable=writable)
        for offset in table.all():
            assert table.find(offset.name) is not None
        table.lowest()
        table.close()


def test_a_slot_whose_name_is_damaged_is_passed_over(table: OffsetTable) -> None:
    table.set("a", 1, 1)
    table.set("b", 2, 2)
    table.close()
    path = Path(table.directory, FILE_NAME)
    content = bytearray(path.read_bytes())
    content[HEADER.size + SLOT.offset("name")] ^= 1
    path.write_bytes(content)
    again = open_or_make(table.directory)
    assert [offset.name for offset in again.all()] == ["b"]
    again.close()


# --- the operating system --------------------------------------------------------------------


def test_a_table_that_cannot_grow_keeps_what_it_has(table: OffsetTable) -> None:
    for n in range(SLOTS_AT_FIRST):
        table.set(f"c{n}", n, n)
    for kind, number, error in (
        ("allocate", errno.ENOSPC, LogFull),
        ("map", errno.ENOMEM, StorageFailed),
    ):
        table._files = FailingFiles(number, [kind], 1)
        with pytest.raises(error):
            table.set("one more", 1, 1)
        # A failed map left the table without any: every later call was an error of `memoryview`.
        assert len(table.all()) == SLOTS_AT_FIRST
        table.set("c0", 77, 77)
    table.set("one more", 1, 1)
    assert table.find("c0") == Offset("c0", 77, 77)
    assert table.find("one more") == Offset("one more", 1, 1)


def test_a_table_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    at = 0
    while True:
        at += 1
        directory = tmp_path / str(at)
        directory.mkdir()
        files = KillingFiles(at, torn=True)
        try:
            open_or_make(str(directory), files).close()
        except Killed:
            files.bury()
        else:
            break
        again = open_or_make(str(directory))
        assert again.all() == []
        again.close()
    assert at > 6


@pytest.mark.parametrize("kind", ["open_write", "map"])
def test_a_table_that_cannot_be_opened_leaves_no_descriptor(table: OffsetTable, kind: str) -> None:
    files = FailingFiles(errno.EIO, [kind], 1)
    with pytest.raises(EventLogError):
        OffsetTable(table.directory, writable=True, files=files)
    assert files.open_descriptors == set()


def test_a_sync_that_fails_is_an_error_of_ours(table: OffsetTable) -> None:
    table._files = FailingFiles(errno.EIO, ["sync"], 1)
    with pytest.raises(StorageFailed):
        table.sync()
    assert os.path.exists(table.directory)


@pytest.mark.parametrize("new_position", [5, 0])
def test_a_consumer_that_a_loss_of_power_left_twice_is_there_once(
    table: OffsetTable, new_position: int
) -> None:
    # Forgotten in one slot and made again in another; only the second had reached the disk. An
    # acknowledgement moved one of the two, and a position past the log's end stayed there.
    table.set("first", 1, 1)
    table.set("twice", 3, 1)
    before = Path(table.directory, FILE_NAME).read_bytes()
    table.forget("first")
    table.forget("twice")
    table.set("twice", new_position, 2)
    table.close()
    path = Path(table.directory, FILE_NAME)
    slot = HEADER.size + SLOT.size  # the second one's
    content = path.read_bytes()
    path.write_bytes(content[:slot] + before[slot : slot + 8] + content[slot + 8 :])
    again = open_or_make(table.directory)
    assert [(one.name, one.position) for one in again.all()] == [("twice", min(3, new_position))]
    again.set("twice", 9, 3)
    again.close()
    again = open_or_make(table.directory)
    assert [(one.name, one.position) for one in again.all()] == [("twice", 9)]
    assert again.find("twice") == Offset("twice", 9, 3)
    again.close()
