from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.errors import CorruptLog, LogFull
from eventlog.local.storage.files import FILES, Files, used_bytes
from eventlog.local.storage.formats.format import (
    FIRST_BATCH,
    INDEX_ENTRY,
    INDEX_EVERY_BYTES,
    IndexEntry,
    index_bytes,
    index_name,
    pack_batch_header,
    pack_index_entry,
    segment_name,
)
from eventlog.local.storage.index import write_index
from eventlog.local.storage.segment import (
    SegmentReader,
    SegmentWriter,
    read_segment_header,
)
from eventlog.testing import FailingFiles, KillingFiles, batch_of

SIZE = 64 * 1024


def create(directory: Path, files: Files = FILES, base: int = 1) -> SegmentWriter:
    return SegmentWriter.create(str(directory), base, SIZE, 1, 1000, files)


def append(segment: SegmentWriter, seq_no: int, size: int = 200) -> None:
    batch = batch_of("x" * size)
    header = pack_batch_header(
        batch, base_seq_no=seq_no, append_time_ns=seq_no, producer_id=0, producer_seq=0, epoch=1
    )
    segment.append(header, batch.payload, IndexEntry(seq_no, seq_no, segment.position))


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Path]:
    segment = create(tmp_path)
    for seq_no in range(1, 151):
        append(segment, seq_no)
    yield tmp_path
    segment.close()
    segment.close()


def test_a_segment_has_all_its_room_from_the_beginning(tmp_path: Path) -> None:
    create(tmp_path, base=7).close()
    segment, index = tmp_path / segment_name(7), tmp_path / index_name(7)
    assert segment.stat().st_size == SIZE
    assert segment.stat().st_blocks * 512 >= SIZE
    assert index.stat().st_size == index_bytes(SIZE)
    assert segment.stat().st_mode & 0o777 == 0o600
    header = read_segment_header(str(tmp_path), 7, FILES)
    assert (header["base_seq_no"], header["segment_bytes"], header["created_ns"]) == (7, SIZE, 1000)


@pytest.mark.parametrize("kind", ["create", "allocate", "write", "rename"])
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("for_ever", [False, True])
def test_a_segment_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, kind: str, at: int, for_ever: bool
) -> None:
    if kind in ("write", "rename") and at == 2:
        at = 1
    files = FailingFiles(errno.ENOSPC, [kind], at, for_ever=for_ever)
    with pytest.raises(LogFull):
        create(tmp_path, files)
    assert os.listdir(tmp_path) == []
    assert files.open_descriptors == set()


def test_a_segment_that_cannot_be_tidied_up_either_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(LogFull):
        create(tmp_path, FailingFiles(errno.ENOSPC, ["write", "unlink"], 1, for_ever=True))
    create(tmp_path).close()


def test_the_length_is_written_after_everything_that_it_covers(tmp_path: Path) -> None:
    writes: list[tuple[int, bytes]] = []

    class Recording(Files):
        def write(self, descriptor: int, parts: object, position: int) -> None:
            writes.append((position, b"".join(parts)))  # type: ignore[arg-type]
            super().write(descriptor, parts, position)  # type: ignore[arg-type]

    segment = create(tmp_path, Recording())
    writes.clear()
    append(segment, 1)
    segment.close()
    (first, content), (second, length) = writes[:2]
    assert (first, second) == (FIRST_BATCH, FIRST_BATCH + 4)
    assert content[4:8] == bytes(4)
    assert int.from_bytes(length, "little") == len(content)


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("torn", [False, True])
def test_a_failed_append_moves_nothing(tmp_path: Path, at: int, torn: bool) -> None:
    segment = create(tmp_path)
    append(segment, 1)
    place = segment.position
    segment._files = FailingFiles(errno.ENOSPC, ["write"], at, torn=torn)
    with pytest.raises(LogFull):
        append(segment, 2, 900)
    assert segment.position == place
    append(segment, 2)
    append(segment, 3)
    segment.close()
    reader = SegmentReader(str(tmp_path), 1)
    header = reader.header_at(place)
    assert header is not None
    assert header.base_seq_no == 2
    reader.close()


def test_about_every_page_has_an_index_entry(filled: Path) -> None:
    reader = SegmentReader(str(filled), 1)
    entries = reader.entries()
    reader.close()
    assert entries[0] == IndexEntry(1, 1, FIRST_BATCH)
    gaps = [b.position - a.position for a, b in itertools.pairwise(entries)]
    assert len(entries) > 5
    assert all(INDEX_EVERY_BYTES <= gap < INDEX_EVERY_BYTES + 400 for gap in gaps)
    assert not entries[1].is_due(entries[1].position - 1)


def test_an_index_that_cannot_be_written_fails_no_append(tmp_path: Path) -> None:
    segment = create(tmp_path)
    segment._files = FailingFiles(errno.ENOSPC, ["write"], 3)  # body, length, then the index
    append(segment, 1)
    append(segment, 2)
    segment.close()
    reader = SegmentReader(str(tmp_path), 1)
    assert [entry.base_seq_no for entry in reader.entries()] == [2]
    reader.close()


