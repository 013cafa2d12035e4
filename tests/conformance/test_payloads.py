"""What an event may be, how large, and what bad input gets."""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

import anyio
import msgpack
import msgspec
import pytest

from eventlog import (
    EventEnvelope,
    EventLog,
    EventLogError,
    EventTooLarge,
    EventTypeMismatch,
    InvalidEvent,
    SeekPosition,
)

from .backends import needs
from .logs import Logs, delivered, stored

pytestmark = pytest.mark.anyio

VALUES: Final[list[Any]] = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    2**32,
    0.0,
    -0.0,
    1.5,
    5e-324,
    1.7976931348623157e308,
    math.inf,
    -math.inf,
    "",
    "text",
    "grün 日本 \U0001f600 e\u0301",
    "\0\n\t\x7f",
    "x" * 70_000,
    b"",
    b"\0\xff",
    b"x" * 70_000,
    [],
    {},
    [None, [[]], {}],
    {"a": {"b": {"c": [1, 2, {"d": None}]}}},
    {"": "", "a": 1},
    {1: "int", 2: "keys", -(2**63): 0, 2**64 - 1: 1},
    {b"bytes": 1, None: 2, 1.5: 3, False: 4},
    {(1, "a"): "tuple", ((1, 2), 3): "nested"},
    {UUID(int=1): "uuid", datetime(2020, 1, 1, tzinfo=UTC): "time"},
    list(range(70_000)),
    {str(number): number for number in range(5_000)},
    datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    UUID(int=0),
    UUID(int=2**128 - 1),
    [UUID(int=7), datetime(2026, 1, 1, tzinfo=UTC), {"id": UUID(int=8)}],
]


EAST: Final = timezone(timedelta(hours=14))
WEST: Final = timezone(timedelta(hours=-1))


class Custom:
    """Nothing that MessagePack knows."""


