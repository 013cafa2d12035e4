"""Keys and headers as columns: their bytes, what is remembered, what stays packed."""

from __future__ import annotations

import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventlog.errors import CorruptLog, EventTooLarge, InvalidArgument, InvalidArgumentType
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.record_batch import PackedBatch, areas_bytes, unpack_body
from eventlog.event.text_columns import (
    KNOWN_KEYS_MAX,
    KeyHashes,
    array_header,
    is_column_of,
)

LIMIT = 1 << 20
texts = st.text(max_size=40)
headers = st.dictionaries(texts, texts, max_size=20)


class Text(str):
    """As `StrEnum` makes them."""

    __slots__ = ()


def body_of(batch: PackedBatch) -> bytes:
    return bytes(batch.payload[areas_bytes(batch.count, batch.flags, batch.acks_bytes) :])


@given(st.lists(st.tuples(st.none() | texts, st.none() | headers), min_size=1, max_size=40))
@example([(None, None)] * 15 + [("a" * 31, None), ("b" * 32, {}), ("c" * 255, None)])
@example([("d" * 256, {"e" * 300: "f"}), ("g" * 65_536, None), (None, {"h": "i"})])
def test_the_columns_are_the_bytes_that_any_messagepack_library_writes(
    rows: list[tuple[str | None, dict[str, str] | None]],
) -> None:
    builder = BatchBuilder(LIMIT)
    for key, head in rows:
        builder.add(7, key, head)
    batch = builder.build()
    keys = [key for key, _ in rows]
    heads = [head for _, head in rows]
    _, _, column_of_keys, column_of_headers, _ = msgpack.unpackb(body_of(batch))
    assert column_of_keys == (keys if any(key is not None for key in keys) else None)
    assert column_of_headers == (heads if any(head is not None for head in heads) else None)
    assert msgpack.packb(column_of_keys) + msgpack.packb(column_of_headers) in body_of(batch)
    if column_of_keys is not None:
        hashes = [0 if key is None else zlib.crc32(key.encode()) for key in keys]
        area = batch.payload[: 4 * len(rows)]
        assert [int.from_bytes(area[n : n + 4], "little") for n in range(0, len(area), 4)] == hashes


def test_more_keys_than_are_remembered_have_their_hashes_all_the_same() -> None:
    hashes = KeyHashes()
    for number in range(2 * KNOWN_KEYS_MAX + 1):
        assert hashes[str(number)] == zlib.crc32(str(number).encode())
    assert len(hashes) <= KNOWN_KEYS_MAX


def test_headers_that_change_after_a_call_are_packed_as_they_were_in_it() -> None:
    builder = BatchBuilder(LIMIT)
    head = {"a": "1"}
    for value in ("1", "2", "2", "1"):
        head["a"] = value
        builder.add(0, None, head)
    batch = builder.build()
    read = [one.headers for one in unpack_body(body_of(batch), 4, 1)]
    assert read == [{"a": "1"}, {"a": "2"}, {"a": "2"}, {"a": "1"}]


def test_texts_of_a_class_of_their_own_are_stored_as_plain_ones() -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(0, Text("key"), {Text("name"): Text("value")})
    [envelope] = unpack_body(body_of(builder.build()), 1, 1)
    assert (envelope.key, envelope.headers) == ("key", {"name": "value"})
    assert type(envelope.key) is str


@pytest.mark.parametrize(
    ("key", "head", "error"),
    [
        (["a"], None, InvalidArgumentType),
        (7, None, InvalidArgumentType),
        ("\ud800", None, InvalidArgument),
        (None, {"a": ["b"]}, InvalidArgumentType),
        (None, {"a": 1}, InvalidArgumentType),
        (None, {1: "a"}, InvalidArgumentType),
        (None, {"a": "\ud800"}, InvalidArgument),
        (None, [("a", "b")], InvalidArgumentType),
        ("k" * LIMIT, None, EventTooLarge),
        ("key", {"a": "h" * LIMIT}, EventTooLarge),
    ],
)
def test_a_wrong_key_or_header_leaves_the_batch_as_it_was(
    key: Any, head: Any, error: type[Exception]
) -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(1, "first", {"a": "b"})
    size = builder.bytes
    for _ in range(2):
        with pytest.raises(error):
            builder.add(2, key, head)
    assert (len(builder), builder.bytes) == (1, size)
    builder.add(3, "third")
    read = unpack_body(body_of(builder.build()), 2, 1)
    assert [(one.event, one.key, one.headers) for one in read] == [
        (1, "first", {"a": "b"}),
        (3, "third", None),
    ]


def test_a_reader_unpacks_keys_and_headers_when_they_are_asked_for() -> None:
    builder = BatchBuilder(LIMIT)
    for number in range(20):
        builder.add(number, str(number), {"n": str(number)})
    envelopes = unpack_body(memoryview(body_of(builder.build())), 20, 1)
    columns = envelopes[0].columns
    # bytes, not views: an envelope that is kept keeps no segment mapped
    assert type(columns.packed_keys) is type(columns.packed_headers) is bytes
    assert [one.key for one in envelopes] == [str(number) for number in range(20)]
    assert type(columns.packed_headers) is bytes
    assert envelopes[7].headers == {"n": "7"}


def test_a_key_that_its_producer_has_packed_wrongly_is_corrupt() -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(0, "abc")
    body = body_of(builder.build()).replace(b"\xa3abc", b"\xa3a\xffc")
    [envelope] = unpack_body(body, 1, 41)
    with pytest.raises(CorruptLog, match="41"):
        _ = envelope.key


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_a_column_has_a_value_for_each_event(count: int) -> None:
    assert array_header(count) == msgpack.Packer().pack_array_header(count)
    assert is_column_of(array_header(count), count)
    assert not is_column_of(array_header(count), count + 1)
    assert not is_column_of([None], 2)
    assert is_column_of(None, count)
