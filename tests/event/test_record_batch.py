from __future__ import annotations

import contextlib
import zlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventlog.config import BATCH_EVENTS_LIMIT, AskedOptions, LogOptions
from eventlog.errors import (
    CorruptLog,
    EventTooLarge,
    InvalidArgument,
    InvalidArgumentType,
    InvalidEvent,
)
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.cause import Cause
from eventlog.event.envelope import EventEnvelope
from eventlog.event.many_events import pack_batches
from eventlog.event.record_batch import FLAG_KEYED, areas_bytes, unpack_body
from eventlog.local.storage.formats.format import FIRST_BATCH, HEADER_BYTES

LIMIT = 1 << 20
texts = st.text(max_size=8)
headers = st.dictionaries(texts, texts, max_size=2)
rows = st.tuples(st.integers(0, 300) | texts, st.none() | texts, st.none() | headers)
causes = st.builds(
    Cause, st.sampled_from([UUID(int=1), UUID(int=2)]), st.integers(1, 99), st.sampled_from("gh")
)
wrapped = st.builds(
    EventEnvelope,
    st.integers(-100, 100),
    key=st.none() | texts,
    headers=st.none() | headers,
    id=st.none() | st.uuids(),
    cause=st.none() | causes,
)


def unpacked(batch: Any, base_seq_no: int = 1) -> list[EventEnvelope]:
    start = areas_bytes(batch.count, batch.flags, batch.acks_bytes)
    return unpack_body(memoryview(batch.payload)[start:], batch.count, base_seq_no)


@given(st.lists(rows, min_size=1, max_size=20), st.integers(1, 2**60))
def test_events_come_back_with_keys_headers_and_numbers(
    events: list[tuple[Any, Any, Any]], base: int
) -> None:
    builder = BatchBuilder(LIMIT)
    assert [builder.add(*row) for row in events] == list(range(len(events)))
    batch = builder.build()
    back = unpacked(batch, base)
    assert [(e.event, e.key, e.headers) for e in back] == events
    assert [e.seq_no for e in back] == list(range(base, base + len(events)))
    assert len({e.id for e in back}) == len(events)
    assert all(e.id.version == 7 for e in back)
    assert len(builder) == builder.bytes == 0


@given(st.permutations([{"a": 1}, {1: "a"}, [{"b": None}], UUID(int=1), datetime.now(UTC), b"c"]))
def test_events_that_only_the_slower_packer_takes_stand_among_others(events: list[Any]) -> None:
    builder = BatchBuilder(LIMIT)
    for event in events:
        builder.add(event)
    one_by_one = builder.build()
    assert builder.add_all(events, LIMIT) == []
    for batch in (one_by_one, builder.build()):
        assert [e.event for e in unpacked(batch)] == events


@given(st.lists(wrapped | st.integers(-100, 100), min_size=1, max_size=20))
def test_envelopes_keep_their_id_time_and_cause(events: list[Any]) -> None:
    back = [e for batch in pack_batches(events, LIMIT, LIMIT) for e in unpacked(batch)]
    for given_, stored in zip(events, back, strict=True):
        if isinstance(given_, EventEnvelope):
            assert stored.id == given_.id
            assert stored.timestamp == given_.timestamp
            assert (stored.event, stored.key) == (given_.event, given_.key)
            assert stored.headers == given_.headers
            assert stored.cause == given_.cause
        else:
            assert stored.event == given_
            assert stored.cause is None


def test_key_and_headers_of_the_call_go_before_those_of_the_envelope() -> None:
    builder = BatchBuilder(LIMIT)
    envelope = EventEnvelope(1, key="own", headers={"own": "1"})
    builder.add(envelope, "given", {"given": "1"})
    builder.add(envelope)
    back = unpacked(builder.build())
    assert [(e.key, e.headers) for e in back] == [
        ("given", {"given": "1"}),
        ("own", {"own": "1"}),
    ]


def test_a_keyed_batch_has_the_hash_of_each_key() -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(1, "ключ")
    builder.add(2)
    batch = builder.build()
    assert batch.flags == FLAG_KEYED
    words = memoryview(batch.payload)[:8].cast("I").tolist()
    assert words == [zlib.crc32("ключ".encode()), 0]


def test_a_batch_without_keys_has_no_area_for_them() -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(1, headers={"a": "b"})
    assert builder.build().flags == 0