@given(st.integers(0, 200))
def test_the_nearest_entry_is_the_last_one_before(filled_once: Path, seq_no: int) -> None:
    reader = SegmentReader(str(filled_once), 1)
    try:
        wanted = [entry for entry in reader.entries() if entry.base_seq_no <= seq_no]
        found = reader.nearest(lambda entry: entry.base_seq_no <= seq_no)
        assert found == (wanted[-1] if wanted else None)
    finally:
        reader.close()


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("filled")
    segment = create(directory)
    for seq_no in range(1, 151):
        append(segment, seq_no)
    segment.close()
    return directory


@given(st.lists(st.binary(min_size=24, max_size=24) | st.integers(0, 30), max_size=20), st.data())
def test_any_index_leads_to_a_batch_at_or_before_or_to_none(
    filled_once: Path, rows: list[bytes | int], data: st.DataObject
) -> None:
    reader = SegmentReader(str(filled_once), 1)
    index = filled_once / index_name(1)
    before = index.read_bytes()
    true = reader.entries()
    try:
        # True entries in any order, entries that lead nowhere, and nonsense.
        lies = [IndexEntry(5, 5, position) for position in (0, 60, 65, 1 << 20, 2**32 - 1)]
        known = [pack_index_entry(entry) for entry in (*true, *lies)]
        content = b"".join(
            row if isinstance(row, bytes) else known[row % len(known)] for row in rows
        )
        index.write_bytes(content + data.draw(st.binary(max_size=23)))
        seq_no = data.draw(st.integers(0, 151))
        found = reader.nearest(lambda entry: entry.base_seq_no <= seq_no)
        assert found is None or (found in true and found.base_seq_no <= seq_no)
    finally:
        index.write_bytes(before)
        reader.close()


def test_an_index_made_again_is_whole_or_not_there(filled: Path) -> None:
    reader = SegmentReader(str(filled), 1)
    entries = reader.entries()
    (filled / index_name(1)).unlink()
    write_index(str(filled), 1, entries, FailingFiles(errno.ENOSPC, ["write"], 1, torn=True))
    assert not (filled / index_name(1)).exists()
    write_index(str(filled), 1, entries, FILES)
    assert reader.entries() == entries
    assert (filled / index_name(1)).stat().st_size == len(entries) * INDEX_ENTRY.size
    reader.close()


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_segment(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    directory = tmp_path_factory.mktemp("any")
    (directory / segment_name(1)).write_bytes(data)
    with pytest.raises(CorruptLog) as caught:
        SegmentReader(str(directory), 1)
    assert caught.value.seq_no == 1


def test_a_header_without_a_batch_is_too_short(filled: Path) -> None:
    path = filled / segment_name(1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptLog, match="too short"):
        SegmentReader(str(filled), 1)


def test_a_segment_deleted_while_it_is_opened_is_not_found(filled: Path) -> None:
    # What retention takes may be written over, unless its reader has the lock by then.
    class Deleting(KillingFiles):
        def open_read(self, path: str) -> int:
            descriptor = super().open_read(path)
            if path.endswith(".seg"):
                os.unlink(path)
            return descriptor

    files = Deleting()
    with pytest.raises(FileNotFoundError):
        SegmentReader(str(filled), 1, files)
    assert files.open_descriptors == set()
    with pytest.raises(FileNotFoundError):
        SegmentReader(str(filled), 1)


def test_a_reader_that_fails_leaves_no_descriptor(filled: Path) -> None:
    for kind in ("read", "map"):
        files = FailingFiles(errno.EIO, [kind], 1)
        with pytest.raises(Exception, match="segment"):
            SegmentReader(str(filled), 1, files)
        assert files.open_descriptors == set()


def test_cutting_leaves_zeros(filled: Path) -> None:
    segment = SegmentWriter.reopen(str(filled), 1, SIZE, FILES)
    segment.resume(FIRST_BATCH + 800, [])
    segment.cut()
    segment.close()
    content = (filled / segment_name(1)).read_bytes()
    assert content[FIRST_BATCH + 800 :] == bytes(SIZE - FIRST_BATCH - 800)
    assert content[FIRST_BATCH : FIRST_BATCH + 64] != bytes(64)


def test_zeros_are_written_ahead_of_a_batch_and_never_over_one(tmp_path: Path) -> None:
    written: list[tuple[int, int]] = []

    class Noting(Files):
        def write(
            self, descriptor: int, parts: Sequence[bytes | memoryview], position: int
        ) -> None:
            written.append((position, position + sum(map(len, parts))))
            super().write(descriptor, parts, position)

    segment = SegmentWriter.create(str(tmp_path), 1, SIZE, 1, 1000, Noting(), writes_ahead=True)
    start = segment.position
    written.clear()
    segment.append(bytes(64), b"x" * 100, IndexEntry(1, 1000, start))
    assert written[0] == (start + 164, SIZE), "from the end of the batch, and not past the segment"
    written.clear()
    segment.append(bytes(64), b"y" * 100, IndexEntry(2, 1000, segment.position))
    assert all(end <= segment.position for _, end in written), "once for many batches"
    segment.close()


@given(st.binary(max_size=20), st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_zeros_at_the_end_are_not_used(data: bytes, before: int, after: int) -> None:
    whole = bytes(before) + data + bytes(after)
    assert used_bytes(whole) == len(whole.rstrip(b"\0"))
