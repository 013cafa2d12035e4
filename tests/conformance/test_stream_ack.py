"""`stream.ack`, and `follow`: streams with a consumer, and one without."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from eventlog import (
    EventEnvelope,
    InvalidArgument,
    InvalidArgumentType,
    SeekPosition,
    SequenceOutOfRange,
)

from .logs import Logs, delivered, take

pytestmark = pytest.mark.anyio


async def test_a_stream_acknowledges_envelopes_and_numbers_for_its_consumer(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abcd")
        async with log.subscribe("c") as stream:
            first, second = await take(stream, 2)
            await stream.ack(second)
            assert [(s.name, s.last_acked) for s in await log.consumers()] == [("c", 2)]
            await stream.ack(first)  # as with `log.ack`: it never goes back
            assert [s.last_acked for s in await log.consumers()] == [2]
            await stream.ack(3)
            assert [s.last_acked for s in await log.consumers()] == [3]
            assert await delivered(stream, 2) == ["c", "d"]
        async with log.subscribe("c") as stream:
            assert await delivered(stream, 1) == ["d"]


async def test_a_stream_of_batches_acknowledges_too(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("ab")
        async with log.subscribe("c") as stream:
            (batch,) = await take(stream.batches(), 1)
            await stream.ack(batch[-1])
        assert [s.last_acked for s in await log.consumers()] == [2]


async def test_what_a_stream_cannot_acknowledge_is_refused(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("a")
        async with log.subscribe("c") as stream:
            with pytest.raises(SequenceOutOfRange):
                await stream.ack(2)
            with pytest.raises(InvalidArgument, match="not appended"):
                await stream.ack(EventEnvelope("a"))
            with pytest.raises(InvalidArgument):
                await stream.ack(-1)
            for wrong in ("1", None, [1]):
                with pytest.raises(InvalidArgumentType):
                    await stream.ack(wrong)  # type: ignore[arg-type]
        assert await log.consumers() == []


async def test_follow_sees_what_is_new_and_leaves_no_consumer(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("old")
        async with log.follow() as stream:
            await log.append("new")
            assert await delivered(stream, 1) == ["new"]
            for acked in (2, EventEnvelope("new", seq_no=2)):
                with pytest.raises(InvalidArgument, match="no consumer"):
                    await stream.ack(acked)
        assert await log.consumers() == []


async def test_a_reader_that_keeps_its_place_goes_on_there(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abc")
        async with log.follow(SeekPosition.BEGINNING) as stream:
            (envelope,) = await take(stream, 1)
        place = SeekPosition.sequence((envelope.seq_no or 0) + 1)
        received: list[Any] = []
        async with log.follow(place) as stream, anyio.create_task_group() as tasks:

            async def consume() -> None:
                received.extend(await delivered(stream, 3))

            tasks.start_soon(consume)
            await log.append("d")
        assert received == ["b", "c", "d"]


async def test_follow_refuses_what_only_a_consumer_has_and_what_is_no_position(logs: Logs) -> None:
    async with logs.open() as log:
        with pytest.raises(InvalidArgument, match="without a consumer"):
            log.follow(SeekPosition.LAST_ACKNOWLEDGED)
        with pytest.raises(InvalidArgumentType):
            log.follow("c")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument):
            log.follow(spin=-1)


async def test_follow_decodes_to_a_type(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(b"bytes")
        async with log.follow(SeekPosition.BEGINNING, type=bytes) as stream:
            assert await delivered(stream, 1) == [b"bytes"]
