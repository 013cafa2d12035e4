"""`ack(..., state=)`: the state of a consumer, which is stored and dropped with its position."""

from __future__ import annotations

from typing import Any

import pytest

from eventlog import (
    ConsumerState,
    EventLog,
    InvalidArgument,
    InvalidArgumentType,
    SeekPosition,
    SequenceOutOfRange,
)
from eventlog.config import STATE_BYTES_MAX

from .backends import needs
from .logs import Logs, delivered

pytestmark = [pytest.mark.anyio, needs("states")]


async def pair_of(log: EventLog, name: str = "c") -> tuple[int | None, bytes | None] | None:
    """The consumer's position and state, as `consumers` and a subscription give them alike."""
    states = {state.name: state for state in await log.consumers()}
    found: ConsumerState | None = states.get(name)
    async with log.subscribe(name, follow=False) as stream:
        assert stream.state == (None if found is None else found.state)
    return None if found is None else (found.last_acked, found.state)


async def test_a_state_comes_back_with_its_position(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        await log.ack("c", 3, state=b"six")
        assert await pair_of(log) == (3, b"six")
        async with log.subscribe("c", follow=False) as stream:
            assert stream.state == b"six"
            assert await delivered(stream, 1) == [4]


async def test_a_stream_acknowledges_with_a_state(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        async with log.subscribe("c", follow=False) as stream:
            total = int(stream.state or 0)
            async for envelope in stream:
                total += envelope.event
                await stream.ack(envelope, state=b"%d" % total)
            assert stream.state is None  # what it was at the start
        assert await pair_of(log) == (5, b"15")


async def test_an_ack_that_moves_on_without_a_state_drops_it(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        await log.ack("c", 3, state=b"three")
        await log.ack("c", 4)
        assert await pair_of(log) == (4, None)
        await log.ack("c", 5, state=b"five")
        assert await pair_of(log) == (5, b"five")


async def test_the_same_number_with_a_state_replaces_it_and_without_one_keeps_it(
    logs: Logs,
) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        await log.ack("c", 3)
        await log.ack("c", 3, state=b"first")
        assert await pair_of(log) == (3, b"first")
        await log.ack("c", 3)
        assert await pair_of(log) == (3, b"first")
        await log.ack("c", 3, state=b"second")
        assert await pair_of(log) == (3, b"second")


async def test_a_smaller_number_changes_neither_position_nor_state(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        await log.ack("c", 4, state=b"four")
        await log.ack("c", 3, state=b"three")
        await log.ack("c", 2)
        assert await pair_of(log) == (4, b"four")
        await log.ack("d", 4)
        await log.ack("d", 3, state=b"three")
        assert await pair_of(log, "d") == (4, None)


@pytest.mark.parametrize("seq_no", [2, 4, 6])
async def test_a_seek_drops_the_state_wherever_it_goes(logs: Logs, seq_no: int) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 11))
        for number in (1, 3, 5):
            await log.ack("c", number, state=b"%d" % number)
        await log.seek("c", SeekPosition.sequence(seq_no))
        assert await pair_of(log) == (seq_no - 1, None)
        await log.ack("c", 5)  # where a state was before
        assert await pair_of(log) == (5, None)
        await log.seek("c", SeekPosition.BEGINNING)
        assert await pair_of(log) == (None, None)


async def test_a_forgotten_consumer_takes_its_state_along(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        await log.ack("c", 3, state=b"three")
        await log.forget("c")
        assert await pair_of(log) is None
        await log.ack("c", 3)
        assert await pair_of(log) == (3, None)


async def test_each_consumer_has_its_own_state(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        wanted = {f"c{n}": (n, b"state %d" % n) for n in range(1, 6)}
        for name, (position, state) in wanted.items():
            await log.ack(name, position, state)
        await log.ack("plain", 2)
        found = {one.name: (one.last_acked, one.state) for one in await log.consumers()}
        assert found == {**wanted, "plain": (2, None)}


@pytest.mark.parametrize(
    "state", [b"", b"\0:1:\xff", bytes(range(256)) * (STATE_BYTES_MAX // 256)],
    ids=["empty", "any bytes", "64 KiB"],
)  # fmt: skip
async def test_a_state_is_any_bytes_up_to_its_limit(logs: Logs, state: bytes) -> None:
    async with logs.open() as log:
        await log.append(1)
        await log.ack("c", 1, state=state)
        assert await pair_of(log) == (1, state)


async def test_a_state_may_stand_before_the_first_event(logs: Logs) -> None:
    async with logs.open() as log:
        await log.ack("c", 0, state=b"nothing yet")
        assert await pair_of(log) == (None, b"nothing yet")
        await log.append("first")
        async with log.subscribe("c", follow=False) as stream:
            assert await delivered(stream, 2) == ["first"]


@pytest.mark.parametrize(
    ("state", "kind"),
    [(bytes(STATE_BYTES_MAX + 1), InvalidArgument), ("text", InvalidArgumentType),
     (7, InvalidArgumentType), (bytearray(b"x"), InvalidArgumentType)],
    ids=["too large", "text", "number", "bytearray"],
)  # fmt: skip
async def test_what_is_no_state_is_refused_and_moves_nothing(
    logs: Logs, state: Any, kind: type[Exception]
) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2])
        await log.ack("c", 1, state=b"one")
        with pytest.raises(kind, match="consumer 'c'"):
            await log.ack("c", 2, state=state)
        assert await pair_of(log) == (1, b"one")


async def test_a_state_past_the_last_event_is_out_of_range(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(1)
        with pytest.raises(SequenceOutOfRange):
            await log.ack("c", 2, state=b"two")
        assert await log.consumers() == []


async def test_only_a_stream_that_starts_at_the_position_has_the_state(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        await log.ack("c", 3, state=b"three")
        for position in (SeekPosition.BEGINNING, SeekPosition.LATEST, SeekPosition.sequence(4)):
            async with log.subscribe("c", position, follow=False) as stream:
                assert stream.state is None
        async with log.follow(SeekPosition.BEGINNING) as stream:
            assert stream.state is None


async def test_what_a_filter_leaves_out_moves_the_consumer_and_keeps_its_state(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6), keys=["a", "b", "a", "b", "b"])
        async with log.subscribe("c", keys={"a"}, follow=False) as stream:
            total = 0
            async for envelope in stream:
                total += envelope.event
                await stream.ack(envelope, state=b"%d" % total)
        assert await pair_of(log) == (5, b"4")


@needs("members")
async def test_a_group_has_no_state(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        await log.ack("g", 2, state=b"two")
        async with log.group("g", position=SeekPosition.LAST_ACKNOWLEDGED):
            with pytest.raises(InvalidArgument, match="'g' is a group"):
                await log.ack("g", 3, state=b"three")
            await log.ack("g", 4)
            assert await pair_of(log, "g") == (4, None)


@needs("restart")
async def test_a_state_survives_the_end_of_what_serves_the_log(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 6))
        await log.ack("c", 3, state=b"three")
        await log.ack("d", 2, state=b"two")
        await log.ack("d", 4)
    if "writer process" not in logs.backend.lacks:
        logs.end_writers()
    async with logs.open() as log:
        assert await pair_of(log) == (3, b"three")
        assert await pair_of(log, "d") == (4, None)


@needs("writer process")
async def test_a_killed_writer_leaves_position_and_state_as_they_were_together(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 101))
        for number in range(1, 101):
            await log.ack("c", number, state=b"%d" % number)
            if number % 25 == 0:
                await logs.end_writer(log)
            if number % 10 == 5:
                assert await pair_of(log) == (number, b"%d" % number)
        assert await pair_of(log) == (100, b"100")
