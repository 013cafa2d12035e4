"""Leaving a publisher's block, and one handle in several event loops or threads."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from itertools import product
from typing import Any

import anyio
import anyio.to_thread
import pytest

import eventlog.blocking
from eventlog import EventLog, LogClosed, NotFlushed, Retention, SeekPosition

from .backends import Flavour, needs
from .logs import KIB, Logs, stored, take
from .test_handles import CALLS, in_new_thread, outcomes

pytestmark = pytest.mark.anyio

FULL_SOON: dict[str, Any] = {
    "retention": Retention(max_bytes=32 * KIB, keep_unacked=True),
    "on_full": "wait",
    "segment_bytes": 8 * KIB,
}
BLOB = b"x" * 2_000


async def leave_by(
    log: EventLog, ending: BaseException | None, events: list[Any], **options: Any
) -> None:
    """Send the events, and leave the block by the exception."""
    async with log.publisher(**options) as publisher:
        for event in events:
            await publisher.send(event)
        if ending is not None:
            raise ending


async def leave_cancelled(log: EventLog, events: list[Any]) -> None:
    """Send the events, and be cancelled in the block."""
    with anyio.CancelScope() as scope:
        async with log.publisher(linger=60) as publisher:
            for event in events:
                await publisher.send(event)
            scope.cancel()
            await anyio.sleep_forever()


async def fill(log: EventLog) -> int:
    """Append until the log is full, for a consumer that acknowledges nothing; how many fitted."""
    await log.seek("laggard", SeekPosition.BEGINNING)
    await log.append("first")
    while True:
        with anyio.move_on_after(0.5) as limit:
            await log.append(BLOB)
        if limit.cancelled_caught:
            return await log.last_seq_no() or 0


# --- leaving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt(), ValueError("mine")])
async def test_what_was_sent_is_stored_however_the_block_is_left(
    logs: Logs, ending: BaseException
) -> None:
    # 1,000 sends and `sys.exit(0)`: nothing was stored, with exit code 0 and not a word.
    async with logs.open() as log:
        with pytest.raises(type(ending)):
            await leave_by(log, ending, list(range(1_000)), linger=60)
        assert await stored(log) == list(range(1_000))


@needs("waiting for room")
@needs("directory", "cancellation")
async def test_what_is_not_flushed_in_time_is_an_error_with_the_number_of_events(
    logs: Logs,
) -> None:
    async with logs.open(**FULL_SOON) as log:
        await fill(log)
        with pytest.raises(NotFlushed, match="3 events") as caught:
            await leave_by(log, None, [BLOB] * 3, flush_s=0.2)
        assert (caught.value.events, caught.value.path) == (3, logs.path())


@needs("waiting for room")
@needs("directory", "cancellation")
@pytest.mark.parametrize("ending", [SystemExit(3), ValueError("mine")])
async def test_where_no_error_can_be_raised_a_warning_counts(
    logs: Logs, ending: BaseException
) -> None:
    async with logs.open(**FULL_SOON) as log:
        await fill(log)
        with (
            pytest.warns(ResourceWarning, match="3 events that are not stored"),
            pytest.raises(type(ending)),
        ):
            await leave_by(log, ending, [BLOB] * 3, flush_s=0.2)


@needs("directory", "cancellation")
async def test_a_cancelled_block_is_left_at_once_and_warns(logs: Logs) -> None:
    async with logs.open() as log:
        with pytest.warns(ResourceWarning, match="2 events that are not stored"):
            await leave_cancelled(log, ["a", "b"])
        assert await stored(log) == []


@needs("waiting for room")
@needs("cancellation")
async def test_a_wait_for_room_is_logged_with_the_consumer_that_holds_it_up(
    logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    # A producer stood still for as long as a forgotten consumer did, in silence.
    async with logs.open(**FULL_SOON) as log, anyio.create_task_group() as tasks:
        await fill(log)
        caplog.clear()
        tasks.start_soon(log.append, BLOB)
        with anyio.fail_after(30):
            while not caplog.records:  # noqa: ASYNC110 - nobody announces it
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert caplog.records[0].levelno == logging.WARNING
    assert "wait for room" in caplog.text
    assert "'laggard'" in caplog.text


# --- event loops -----------------------------------------------------------------------------


@needs("event loop")
async def test_another_event_loop_gets_wrong_event_loop_at_once(
    logs: Logs, flavour: Flavour
) -> None:
    # Two loops at once on one handle: hangs, AssertionError, AttributeError.
    async with logs.open() as log:
        await log.append("a")
        await log.status()

        async def try_all() -> dict[str, str]:
            return await outcomes(log)

        for backend in ("asyncio", "trio"):
            found = await anyio.to_thread.run_sync(
                in_new_thread, lambda b=backend: anyio.run(try_all, backend=b)
            )
            assert found == dict.fromkeys(CALLS, "WrongEventLoop")
        assert await log.append("b") == 2
    assert await outcomes(log) == dict.fromkeys(CALLS, "LogClosed")


@needs("event loop")
async def test_streams_and_publishers_are_of_their_handles_loop(
    logs: Logs,
) -> None:
    # In a loop of the other library a stream and a table were `RuntimeError`, of a lock.
    async with (
        logs.open() as log,
        log.subscribe("c") as stream,
        log.publisher() as publisher,
        log.table() as table,
    ):
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: anext(aiter(stream)),
            lambda: anext(stream),
            table.caught_up,
            table.changed,
            lambda: publisher.send(1),
            publisher.flush,
            lambda: log.__aexit__(None, None, None),
            log.__aenter__,
        ]
        for call, backend in product(calls, ("asyncio", "trio")):

            async def run(call: Callable[[], Awaitable[Any]] = call) -> Any:
                return await call()

            found = await anyio.to_thread.run_sync(
                in_new_thread, lambda r=run, b=backend: anyio.run(r, backend=b)
            )
            assert str(found).startswith("WrongEventLoop")
        await publisher.send("a")
        assert [envelope.event for envelope in await take(stream, 1)] == ["a"]


@needs("event loop", "members")
async def test_a_member_is_of_its_handles_loop(logs: Logs) -> None:
    # In a directory another loop was given a lease.
    async with logs.open() as log, log.member("g") as member:
        await log.append("a")

        async def lease() -> Any:
            return await member.lease()

        for backend in ("asyncio", "trio"):
            found = await anyio.to_thread.run_sync(
                in_new_thread, lambda b=backend: anyio.run(lease, backend=b)
            )
            assert str(found).startswith("WrongEventLoop")
        assert await member.lease() is not None


@needs("event loop")
def test_a_handle_whose_loop_ended_can_be_closed_and_opened_in_another(logs: Logs) -> None:
    handles: list[EventLog] = []

    async def begin() -> None:
        handles.append(await logs.open().__aenter__())
        await handles[0].append("a")
        # The loop ends with this request on its way.
        task = asyncio.ensure_future(take(await handles[0].subscribe("c").__aenter__(), 1))
        # Else asyncio logs its error, and the record keeps the whole handle.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await anyio.sleep(0.05)
        del task

    async def go_on() -> None:
        log = handles[0]
        assert await outcomes(log) == dict.fromkeys(CALLS, "WrongEventLoop")
        await log.__aexit__(None, None, None)
        async with log:
            assert await log.append("b") == 2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anyio.run(begin, backend="asyncio")
        anyio.run(go_on, backend="asyncio")
        handles.clear()
        gc.collect()  # asyncio warns of a connection that its loop's end has left open


# --- threads ---------------------------------------------------------------------------------


def keep_streaming(log: eventlog.blocking.EventLog) -> None:
    with log.subscribe("c", SeekPosition.LATEST, spin=0.001) as stream:
        next(stream)


def keep_spinning(log: eventlog.blocking.EventLog) -> None:
    with log.subscribe("c", SeekPosition.LATEST, spin=60.0) as stream:
        next(stream)


def keep_reading(log: eventlog.blocking.EventLog) -> None:
    while True:
        list(log.read(1))


def keep_looking(log: eventlog.blocking.EventLog) -> None:
    while True:
        log.last_seq_no()
        log.consumers()


def keep_appending(log: eventlog.blocking.EventLog) -> None:
    while True:
        log.append(1)


def keep_publishing(log: eventlog.blocking.EventLog) -> None:
    with log.publisher() as publisher:
        while True:
            publisher.send(1)


def keep_asking(log: eventlog.blocking.EventLog) -> None:
    while True:
        log.status()
        log.ack("c", 1)


BUSY = [
    *(keep_streaming, keep_spinning, keep_reading, keep_looking, keep_appending),
    *(keep_publishing, keep_asking),
]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Publishers warn of what they could not store: that is not what the test is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("busy", BUSY, ids=lambda one: one.__name__)
def test_whatever_a_thread_does_while_another_closes_the_handle_ends_with_log_closed(
    logs: Logs, flavour: Flavour, busy: Callable[[eventlog.blocking.EventLog], None]
) -> None:
    # A stream that span met a ValueError of a memoryview, or EBADF.
    if flavour.name != "blocking":
        pytest.skip("handles of an event loop are of one thread")
    for _ in range(3):
        log = eventlog.blocking.open(logs.path())
        log.append(0)
        errors: list[BaseException | None] = []
        thread = threading.Thread(target=note_error, args=(errors, busy, log), daemon=True)
        thread.start()
        thread.join(0.05)
        assert not errors
        log.close()
        thread.join(10)
        assert [type(error) for error in errors] == [LogClosed]


def note_error(errors: list[Any], call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except BaseException as error:  # noqa: BLE001 - it is what the test is about
        errors.append(error)
