"""`subscribe(keys=, key_prefix=, headers=)`, the same on `follow`, and `read(key=)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from eventlog import (
    EventLog,
    EventLogError,
    EventTypeMismatch,
    InvalidArgument,
    InvalidArgumentType,
    SeekPosition,
)

from .logs import Logs, delivered, until

pytestmark = pytest.mark.anyio

BEGINNING = SeekPosition.BEGINNING
KEYS = ["a-1", "b-1", "a-2", None, "a-1", "", "b-2", "a-1"]
"""Keys of the events 0 to 7, with the numbers 1 to 8."""
HEADERS = [
    None,
    {"kind": "x"},
    {"kind": "x", "to": "y"},
    {"kind": "x"},
    None,
    None,
    {},
    {"to": "y"},
]


@dataclass
class Order:
    """An event of one key among others."""

    number: int


async def fill(log: EventLog) -> None:
    """Two batches of events with the keys and headers above, and one each for the last two."""
    for rows in (range(3), range(3, 6), range(6, 7), range(7, 8)):
        await log.append_many(
            rows,
            keys=[KEYS[row] for row in rows],
            headers=[HEADERS[row] for row in rows],
        )


async def matching(log: EventLog, **wanted: Any) -> list[Any]:
    """What a stream with that filter hands out of what is stored."""
    async with log.subscribe("c", BEGINNING, follow=False, **wanted) as stream:
        return [envelope.event async for envelope in stream]


async def test_a_filtered_stream_has_the_events_of_the_whole_that_match_in_order(
    logs: Logs,
) -> None:
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({"keys": {"a-1"}}, [0, 4, 7]),
        ({"keys": ["a-1", "b-2"]}, [0, 4, 6, 7]),
        ({"keys": {"a-1", "b-1", "b-2", "c", "d", "e"}}, [0, 1, 4, 6, 7]),
        ({"keys": {""}}, [5]),
        ({"keys": {"nobody's"}}, []),
        ({"key_prefix": "a-"}, [0, 2, 4, 7]),
        ({"key_prefix": ""}, [0, 1, 2, 4, 5, 6, 7]),
        ({"headers": {"kind": "x"}}, [1, 2, 3]),
        ({"headers": {"kind": "x", "to": "y"}}, [2]),
        ({"headers": {"kind": "z"}}, []),
        ({"keys": {"a-1", "a-2"}, "headers": {"to": "y"}}, [2, 7]),
        ({"keys": {"a-1", "b-1"}, "key_prefix": "b"}, [1]),
        ({"keys": {"a-1"}, "key_prefix": "b"}, []),
    ]
    async with logs.open() as log:
        await fill(log)
        for wanted, events in cases:
            assert await matching(log, **wanted) == events, wanted


async def test_what_matches_keeps_its_number_key_headers_and_time(logs: Logs) -> None:
    async with logs.open() as log:
        await fill(log)
        whole = await log.read(0)
        async with log.follow(BEGINNING, key_prefix="a", headers={"to": "y"}) as stream:
            found = [await anext(stream), await anext(stream)]
        assert found == [whole[2], whole[7]]


async def test_the_batches_of_a_filtered_stream_have_only_what_matches(logs: Logs) -> None:
    async with logs.open() as log:
        await fill(log)
        async with log.subscribe("c", BEGINNING, follow=False, keys={"a-1"}) as stream:
            batches = [batch async for batch in stream.batches()]
        assert all(batches)
        assert [one.event for batch in batches for one in batch] == [0, 4, 7]


async def test_a_stream_waits_for_the_next_event_that_matches(logs: Logs) -> None:
    async with logs.open() as log:
        found: list[Any] = []
        async with log.follow(keys={"mine"}) as stream, anyio.create_task_group() as tasks:

            async def consume() -> None:
                found.extend(await delivered(stream, 2))

            tasks.start_soon(consume)
            for number in range(3):
                await log.append(f"theirs {number}", key="theirs")
                await log.append(f"nobody's {number}")
            await log.append("first", key="mine")
            await log.append("theirs", key="theirs")
            await log.append("second", key="mine")
        assert found == ["first", "second"]


async def test_read_gives_the_events_of_one_key(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.read(key="a-1") == []
        await fill(log)
        whole = await log.read(0)
        assert await log.read(key="a-1") == [whole[0], whole[4], whole[7]]
        assert await log.read(2, key="a-1") == [whole[4], whole[7]]
        assert await log.read(0, 8, key="a-1") == [whole[0], whole[4]]
        assert await log.read(-1, key="b-2") == []
        assert await log.read(since=whole[0].stored_at, key="a-2") == [whole[2]]
        assert await log.read(key="nobody's") == []
        assert [one.event async for one in log.read(key="b-1")] == [1]


async def test_payloads_of_events_that_do_not_match_are_not_decoded(logs: Logs) -> None:
    async with logs.open() as log:
        events = ["text", Order(1), "text", Order(2), 3]
        await log.append_many(events, keys=["t", "o", "t", "o", None])
        assert await matching(log, keys={"o"}, type=Order) == [Order(1), Order(2)]
        assert await matching(log, keys={"t"}, type=str) == ["text", "text"]
        with pytest.raises(EventTypeMismatch) as caught:
            await matching(log, keys={"o", "t"}, type=str)
        assert caught.value.seq_no == 2


async def test_reaching_the_end_acknowledges_what_was_left_out(logs: Logs) -> None:
    async with logs.open() as log:
        await fill(log)
        async with log.subscribe("c", follow=False, keys={"a-2"}) as stream:
            async for envelope in stream:
                assert envelope.seq_no == 3
                await stream.ack(envelope)
                assert [(one.last_acked, one.lag) for one in await log.consumers()] == [(3, 5)]
        assert [(one.last_acked, one.lag) for one in await log.consumers()] == [(8, 0)]


async def test_a_stream_that_finds_nothing_moves_its_consumer_to_the_end(logs: Logs) -> None:
    async with logs.open() as log:
        await fill(log)
        assert await matching(log, keys={"nobody's"}) == []
        assert [(one.name, one.last_acked) for one in await log.consumers()] == [("c", 8)]


async def test_the_position_never_passes_an_event_that_is_not_acknowledged(logs: Logs) -> None:
    async with logs.open() as log:
        await fill(log)
        assert await matching(log, keys={"a-2"}) == [2]
        assert await log.consumers() == []
        await log.ack("c", 2)
        assert await matching(log, keys={"a-2"}) == [2]
        assert [one.last_acked for one in await log.consumers()] == [2]


async def test_the_position_never_passes_what_came_before_the_stream(logs: Logs) -> None:
    async with logs.open() as log:
        await fill(log)
        await log.ack("c", 1)
        async with log.subscribe("c", SeekPosition.sequence(5), follow=False, keys={"z"}) as stream:
            assert [envelope async for envelope in stream] == []
        assert [one.last_acked for one in await log.consumers()] == [1]


async def test_a_stream_that_follows_acknowledges_whenever_it_reaches_the_end(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.subscribe("c", keys={"mine"}) as stream, anyio.create_task_group() as tasks:

            async def consume() -> None:
                async for envelope in stream:
                    await stream.ack(envelope)
                    if envelope.event == "last":
                        break

            async def is_at(number: int) -> bool:
                return [one.last_acked for one in await log.consumers()] == [number]

            tasks.start_soon(consume)
            await log.append_many("ab", keys=["theirs", None])
            await until(lambda: is_at(2))
            await log.append_many("cd", keys=["mine", "theirs"])
            await until(lambda: is_at(4))
            await log.append("last", key="mine")
        assert [one.last_acked for one in await log.consumers()] == [5]


async def test_a_stream_without_a_consumer_acknowledges_nothing(logs: Logs) -> None:
    async with logs.open() as log:
        await fill(log)
        async with log.follow(BEGINNING, keys={"a-1"}) as stream:
            assert await delivered(stream, 3) == [0, 4, 7]
        assert await log.consumers() == []


async def test_filters_that_make_no_sense_are_refused_at_the_call(logs: Logs) -> None:
    cases: list[tuple[dict[str, Any], type[EventLogError]]] = [
        ({"keys": "a-1"}, InvalidArgumentType),
        ({"keys": b"a-1"}, InvalidArgumentType),
        ({"keys": 1}, InvalidArgumentType),
        ({"keys": {1}}, InvalidArgumentType),
        ({"keys": set()}, InvalidArgument),
        ({"keys": {"\ud800"}}, InvalidArgument),
        ({"key_prefix": 1}, InvalidArgumentType),
        ({"key_prefix": "\ud800"}, InvalidArgument),
        ({"headers": "kind"}, InvalidArgumentType),
        ({"headers": {"kind": 1}}, InvalidArgumentType),
        ({"headers": {}}, InvalidArgument),
    ]
    async with logs.open() as log:
        for wanted, kind in cases:
            with pytest.raises(kind):
                log.subscribe("c", **wanted)
            with pytest.raises(kind):
                log.follow(**wanted)
        with pytest.raises(InvalidArgumentType):
            log.read(key=1)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument):
            log.read(key="\ud800")
        assert await log.consumers() == []
