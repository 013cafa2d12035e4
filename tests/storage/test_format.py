from __future__ import annotations

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from eventlog.event.record_batch import PackedBatch
from eventlog.local.storage.formats.format import (
    ALIGNMENT,
    FIRST_BATCH,
    HEADER_BYTES,
    INDEX_ENTRY,
    SEGMENT_HEADER,
    IndexEntry,
    aligned,
    base_of_name,
    batch_fault,
    index_bytes,
    index_name,
    pack_batch_header,
    pack_index_entry,
    pack_segment_header,
    segment_header_fault,
    segment_name,
    unpack_batch_header,
    unpack_index_entry,
)
from eventlog.testing import batch_of

words = st.integers(0, 2**64 - 1)
halves = st.integers(0, 2**32 - 1)


def stored(batch: PackedBatch, base_seq_no: int = 5) -> bytes:
    header = pack_batch_header(
        batch, base_seq_no=base_seq_no, append_time_ns=6, producer_id=7, producer_seq=8, epoch=9
    )
    return header + batch.payload


def fault_of(data: bytes, position: int = 0) -> str | None:
    view = memoryview(data)
    return batch_fault(view, position, unpack_batch_header(view, position))


def test_a_batch_header_says_what_it_was_given() -> None:
    batch = batch_of("a", "b", "c")
    header = unpack_batch_header(memoryview(stored(batch)), 0)
    assert (header.base_seq_no, header.last_seq_no, header.count) == (5, 7, 3)
    assert (header.append_time_ns, header.producer_id, header.producer_seq) == (6, 7, 8)
    assert (header.epoch, header.flags, header.acks_bytes, header.reserved) == (9, 0, 0, bytes(8))
    assert header.length == HEADER_BYTES + len(batch.payload)
    assert header.body_offset == HEADER_BYTES


@given(st.integers(0, 7))
def test_a_whole_batch_has_no_fault_wherever_it_lies(place: int) -> None:
    data = bytes(place * ALIGNMENT) + stored(batch_of(1, 2)) + bytes(24)
    assert fault_of(data, place * ALIGNMENT) is None


def test_every_flipped_bit_of_a_batch_is_a_fault() -> None:
    data = stored(batch_of("some event"))
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            if flipped[4:8] != bytes(4):
                assert fault_of(bytes(flipped)) is not None, f"bit {bit} of byte {place}"


@given(st.binary(min_size=HEADER_BYTES, max_size=200))
def test_arbitrary_bytes_are_no_batch_and_no_other_error(data: bytes) -> None:
    assert fault_of(data) is not None


@pytest.mark.parametrize(
    "batch",
    [PackedBatch(0, 0, 0, b"x"), PackedBatch(9, 1, 0, b"x"), PackedBatch(1, 0, 99, b"x")],
    ids=["no events", "more hashes than bytes", "more acks than bytes"],
)
def test_a_header_that_contradicts_itself_is_a_fault_though_its_checksum_is_right(
    batch: PackedBatch,
) -> None:
    assert "not there" in (fault_of(stored(batch)) or "")


def test_flags_of_a_later_version_are_a_fault() -> None:
    assert "flags" in (fault_of(stored(PackedBatch(1, 0x100, 0, b"xxxxxxx"))) or "")


@given(words, words, words, words)
def test_a_segment_header_is_read_as_written(base: int, size: int, epoch: int, ns: int) -> None:
    header = pack_segment_header(base, size, epoch, ns)
    assert segment_header_fault(header, base) is None
    fields = SEGMENT_HEADER.to_dict(header)
    names = ("base_seq_no", "segment_bytes", "epoch", "created_ns")
    assert tuple(fields[name] for name in names) == (base, size, epoch, ns)


def test_every_flipped_bit_of_a_segment_header_is_a_fault() -> None:
    header = pack_segment_header(1, 4096, 1, 1)
    for place in range(len(header)):
        for bit in range(8):
            flipped = bytearray(header)
            flipped[place] ^= 1 << bit
            assert segment_header_fault(bytes(flipped), 1) is not None


@given(st.binary(max_size=100), words)
def test_arbitrary_bytes_are_no_segment_header(data: bytes, base: int) -> None:
    assert segment_header_fault(data, base) is not None


def test_what_is_wrong_with_a_segment_header_is_said() -> None:
    header = pack_segment_header(1, 4096, 1, 1)
    assert "shorter" in (segment_header_fault(header[:-1], 1) or "")
    assert "does not begin" in (segment_header_fault(b"X" + header[1:], 1) or "")
    later = header[:8] + b"\x02" + header[9:-4]
    later += crc32c(later).to_bytes(4, "little")
    assert "version 2" in (segment_header_fault(later, 1) or "")
    assert "damaged" in (segment_header_fault(header[:8] + b"\x02" + header[9:], 1) or "")
    assert "damaged" in (segment_header_fault(header[:-1] + b"!", 1) or "")
    assert "event 1" in (segment_header_fault(header, 2) or "")


@given(st.integers(1, 2**64 - 1), words, halves, st.integers(0, 64))
def test_an_index_entry_comes_back(base: int, ns: int, position: int, before: int) -> None:
    entry = IndexEntry(base, ns, position)
    assert unpack_index_entry(bytes(before) + pack_index_entry(entry), before) == entry


@given(st.binary(min_size=INDEX_ENTRY.size, max_size=60))
def test_arbitrary_bytes_are_no_index_entry(data: bytes) -> None:
    assert unpack_index_entry(data, 0) is None


def test_every_flipped_bit_of_an_index_entry_makes_it_none() -> None:
    packed = pack_index_entry(IndexEntry(1, 2, 3))
    for place in range(len(packed)):
        flipped = bytearray(packed)
        flipped[place] ^= 1
        assert unpack_index_entry(bytes(flipped), 0) is None


@given(st.integers(1, 10**20 - 1))
def test_names_are_as_long_as_they_sort(base: int) -> None:
    assert base_of_name(segment_name(base)) == base
    assert len(segment_name(base)) == len(index_name(base)) == 24
    assert base_of_name(index_name(base)) is None


@pytest.mark.parametrize(
    "name",
    ["", "control", "1.seg", "00000000000000000001.seg.new", "0000000000000000000x.seg", "²" * 20],
)
def test_other_names_are_no_segments(name: str) -> None:
    assert base_of_name(name) is None
    assert base_of_name(f"{name}.seg") is None or name.isdigit()


@given(st.text(max_size=30))
def test_any_name_is_a_segment_or_not(name: str) -> None:
    base = base_of_name(name)
    assert base is None or segment_name(base) == name


@given(st.integers(0, 2**40))
def test_alignment_goes_up_to_the_next_place(offset: int) -> None:
    assert offset <= aligned(offset) < offset + ALIGNMENT
    assert aligned(offset) % ALIGNMENT == 0


@given(st.integers(4096, 1 << 30))
def test_an_index_has_room_for_an_entry_about_every_page(segment_bytes: int) -> None:
    entries_at_most = (segment_bytes - FIRST_BATCH) // 4096 + 1
    assert index_bytes(segment_bytes) >= entries_at_most * INDEX_ENTRY.size
