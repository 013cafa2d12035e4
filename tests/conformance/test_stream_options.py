"""`subscribe(type=, spin=, verify=, durable_only=)` and `synced`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import anyio
import msgspec
import pytest

from eventlog import (
    EventLogError,
    EventTypeMismatch,
    InvalidArgument,
    SeekPosition,
    SequenceOutOfRange,
)

from .backends import needs
from .logs import BATCH_BYTES, Logs, delivered, take

pytestmark = pytest.mark.anyio

BEGINNING = SeekPosition.BEGINNING


class Order(msgspec.Struct):
    """What a user would append."""

    number: int
    price: float
    placed: datetime
    tags: list[str] = []


class Tagged(msgspec.Struct, tag="point", array_like=True):
    """Stored as an array with a tag."""

    x: int
    y: int


@dataclass
class Nested:
    """A dataclass with what MessagePack has no word for."""

    id: UUID
    names: set[str]
    order: Order


NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
NESTED = Nested(UUID(int=7), {"a", "b"}, Order(1, 2.5, NOW))


# --- type ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Order(1, 2.5, NOW, ["x"]), Order),
        (Tagged(1, 2), Tagged),
        (NESTED, Nested),
        ({"a": 1}, dict[str, int]),
        (7, int),
        (b"bytes", bytes),
        (None, int | None),
    ],
)
async def test_a_typed_stream_gives_back_what_was_appended(
    logs: Logs, event: Any, kind: Any
) -> None:
    async with logs.open() as log:
        await log.append(event, key="k", headers={"h": "1"})
        await log.append_many([event] * 3)
        async with log.publisher() as publisher:
            await publisher.send(event)
        async with log.subscribe("c", BEGINNING, type=kind) as stream:
            envelopes = await take(stream, 5)
    assert [envelope.event for envelope in envelopes] == [event] * 5
    assert all(type(envelope.event) is type(event) for envelope in envelopes)
    assert [envelope.seq_no for envelope in envelopes] == [1, 2, 3, 4, 5]
    assert (envelopes[0].key, envelopes[0].headers) == ("k", {"h": "1"})
    assert len({envelope.id for envelope in envelopes}) == 5


async def test_without_a_type_a_struct_is_a_map(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(Order(1, 2.5, NOW))
        async with log.subscribe("c", BEGINNING) as stream:
            (event,) = await delivered(stream, 1)
    assert event == {"number": 1, "price": 2.5, "placed": NOW, "tags": []}


async def test_views_of_bytes_are_not_copied_and_stay_readable(logs: Logs) -> None:
    """Also after the stream, and what it mapped, are closed."""
    sent = [bytes([number]) * 40_000 for number in range(30)]  # several segments
    async with logs.open() as log:
        await log.append_many(sent)
        async with log.subscribe("c", BEGINNING, type=memoryview) as stream:
            views = await delivered(stream, 30)
        assert all(type(view) is memoryview for view in views)
        assert all(view.readonly for view in views)
        assert [bytes(view) for view in views] == sent
    assert [bytes(view) for view in views] == sent


async def test_packed_payloads_can_be_had_as_they_are_stored(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([{"a": 1}, [1, 2], "text"])
        async with log.subscribe("c", BEGINNING, type=msgspec.Raw) as stream:
            raw = await delivered(stream, 3)
    assert [msgspec.msgpack.decode(one) for one in raw] == [{"a": 1}, [1, 2], "text"]


async def test_batches_are_typed_too(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([Tagged(n, n) for n in range(10)])
        async with log.subscribe("c", BEGINNING, type=Tagged) as stream:
            batch = await anext(aiter(stream.batches()))
    assert [envelope.event for envelope in batch] == [Tagged(n, n) for n in range(10)]


async def test_an_event_of_another_type_is_named_and_nothing_is_skipped(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        await log.append_many([4, "five", 6])
        await log.append(7)
        async with log.subscribe("c", BEGINNING, type=int) as stream:
            assert await delivered(stream, 3) == [1, 2, 3]
            if "segments" in logs.backend.lacks:  # then the event before it is no batch with it
                assert await delivered(stream, 1) == [4]
            for _ in range(2):  # it stays where it is
                with pytest.raises(EventTypeMismatch, match=r"event 5 .*int.*str") as caught:
                    await anext(aiter(stream))
                assert caught.value.seq_no == 5
                assert caught.value.path == log.path
        async with log.subscribe("c", SeekPosition.sequence(6)) as stream:
            assert await delivered(stream, 2) == [6, 7]


async def test_a_type_that_nothing_can_be_decoded_to_is_refused_at_the_call(logs: Logs) -> None:
    async with logs.open() as log:
        with pytest.raises(TypeError, match="type=") as caught:
            log.subscribe("c", type={1: 2})
        assert isinstance(caught.value, EventLogError)


# --- spin and verify -------------------------------------------------------------------------


@pytest.mark.parametrize("spin", [0, 0.0001, 0.05])
async def test_a_spinning_stream_gets_every_event_before_during_and_after_it_spins(
    logs: Logs, spin: float
) -> None:
    async with logs.open() as log, log.subscribe("c", spin=spin) as stream:

        async def produce() -> None:
            for number in range(20):
                await log.append(number)
                await anyio.sleep(spin * (number % 3))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(produce)
            assert await delivered(stream, 20) == list(range(20))


async def test_a_stream_that_is_left_while_it_spins_is_left_at_once(logs: Logs) -> None:
    async with logs.open() as log:
        with anyio.move_on_after(0.3) as scope:
            async with log.subscribe("c", spin=0.5) as stream:
                await anext(aiter(stream))
        assert scope.cancelled_caught
        assert await log.append("usable") == 1


@pytest.mark.parametrize("verify", [True, False])
async def test_without_verifying_the_same_events_come(logs: Logs, verify: bool) -> None:
    sent = [{"n": number} for number in range(500)]
    async with logs.open() as log:
        await log.append_many(sent)
        async with log.subscribe("c", BEGINNING, verify=verify, follow=False) as stream:
            assert [envelope.event async for envelope in stream] == sent


@pytest.mark.parametrize(
    "options",
    [
        {"spin": -1},
        {"spin": 61},
        {"spin": math.nan},
        {"spin": "1"},
        {"spin": True},
        {"verify": 1},
        {"durable_only": "yes"},
    ],
)
async def test_bad_options_are_refused_at_the_call(logs: Logs, options: dict[str, Any]) -> None:
    async with logs.open() as log:
        with pytest.raises((ValueError, TypeError)) as caught:
            log.subscribe("c", **options)
        assert isinstance(caught.value, EventLogError)


# --- what is on the disk ---------------------------------------------------------------------


@needs("directory")
@pytest.mark.parametrize("durability", ["disk", "sync"])
async def test_synced_returns_when_the_event_is_on_the_disk(logs: Logs, durability: Any) -> None:
    async with logs.open(durability=durability) as log:
        await log.synced()  # an empty log
        first, last = await log.append_many(["x"] * 10)
        await log.synced(first)
        await log.synced(last)
        assert (await log.status()).synced_seq_no == last
        await log.append("y")
        await log.synced()
        assert (await log.status()).synced_seq_no == 11


@needs("directory")
async def test_an_event_that_is_not_there_cannot_be_waited_for(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("x")
        with pytest.raises(SequenceOutOfRange, match=r"event 2 .*last one is 1"):
            await log.synced(2)
        with pytest.raises(ValueError, match="-1"):
            await log.synced(-1)


async def test_nothing_of_a_log_in_memory_is_ever_synced(logs: Logs) -> None:
    async with logs.open(durability="memory") as log:
        await log.append("x")
        with pytest.raises(ValueError, match="ever synced"):
            await log.synced()


@needs("directory")
async def test_a_durable_stream_sees_nothing_that_is_not_on_the_disk(logs: Logs) -> None:
    async with (
        logs.open() as log,
        log.subscribe("durable", durable_only=True) as durable,
        log.subscribe("live") as live,
    ):
        for number in range(3):
            seq_no = await log.append(number)
            assert await delivered(live, 1) == [number]
            (envelope,) = await take(durable, 1)
            assert envelope.seq_no == seq_no
            assert ((await log.status()).synced_seq_no or 0) >= seq_no


@needs("directory", "restart")
async def test_a_durable_stream_outlives_the_writer(logs: Logs) -> None:
    async with (
        logs.open(durability="sync") as log,
        log.subscribe("durable", BEGINNING, durable_only=True) as durable,
    ):
        for number in range(3):
            await log.append_many([number] * 3)
            await logs.end_writer(log)
            assert await delivered(durable, 3) == [number] * 3


@needs("directory")
async def test_what_is_stored_but_not_synced_is_no_part_of_a_durable_stream(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([b"x" * (BATCH_BYTES // 2)] * 3)
        await log.synced()
        await log.append("not yet")
        before = (await log.status()).synced_seq_no
        async with log.subscribe("c", BEGINNING, durable_only=True, follow=False) as stream:
            after = (await log.status()).synced_seq_no
            count = len([envelope async for envelope in stream])
        assert before is not None
        assert after is not None
        assert before <= count <= after


async def test_a_stream_of_what_is_on_the_disk_is_refused_where_nothing_ever_is(
    logs: Logs,
) -> None:
    async with logs.open(durability="memory") as log:
        with pytest.raises(InvalidArgument, match="ever synced"):
            async with log.subscribe("c", durable_only=True):
                pass