class Rude:
    """Raises when it is looked at."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def circular_list() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def circular_dict() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def deep_list() -> list[Any]:
    value: list[Any] = []
    for _ in range(3_000):
        value = [value]
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@dataclass(frozen=True)
class Point:
    x: int = 0


class Place(msgspec.Struct, frozen=True):
    name: str = ""


@dataclass
class Holder:
    view: Any


class Box(msgspec.Struct):
    view: Any


@dataclass
class Viewing:
    view: memoryview


class ViewingBox(msgspec.Struct):
    view: memoryview


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    ON = "on"


class Real(float):
    """As numpy.float64."""


@dataclass
class Odd:
    numbers: set[int]
    price: Decimal
    day: date
    colour: Colour
    identity: UUID


BAD: Final[dict[str, Callable[[], Any]]] = {
    "an object": Custom,
    "an object without a repr": Rude,
    "a class": lambda: Custom,
    "a function": lambda: circular_list,
    "a set": lambda: {1, 2},
    "a complex number": lambda: 1j,
    "an exception": lambda: ValueError("x"),
    "a naive datetime": lambda: datetime(2020, 1, 1),  # noqa: DTZ001
    "a time before the year 1 in UTC": lambda: datetime(1, 1, 1, tzinfo=EAST),
    "a time after the year 9999 in UTC": lambda: {"at": [datetime.max.replace(tzinfo=WEST)]},
    "a timedelta": lambda: timedelta(1),
    "an int that is too large": lambda: 2**64,
    "an int that is too small": lambda: -(2**63) - 1,
    "a lone surrogate": lambda: "\ud800",
    "a surrogate as a key": lambda: {"\udfff": 1},
    "a list that holds itself": circular_list,
    "a dict that holds itself": circular_dict,
    "a list that is too deep": deep_list,
    "a list deeper than a batch can hold": lambda: nested(1_022),
    "dicts deeper than a batch can hold": lambda: {"a": {"b": nested(1_020)}},
    "a dataclass as a key": lambda: {Point(): 1},
    "a dataclass in a key": lambda: {(1, Point()): 1},
    "a dataclass as a key far inside": lambda: [Point(), {"a": {Point(): Point()}}],
    "a struct as a key": lambda: {Place(): 1},
    "a bad value far inside": lambda: {"a": [1, {"b": (1, Custom())}]},
    "a generator": lambda: (n for n in range(3)),
    "a view with gaps": lambda: memoryview(b"abcdef")[::2],
    "an envelope around a bad value": lambda: EventEnvelope(Custom()),
    "an envelope inside of a value": lambda: [EventEnvelope(1)],
}


class Stamp(datetime):
    """As those of pandas, pendulum and freezegun."""


async def test_a_time_of_a_class_of_its_own_is_stored_as_a_datetime(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append({"at": Stamp(2026, 1, 1, 12, tzinfo=EAST)})
        [event] = await stored(log)
    assert event == {"at": datetime(2026, 1, 1, 12, tzinfo=EAST)}
    assert type(event["at"]) is datetime


async def test_a_type_that_cannot_go_as_deep_as_an_event_is_a_mismatch(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(nested(1_000))
        options: dict[str, Any] = {"type": list[Any], "follow": False}
        async with log.subscribe("c", SeekPosition.BEGINNING, **options) as stream:
            try:
                (event,) = await delivered(stream, 1)  # newer Pythons go deeper
            except EventTypeMismatch as mismatch:
                event = mismatch
        assert event == nested(1_000) or event.seq_no == 1


async def by_append(log: EventLog, event: Any) -> None:
    await log.append(event)


async def by_append_many(log: EventLog, event: Any) -> None:
    await log.append_many(["with it", event, "and after it"])


async def by_publisher(log: EventLog, event: Any) -> None:
    async with log.publisher() as publisher:
        await publisher.send(event)


WAYS: Final = [by_append, by_append_many, by_publisher]
Way = Callable[[EventLog, Any], Awaitable[None]]


# --- good ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_every_value_that_msgpack_carries_comes_back(logs: Logs, way: Way) -> None:
    async with logs.open(segment_bytes=None) as log:
        await log.append("to start with")
        for value in VALUES:
            await way(log, value)
        events: list[Any] = [
            e for e in (await stored(log))[1:] if e not in ("with it", "and after it")
        ]
        assert events == VALUES
        for event, value in zip(events, VALUES, strict=True):
            assert type(event) is type(value)
            assert repr(event) == repr(value) or isinstance(value, datetime)


async def test_nan_comes_back(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(math.nan)
        [event] = await stored(log)
    assert math.isnan(event)


async def test_a_tuple_comes_back_as_a_list(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append((1, (2, 3)))
        assert await stored(log) == [[1, [2, 3]]]


async def test_events_of_no_bytes_and_none_are_events_like_others(logs: Logs) -> None:
    events: list[Any] = [None, b"", "", [], {}, 0, False] * 20
    async with logs.open() as log, log.subscribe("c") as stream:
        for event in events:
            await log.append(event)
        assert await delivered(stream, len(events)) == events
        await log.append_many(events)
        assert await delivered(stream, len(events)) == events


async def test_values_of_all_kinds_come_back_through_one_batch_and_a_stream(logs: Logs) -> None:
    async with logs.open(segment_bytes=None) as log:
        await log.append_many(VALUES)
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            assert await delivered(stream, len(VALUES)) == VALUES


# --- size ------------------------------------------------------------------------------------


def of_size(size: int) -> bytes:
    """A payload that takes just so many bytes when it is packed."""
    overhead = len(msgpack.packb(b"x" * size)) - size
    payload = b"x" * (size - overhead)
    assert len(msgpack.packb(payload)) == size
    return payload


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [1_000, 100_000])
async def test_an_event_may_have_max_event_bytes_and_not_one_more(
    logs: Logs, way: Way, limit: int
) -> None:
    async with logs.open(max_event_bytes=limit) as log:
        await way(log, of_size(limit))
        before = await stored(log)
        assert of_size(limit) in before
        with pytest.raises(EventTooLarge) as caught:
            await way(log, of_size(limit + 1))
        assert isinstance(caught.value, ValueError)
        assert await stored(log) == before
        assert await log.append("next") == len(before) + 1


async def test_the_smallest_limit_takes_the_smallest_events(logs: Logs) -> None:
    async with logs.open(max_event_bytes=1) as log:
        assert await log.append_many([None, 1, "", [], {}]) == (1, 5)
        with pytest.raises(EventTooLarge):
            await log.append("a")


async def test_key_and_headers_count_too(logs: Logs) -> None:
    async with logs.open(max_event_bytes=1_000) as log:
        with pytest.raises(EventTooLarge):
            await log.append(1, key="k" * 1_000)
        with pytest.raises(EventTooLarge):
            await log.append(1, headers={"h": "v" * 1_000})
        assert await log.append(1, key="k" * 900) == 1


async def test_events_of_the_largest_size_fill_a_log(logs: Logs) -> None:
    limit = 60_000
    async with logs.open(max_event_bytes=limit) as log:
        for _ in range(6):
            await log.append(of_size(limit))
        await log.append_many([of_size(limit)] * 6)
        async with log.publisher() as publisher:
            for _ in range(6):
                await publisher.send(of_size(limit))
        assert await stored(log) == [of_size(limit)] * 18


@needs("large events")
async def test_an_event_of_the_default_limit_of_a_default_log_fits(logs: Logs) -> None:
    size = 16 * 1024 * 1024
    async with logs.open(segment_bytes=None) as log:
        await log.append(of_size(size))
        with pytest.raises(EventTooLarge):
            await log.append(of_size(size + 1))
        [event] = await stored(log)
    assert event == of_size(size)


# --- bad -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_what_cannot_be_stored_is_refused_and_nothing_of_the_call_is_stored(
    logs: Logs, way: Way
) -> None:
    wrong = []
    async with logs.open() as log:
        for number, (name, make) in enumerate(BAD.items()):
            try:
                await way(log, make())
                wrong.append(f"{name}: was taken")
            except InvalidEvent:
                pass
            except Exception as error:  # noqa: BLE001 - all that are wrong are shown together
                wrong.append(f"{name}: {type(error).__name__}: {error}")
            assert await log.append(number) == number + 1
        assert await stored(log) == list(range(len(BAD)))
    assert wrong == []
    assert issubclass(InvalidEvent, TypeError)


async def test_the_error_names_the_log_and_which_event_of_many_is_bad(logs: Logs) -> None:
    async with logs.open(max_event_bytes=1000) as log:
        for bad, kind in ((Custom(), InvalidEvent), ("x" * 2000, EventTooLarge)):
            with pytest.raises(kind) as caught:
                await log.append(bad)
            assert caught.value.path == log.path
            assert log.path in str(caught.value)
            with pytest.raises(kind, match=r"events\[1234\] is bad") as caught:
                await log.append_many([*range(1234), bad, bad])
            assert caught.value.path == log.path
            assert log.path in str(caught.value)
        assert await log.last_seq_no() is None


class Moment(datetime):
    """A time with nanoseconds, as pandas has it."""

    nanosecond = 1


class NotATime(datetime):
    """As pandas' NaT: a `datetime` that is not itself."""

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = datetime.__hash__


