"""`append`, `append_many` and sequence numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest

from eventlog import EventEnvelope, EventLogError, SeekPosition

from .backends import needs
from .logs import BATCH_BYTES, Logs, delivered, stored, take

pytestmark = pytest.mark.anyio


async def test_numbers_start_at_1_and_go_up_by_1(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.last_seq_no() is None
        assert [await log.append(number) for number in range(20)] == list(range(1, 21))
        assert await log.last_seq_no() == 20


async def test_a_bare_value_is_wrapped_into_an_envelope(logs: Logs) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    async with logs.open() as log:
        await log.append({"order": 7})
        [envelope] = await log.read(1)
    assert isinstance(envelope, EventEnvelope)
    assert envelope.event == {"order": 7}
    assert envelope.seq_no == 1
    assert envelope.key is None
    assert envelope.headers is None
    assert envelope.id.version == 7
    assert envelope.timestamp.utcoffset() == timedelta(0)
    assert before <= envelope.timestamp <= datetime.now(UTC)


async def test_an_envelope_is_stored_with_its_own_id_time_key_and_headers(logs: Logs) -> None:
    moment = datetime(2001, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    given = EventEnvelope("e", key="k", headers={"a": "b"}, timestamp=moment, id=UUID(int=5))
    async with logs.open() as log:
        await log.append(given)
        [envelope] = await log.read(1)
    assert (envelope.event, envelope.key, envelope.headers) == ("e", "k", {"a": "b"})
    assert (envelope.id, envelope.timestamp) == (UUID(int=5), moment)
    assert given.seq_no is None


async def test_the_log_sets_the_number_whatever_the_envelope_says(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.append(EventEnvelope("a", seq_no=99)) == 1
        assert [envelope.seq_no for envelope in await log.read(0)] == [1]


async def test_an_envelope_that_was_read_can_be_appended_again(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(["a", "b", "c"])
        second = (await log.read(2))[0]
        assert await log.append(second) == 4
        [copy] = await log.read(4)
    assert (copy.id, copy.timestamp, copy.event) == (second.id, second.timestamp, "b")


async def test_key_and_headers_come_back_with_the_event(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(1, key="grün", headers={"trace": "ä", "": ""})
        await log.append(2, key="")
        await log.append(3, headers={})
        await log.append(4)
        envelopes = await log.read(1)
    assert [envelope.key for envelope in envelopes] == ["grün", "", None, None]
    assert [envelope.headers for envelope in envelopes] == [{"trace": "ä", "": ""}, None, {}, None]


async def test_key_and_headers_of_the_call_stand_above_those_of_the_envelope(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(EventEnvelope("e", key="its own", headers={"its": "own"}), key="the call")
        [envelope] = await log.read(1)
    assert (envelope.key, envelope.headers) == ("the call", {"its": "own"})


async def test_what_append_returned_can_be_read_at_once_by_every_handle(logs: Logs) -> None:
    async with logs.open() as log, logs.open() as other, other.subscribe("c") as stream:
        for number in range(1, 101):
            assert await log.append(number) == number
            assert [e.event for e in await other.read(number)] == [number]
            assert await other.last_seq_no() == number
            assert await delivered(stream, 1) == [number]


async def test_changing_a_value_after_its_append_does_not_change_the_event(logs: Logs) -> None:
    event: dict[str, Any] = {"list": [1]}
    headers = {"h": "1"}
    async with logs.open() as log:
        await log.append(event, headers=headers)
        event["list"].append(2)
        headers["h"] = "2"
        [envelope] = await log.read(1)
        assert (envelope.event, envelope.headers) == ({"list": [1]}, {"h": "1"})


async def test_changing_a_value_that_was_read_does_not_change_the_event(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append({"list": [1]}, headers={"h": "1"})
        [envelope] = await log.read(1)
        envelope.event["list"].append(2)
        assert envelope.headers is not None
        envelope.headers["h"] = "2"
        [again] = await log.read(1)
        assert (again.event, again.headers) == ({"list": [1]}, {"h": "1"})


async def test_many_tasks_append_at_once_and_each_gets_its_own_number(logs: Logs) -> None:
    numbers: dict[int, int] = {}

    async def append(number: int) -> None:
        numbers[number] = await log.append(number)

    async with logs.open() as log:
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(append, number)
        envelopes = await log.read(1)
    assert sorted(numbers.values()) == list(range(1, 301))
    assert {envelope.event: envelope.seq_no for envelope in envelopes} == numbers


async def test_many_handles_append_at_once_into_one_order(logs: Logs) -> None:
    numbers: dict[tuple[int, int], int] = {}

    async def produce(producer: int) -> None:
        async with logs.open() as log:
            for count in range(50):
                numbers[producer, count] = await log.append([producer, count])

    async with anyio.create_task_group() as tasks:
        for producer in range(8):
            tasks.start_soon(produce, producer)
    async with logs.open() as log:
        envelopes = await log.read(1)
    assert [envelope.seq_no for envelope in envelopes] == list(range(1, 401))
    assert {tuple(envelope.event): envelope.seq_no for envelope in envelopes} == numbers
    for producer in range(8):
        own = [numbers[producer, count] for count in range(50)]
        assert own == sorted(own)


# --- append_many -----------------------------------------------------------------------------


async def test_append_many_gives_the_first_and_last_of_contiguous_numbers(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("before")
        assert await log.append_many(["a", "b", "c"]) == (2, 4)
        assert await log.append_many(["d"]) == (5, 5)
        assert await stored(log) == ["before", "a", "b", "c", "d"]


@pytest.mark.parametrize("make", [list, tuple, iter, dict.fromkeys, lambda r: (n for n in r)])
async def test_append_many_takes_any_iterable(logs: Logs, make: Any) -> None:
    async with logs.open() as log:
        assert await log.append_many(make(range(5))) == (1, 5)
        assert await stored(log) == [0, 1, 2, 3, 4]


@needs("event loop")
async def test_append_many_takes_an_asynchronous_iterable(logs: Logs) -> None:
    async def produce(count: int) -> AsyncIterator[int]:
        for number in range(count):
            await anyio.lowlevel.checkpoint()
            yield number

    async with logs.open() as log:
        assert await log.append_many(produce(5)) == (1, 5)
        with pytest.raises(ValueError, match="no events"):
            await log.append_many(produce(0))
        assert await stored(log) == [0, 1, 2, 3, 4]


async def test_append_many_takes_envelopes_and_bare_values_together(logs: Logs) -> None:
    given = EventEnvelope("a", key="k", id=UUID(int=9))
    async with logs.open() as log:
        await log.append_many(["x", given, "y"])
        envelopes = await log.read(1)
    assert [envelope.event for envelope in envelopes] == ["x", "a", "y"]
    assert [envelope.key for envelope in envelopes] == [None, "k", None]
    assert envelopes[1].id == UUID(int=9)
    assert len({envelope.id for envelope in envelopes}) == 3


def yields_one_dict(count: int) -> Iterator[dict[str, Any]]:
    """The same object each time, changed in between, as readers of rows and buffers do it."""
    event: dict[str, Any] = {"n": 0, "seen": []}
    for number in range(count):
        event["n"] = number
        event["seen"].append(number)
        yield event
        event["n"] = "changed"


def as_yielded(count: int) -> list[dict[str, Any]]:
    return [{"n": number, "seen": list(range(number + 1))} for number in range(count)]


async def test_append_many_stores_each_value_as_it_was_when_it_came(logs: Logs) -> None:
    # Events were packed 256 at a time, after the iterable had handed them all out: of 1,000 that a
    # generator made of one dict, 4 were right.
    async with logs.open() as log:
        await log.append_many(yields_one_dict(300))
        assert await stored(log) == as_yielded(300)
        await log.append_many(event for event in yields_one_dict(3))
        assert (await stored(log))[300:] == as_yielded(3)


async def test_append_many_stores_a_buffer_as_it_was_when_it_came(logs: Logs) -> None:
    def fill_one_buffer() -> Iterator[memoryview]:
        buffer = bytearray(4)
        for number in range(20):
            buffer[:] = number.to_bytes(4, "big")
            yield memoryview(buffer)

    async with logs.open() as log:
        await log.append_many(fill_one_buffer())
        assert await stored(log) == [number.to_bytes(4, "big") for number in range(20)]


@needs("event loop")
async def test_append_many_stores_what_an_asynchronous_iterable_gave_when_it_did(
    logs: Logs,
) -> None:
    async def produce() -> AsyncIterator[dict[str, Any]]:
        for event in yields_one_dict(300):
            yield event

    async with logs.open() as log:
        await log.append_many(produce())
        assert await stored(log) == as_yielded(300)


async def test_a_publisher_stores_each_value_as_it_was_when_it_was_sent(logs: Logs) -> None:
    headers: dict[str, str] = {}
    async with logs.open() as log:
        async with log.publisher() as publisher:
            for event in yields_one_dict(300):
                headers["n"] = str(event["n"])
                await publisher.send(event, headers=headers)
        envelopes = list(await log.read(1))
    assert [envelope.event for envelope in envelopes] == as_yielded(300)
    assert [envelope.headers for envelope in envelopes] == [{"n": str(n)} for n in range(300)]


async def test_append_many_takes_a_key_and_headers_for_each_event(logs: Logs) -> None:
    headers = {"of": "all"}
    async with logs.open() as log:
        await log.append_many("abc", keys=["x", None, "y"], headers=headers)
        headers["of"] = "changed"
        await log.append_many(["d", EventEnvelope("e", key="its own")], headers=[None, {"h": "e"}])
        await log.append_many(iter("f"), keys=(key for key in "z"))
        envelopes = list(await log.read(1))
    assert [envelope.event for envelope in envelopes] == list("abcdef")
    assert [envelope.key for envelope in envelopes] == ["x", None, "y", None, "its own", "z"]
    of_all = {"of": "all"}
    assert [envelope.headers for envelope in envelopes] == [*[of_all] * 3, None, {"h": "e"}, None]


async def test_keys_and_headers_that_do_not_fit_the_events_append_nothing(logs: Logs) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"keys": ["a"]}, ValueError, r"events\[1\] is bad: keys has none for it"),
        ({"headers": [{}]}, ValueError, r"events\[1\] is bad: headers has none for it"),
        ({"keys": ["a", "b", "c"]}, ValueError, "keys has more than the 2 events"),
        ({"headers": [{}, {}, {}]}, ValueError, "headers has more than the 2 events"),
        ({"keys": "ab"}, TypeError, "keys is 'ab'"),
        ({"keys": {"a": 1, "b": 2}}, TypeError, "give a list"),
        ({"keys": 7}, TypeError, "7 is no iterable"),
        ({"headers": "ab"}, TypeError, "headers is 'ab'"),
        ({"keys": ["a", 7]}, TypeError, r"events\[1\] is bad: the key is 7"),
        ({"keys": ["a", "\ud800"]}, ValueError, r"events\[1\] is bad"),
        ({"headers": [None, {"a": 1}]}, TypeError, r"events\[1\] is bad: the headers hold 1"),
        ({"headers": {"a": 1}}, TypeError, r"events\[0\] is bad"),
    ]
    async with logs.open() as log:
        for options, kind, text in cases:
            with pytest.raises(kind, match=text) as caught:
                await log.append_many([1, 2], **options)
            assert isinstance(caught.value, EventLogError)
            assert caught.value.stored == 0
        assert await log.append("next") == 1


@pytest.mark.parametrize("nothing", [[], (), {}])
async def test_append_many_of_nothing_is_a_value_error(logs: Logs, nothing: Any) -> None:
    async with logs.open() as log:
        with pytest.raises(ValueError, match="no events") as caught:
            await log.append_many(nothing)
        assert isinstance(caught.value, EventLogError)
        assert await log.append("next") == 1


@pytest.mark.parametrize("other", [7, None, 1.5])
async def test_append_many_of_what_is_no_iterable_is_a_type_error_of_ours(
    logs: Logs, other: Any
) -> None:
    async with logs.open() as log:
        with pytest.raises(TypeError) as caught:
            await log.append_many(other)
        assert isinstance(caught.value, EventLogError)
        assert await log.append("next") == 1


async def test_an_iterable_that_raises_appends_nothing_and_raises_its_own_error(
    logs: Logs,
) -> None:
    def broken() -> Any:
        yield 1
        raise ZeroDivisionError

    async with logs.open() as log:
        with pytest.raises(ZeroDivisionError):
            await log.append_many(broken())
        assert await stored(log) == []


async def test_append_many_past_the_batch_limit_keeps_the_order(logs: Logs) -> None:
    events = [[number, b"x" * 100] for number in range(4 * BATCH_BYTES // 100)]
    async with logs.open() as log:
        assert await log.append_many(events) == (1, len(events))
        assert await stored(log) == events


async def test_append_many_of_more_tiny_events_than_a_batch_holds_keeps_the_order(
    logs: Logs,
) -> None:
    async with logs.open(segment_bytes=None) as log:
        assert await log.append_many(range(40_000)) == (1, 40_000)
        assert await stored(log) == list(range(40_000))


async def test_no_other_event_comes_between_those_of_one_batch(logs: Logs) -> None:
    async def many(name: str) -> None:
        for count in range(20):
            first, last = await log.append_many([[name, count, row] for row in range(10)])
            assert last - first == 9

    async def single() -> None:
        for count in range(100):
            await log.append(["single", count, 0])

    async with logs.open() as log:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(many, "a")
            tasks.start_soon(many, "b")
            tasks.start_soon(single)
        events = await stored(log)
    for place, (name, count, row) in enumerate(events):
        if name != "single" and row == 0:
            assert events[place : place + 10] == [[name, count, r] for r in range(10)]
    assert len(events) == 500


@needs("segments")
async def test_a_batch_is_delivered_whole(logs: Logs) -> None:
    async with logs.open() as log, log.subscribe("c", SeekPosition.BEGINNING) as stream:
        await log.append_many(range(100))
        [batch] = await take(stream.batches(), 1)
        assert [envelope.event for envelope in batch] == list(range(100))


@needs("own durability")
@pytest.mark.parametrize("durability", ["memory", "disk", "sync"])
async def test_append_works_at_every_level_of_durability(logs: Logs, durability: str) -> None:
    if durability == "sync" and "sync" in logs.backend.lacks:
        pytest.skip(logs.backend.lacks["sync"])
    async with logs.open(durability=durability) as log:
        assert await log.append("a") == 1
        assert await log.append_many(["b", "c"]) == (2, 3)
        assert await stored(log) == ["a", "b", "c"]
        assert (await log.status()).durability == durability
