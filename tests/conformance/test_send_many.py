"""`publisher.send_many`, and lists of many batches: what is stored of them after an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio.lowlevel
import pytest

from eventlog import (
    EventLog,
    InvalidArgument,
    InvalidEvent,
    LogClosed,
    LogFull,
    Retention,
    SeekPosition,
)

from .backends import Flavour, needs
from .logs import BATCH_BYTES, KIB, SEGMENT_BYTES, Logs, stored

pytestmark = pytest.mark.anyio

LIST_BATCHES = 12
"""More than fit the full log below, which holds two segments."""


async def test_a_list_is_one_handle_with_its_first_and_last_number(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher() as publisher:
            one = await publisher.send("before")
            many = await publisher.send_many(["a", "b", "c"], keys=["x", None, "y"])
            other = await publisher.send_many(("d",), headers={"of": "all"})
            assert await many == (2, 4)
            assert many.seq_nos == (2, 4)
            assert await other.result() == (5, 5)
            assert await one == 1
        envelopes = await log.read(0)
    assert [e.event for e in envelopes] == ["before", "a", "b", "c", "d"]
    assert [e.key for e in envelopes] == [None, "x", None, "y", None]
    assert envelopes[-1].headers == {"of": "all"}


async def test_lists_of_many_batches_keep_their_order_among_single_events(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher(max_in_flight=2) as publisher:
            for start in range(0, 900, 300):
                await publisher.send([start, b""])
                await publisher.send_many(
                    [[number, b"x" * KIB] for number in range(start + 1, start + 300)]
                )
            await publisher.flush()
            assert await log.last_seq_no() == 900
        assert [event[0] for event in await stored(log)] == list(range(900))


async def test_what_is_sent_is_stored_at_the_end_of_the_block(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher() as publisher:
            many = await publisher.send_many(range(1_000))
        assert await many == (1, 1_000)
        assert await stored(log) == list(range(1_000))


async def test_a_bad_list_is_refused_whole_and_the_publisher_goes_on(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher() as publisher:
            for events, keys, kind in (
                ([], None, InvalidArgument),
                (["a", object()], None, InvalidEvent),
                (["a", "b"], ["x"], InvalidArgument),
                (["a"], ["x", "y"], InvalidArgument),
            ):
                with pytest.raises(kind) as caught:
                    await publisher.send_many(events, keys=keys)
                assert getattr(caught.value, "stored", 0) == 0
            assert await (await publisher.send_many(["good"])) == (1, 1)
        with pytest.raises(LogClosed):
            await publisher.send_many(["late"])
        assert await stored(log) == ["good"]


async def test_a_list_may_come_from_an_asynchronous_iterable(logs: Logs, flavour: Flavour) -> None:
    async def events() -> AsyncIterator[int]:
        for number in range(3):
            await anyio.lowlevel.checkpoint()
            yield number

    if flavour.name == "blocking":
        return
    async with logs.open() as log, log.publisher() as publisher:
        assert await (await publisher.send_many(events())) == (1, 3)


def full(logs: Logs) -> EventLog:
    """A log that refuses what does not fit two segments, once a consumer holds it up."""
    retention = Retention(max_bytes=2 * SEGMENT_BYTES)
    return logs.open(retention=retention, on_full="error")


def many_batches() -> list[Any]:
    """Batches of two thirds of a segment's quarter and, last, a small one that would always fit."""
    large = [[number, b"x" * (BATCH_BYTES - KIB)] for number in range(LIST_BATCHES)]
    return [*large, *([number, b""] for number in range(LIST_BATCHES, LIST_BATCHES + 3))]


@needs("waiting for room")
async def test_append_many_stores_exactly_the_first_events_of_a_list_that_does_not_fit(
    logs: Logs,
) -> None:
    """A small batch behind a refused one fitted, and was stored: a hole in the list."""
    async with full(logs) as log:
        await log.seek("slow", SeekPosition.BEGINNING)
        with pytest.raises(LogFull) as caught:
            await log.append_many(many_batches())
        found = [event[0] for event in await stored(log)]
        assert found == list(range(len(found)))
        assert caught.value.stored == len(found)
        assert 0 < len(found) < LIST_BATCHES
        # What was refused is not in the way of the next ones.
        await log.ack("slow", len(found))
        assert await log.append_many(["after"]) == (len(found) + 1,) * 2


@needs("waiting for room")
async def test_send_many_stores_exactly_the_first_events_of_a_list_that_does_not_fit(
    logs: Logs,
) -> None:
    async with full(logs) as log:
        await log.seek("slow", SeekPosition.BEGINNING)
        async with log.publisher() as publisher:
            many = await publisher.send_many(many_batches())
            with pytest.raises(LogFull) as caught:
                await many
            assert many.seq_nos is None
            with pytest.raises(LogFull):  # for who does not look at the handle
                await publisher.flush()
        found = [event[0] for event in await stored(log)]
        assert found == list(range(len(found)))
        assert caught.value.stored == len(found)
        assert 0 < len(found) < LIST_BATCHES