PLACES: Final[dict[str, tuple[Callable[[Any], Any], str]]] = {
    "the event itself": (lambda bad: bad, ": "),
    "far inside": (lambda bad: {"rows": [{"v": bad}, {"v": bad}]}, ": rows[0].v: "),
    "at the end": (lambda bad: [1, {"a b": (2, bad)}], ": [1]['a b'][1]: "),
    "a key": (lambda bad: {"m": {bad: 1}}, ": m[key "),
    "a dataclass": (lambda bad: [Holder({"x": [bad]})], ": [0].view.x[0]: "),
    "a struct": (lambda bad: Box([0, bad]), ": view[1]: "),
}


async def test_a_refused_value_is_named_with_its_module_and_its_place(logs: Logs) -> None:
    # The error said "MessagePack has no bool" of a numpy.bool somewhere in an event of thousands.
    text = f"MessagePack has no {Custom.__module__}.Custom"
    async with logs.open() as log:
        for wrap, place in PLACES.values():
            with pytest.raises(InvalidEvent) as caught:
                await log.append(wrap(Custom()))
            assert text in str(caught.value)
            assert place in str(caught.value)
            with pytest.raises(InvalidEvent) as caught:
                await log.append_many([1, wrap(Custom())])
            assert "events[1] is bad" in str(caught.value)
            assert place in str(caught.value)
        assert await log.last_seq_no() is None


SILENT: Final[list[tuple[Any, str]]] = [
    (Moment(2026, 1, 1, tzinfo=UTC), "nanoseconds"),
    (NotATime(2026, 1, 1, tzinfo=UTC), "NotATime"),
    (frozenset({1}), r"MessagePack has no frozenset .store `list.value.` instead"),
    (Decimal("1.5"), r"MessagePack has no decimal.Decimal .store `str.value.` instead"),
    (date(2026, 1, 1), r"MessagePack has no datetime.date .store `value.isoformat"),
    (Colour.RED, r"Colour .store `value.value` instead"),
]


async def test_what_would_change_in_silence_is_refused(logs: Logs) -> None:
    async with logs.open() as log:
        for bad, text in SILENT:
            for event in (bad, {"rows": [{"v": bad}]}):
                with pytest.raises(InvalidEvent, match=text):
                    await log.append(event)
            if isinstance(bad, datetime):  # msgspec has all of the others
                with pytest.raises(InvalidEvent, match=text):
                    await log.append(Holder([bad]))


class Pair(NamedTuple):
    """A tuple with names."""

    x: int
    y: int


