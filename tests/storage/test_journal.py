"""The journal: whatever becomes of its last bytes, the records before them are there."""

from __future__ import annotations

import errno
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.errors import CorruptLog, EventLogError, LogFull, StorageFailed, UnknownFormat
from eventlog.local.storage.journal import (
    Journal,
    Record,
    framed,
    journal_header,
    parse,
    read_records,
)
from eventlog.testing import FailingFiles, Killed, KillingFiles
from tests.faults.disk import SECTOR, Disk, PowerCuts
from tests.faults.recorder import RecordingFiles

NAME = "groups"
HEADER_BYTES = 16
RECORDS: list[Record] = [
    ["seek", "группа", 0],
    ["lease", "g", 2**40, 2**63, [[1, 5], [7, 7]]],
    ["dead", "g", 7, 1, 5, b"letter" * 20],
    ["state", "g", "key", 3, 0, [], [], [[7, 1]], [], [], [], 0],
]

small_values = st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
records = st.lists(
    st.lists(small_values | st.lists(small_values, max_size=3), max_size=4), max_size=6
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(str(tmp_path), NAME)
    yield opened
    opened.close()
    opened.close()


@pytest.fixture
def content(tmp_path: Path, journal: Journal) -> bytes:
    """The bytes of a journal of all the `RECORDS`."""
    journal.append(*RECORDS)
    return (tmp_path / NAME).read_bytes()


def reopened(directory: Path) -> list[Record]:
    """The records that the next writer finds; what they were followed by is zeros then."""
    journal = Journal(str(directory), NAME)
    journal.close()
    data = (directory / NAME).read_bytes()
    assert data[journal.bytes :] == bytes(len(data) - journal.bytes)
    return journal.records


def ends_of(some: list[Record]) -> list[int]:
    ends = [HEADER_BYTES]
    for record in some:
        ends.append(ends[-1] + len(framed(record)))
    return ends


# --- records ---------------------------------------------------------------------------------


def test_a_new_journal_is_empty_and_stays_readable(tmp_path: Path, journal: Journal) -> None:
    assert journal.records == []
    assert read_records(str(tmp_path), NAME) == []
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_records(str(tmp_path), NAME) == []
    assert list(tmp_path.iterdir()) == []


@given(records)
def test_records_come_back(tmp_path_factory: pytest.TempPathFactory, some: list[Record]) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(str(directory), NAME)
    for record in some[::2]:
        journal.append(record)
    journal.append(*some[1::2])
    journal.close()
    wanted = some[::2] + some[1::2]
    assert read_records(str(directory), NAME) == wanted
    assert reopened(directory) == wanted
    shutil.rmtree(directory)


def test_records_follow_those_of_the_writer_before(tmp_path: Path, content: bytes) -> None:
    again = Journal(str(tmp_path), NAME)
    assert again.records == RECORDS
    assert again.bytes == len(content)
    again.append(["one", "more"])
    again.sync()
    again.close()
    assert read_records(str(tmp_path), NAME) == [*RECORDS, ["one", "more"]]


def test_all_records_are_replaced_in_one_step(tmp_path: Path, journal: Journal) -> None:
    journal.append(*RECORDS)
    journal.replace(iter([["state"]]))
    assert read_records(str(tmp_path), NAME) == [["state"]]
    journal.append(["after"])
    assert read_records(str(tmp_path), NAME) == [["state"], ["after"]]
    assert journal.bytes == (tmp_path / NAME).stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_who_opened_the_file_before_it_was_replaced_reads_the_old_one(
    tmp_path: Path, journal: Journal
) -> None:
    class Late(FailingFiles):
        def open_read(self, path: str) -> int:
            descriptor = super().open_read(path)
            journal.replace([["new"]])
            return descriptor

    journal.append(*RECORDS)
    assert read_records(str(tmp_path), NAME, Late(0, [], 0)) == RECORDS
    assert read_records(str(tmp_path), NAME) == [["new"]]


# --- damage ----------------------------------------------------------------------------------


def test_torn_at_every_byte(tmp_path: Path, content: bytes) -> None:
    ends = ends_of(RECORDS)
    for size in range(HEADER_BYTES, len(content) + 1):
        whole = sum(end <= size for end in ends) - 1
        for rest in (b"", bytes(200), b"\xff" * 200):
            if rest and size in ends:
                continue
            (tmp_path / NAME).write_bytes(content[:size] + rest)
            # A record may happen to go on as the rest does: then it is whole.
            found = read_records(str(tmp_path), NAME)
            assert found == RECORDS[: len(found)]
            assert whole <= len(found) <= whole + (1 if rest else 0)
            assert reopened(tmp_path) == found


def test_the_next_record_takes_the_place_of_a_torn_one(tmp_path: Path, content: bytes) -> None:
    # What is behind a torn record was part of it; it must not come back as a record of its own.
    inner = framed(["from", "inside"])
    torn = framed(["letter", inner * 3])
    (tmp_path / NAME).write_bytes(content + torn[:-1])
    again = Journal(str(tmp_path), NAME)
    for _ in range(len(torn)):
        again.append([])
    again.close()
    assert read_records(str(tmp_path), NAME) == [*RECORDS, *[[]] * len(torn)]


@pytest.mark.parametrize("shorter_by", range(1, 60, 7))
def test_a_torn_record_behind_a_shorter_one_is_nothing(
    tmp_path: Path, journal: Journal, shorter_by: int
) -> None:
    # The disk was full half-way through a record; the next one was shorter, and then the writer
    # was killed: behind it lies the rest of the first.
    journal.append(["first"])
    journal._files = FailingFiles(errno.ENOSPC, ["write"], 1, torn=True)
    with pytest.raises(LogFull):
        journal.append(["long", b"\0" * 200])
    journal.append(["short", b"\0" * (100 - shorter_by)])
    assert len(read_records(str(tmp_path), NAME)) == 2
    assert len(reopened(tmp_path)) == 2


def test_a_flipped_bit_ends_the_journal_before_its_record(tmp_path: Path, content: bytes) -> None:
    ends = ends_of(RECORDS)
    for place in range(HEADER_BYTES, len(content)):
        for bit in (0, 5):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            whole = sum(end <= place for end in ends) - 1
            found, size = parse(bytes(flipped), str(tmp_path), NAME)
            assert found == RECORDS[:whole]
            assert size == ends[whole]


@given(st.binary(max_size=200))
def test_any_bytes_behind_the_records_are_no_error(data: bytes) -> None:
    start = b"".join(map(framed, RECORDS))
    header = b"EVLOGJNL" + b"\1\0" + b"\2\1" + bytes(4)
    found, size = parse(header + start + data, "log", NAME)
    assert found[: len(RECORDS)] == RECORDS
    assert HEADER_BYTES + len(start) <= size <= HEADER_BYTES + len(start) + len(data)


@pytest.mark.parametrize("size", range(HEADER_BYTES))
def test_less_than_a_header_is_said_to_be_damaged(tmp_path: Path, size: int) -> None:
    (tmp_path / NAME).write_bytes(b"EVLOGJNL\1\0\2\1\0\0\0\0"[:size])
    check_refused(tmp_path, CorruptLog)


@pytest.mark.parametrize("place", [*range(8), 10, 11])
def test_another_magic_or_byte_order_is_said_to_be_damaged(
    tmp_path: Path, content: bytes, place: int
) -> None:
    (tmp_path / NAME).write_bytes(content[:place] + b"?" + content[place + 1 :])
    check_refused(tmp_path, CorruptLog)


@pytest.mark.parametrize("place", [8, 9])
def test_another_version_is_unknown_and_not_damaged(
    tmp_path: Path, content: bytes, place: int
) -> None:
    changed = bytearray(content)
    changed[place] += 1
    (tmp_path / NAME).write_bytes(changed)
    check_refused(tmp_path, UnknownFormat)
    assert (tmp_path / NAME).read_bytes() == changed


def check_refused(directory: Path, kind: type[EventLogError]) -> None:
    """Both ends refuse the file."""
    files = KillingFiles()
    for opens in (Journal, read_records):
        with pytest.raises(kind) as raised:
            opens(str(directory), NAME, files)
        assert type(raised.value) is kind
        assert raised.value.path == str(directory)
    files.bury()


# --- the operating system --------------------------------------------------------------------


def work(directory: str, files: Any, done: list[Record]) -> None:
    """Appends, a replacement and a second start; `done` has what the journal has to hold."""
    journal = Journal(directory, NAME, files)
    for number in range(3):
        journal.append(["append", number])
        done.append(["append", number])
    journal.replace([["state", len(done)]])
    done[:] = [["state", len(done)]]
    journal.append(["after"])
    done.append(["after"])
    journal.close()
    journal = Journal(directory, NAME, files)
    assert journal.records == done
    journal.append(["again"])
    done.append(["again"])
    journal.sync()
    journal.close()


@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn"])
def test_killed_at_every_call(tmp_path: Path, torn: bool) -> None:
    at = 0
    while True:
        at += 1
        directory = tmp_path / str(at)
        directory.mkdir()
        files = KillingFiles(at, torn=torn)
        done: list[Record] = []
        try:
            work(str(directory), files, done)
        except Killed:
            files.bury()
            found = read_records(str(directory), NAME)
            replaced = [["state", len(done)]]
            assert found in (done, replaced), "what was acknowledged is there, and no more"
            assert reopened(directory) == found
        else:
            break
        finally:
            shutil.rmtree(directory)
    assert at > 12
    assert files.open_descriptors == set()


@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn"])
@pytest.mark.parametrize(
    ("number", "kind", "error"),
    [
        (errno.ENOSPC, "write", LogFull),
        (errno.EIO, "write", StorageFailed),
        (errno.ENOSPC, "create", LogFull),
        (errno.EIO, "sync", StorageFailed),
        (errno.EIO, "rename", StorageFailed),
    ],
)
def test_what_fails_changes_nothing(
    tmp_path: Path, number: int, kind: str, error: type[EventLogError], torn: bool
) -> None:
    wanted: list[Record] = [["before"]]
    files = FailingFiles(number, [kind], 99, torn=torn)
    journal = Journal(str(tmp_path), NAME, files)
    journal.append(["before"])
    actions: list[tuple[Callable[[], None], list[Record]]] = [
        (lambda: journal.append(["one", b"x" * 99], ["two"]), [["one", b"x" * 99], ["two"]]),
        (lambda: journal.replace([["state"]]), []),
    ]
    for action, adds in actions:
        for at in (1, 2):
            files.calls, files._at = 0, at
            files.has_failed = False
            try:
                action()
            except error:
                assert files.has_failed
            else:
                wanted = wanted + adds if adds else [["state"]]
            files.heal()
            assert read_records(str(tmp_path), NAME) == wanted
            journal.append(["n"])
            wanted = [*wanted, ["n"]]
            assert read_records(str(tmp_path), NAME) == wanted
    journal.close()
    assert files.open_descriptors == set()
    assert reopened(tmp_path) == wanted


@pytest.mark.parametrize("kind", ["open_write", "create", "write", "rename", "read"])
def test_a_journal_that_cannot_be_opened_leaves_no_descriptor(tmp_path: Path, kind: str) -> None:
    # What it had opened stayed open: one more at each attempt of a writer whose disk was full.
    files = FailingFiles(errno.EIO, [kind], 1)
    with pytest.raises(StorageFailed):
        Journal(str(tmp_path), NAME, files)
    left = len(files.open_descriptors)
    files.bury()
    assert left == 0


@pytest.mark.parametrize("opens", [Journal, read_records])
def test_a_journal_that_is_none_leaves_no_descriptor(tmp_path: Path, opens: Any) -> None:
    (tmp_path / NAME).write_bytes(b"no journal at all")
    files = KillingFiles()
    with pytest.raises(CorruptLog):
        opens(str(tmp_path), NAME, files)
    left = len(files.open_descriptors)
    files.bury()
    assert left == 0


def test_a_sync_that_fails_is_an_error_of_ours(tmp_path: Path, journal: Journal) -> None:
    journal._files = FailingFiles(errno.EIO, ["sync"], 1)
    with pytest.raises(StorageFailed):
        journal.sync()


def test_a_file_is_read_while_its_writer_appends_and_replaces(
    tmp_path: Path, journal: Journal
) -> None:
    """Each look finds whole records, in order and without a gap, and never fewer than before."""
    is_over = threading.Event()
    looks: list[list[Record]] = []

    def look() -> None:
        while not is_over.is_set():
            looks.append(read_records(str(tmp_path), NAME))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(1, 201):
            journal.append([number, b"x" * (number % 50)])
            if number % 50 == 0:
                journal.replace([[number, b""]])
    finally:
        is_over.set()
        reader.join()
    last = 0
    for found in looks:
        seen = [record[0] for record in found]
        assert seen == list(range(seen[0], seen[0] + len(seen))) if seen else not last
        assert last <= (seen[-1] if seen else 0)
        last = seen[-1] if seen else 0
    assert read_records(str(tmp_path), NAME) == [[200, b""]]


def test_a_record_that_was_cut_stays_so_in_a_second_loss_of_power(tmp_path: Path) -> None:
    """The zeros over it were not synced: it came back behind a new record as long as a torn one."""
    fills_sector = "x" * 483
    old, new = [[n, fills_sector] for n in (1, 2)], [3, fills_sector]
    content = journal_header() + b"".join(map(framed, old))
    assert len(journal_header() + framed(new)) == SECTOR
    torn = content[:HEADER_BYTES] + bytes(SECTOR - HEADER_BYTES) + content[SECTOR:]
    (tmp_path / NAME).write_bytes(torn)
    files = RecordingFiles(Disk.of({NAME: torn}))
    journal = Journal(str(tmp_path), NAME, files)
    assert journal.records == []
    journal.append(new)
    journal.close()
    images = [image[NAME] for _, image in PowerCuts(files.disk, 100, random.Random(1))]
    for image in images:
        assert parse(image, str(tmp_path), NAME)[0] in ([], [new])


def test_a_loss_of_power_leaves_no_journal_without_its_beginning(tmp_path: Path) -> None:
    # The name was there and the bytes were not, and no writer could start any more.
    files = RecordingFiles()
    Journal(str(tmp_path), NAME, files).close()
    disk = files.start
    found = 0
    for call in files.calls:
        disk.apply(call)
        for _, image in PowerCuts(disk, 100, random.Random(1)):
            if NAME in image:
                found += 1
                assert parse(image[NAME], str(tmp_path), NAME) == ([], 16)
    assert found
