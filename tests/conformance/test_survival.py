"""What survives: the end of the handles, of the writer, of a process in the middle of anything."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import multiprocess
import pytest

import eventlog.blocking
from eventlog import EventLog, Retention, SeekPosition

from .backends import needs
from .logs import BATCH_BYTES, Logs, delivered, stored, take, until
from .test_consumers import acked, next_event

pytestmark = pytest.mark.anyio

ENDS = [signal.SIGTERM, signal.SIGKILL]


# --- closing and opening ---------------------------------------------------------------------


async def test_everything_is_there_when_the_log_is_opened_again(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("a", key="k", headers={"h": "v"})
        await log.append_many(["b", "c"])
        await log.ack("c", 2)
        before = await log.read(1)
    async with logs.open() as log:
        assert await log.read(1) == before
        assert await acked(log) == 2
        assert await log.append("d") == 4


@needs("restart", "writer process")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("durability", ["memory", "disk", "sync"])
async def test_everything_survives_the_end_of_the_writer(
    logs: Logs, end: signal.Signals, durability: str
) -> None:
    options: dict[str, Any] = {
        "durability": durability,
        "retention": Retention(max_bytes=2**30, keep_unacked=False),
        "on_full": "error",
        "max_event_bytes": 2_000,
    }
    async with logs.open(**options) as log:
        await log.append("a", key="k", headers={"h": "v"})
        await log.append_many([[number, b"x" * 1_000] for number in range(500)])
        await log.ack("c", 300)
        await log.seek("d", SeekPosition.sequence(7))
        await log.ack("e", 0)
        events, consumers = await log.read(1), await log.consumers()
        pid = await logs.end_writer(log, end)
    async with logs.open_path(logs.path()) as log:
        assert await log.read(1) == events
        assert await log.consumers() == consumers
        assert await log.last_seq_no() == 501
        assert await next_event(log, "c") == [299, b"x" * 1_000]
        assert await log.append("next") == 502
        status = await log.status()
        assert status.writer_pid not in (pid, None)
        assert status.durability == durability
        with pytest.raises(eventlog.EventTooLarge):
            await log.append(b"x" * 2_001)
    async with logs.open(**options) as log:
        assert await log.last_seq_no() == 502


@needs("restart", "writer process")
async def test_a_forgotten_consumer_stays_forgotten(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(1)
        await log.ack("a", 1)
        await log.ack("b", 1)
        await log.forget("a")
        await logs.end_writer(log)
        assert [state.name for state in await log.consumers()] == ["b"]
        await log.ack("c", 1)
        assert [state.name for state in await log.consumers()] == ["b", "c"]


@needs("restart", "writer process")
async def test_numbers_are_not_used_again_after_retention_and_a_crash(logs: Logs) -> None:
    retention = Retention(max_bytes=32 * 1024, keep_unacked=False)
    async with logs.open(retention=retention, segment_bytes=8 * 1024) as log:
        for _ in range(200):
            await log.append(b"x" * 500)
        last = 200
        first = (await log.status()).first_seq_no
        assert first is not None
        assert first > 1
        await logs.end_writer(log)
        assert await log.append("next") == last + 1
        with pytest.raises(eventlog.EventsTruncated):
            await log.read(1)
        assert (await log.status()).first_seq_no in range(first, last + 1)


# --- an open handle outlives the writer ------------------------------------------------------


@needs("writer process")
@pytest.mark.parametrize("end", ENDS)
async def test_every_call_goes_on_with_the_next_writer(logs: Logs, end: signal.Signals) -> None:
    async def ack(log: EventLog) -> None:
        await log.ack("c", 1)

    async def seek(log: EventLog) -> None:
        await log.seek("c", SeekPosition.BEGINNING)

    async def forget(log: EventLog) -> None:
        await log.forget("c")

    async def append(log: EventLog) -> None:
        await log.append("x")

    async def append_many(log: EventLog) -> None:
        await log.append_many(["x", "y"])

    async def publish(log: EventLog) -> None:
        async with log.publisher() as publisher:
            await publisher.send("x")

    async with logs.open() as log:
        await log.append("a")
        for call in (append, ack, append_many, seek, publish, forget):
            await call(log)
            await logs.end_writer(log, end)
            await call(log)
        assert len(await stored(log)) == 1 + 2 + 4 + 2
        assert len(logs.writers()) == 1


def has_reached(log: EventLog, goal: int) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return (await log.last_seq_no() or 0) >= goal

    return condition


@needs("writer process")
async def test_appends_repeated_after_kills_are_stored_once(logs: Logs) -> None:
    numbers: dict[tuple[int, int], int] = {}
    kills = 4
    each = 150

    async def produce(producer: int) -> None:
        for count in range(each):
            numbers[producer, count] = await log.append([producer, count])

    async def kill() -> None:
        for number in range(1, kills + 1):
            goal = 8 * each * number // (kills + 2)
            await until(has_reached(killer, goal))
            await logs.end_writer(killer)

    async with logs.open() as log, logs.open() as killer:
        async with anyio.create_task_group() as tasks:
            for producer in range(8):
                tasks.start_soon(produce, producer)
            tasks.start_soon(kill)
        envelopes = await log.read(1)
    assert [envelope.seq_no for envelope in envelopes] == list(range(1, 8 * each + 1))
    assert {tuple(envelope.event): envelope.seq_no for envelope in envelopes} == numbers


@needs("writer process")
async def test_a_publisher_goes_on_after_kills_in_order_and_each_once(logs: Logs) -> None:
    total = 8_000
    handles: list[Any] = []

    async def kill() -> None:
        # More often than a call tries again in a row: each writer did something before its end, so
        # the publisher, which once counted all its lost pipes together, must not give up.
        for part in range(1, 8):
            await until(has_reached(killer, total * part // 9))
            await logs.end_writer(killer)

    async with logs.open() as log, logs.open() as killer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill)
            async with log.publisher(max_batch_bytes=1_000, max_in_flight=8) as publisher:
                handles += [await publisher.send(number) for number in range(total)]
        assert await stored(log) == list(range(total))
        assert [handle.seq_no for handle in handles] == list(range(1, total + 1))


@needs("writer process")
async def test_a_large_append_many_is_stored_once_whatever_is_killed(logs: Logs) -> None:
    async with logs.open() as log, logs.open() as killer:
        for _ in range(3):
            before = await log.last_seq_no() or 0
            events = [[number, b"x" * 1_000] for number in range(10 * BATCH_BYTES // 1_000)]

            async def kill(before: int = before) -> None:
                await until(has_reached(killer, before + 1))
                await logs.end_writer(killer)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kill)
                first, last = await log.append_many(events)
            assert (first, last) == (before + 1, before + len(events))
            assert [e.event for e in await log.read(first)] == events


@needs("writer process")
async def test_more_batches_than_the_writer_remembers_are_stored_once(logs: Logs) -> None:
    # All went at once, and of those that were repeated, the first were not known any more.
    small: Any = {"segment_bytes": 1 << 16}
    async with logs.open(**small) as log, logs.open(**small) as killer:
        events = [[number, b"x" * 1_000] for number in range(200 * 16)]

        async def kill() -> None:
            for share in (4, 2):
                await until(has_reached(killer, len(events) // share))
                await logs.end_writer(killer)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill)
            assert await log.append_many(events) == (1, len(events))
        assert [e.event for e in await log.read(1)] == events


@needs("writer process")
@pytest.mark.parametrize("end", ENDS)
async def test_a_waiting_stream_goes_on_without_a_gap_or_a_double(
    logs: Logs, end: signal.Signals
) -> None:
    received: list[Any] = []

    async with logs.open() as log, logs.open() as other, other.subscribe("c") as stream:

        async def consume() -> None:
            received.extend(await delivered(stream, 40))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            for number in range(40):
                await log.append(number)
                if number % 10 == 5:
                    await logs.end_writer(log, end)
    assert received == list(range(40))


# --- several processes -----------------------------------------------------------------------


def append_in_child(path: str, producer: int, count: int) -> None:
    with eventlog.blocking.open(path) as log:
        for number in range(count):
            log.append([producer, number])
        with log.publisher() as publisher:
            for number in range(count, 2 * count):
                publisher.send([producer, number])


def check_in_child(path: str, last: int) -> None:
    """Everything that the parent has appended is there, without waiting."""
    with eventlog.blocking.open(path) as log:
        assert log.last_seq_no() == last
        assert [envelope.seq_no for envelope in log.read(1)] == list(range(1, last + 1))
        with log.subscribe("child", SeekPosition.BEGINNING, follow=False) as stream:
            assert [envelope.seq_no for envelope in stream] == list(range(1, last + 1))
        log.ack("child", last)


def start(target: Any, *arguments: Any) -> Any:
    process = multiprocess.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    return process


async def end_of(process: Any) -> int:
    await anyio.to_thread.run_sync(process.join)
    code: int = process.exitcode
    return code


@needs("processes")
async def test_processes_share_one_order_without_a_gap(logs: Logs) -> None:
    async with logs.open() as log, log.subscribe("c") as stream:
        children = [start(append_in_child, logs.path(), producer, 200) for producer in range(3)]
        for number in range(200):
            await log.append(["parent", number])
        envelopes = await take(stream, 3 * 400 + 200)
        assert [await end_of(child) for child in children] == [0, 0, 0]
        assert [e.seq_no for e in envelopes] == list(range(1, 3 * 400 + 200 + 1))
        assert await log.read(1) == envelopes
    for producer, count in ((0, 400), (1, 400), (2, 400), ("parent", 200)):
        own = [e.event[1] for e in envelopes if e.event[0] == producer]
        assert own == list(range(count))


@needs("processes")
async def test_what_append_returned_is_there_for_every_process(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(500))
        last = await log.append("last")
        assert await end_of(start(check_in_child, logs.path(), last)) == 0
        assert await acked(log, "child") == last


# --- nobody serves ---------------------------------------------------------------------------


@needs("offline reading", "writer process")
async def test_stored_events_are_read_without_a_writer(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1_000))
        await log.ack("c", 10)
        await logs.end_writer(log)
        assert [e.event for e in await log.read(1)] == list(range(1_000))
        assert await log.last_seq_no() == 1_000
        assert await acked(log) == 10
        async with log.subscribe("c", SeekPosition.LAST_ACKNOWLEDGED, follow=False) as stream:
            assert [e.event async for e in stream] == list(range(10, 1_000))
        assert logs.writers() == []


@needs("offline reading", "directory")
async def test_a_copied_log_is_a_log(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(100))
        await log.ack("c", 10)
        await logs.end_writer(log, signal.SIGTERM)
        shutil.copytree(logs.path(), logs.path("copy"))
        await log.append("only here")
    async with logs.open("copy") as copy:
        assert await stored(copy) == list(range(100))
        assert await acked(copy) == 10
        assert await copy.append("only there") == 101
    async with logs.open() as log:
        assert await stored(log) == [*range(100), "only here"]


@needs("directory")
async def test_a_log_is_for_its_user_alone(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("a")
        assert os.stat(log.path).st_mode & 0o077 == 0
