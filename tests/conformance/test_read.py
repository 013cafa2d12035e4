"""`read` and `last_seq_no`, `status`: looking at a log without a consumer."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import anyio
import pytest

from eventlog import (
    EventLogError,
    InvalidArgument,
    InvalidArgumentType,
    InvalidName,
    LogStatus,
)

from .backends import needs
from .logs import BATCH_BYTES, KIB, Logs, take

pytestmark = pytest.mark.anyio


async def test_read_is_half_open_like_range(logs: Logs) -> None:
    async with logs.open() as log:
        for size in (1, 3, 6):
            await log.append_many(range(size))
        for start in range(1, 13):
            for stop in range(13):
                numbers = [envelope.seq_no for envelope in await log.read(start, stop)]
                assert numbers == [n for n in range(start, stop) if n <= 10]


async def test_read_without_a_stop_goes_to_the_last_event(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abcde")
        assert [envelope.event for envelope in await log.read(1)] == list("abcde")
        assert [envelope.event for envelope in await log.read(4)] == ["d", "e"]
        assert await log.read(6) == []
        assert await log.read(1_000) == []


async def test_read_from_0_starts_at_the_first_event_stored(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.read(0) == []
        await log.append_many("abc")
        assert [envelope.event for envelope in await log.read(0)] == ["a", "b", "c"]
        assert [envelope.event for envelope in await log.read(0, 3)] == ["a", "b"]
        assert await log.read(0, 0) == []


async def test_read_of_an_empty_log_is_empty(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.read(0) == []
        assert await log.read(1) == []
        assert await log.read(1, 10) == []


async def test_read_gives_its_events_one_by_one(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abc")
        assert [envelope.event async for envelope in log.read(2)] == ["b", "c"]
        assert [envelope.event for envelope in await take(log.read(1), 2)] == ["a", "b"]


@needs("bounds at the call")
async def test_read_ends_at_what_was_stored_at_the_call(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abc")
        events = log.read(1)
        await log.append("later")
        assert [envelope.event async for envelope in events] == ["a", "b", "c"]
        received = []
        async for envelope in log.read(1):
            received.append(envelope.event)
            await log.append("more")
        assert received == ["a", "b", "c", "later"]


@needs("event loop")
async def test_a_range_can_be_gone_through_twice(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abc")
        events = log.read(2)
        assert [envelope.event async for envelope in events] == ["b", "c"]
        assert [envelope.event async for envelope in events] == ["b", "c"]


@needs("segments")
async def test_read_crosses_segments(logs: Logs) -> None:
    events = [[number, b"x" * 1_000] for number in range(20 * BATCH_BYTES // 1_000)]
    async with logs.open() as log:
        await log.append_many(events)
        assert (await log.status()).segments > 3
        assert [envelope.event for envelope in await log.read(1)] == events
        for start in range(1, len(events), 97):
            part = await log.read(start, start + 50)
            assert [envelope.event for envelope in part] == events[start - 1 : start + 49]


async def test_read_needs_and_makes_no_consumer(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abc")
        await log.read(1)
        assert await log.consumers() == []


async def test_bounds_that_are_no_numbers_are_refused(logs: Logs) -> None:
    cases: list[tuple[Any, Any]] = [
        ((-(2**63),), ValueError),
        ((1, -1), ValueError),
        ((2**63,), ValueError),
        (("1",), TypeError),
        ((None,), TypeError),
        ((1, 2.0), TypeError),
    ]
    async with logs.open() as log:
        for bounds, kind in cases:
            with pytest.raises(kind) as caught:
                await log.read(*bounds)
            assert isinstance(caught.value, EventLogError)


async def test_last_seq_no_is_none_and_then_the_last_number(logs: Logs) -> None:
    async with logs.open() as log, logs.open() as other:
        assert await log.last_seq_no() is None
        assert await other.last_seq_no() is None
        await log.append_many(range(7))
        assert await log.last_seq_no() == 7
        assert await other.last_seq_no() == 7


# --- from the end, and by time -----------------------------------------------------------------


async def test_a_negative_start_counts_from_the_end(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.read(-3) == []
        await log.append_many("ab")
        await log.append_many("cde")
        for count, events in {1: "e", 3: "cde", 4: "bcde", 5: "abcde", 1_000: "abcde"}.items():
            assert [envelope.event for envelope in await log.read(-count)] == list(events)
        assert [envelope.event for envelope in await log.read(-4, 4)] == ["b", "c"]
        assert await log.read(-1, 3) == []


async def test_read_by_time_is_half_open_too(logs: Logs) -> None:
    async with logs.open() as log:
        times = []
        for event in "abc":
            (envelope,) = await log.read(await log.append(event))
            assert envelope.stored_at is not None
            times.append(envelope.stored_at)
            while datetime.now(UTC) <= envelope.stored_at:  # noqa: ASYNC110 - a clock
                await anyio.sleep(0.001)

        async def found(**bounds: Any) -> str:
            return "".join([envelope.event for envelope in await log.read(**bounds)])

        first, second, third = times
        assert first < second < third
        assert await found(since=first) == "abc"
        assert await found(since=second) == "bc"
        assert await found(until=third) == "ab"
        assert await found(since=second, until=third) == "b"
        assert await found(since=second, until=second) == ""
        assert await found(since=third, until=first) == ""
        assert await found(since=third + timedelta(days=1)) == ""
        assert await found(until=first - timedelta(days=1)) == ""
        zone = timezone(timedelta(hours=5))
        assert await found(since=second.astimezone(zone), until=third.astimezone(zone)) == "b"


async def test_bounds_that_make_no_sense_are_refused_at_the_call(logs: Logs) -> None:
    now = datetime.now(UTC)
    async with logs.open() as log:
        mixed: list[dict[str, Any]] = [{"start": 1}, {"stop": 2}, {"start": 0, "stop": 1}]
        for bounds in mixed:
            with pytest.raises(InvalidArgument, match="one kind"):
                log.read(**bounds, since=now)
        with pytest.raises(InvalidArgument):
            log.read(1, -1)
        with pytest.raises(InvalidArgument):
            log.read(since=now.replace(tzinfo=None))
        of_no_kind: list[dict[str, Any]] = [
            {},
            {"stop": 1},
            {"start": 1.0},
            {"start": True},
            {"since": 1},
        ]
        for wrong in of_no_kind:
            with pytest.raises(InvalidArgumentType):
                log.read(**wrong)


# --- groups ----------------------------------------------------------------------------------


@needs("members")
async def test_a_log_without_groups_lists_none(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.groups() == []
        assert await log.dead_letters("unknown") == []
        with pytest.raises(InvalidName):
            await log.dead_letters("")


# --- status ----------------------------------------------------------------------------------


async def test_the_status_of_an_empty_log(logs: Logs) -> None:
    async with logs.open() as log:
        status = await log.status()
        assert isinstance(status, LogStatus)
        assert status.path == log.path
        assert status.first_seq_no is None
        assert status.last_seq_no is None
        assert status.durability == "disk"
        assert status.connections >= 1


@needs("segments")
async def test_the_status_tells_first_and_last_and_grows(logs: Logs) -> None:
    async with logs.open() as log:
        before = await log.status()
        await log.append_many([b"x" * KIB for _ in range(100)])
        between = await log.status()
        await log.append_many([b"x" * KIB for _ in range(1_000)])
        after = await log.status()
    assert (between.first_seq_no, between.last_seq_no) == (1, 100)
    assert (after.first_seq_no, after.last_seq_no) == (1, 1_100)
    assert after.bytes - between.bytes >= 1_000 * KIB
    assert between.bytes - before.bytes >= 100 * KIB
    assert after.segments > between.segments


async def test_the_status_is_a_value(logs: Logs) -> None:
    async with logs.open() as log:
        status = await log.status()
        with pytest.raises(dataclasses.FrozenInstanceError):
            status.bytes = 0  # type: ignore[misc]
        await log.append(1)
        assert status.last_seq_no is None


@needs("counts of the writer")
async def test_the_status_counts_connections(logs: Logs) -> None:
    async with logs.open() as log:
        alone = (await log.status()).connections
        async with logs.open() as other:
            await other.last_seq_no()
            assert (await log.status()).connections > alone


@needs("writer process")
async def test_the_status_names_the_process_that_serves_the_log(logs: Logs) -> None:
    async with logs.open() as log, logs.open() as other:
        pid = (await log.status()).writer_pid
        assert pid is not None
        assert pid != os.getpid()
        assert logs.writers() == [pid]
        assert (await other.status()).writer_pid == pid


async def test_the_path_says_where_the_log_is(logs: Logs) -> None:
    async with logs.open() as log:
        assert log.path == logs.path()
        assert log.path in repr(log) or logs.flavour.name == "blocking"