async def test_what_comes_back_otherwise_is_what_the_documentation_lists(logs: Logs) -> None:
    given = [Pair(1, 2), Level.LOW, Word.ON, OrderedDict(a=1), Real(1.5), bytearray(b"b")]
    async with logs.open() as log:
        await log.append(given)
        [event] = await stored(log)
    assert event == [[1, 2], 1, "on", {"a": 1}, 1.5, b"b"]
    assert [type(value) for value in event] == [list, int, str, dict, float, bytes]


async def test_an_array_comes_back_as_a_view_with_its_format_and_sizes(logs: Logs) -> None:
    pixels = memoryview(bytes(range(24))).cast("B", [2, 3, 4])
    given = [array("d", [1.5, 2.5]), pixels, {"id": 7, "frame": array("H", range(3))}]
    async with logs.open() as log:
        await log.append_many(given)
        for event in given:
            await log.append(event, key="k")
        events = await stored(log)
    for floats, image, nested in (events[:3], events[3:]):
        assert (floats.format.strip("@"), floats.tolist()) == ("d", [1.5, 2.5])
        assert (image.shape, image.tolist()) == ((2, 3, 4), pixels.tolist())
        assert (nested["id"], nested["frame"].tolist()) == (7, [0, 1, 2])


async def test_a_memoryview_in_a_dataclass_or_struct_is_bytes(logs: Logs) -> None:
    # It was stored as base64 text, which nobody could read back with the type.
    async with logs.open() as log:
        await log.append_many([Holder(memoryview(b"\0\xff")), Box(memoryview(b"\0\xff"))])
        assert await stored(log) == [{"view": b"\0\xff"}] * 2
        for kind in (Viewing, ViewingBox):
            options: dict[str, Any] = {"type": kind, "follow": False}
            async with log.subscribe("c", SeekPosition.BEGINNING, **options) as stream:
                events = await delivered(stream, 2)
            assert [bytes(event.view) for event in events] == [b"\0\xff"] * 2
            del events


async def test_sets_and_others_of_a_dataclass_come_back_with_the_type(logs: Logs) -> None:
    given = Odd({1, 2}, Decimal("1.50"), date(2026, 1, 1), Colour.RED, UUID(int=7))
    async with logs.open() as log:
        await log.append(given)
        options: dict[str, Any] = {"type": Odd, "follow": False}
        async with log.subscribe("c", SeekPosition.BEGINNING, **options) as stream:
            assert await delivered(stream, 1) == [given]


async def test_too_large_an_event_says_what_of_it_is_key_and_headers(logs: Logs) -> None:
    # "store large data elsewhere" was all that an event of 1 byte with a key of 1,000 got.
    async with logs.open(max_event_bytes=1_000) as log:
        with pytest.raises(EventTooLarge, match="1000 of them its key, 7 its headers") as caught:
            await log.append(1, key="k" * 1_000, headers={"a": "bcd"})
        assert "shorten the key or the headers" in str(caught.value)
        with pytest.raises(EventTooLarge, match="1 of them its key, 0 its headers") as caught:
            await log.append("x" * 1_000, key="k")
        assert "store large data elsewhere" in str(caught.value)
        with pytest.raises(EventTooLarge, match="takes 1003 bytes, 1000 are allowed"):
            await log.append("x" * 1_000)


async def test_bad_events_of_one_task_leave_those_of_others_alone(logs: Logs) -> None:
    async def good(number: int) -> None:
        await log.append(number)

    async def bad() -> None:
        with pytest.raises(InvalidEvent):
            await log.append(Custom())

    async with logs.open() as log:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(good, number)
                tasks.start_soon(bad)
        assert sorted(await stored(log)) == list(range(100))


async def test_a_bad_key_or_header_is_refused(logs: Logs) -> None:
    cases: list[tuple[Any, Any]] = [
        ({"key": 7}, TypeError),
        ({"key": b"bytes"}, TypeError),
        ({"key": "\ud800"}, ValueError),
        ({"headers": "text"}, TypeError),
        ({"headers": {"a": 1}}, TypeError),
        ({"headers": {1: "a"}}, TypeError),
        ({"headers": {"a": None}}, TypeError),
        ({"headers": {"\ud800": "a"}}, ValueError),
        ({"headers": {"a": "\udfff"}}, ValueError),
        ({"headers": [("a", "b")]}, TypeError),
    ]
    async with logs.open() as log:
        for options, kind in cases:
            with pytest.raises(kind) as caught:
                await log.append(1, **options)
            assert isinstance(caught.value, EventLogError)
            async with log.publisher() as publisher:
                with pytest.raises(kind):
                    await publisher.send(1, **options)
                await publisher.send("good")
            assert set(await stored(log)) == {"good"}
