"""Cancelling a call leaves the log usable, and nothing half done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest

from eventlog import EventLog, Publisher, SeekPosition

from .backends import needs
from .logs import KIB, Logs, delivered, stored, take

pytestmark = [pytest.mark.anyio, needs("cancellation")]

ROUNDS: Final = 200


async def cancelled_after(steps: int, call: Callable[[], Awaitable[Any]]) -> Any:
    """What the call gave, or `None` if it was cancelled, which is tried after so many steps."""
    result = None

    async def run() -> None:
        nonlocal result
        with scope:
            result = await call()

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
    return result


async def test_a_cancelled_append_stores_its_event_once_or_not_at_all(logs: Logs) -> None:
    answered: dict[int, int] = {}
    async with logs.open() as log:
        for number in range(ROUNDS):
            seq_no = await cancelled_after(number % 12, lambda n=number: log.append(n))  # type: ignore[misc]
            if seq_no is not None:
                answered[number] = seq_no
        await log.append("end")
        envelopes = await log.read(1)
    events = [envelope.event for envelope in envelopes]
    assert events[-1] == "end"
    assert events[:-1] == sorted(set(events[:-1]))
    numbers = {envelope.event: envelope.seq_no for envelope in envelopes}
    assert {number: numbers[number] for number in answered} == answered


async def test_cancelling_one_append_does_not_touch_those_of_other_tasks(logs: Logs) -> None:
    numbers: dict[int, int] = {}

    async def keep(number: int) -> None:
        numbers[number] = await log.append(number)

    async with logs.open() as log:
        for start in range(0, ROUNDS, 10):
            async with anyio.create_task_group() as tasks:
                for number in range(start, start + 10):
                    tasks.start_soon(keep, number)
                    tasks.start_soon(cancelled_after, number % 7, lambda: log.append("cancelled"))
        envelopes = await log.read(1)
    kept = {e.event: e.seq_no for e in envelopes if e.event != "cancelled"}
    assert kept == numbers
    assert len(kept) == ROUNDS


async def test_a_cancelled_append_many_stores_each_batch_whole_or_not_at_all(logs: Logs) -> None:
    async with logs.open() as log:
        for number in range(ROUNDS):
            events = [[number, row] for row in range(10)]
            await cancelled_after(number % 12, lambda e=events: log.append_many(e))  # type: ignore[misc]
        events = await stored(log)
    for place in range(0, len(events), 10):
        number = events[place][0]
        assert events[place : place + 10] == [[number, row] for row in range(10)]


async def test_cancelling_a_waiting_stream_loses_and_doubles_nothing(logs: Logs) -> None:
    received: list[Any] = []

    async def one() -> None:
        received.extend(await delivered(stream, 1))

    async with logs.open() as log, log.subscribe("c") as stream:
        for number in range(ROUNDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancelled_after, number % 9, one)
                await log.append(number)
        received += await delivered(stream, ROUNDS - len(received))
    assert received == list(range(ROUNDS))


async def test_cancelling_a_wait_for_a_batch_loses_and_doubles_nothing(logs: Logs) -> None:
    received: list[Any] = []

    async with logs.open() as log, log.subscribe("c") as stream:
        batches = stream.batches()

        async def one() -> None:
            received.extend(envelope.event for envelope in await anext(batches))

        for number in range(ROUNDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancelled_after, number % 9, one)
                await log.append_many([number, -number])
        while len(received) < 2 * ROUNDS:
            await one()
    assert received == [event for n in range(ROUNDS) for event in (n, -n)]


async def test_cancelling_the_loop_over_a_stream_leaves_the_log_usable(logs: Logs) -> None:
    async with logs.open() as log:
        for number in range(1, 31):
            assert await log.append(number) == number
            with anyio.CancelScope() as scope:
                async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
                    async for envelope in stream:
                        if envelope.seq_no == number:
                            scope.cancel()
            assert scope.cancelled_caught


async def test_cancelling_around_subscribe_leaves_the_log_usable(logs: Logs) -> None:
    async def enter() -> None:
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            await take(stream, 10)

    async with logs.open() as log:
        for number in range(60):
            await cancelled_after(number % 10, enter)
        await log.append_many(range(10))
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            assert await delivered(stream, 10) == list(range(10))


async def test_a_cancelled_request_does_not_leave_its_answer_to_the_next_one(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, ROUNDS + 1))
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: log.ack("a", 1),
            log.status,
            lambda: log.seek("a", SeekPosition.LATEST),
            log.consumers,
            lambda: log.forget("a"),
            log.last_seq_no,
        ]
        for number in range(1, ROUNDS + 1):
            await cancelled_after(number % 8, calls[number % len(calls)])
            await log.ack("b", number)
            assert (await log.status()).last_seq_no == ROUNDS
            assert {s.name: s.last_acked for s in await log.consumers()}["b"] == number


@pytest.mark.filterwarnings("ignore:a publisher of the log:ResourceWarning")
async def test_a_cancelled_publisher_stores_a_beginning_of_what_was_sent(logs: Logs) -> None:
    async def produce(name: int) -> None:
        async with log.publisher(max_batch_bytes=200, max_in_flight=2) as publisher:
            for number in range(1_000_000):
                await publisher.send([name, number])

    async with logs.open() as log:
        for name in range(40):
            await cancelled_after(name * 3, lambda n=name: produce(n))  # type: ignore[misc]
        assert await log.append("end") == await log.last_seq_no()
        events = (await stored(log))[:-1]
    for name in range(40):
        own = [number for producer, number in events if producer == name]
        assert own == list(range(len(own)))


async def test_a_cancelled_send_or_flush_leaves_the_publisher_usable(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher(max_batch_bytes=100, max_in_flight=1) as publisher:
            for number in range(ROUNDS):
                await cancelled_after(number % 7, lambda n=number: publisher.send(n))  # type: ignore[misc]
                await cancelled_after(number % 5, publisher.flush)
                await cancelled_after(number % 6, lambda: send_and_wait(publisher, "waited for"))
            handle = await publisher.send("end")
            await publisher.flush()
            assert handle.seq_no == await log.last_seq_no()
        events = [event for event in await stored(log) if event != "waited for"]
    assert events[-1] == "end"
    assert events[:-1] == sorted(set(events[:-1]))


async def send_and_wait(publisher: Publisher, event: Any) -> int:
    return await (await publisher.send(event))


async def test_a_cancelled_read_leaves_the_log_usable(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([b"x" * KIB for _ in range(300)])
        for number in range(40):
            await cancelled_after(number, lambda: log.read(1).to_list())
            assert len(await log.read(1)) == 300


async def test_a_cancelled_open_can_be_tried_again(logs: Logs) -> None:
    async def use() -> EventLog:
        async with logs.open() as log:
            await log.append("from a cancelled one")
            return log

    for number in range(30):
        await cancelled_after(number * number, use)
    async with logs.open() as log:
        assert await log.append("end") == await log.last_seq_no()
        assert (await stored(log))[-1] == "end"
    assert len(logs.writers()) <= 1
