from __future__ import annotations

import contextlib
import enum
import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgpack
import msgspec
import numpy
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventlog.errors import InvalidEvent
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.payload import PLAIN_OPTIONS, new_packer, pack_plain, unpack
from eventlog.event.record_batch import unpack_body

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.uuids()
    | st.datetimes(timezones=st.just(UTC))
)
keys = st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.uuids()
payloads: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(payloads)
def test_every_value_that_can_be_stored_comes_back(value: Any) -> None:
    assert unpack(new_packer()(value)) == value


@given(payloads)
def test_a_view_is_unpacked_as_bytes_are(value: Any) -> None:
    assert unpack(memoryview(new_packer()(value))) == value


def test_tuples_come_back_as_lists_except_as_keys() -> None:
    value = {(1, ("a", 2)): (3, 4)}
    assert unpack(new_packer()(value)) == {(1, ("a", 2)): [3, 4]}


def test_a_nan_comes_back_as_one() -> None:
    assert math.isnan(unpack(new_packer()(math.nan)))


def test_a_time_of_another_zone_comes_back_as_the_same_moment() -> None:
    moment = datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    back = unpack(new_packer()(moment))
    assert back == moment
    assert back.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="object"),
        {1, 2},
        2**64,
        -(2**63) - 1,
        "\ud800",
        datetime(2024, 1, 1),  # noqa: DTZ001 - a naive one
        1j,
    ],
    ids=repr,
)
def test_what_messagepack_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        new_packer()(value)


class Person(pydantic.BaseModel):
    age: int = 1


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        (numpy.int64(3), "value.item()"),
        # These two were stored as eight bytes, in silence.
        (numpy.datetime64("2024-01-01"), "int(value.astype('int64'))"),
        (numpy.timedelta64(5, "s"), "int(value.astype('int64'))"),
        (Person(), 'value.model_dump(mode="json")'),
        (PurePath("a"), "str(value)"),
        (timedelta(1), "value.total_seconds()"),
        ({1, 2}, "list(value)"),
    ],
    ids=repr,
)
def test_the_error_of_a_common_type_says_what_to_store_instead(value: Any, instead: str) -> None:
    with pytest.raises(TypeError) as caught:
        new_packer()({"v": value})
    assert str(caught.value).endswith(f"(store `{instead}` instead)")


class Wrapped(msgspec.Struct):
    packed: msgspec.Raw
    array: Any = None


@pytest.mark.parametrize("wrap", [lambda raw: raw, lambda raw: {"a": [raw]}, Wrapped])
def test_a_raw_payload_is_stored_as_the_value_that_it_holds(wrap: Callable[[Any], Any]) -> None:
    # It was stored as bytes, in silence: whoever appended what a stream of `msgspec.Raw` gave.
    pack = new_packer()
    value = {"n": 1, "when": datetime(2024, 1, 1, tzinfo=UTC), "id": UUID(int=5)}
    found = unpack(pack(wrap(msgspec.Raw(pack(value)))))
    if isinstance(found, dict) and "n" not in found:
        found = found["a"][0] if "a" in found else found["packed"]
    assert found == value


def test_a_raw_payload_beside_an_array_keeps_its_own_arrays() -> None:
    pack = new_packer()
    raw = msgspec.Raw(pack({"inner": numpy.array([1, 2])}))
    found = unpack(pack(Wrapped(raw, numpy.array([1.5]))))
    assert found["packed"]["inner"].tolist() == [1, 2]
    assert found["array"].tolist() == [1.5]


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x05\x06", b"\x92\x01"])
def test_a_raw_payload_that_is_none_is_refused(packed: bytes) -> None:
    with pytest.raises(InvalidEvent, match=r"msgspec\.Raw has not one whole MessagePack value"):
        BatchBuilder(1_000).add({"v": msgspec.Raw(packed)})


Pair = namedtuple("Pair", "first second")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


@dataclass(frozen=True)
class Point:
    x: Any = 1


odd = st.sampled_from(
    [
        *(set(), frozenset([1]), Colour.RED, Level.LOW, Name("n"), Point(), Pair(1, 2)),
        *(OrderedDict(a=1), Decimal("1.5"), date(2024, 1, 1), time(1), timedelta(1), 1j, object()),
        *(datetime(2024, 1, 1), 2**64, -(2**63) - 1, "\ud800", msgpack.ExtType(5, b"x")),  # noqa: DTZ001
        *(bytearray(b"b"), memoryview(b"view"), memoryview(b"a gap")[::2], math.nan, (1, (2,))),
    ]
)
odd_keys = keys | st.sampled_from([Colour.RED, Level.LOW, Name("n"), Point(), (1, 2), date.min])
anything: st.SearchStrategy[Any] = st.recursive(
    scalars | odd,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_keys, inner, max_size=4),
    max_leaves=8,
)


@given(anything)
def test_the_fast_packer_gives_what_msgpack_gives_or_leaves_it_to_it(value: Any) -> None:
    try:
        packed = pack_plain(value, None, PLAIN_OPTIONS)
    except TypeError:
        return
    assert packed == new_packer()(value)


