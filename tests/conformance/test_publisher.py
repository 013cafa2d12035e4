"""`publisher`: pipelined appends."""

from __future__ import annotations

import os
import signal
from typing import Any, Final

import anyio
import pytest

from eventlog import (
    AppendHandle,
    EventEnvelope,
    EventLog,
    EventLogError,
    EventTooLarge,
    InvalidEvent,
    LogClosed,
    LogFull,
    Publisher,
    Retention,
    SeekPosition,
)

from .backends import needs
from .logs import KIB, Logs, delivered, stored

pytestmark = pytest.mark.anyio


async def test_send_gives_a_handle_whose_result_is_the_number(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("before")
        async with log.publisher() as publisher:
            first = await publisher.send("a")
            second = await publisher.send("b")
            assert first.seq_no in (None, 2)
            assert await first == 2
            assert await second.result() == 3
            assert (first.seq_no, second.seq_no) == (2, 3)
        assert await stored(log) == ["before", "a", "b"]


async def test_a_handle_can_be_awaited_often_and_by_many(logs: Logs) -> None:
    results: list[int] = []

    async with logs.open() as log, log.publisher() as publisher:
        handle = await publisher.send("a")

        async def wait() -> None:
            results.append(await handle)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(wait)
        assert await handle == 1
    assert results == [1] * 10


async def test_a_handle_can_be_awaited_after_the_block(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher() as publisher:
            handles = [await publisher.send(number) for number in range(100)]
        assert [handle.seq_no for handle in handles] == list(range(1, 101))
        assert [await handle for handle in handles] == list(range(1, 101))


async def test_flush_waits_for_all(logs: Logs) -> None:
    async with logs.open() as log, log.publisher() as publisher:
        handles = [await publisher.send(number) for number in range(1_000)]
        await publisher.flush()
        assert [handle.seq_no for handle in handles] == list(range(1, 1_001))
        assert await log.last_seq_no() == 1_000
        await publisher.flush()


async def test_leaving_the_block_flushes(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher(linger=1.0) as publisher:
            for number in range(500):
                await publisher.send(number)
        assert await stored(log) == list(range(500))


async def test_leaving_the_block_by_an_exception_flushes_and_lets_it_through(logs: Logs) -> None:
    async def publish() -> None:
        async with log.publisher() as publisher:
            for number in range(50):
                await publisher.send(number)
            raise ZeroDivisionError

    async with logs.open() as log:
        with pytest.raises(ZeroDivisionError):
            await publish()
        assert await stored(log) == list(range(50))


async def test_a_block_in_which_nothing_is_sent_stores_nothing(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher():
            pass
        async with log.publisher() as publisher:
            await publisher.flush()
        assert await log.last_seq_no() is None


@pytest.mark.parametrize("linger", [0.0, 0.01])
async def test_what_was_sent_is_stored_without_a_flush(logs: Logs, linger: float) -> None:
    async with (
        logs.open() as log,
        log.subscribe("c") as stream,
        log.publisher(linger=linger) as publisher,
    ):
        for number in range(10):
            await publisher.send(number)
            assert await delivered(stream, 1) == [number]


async def test_the_order_of_a_publisher_is_kept(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher(max_batch_bytes=300, max_in_flight=4) as publisher:
            for number in range(2_000):
                await publisher.send(number)
        assert await stored(log) == list(range(2_000))


async def test_publishers_in_several_tasks_each_keep_their_order(logs: Logs) -> None:
    async def produce(name: int) -> None:
        async with logs.open() as log, log.publisher(max_batch_bytes=500) as publisher:
            handles = [await publisher.send([name, number]) for number in range(500)]
            await publisher.flush()
            own = [handle.seq_no or 0 for handle in handles]
            assert own == sorted(set(own))

    async with anyio.create_task_group() as tasks:
        for name in range(4):
            tasks.start_soon(produce, name)
    async with logs.open() as log:
        events = await stored(log)
    for name in range(4):
        assert [n for producer, n in events if producer == name] == list(range(500))
    assert len(events) == 2_000


async def test_several_publishers_and_appends_share_one_handle(logs: Logs) -> None:
    async def publish(name: str) -> None:
        async with log.publisher() as publisher:
            for number in range(200):
                await publisher.send([name, number])

    async def append() -> None:
        for number in range(100):
            await log.append(["append", number])

    async with logs.open() as log:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish, "a")
            tasks.start_soon(publish, "b")
            tasks.start_soon(append)
        events = await stored(log)
    for name, count in (("a", 200), ("b", 200), ("append", 100)):
        assert [number for other, number in events if other == name] == list(range(count))


async def test_a_window_of_one_tiny_batch_carries_thousands_of_events(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher(max_batch_bytes=1, max_in_flight=1) as publisher:
            handles = [await publisher.send(number) for number in range(2_000)]
        assert [handle.seq_no for handle in handles] == list(range(1, 2_001))
        assert await stored(log) == list(range(2_000))


@needs("writer process")
async def test_send_waits_when_the_window_is_full(logs: Logs) -> None:
    sent = 0
    total = 500

    async def produce(publisher: Publisher) -> None:
        nonlocal sent
        for _ in range(total):
            await publisher.send(b"x" * KIB)
            sent += 1

    async with logs.open() as log:
        pid = (await log.status()).writer_pid
        assert pid is not None
        async with log.publisher(max_batch_bytes=4 * KIB, max_in_flight=2) as publisher:
            await publisher.send(b"")
            await publisher.flush()
            os.kill(pid, signal.SIGSTOP)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(produce, publisher)
                    await anyio.sleep(0.5)  # however long: it must not get much further meanwhile
                    assert 0 < sent < 50
                    os.kill(pid, signal.SIGCONT)
            finally:
                os.kill(pid, signal.SIGCONT)
        assert sent == total
        assert await log.last_seq_no() == total + 1


async def test_key_and_headers_and_envelopes_go_through_a_publisher(logs: Logs) -> None:
    given = EventEnvelope("b", key="k2")
    async with logs.open() as log:
        async with log.publisher() as publisher:
            await publisher.send("a", key="k1", headers={"h": "1"})
            await publisher.send(given)
            await publisher.send("c")
        a, b, c = await log.read(1)
    assert (a.event, a.key, a.headers) == ("a", "k1", {"h": "1"})
    assert (b.event, b.key, b.headers, b.id) == ("b", "k2", None, given.id)
    assert (c.event, c.key, c.headers) == ("c", None, None)


async def test_a_bad_event_is_refused_by_send_and_the_others_are_stored(logs: Logs) -> None:
    async with logs.open(max_event_bytes=1_000) as log:
        async with log.publisher() as publisher:
            await publisher.send("before")
            with pytest.raises(InvalidEvent):
                await publisher.send(object())
            with pytest.raises(EventTooLarge):
                await publisher.send(b"x" * 1_001)
            with pytest.raises(EventLogError):
                await publisher.send("bad key", key=7)  # type: ignore[arg-type]
            handle = await publisher.send("after")
            await publisher.flush()
            assert handle.seq_no == 2
        assert await stored(log) == ["before", "after"]


async def test_a_closed_publisher_says_so(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher() as publisher:
            await publisher.send("a")
        with pytest.raises(LogClosed):
            await publisher.send("b")
        assert await stored(log) == ["a"]


async def test_options_of_a_publisher_that_mean_nothing_are_refused(logs: Logs) -> None:
    cases: list[tuple[Any, Any]] = [
        ({"linger": -1.0}, ValueError),
        ({"linger": float("nan")}, ValueError),
        ({"linger": "1"}, TypeError),
        ({"max_batch_bytes": 0}, ValueError),
        ({"max_batch_bytes": None}, TypeError),
        ({"max_in_flight": 0}, ValueError),
        ({"max_in_flight": 1.5}, TypeError),
        ({"max_batch_bytes": float("nan")}, TypeError),
        ({"max_in_flight": -1}, ValueError),
        ({"max_in_flight": "8"}, TypeError),
        ({"flush_s": -1}, ValueError),
        ({"flush_s": float("inf")}, ValueError),
        ({"flush_s": None}, TypeError),
    ]
    async with logs.open() as log:
        for options, kind in cases:
            with pytest.raises(kind) as caught:
                async with log.publisher(**options):
                    pass
            assert isinstance(caught.value, EventLogError)


FULL_SOON: Final[dict[str, Any]] = {
    "retention": Retention(max_bytes=32 * KIB, keep_unacked=True),
    "on_full": "error",
    "segment_bytes": 8 * KIB,
}


async def publish_plenty(log: EventLog, count: int) -> None:
    async with log.publisher(max_batch_bytes=KIB) as publisher:
        for _ in range(count):
            await publisher.send(b"x" * 500)
        await publisher.flush()


@needs("waiting for room")
async def test_a_full_log_reaches_the_producer(logs: Logs) -> None:
    async with logs.open(**FULL_SOON) as log:
        await log.ack("slow", 0)
        with pytest.raises(LogFull):
            await publish_plenty(log, 500)
        count = len(await stored(log))
        assert 0 < count < 500
        assert await log.last_seq_no() == count


@needs("waiting for room")
async def test_the_handle_of_an_event_that_was_not_stored_raises_the_reason(logs: Logs) -> None:
    handles: list[AppendHandle] = []

    async def publish() -> None:
        async with log.publisher() as publisher:
            handles.append(await publisher.send(b"x" * 1_500))
            for _ in range(2):
                with pytest.raises(LogFull):
                    await handles[0]
            await publisher.flush()

    async with logs.open(**FULL_SOON) as log:
        await log.ack("slow", 0)
        with pytest.raises(LogFull):
            await publish_plenty(log, 500)
        with pytest.raises(LogFull):
            await log.append_many([b"x" * 500] * 3)
        last = await log.last_seq_no()
        # It is told by `send` at once, or else by the handle and by `flush`.
        with pytest.raises(LogFull):
            await publish()
        assert [handle.seq_no for handle in handles] in ([], [None])
        assert await log.last_seq_no() == last


async def test_a_waiting_stream_gets_everything_that_a_publisher_sends(logs: Logs) -> None:
    received: list[Any] = []

    async def consume() -> None:
        async with logs.open() as log, log.subscribe("c", SeekPosition.BEGINNING) as stream:
            received.extend(await delivered(stream, 1_000))

    async with logs.open() as log, anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        async with log.publisher() as publisher:
            for number in range(1_000):
                await publisher.send(number)
    assert received == list(range(1_000))


@needs("cancellation")
@pytest.mark.filterwarnings("ignore:a publisher of the log:ResourceWarning")
async def test_a_publisher_that_is_left_by_cancellation_answers_all_its_handles(logs: Logs) -> None:
    # Whoever held a handle of what was not sent waited for ever, and so did `flush`.
    async with logs.open() as log:
        async with anyio.create_task_group() as tasks, log.publisher(linger=60) as publisher:
            handle = await publisher.send("queued")
            tasks.cancel_scope.cancel()
            await anyio.sleep_forever()
        try:
            assert await handle == 1
        except LogClosed:
            assert await stored(log) == []
        with pytest.raises(LogClosed):
            await publisher.flush()
        assert await log.append("good") in (1, 2)
