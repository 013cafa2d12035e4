"""Filters over the bytes of batches: what is refused unread, and what a reader never sees of it."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.errors import CorruptLog
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.filters import EventFilter, unpack_matching
from eventlog.event.packed_columns import keys_in
from eventlog.event.record_batch import PackedBatch, areas_bytes, unpack_body
from eventlog.local.storage.formats.format import (
    BATCH_HEADER,
    FIRST_BATCH,
    HEADER_BYTES,
    aligned,
    segment_name,
    unpack_batch_header,
)
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import open_storage

texts = st.sampled_from(["", "a", "ab", "abc", "b", "plumless", "buckeroo"])
"""The last two have one CRC-32."""
pairs = st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=2)
rows = st.tuples(st.integers(0, 99) | texts, st.none() | texts, st.none() | pairs)
filters = st.builds(
    EventFilter,
    keys=st.none() | st.sets(texts, max_size=7),
    key_prefix=st.none() | st.sampled_from(["", "a", "ab", "p"]),
    headers=st.none() | pairs,
)


def batch_with(*rows: tuple[Any, str | None, dict[str, str] | None]) -> PackedBatch:
    builder = BatchBuilder(1 << 20)
    for row in rows:
        builder.add(*row)
    return builder.build()


def keyed(event: Any, *keys: str | None) -> PackedBatch:
    """A batch of that event once for each key."""
    return batch_with(*[(event, key, None) for key in keys])


def is_match(wanted: EventFilter, key: str | None, headers: dict[str, str] | None) -> bool:
    """What the words say: the slow way."""
    return (
        (wanted.keys is None or key in wanted.keys)
        and (wanted.key_prefix is None or (key is not None and key.startswith(wanted.key_prefix)))
        and (
            wanted.headers is None
            or (headers is not None and all(headers.get(n) == v for n, v in wanted.headers.items()))
        )
    )


@given(st.lists(rows, min_size=1, max_size=20), filters)
def test_a_filtered_batch_is_the_filtered_whole(
    events: list[tuple[Any, Any, Any]], wanted: EventFilter
) -> None:
    batch = batch_with(*events)
    body = memoryview(batch.payload)[areas_bytes(batch.count, batch.flags, batch.acks_bytes) :]
    whole = unpack_body(body, batch.count, 41)
    expected = [one for one in whole if is_match(wanted, one.key, one.headers)]
    found = unpack_matching(body, batch.count, 41, wanted)
    assert found == expected
    if wanted.refuses(batch.flags, batch.count, memoryview(batch.payload)):
        assert expected == []


@given(st.lists(rows, min_size=1, max_size=40), filters, st.data())
def test_a_body_that_makes_no_sense_is_nothing_worse(
    events: list[tuple[Any, Any, Any]], wanted: EventFilter, data: st.DataObject
) -> None:
    """Whatever stands in a body, it is refused, found to be no body, or read."""
    batch = batch_with(*events)
    body = bytearray(batch.payload[areas_bytes(batch.count, batch.flags, batch.acks_bytes) :])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    for some in (bytes(body), cut):
        wanted.lacks(some, batch.count)
        with suppress(ValueError, CorruptLog):
            assert isinstance(keys_in(some, batch.count, 1), list)
        with suppress(ValueError, CorruptLog, RecursionError, TypeError):
            unpack_matching(memoryview(some), batch.count, 1, wanted)


@given(st.lists(rows, min_size=16, max_size=60), filters)
def test_few_events_of_a_large_batch_are_found_one_by_one(
    events: list[tuple[Any, Any, Any]], wanted: EventFilter
) -> None:
    batch = batch_with(*events)
    body = memoryview(batch.payload)[areas_bytes(batch.count, batch.flags, batch.acks_bytes) :]
    expected = [row for row in enumerate(events, 41) if is_match(wanted, *row[1][1:])]
    found = unpack_matching(body, batch.count, 41, wanted)
    assert [(one.seq_no, (one.event, one.key, one.headers)) for one in found] == expected
    if wanted.lacks(body, batch.count):
        assert expected == []
    assert keys_in(body, batch.count, 41) in ([], [key for _, key, _ in events])


def test_two_keys_of_one_hash_are_told_apart_by_the_key_itself() -> None:
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    batch, wanted = keyed(1, "buckeroo"), EventFilter(keys=["plumless"])
    assert not wanted.refuses(batch.flags, 1, batch.payload)
    body = batch.payload[areas_bytes(1, batch.flags, 0) :]
    assert unpack_matching(body, 1, 1, wanted) == []


@pytest.mark.parametrize("others", [0, 10], ids=["as bytes", "as numbers"])
def test_the_end_of_one_hash_and_the_begin_of_the_next_are_no_hash(others: int) -> None:
    wanted = EventFilter(keys=["k", *map(str, range(others))])
    sought = struct.pack("<I", zlib.crc32(b"k"))
    area = b"\1" + sought + b"\2\3\4" + b"\0" * 4
    assert wanted.refuses(1, 3, area)
    assert not wanted.refuses(1, 4, area + sought)
    assert not wanted.refuses(1, 4, b"\1" + sought * 2 + sought[:3] + sought)
    assert wanted.refuses(1, 3, area + sought), "behind the area stands the body"


def test_a_filter_says_what_it_wants() -> None:
    wanted = EventFilter(keys={"a"}, headers={"x": "1"})
    assert repr(wanted) == "EventFilter(keys=frozenset({'a'}), headers={'x': '1'})"


# --- on the disk -----------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """Five batches: of key a, of b, without keys, of b, of a."""
    directory = str(tmp_path / "log")
    log = open_storage(directory, durability="memory")
    for batch in (
        keyed("first", "a"),
        keyed("other", "b", "b"),
        keyed("none", None),
        keyed("other", "b"),
        keyed("last", "a"),
    ):
        log.append(batch)
    log.close()
    return directory


def found(directory: str, wanted: EventFilter | None = None) -> list[tuple[int | None, Any]]:
    log = LogReader(directory)
    try:
        batches = read_range(log, 0, None, wanted)
        return [(one.seq_no, one.event) for batch in batches for one in batch]
    finally:
        log.close()


def change(directory: str, place: int, offset: int, new: bytes) -> None:
    """Write over a batch of the first segment, given its place and the offset in it."""
    path = Path(directory) / segment_name(1)
    data = bytearray(path.read_bytes())
    position = FIRST_BATCH
    for _ in range(place):
        header = unpack_batch_header(memoryview(bytes(data)), position)
        position = aligned(position + header.length)
    data[position + offset : position + offset + len(new)] = new
    path.write_bytes(data)


OF_A = EventFilter(keys=["a"])


def test_batches_without_a_match_are_not_read(directory: str) -> None:
    """Damage shows it: nobody looks at the checksums of the second to the fourth batch."""
    for place in (1, 2, 3):
        change(directory, place, HEADER_BYTES + 8, b"\xff")
    assert found(directory, OF_A) == [(1, "first"), (6, "last")]
    with pytest.raises(CorruptLog):
        found(directory)
    with pytest.raises(CorruptLog):
        found(directory, EventFilter(keys=["b"]))


def test_a_header_that_leads_elsewhere_is_not_believed(directory: str) -> None:
    """A count that is too large would leave out the events behind it without a word."""
    change(directory, 1, BATCH_HEADER.offset("count"), struct.pack("<I", 5))
    with pytest.raises(CorruptLog) as caught:
        found(directory, OF_A)
    assert caught.value.seq_no == 2


def test_a_hash_that_was_damaged_is_seen_by_who_reads_all(directory: str) -> None:
    change(directory, 4, HEADER_BYTES, b"\xff\xff\xff\xff")
    with pytest.raises(CorruptLog):  # the last batch has none behind it, and is read
        found(directory, OF_A)


def test_a_filtered_range_ends_where_it_was_told(directory: str) -> None:
    log = LogReader(directory)
    try:
        for start in range(1, 7):
            for stop in range(1, 8):
                batches = read_range(log, start, stop, OF_A)
                numbers = [one.seq_no for batch in batches for one in batch]
                assert numbers == [n for n in (1, 6) if start <= n < stop]
    finally:
        log.close()