@given(
    st.recursive(
        *(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
        max_leaves=12,
    )
)
def test_the_fast_packer_takes_what_json_has(value: Any) -> None:
    assert pack_plain(value, None, PLAIN_OPTIONS) == new_packer()(value)


class Place(msgspec.Struct, frozen=True):
    x: Any = 1


class Row(msgspec.Struct, frozen=True, array_like=True):
    x: Any = 1


more_keys: st.SearchStrategy[Any] = st.recursive(
    odd_keys
    | st.sampled_from([Place(), Row(), Row(Place()), memoryview(b"view"), math.nan, frozenset()])
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1)),
    lambda inner: st.tuples(inner, inner),
    max_leaves=4,
)
acceptable: st.SearchStrategy[Any] = st.recursive(
    scalars | odd | more_keys,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(more_keys, inner, max_size=3)
        | st.builds(Place, inner)
        | st.builds(Point, inner)
    ),
    max_leaves=6,
)


@given(st.lists(acceptable, min_size=1, max_size=4), st.booleans())
@example([{Point(): 1}], True)
@example([Point(), {(1, Point()): 1}], True)
def test_what_is_accepted_can_be_read_back(events: list[Any], together: bool) -> None:
    builder = BatchBuilder(2**20)
    if together:
        with contextlib.suppress(InvalidEvent):
            builder.add_all(events, 2**20)
    else:
        for event in events:
            with contextlib.suppress(InvalidEvent):
                builder.add(event)
    if len(builder):
        batch = builder.build()
        assert len(unpack_body(batch.payload, batch.count, 1)) == batch.count


def nested(depth: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind == "dict" else (value,) if kind == "key" else [value]
    return {value: 1} if kind == "key" else value


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kind", ["list", "dict", "key"])
def test_an_event_is_refused_that_is_deeper_than_a_batch_can_hold(
    kind: str, together: bool
) -> None:
    builder = BatchBuilder(2**20)
    accepted = []
    for depth in [200, *range(240, 260), 500, *range(1000, 1030)]:
        event = nested(depth, kind)
        with contextlib.suppress(InvalidEvent):
            if together:
                builder.add_all([event], 2**20)
            else:
                builder.add(event)
            accepted.append(depth)
    batch = builder.build()
    unpack_body(batch.payload, batch.count, 1)
    assert accepted[-1] == (1019 if kind == "key" else 1020)


def test_many_events_as_deep_as_can_be_are_accepted_together() -> None:
    builder = BatchBuilder(2**20)
    builder.add_all([nested(1020, "list"), 1], 2**20)
    assert len(builder) == 2


@given(st.binary(max_size=200))
@example(b"\xdd\xff\xff\xff\xff")  # an array of 2**32 - 1 that are not there
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x91" * 5000 + b"\x01")  # nested deeper than anything may be
@example(b"\x81" * 5000)
@example(b"\x81\x80\x01")  # a map as the key of a map
@example(b"\xc7\x0c\xff" + b"\xff" * 12)  # a time with 2**32 nanoseconds
def test_arbitrary_bytes_are_a_value_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        unpack(data)


@given(payloads, st.data())
def test_flipped_bytes_are_a_value_or_a_value_error(value: Any, data: st.DataObject) -> None:
    packed = bytearray(new_packer()(value))
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    test_arbitrary_bytes_are_a_value_or_a_value_error.hypothesis.inner_test(bytes(packed))  # type: ignore[attr-defined]


def test_a_key_nested_to_the_limit_of_messagepack_does_not_break_the_stack() -> None:
    for depth in (100, 500, 900, 1000, 1023, 1024, 2000):
        packed = b"\x81" + b"\x91" * depth + b"\x01\x01"
        with contextlib.suppress(ValueError):
            unpack(packed)


def test_a_time_outside_of_datetimes_years_comes_back_as_messagepacks_own() -> None:
    packed = msgpack.packb(msgpack.Timestamp(2**40))
    assert unpack(packed) == msgpack.Timestamp(2**40)


def test_a_time_outside_of_datetimes_years_leaves_the_others_as_they_are() -> None:
    far, moment = msgpack.Timestamp(2**40), datetime(2026, 1, 1, tzinfo=UTC)
    value = [moment, far, {"at": moment, moment: far, (moment,): [moment]}]
    assert unpack(new_packer()(value)) == value
    assert unpack(new_packer()({moment: far})) == {moment: far}


def test_a_time_before_1970_is_accepted_with_any_bytes_beside_it() -> None:
    builder = BatchBuilder(2**20)
    event = [
        datetime(1, 1, 1, tzinfo=UTC),
        b"\xc7\x0c\xff",
        {(1, 2): datetime(9999, 12, 31, tzinfo=UTC)},
    ]
    builder.add(event)
    batch = builder.build()
    assert unpack_body(batch.payload, 1, 1)[0].event == event


def test_an_unknown_extension_comes_back_as_it_is() -> None:
    assert unpack(msgpack.packb(msgpack.ExtType(7, b"abc"))) == msgpack.ExtType(7, b"abc")
    assert unpack(msgpack.packb(msgpack.ExtType(1, b"short"))) == msgpack.ExtType(1, b"short")


def test_uuids_are_told_from_their_bytes() -> None:
    one = UUID(int=1)
    assert unpack(new_packer()([one, one.bytes])) == [one, one.bytes]