@given(st.lists(st.integers(0, 99) | st.just(object()), min_size=1, max_size=10))
def test_an_event_that_is_refused_leaves_the_batch_as_it_was(events: list[Any]) -> None:
    builder = BatchBuilder(LIMIT)
    good = []
    for event in events:
        before = (len(builder), builder.bytes)
        try:
            builder.add(event)
        except InvalidEvent:
            assert (len(builder), builder.bytes) == before
        else:
            good.append(event)
    if good:
        assert [e.event for e in unpacked(builder.build())] == good


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((object(),), InvalidEvent),
        ((2**64,), InvalidEvent),
        (("\ud800",), InvalidEvent),
        ((b"x" * 101,), EventTooLarge),
        (("", "k" * 101), EventTooLarge),
        (("", None, {"h": "v" * 101}), EventTooLarge),
        ((1, 2), InvalidArgumentType),
        ((1, "\ud800"), InvalidArgument),
        ((1, None, [2]), InvalidArgumentType),
        ((1, None, {"a": 2}), InvalidArgumentType),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    builder = BatchBuilder(100)
    builder.add(1)
    with pytest.raises(error):
        builder.add(*arguments)
    assert len(builder) == 1


def test_a_recursive_value_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidEvent):
        BatchBuilder(LIMIT).add(loop)


def test_what_is_no_iterable_is_refused() -> None:
    with pytest.raises(InvalidArgumentType):
        pack_batches(7, LIMIT, LIMIT)  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=100), st.integers(1, 500))
def test_many_events_are_split_at_the_limit_and_keep_their_order(
    events: list[bytes], limit: int
) -> None:
    batches = pack_batches(events, LIMIT, limit)
    assert [e.event for batch in batches for e in unpacked(batch)] == events
    assert all(batch.count for batch in batches)
    for batch in batches:
        assert sum(len(e.event) for e in unpacked(batch)[:-1]) < limit


def test_a_batch_holds_no_more_events_than_a_reader_should_decode_at_once() -> None:
    batches = pack_batches(range(2 * BATCH_EVENTS_LIMIT + 1), LIMIT, 1 << 30)
    assert [batch.count for batch in batches] == [BATCH_EVENTS_LIMIT, BATCH_EVENTS_LIMIT, 1]


long_cause = Cause(UUID(int=1), 1, "\N{HEAVY BLACK HEART}" * 128)
caused = [EventEnvelope(0, cause=Cause(UUID(int=1), 1, "g")), EventEnvelope(0, cause=long_cause)]
tiny = st.sampled_from([0, EventEnvelope(0), EventEnvelope(0, key="k" * 20), None, *caused])
segments = st.sampled_from([4096, 8192, 65536])


@given(segments, st.lists(tiny, max_size=8), st.integers(0, 3000), st.booleans())
@example(4096, [EventEnvelope(0, key="k")], 500, True)
def test_every_batch_fits_the_segment_that_its_limits_come_from(
    segment_bytes: int, odd: list[Any], plain: int, is_large_last: bool
) -> None:
    # One envelope with an id of its own gives all events of its batch a column of ids, and one key
    # a column of keys: in a batch of tiny events that was more than all that had been counted.
    options = LogOptions.of(
        AskedOptions(segment_bytes=segment_bytes, max_event_bytes=segment_bytes // 2)
    )
    large = [b"x" * (options.max_event_bytes - 5)] if is_large_last else []
    events = [*([0] * plain), *odd, *large] or [0]
    for batch in pack_batches(events, options.max_event_bytes, options.batch_bytes_max):
        assert HEADER_BYTES + len(batch.payload) <= segment_bytes - FIRST_BATCH
    builder = BatchBuilder(options.max_event_bytes)
    for event in events:
        if builder.bytes >= options.batch_bytes_max or builder.is_full:
            assert FIRST_BATCH + HEADER_BYTES + len(builder.build().payload) <= segment_bytes
        builder.add(event)
    if len(builder):
        assert FIRST_BATCH + HEADER_BYTES + len(builder.build().payload) <= segment_bytes


@given(st.binary(max_size=100), st.integers(1, 10))
def test_arbitrary_bytes_are_events_or_a_value_error(data: bytes, count: int) -> None:
    with contextlib.suppress(ValueError):
        assert len(unpack_body(data, count, 1)) == count


@given(st.lists(rows | st.tuples(wrapped), min_size=1, max_size=5), st.data())
def test_a_flipped_body_is_events_or_an_error_of_ours(
    events: list[Any], data: st.DataObject
) -> None:
    builder = BatchBuilder(LIMIT)
    for row in events:
        builder.add(*row)
    count, flags, acks_bytes, payload = builder.build()
    body = bytearray(payload[areas_bytes(count, flags, acks_bytes) :])
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        envelopes = unpack_body(bytes(body), count, 1)
    except ValueError:
        return
    for envelope in envelopes:
        assert envelope.timestamp.tzinfo
        with contextlib.suppress(CorruptLog):  # keys and headers are unpacked here
            repr(envelope)


def test_a_body_of_other_columns_is_a_value_error() -> None:
    (batch,) = pack_batches([1, 2], LIMIT, LIMIT)
    for count in (1, 3):
        with pytest.raises(ValueError, match="events"):
            unpack_body(batch.payload, count, 1)
    with pytest.raises(ValueError, match="columns"):
        unpack_body(b"\x90", 2, 1)
