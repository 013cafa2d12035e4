"""Handles: opening, closing, another process, a fork; options stored with the log."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import dill
import multiprocess
import pytest

import eventlog
import eventlog.blocking
from eventlog import (
    EventLog,
    EventLogError,
    ForkedHandle,
    InvalidConfig,
    LogClosed,
    NotALog,
    Retention,
    SeekPosition,
    WrongEventLoop,
)

from .backends import Flavour, needs
from .facade import ThreadedEventLog
from .logs import KIB, SEGMENT_BYTES, Logs, delivered, stored, take

pytestmark = pytest.mark.anyio

ROOT = Path(eventlog.__file__).parent.parent


async def publish(log: EventLog) -> None:
    async with log.publisher() as publisher:
        await publisher.send(1)


async def subscribe(log: EventLog) -> None:
    async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
        await take(stream, 1)


async def read(log: EventLog) -> None:
    await log.read(1)


CALLS: dict[str, Callable[[EventLog], Awaitable[Any]]] = {
    "append": lambda log: log.append(1),
    "append_many": lambda log: log.append_many([1]),
    "publisher": publish,
    "subscribe": subscribe,
    "read": read,
    "ack": lambda log: log.ack("c", 1),
    "seek": lambda log: log.seek("c", SeekPosition.BEGINNING),
    "forget": lambda log: log.forget("c"),
    "consumers": lambda log: log.consumers(),
    "status": lambda log: log.status(),
    "last_seq_no": lambda log: log.last_seq_no(),
}


async def outcomes(log: EventLog) -> dict[str, str]:
    """The error of each call on the handle, by name."""
    found = {}
    for name, call in CALLS.items():
        try:
            await call(log)
            found[name] = "no error"
        except Exception as error:  # noqa: BLE001 - it is what the test is about
            found[name] = type(error).__name__
    return found


# --- opening and closing ---------------------------------------------------------------------


async def test_a_closed_handle_says_so(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("a")
    assert await outcomes(log) == dict.fromkeys(CALLS, "LogClosed")
    async with logs.open() as log:
        assert await stored(log) == ["a"]


@needs("event loop")
async def test_a_handle_that_was_not_entered_says_so(logs: Logs) -> None:
    log = logs.open()
    assert await outcomes(log) == dict.fromkeys(CALLS, "LogClosed")
    with pytest.raises(LogClosed, match=r"await log\.open\(\)"):
        await log.append("a")
    async with log:
        assert await log.append("a") == 1


async def test_a_handle_opens_and_closes_without_a_block(logs: Logs) -> None:
    log = logs.open()
    await log.open()
    assert await log.append("a") == 1
    await log.aclose()
    with pytest.raises(LogClosed, match="open it again"):
        await log.append("b")
    await log.aclose()
    await log.open()
    assert await stored(log) == ["a"]
    await log.aclose()


@needs("event loop")
async def test_opening_an_open_handle_changes_nothing(logs: Logs) -> None:
    log = logs.open()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(log.open)
    assert await log.append("a") == 1
    await log.aclose()
    with pytest.raises(LogClosed):
        await log.append("b")


async def test_closing_a_handle_ends_the_wait_of_its_streams(logs: Logs) -> None:
    errors: list[BaseException] = []

    async def consume(log: EventLog, entered: anyio.Event) -> None:
        try:
            async with log.subscribe("c") as stream:
                entered.set()
                await take(stream, 1)
        except LogClosed as error:
            errors.append(error)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks, logs.open() as log:
            for _ in range(3):
                entered = anyio.Event()
                tasks.start_soon(consume, log, entered)
                await entered.wait()
            await anyio.sleep(0.05)  # mostly they wait by then; either way it must end
    assert len(errors) == 3


async def test_a_handle_closed_within_a_block_of_its_own_leaves_it(logs: Logs) -> None:
    # The blocking log over an asynchronous engine waited for ever for the block to be left.
    enters: list[Callable[[EventLog], Any]] = [
        lambda log: log.subscribe("c"),
        lambda log: log.publisher(),
    ]
    for enter in enters:
        with anyio.fail_after(10), contextlib.suppress(LogClosed):
            async with logs.open() as log, enter(log):
                await log.__aexit__(None, None, None)
                with pytest.raises(LogClosed):
                    await log.append(1)


async def test_handles_of_one_log_are_independent(logs: Logs) -> None:
    async with logs.open() as first:
        async with logs.open() as second:
            await second.append("a")
            await first.append("b")
        assert await first.append("c") == 3
        assert await stored(first) == ["a", "b", "c"]
        with pytest.raises(LogClosed):
            await second.append("d")


async def test_an_exception_in_the_block_comes_out_as_it_is(logs: Logs) -> None:
    with pytest.raises(ZeroDivisionError):
        async with logs.open() as log, log.subscribe("c"), log.publisher():
            raise ZeroDivisionError
    async with logs.open() as log:
        assert await log.append("a") == 1


async def test_many_open_at_once_and_get_the_same_log(logs: Logs) -> None:
    numbers: list[int] = []

    async def use() -> None:
        async with logs.open() as log:
            numbers.append(await log.append("a"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(use)
    assert sorted(numbers) == list(range(1, 21))
    assert len(logs.writers()) <= 1


@needs("private logs")
async def test_a_private_log_is_that_of_its_handle_alone(logs: Logs) -> None:
    async with logs.open_path("memory:") as first, logs.open_path("memory:") as second:
        assert await first.append("a") == 1
        assert await second.last_seq_no() is None
        assert await second.append("b") == 1


async def test_logs_of_different_names_are_different(logs: Logs) -> None:
    async with logs.open("one") as one, logs.open("two") as two:
        assert await one.append("a") == 1
        assert await two.append("b") == 1
        assert (await stored(one), await stored(two)) == (["a"], ["b"])


def test_without_an_event_loop_open_names_the_blocking_one() -> None:
    with pytest.raises(WrongEventLoop, match=r"eventlog\.blocking\.open"):
        eventlog.open("memory:")


@pytest.mark.parametrize("path", [None, 7, b"bytes", ""])
async def test_what_is_no_path_is_refused(logs: Logs, path: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        async with logs.open_path(path):
            pass
    assert isinstance(caught.value, EventLogError)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "ftp://host/log", "://"])
async def test_a_path_that_names_no_kind_of_log_is_refused(logs: Logs, path: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is the backend's
        async with logs.open_path(path):
            pass
    assert isinstance(caught.value, EventLogError)


@needs("directory")
async def test_a_path_that_is_a_file_or_holds_other_things_is_no_log(logs: Logs) -> None:
    file, folder = logs.folder / "file", logs.folder / "folder"
    file.write_text("mine")
    folder.mkdir()
    (folder / "letter").write_text("mine")
    for path in (file, folder):
        with pytest.raises(NotALog) as caught:
            async with logs.open_path(path):
                pass
        assert caught.value.path == str(path)
    assert file.read_text() == "mine"
    assert [entry.name for entry in folder.iterdir()] == ["letter"]


@needs("directory")
async def test_a_path_object_and_an_empty_directory_will_do(logs: Logs) -> None:
    folder = logs.folder / "deep" / "empty"
    folder.mkdir(parents=True)
    async with logs.open_path(folder) as log, logs.open_path(f"{folder}/../empty") as other:
        await log.append("a")
        assert await stored(other) == ["a"]


# --- options ---------------------------------------------------------------------------------

STORED: dict[str, Any] = {
    "durability": "memory",
    "retention": Retention(max_bytes=10 * SEGMENT_BYTES, keep_unacked=False),
    "on_full": "error",
    "max_event_bytes": 2 * KIB,
}
OTHERS: dict[str, Any] = {
    "durability": "sync",
    "retention": Retention(),
    "on_full": "wait",
    "max_event_bytes": 3 * KIB,
    "segment_bytes": 2 * SEGMENT_BYTES,
}


@needs("own durability", "waiting for room")
async def test_the_options_are_stored_with_the_log(logs: Logs) -> None:
    async with logs.open(**STORED):
        pass
    async with logs.open_path(logs.path()) as log:
        assert (await log.status()).durability == "memory"
        with pytest.raises(eventlog.EventTooLarge):
            await log.append(b"x" * 3 * KIB)


@needs("waiting for room")
async def test_the_same_options_may_be_given_again(logs: Logs) -> None:
    async with logs.open(**STORED) as log, logs.open(**STORED) as other:
        await log.append("a")
        assert await stored(other) == ["a"]
    for name, value in STORED.items():
        async with logs.open(**{name: value}) as log:
            assert await stored(log) == ["a"]


@needs("own durability", "waiting for room")
async def test_options_that_contradict_the_stored_ones_are_refused(logs: Logs) -> None:
    async with logs.open(**STORED) as log:
        await log.append("a")
        for name in OTHERS.keys() - logs.backend.ignores:
            value = OTHERS[name]
            with pytest.raises(InvalidConfig, match=name):
                async with logs.open(**{name: value}):
                    pass
        assert await stored(log) == ["a"]


async def test_options_that_mean_nothing_are_refused_and_make_no_log(logs: Logs) -> None:
    cases: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"durability": "disc"}, ValueError),
        ({"durability": 1}, ValueError),
        ({"on_full": "drop"}, ValueError),
        ({"retention": 1_000_000}, TypeError),
        ({"segment_bytes": 0}, ValueError),
        ({"segment_bytes": -1}, ValueError),
        ({"segment_bytes": 2**40}, ValueError),
        ({"segment_bytes": "64M"}, TypeError),
        ({"max_event_bytes": 0}, ValueError),
        ({"max_event_bytes": 1.5}, TypeError),
        ({"max_event_bytes": SEGMENT_BYTES, "segment_bytes": SEGMENT_BYTES}, ValueError),
    ]
    for options, kind in cases:
        if options.keys() & logs.backend.ignores:
            continue
        with pytest.raises(kind) as caught:
            async with logs.open(**options):
                pass
        assert isinstance(caught.value, EventLogError)
    async with logs.open(max_event_bytes=KIB) as log:
        assert await log.append("a") == 1


# --- another process -------------------------------------------------------------------------


def use_handle(log: Any, event_loop: str | None, event: Any) -> None:
    """In a child process: append one event through a handle that came from the parent."""
    if event_loop is None:
        log.append(event)
        log.close()
    else:
        anyio.run(_use, log, event, backend=event_loop)


async def _use(log: EventLog, event: Any) -> None:
    await log.append(event)
    async with log.subscribe("child", SeekPosition.BEGINNING) as stream:
        await take(stream, 1)
    await log.ack("child", 1)
    await log.__aexit__(None, None, None)


def real(log: EventLog) -> tuple[Any, str | None]:
    """The handle that a user would have, and the event loop that it needs."""
    if isinstance(log, ThreadedEventLog):
        return log.blocking, None
    return log, "trio"


@needs("pickled handles", "processes")
async def test_a_handle_given_to_a_child_process_reopens_there(
    logs: Logs, flavour: Flavour
) -> None:
    async with logs.open() as log:
        await log.append("parent")
        handle, loop = real(log)
        child = multiprocess.get_context("spawn").Process(
            target=use_handle, args=(handle, loop and flavour.event_loop, "child")
        )
        child.start()
        await anyio.to_thread.run_sync(child.join)
        assert child.exitcode == 0
        assert await stored(log) == ["parent", "child"]
        assert await log.append("parent again") == 3


IN_ANOTHER_PYTHON = """
import pickle, sys
import anyio

log = pickle.load(sys.stdin.buffer)

async def use():
    async with log:
        await log.append("child")

if sys.argv[1] == "blocking":
    with log:
        log.append("child")
else:
    anyio.run(use, backend=sys.argv[1])
"""


@needs("pickled handles", "processes")
@pytest.mark.parametrize("dumps", [pickle.dumps, dill.dumps])
async def test_a_pickled_handle_opens_in_any_process(
    logs: Logs, flavour: Flavour, dumps: Callable[[Any], bytes]
) -> None:
    async with logs.open() as log:
        pickled = dumps(real(log)[0])
        mode = flavour.event_loop if flavour.name != "blocking" else "blocking"
        finished = await anyio.run_process(
            [sys.executable, "-c", IN_ANOTHER_PYTHON, mode],
            input=pickled,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout.decode()
        assert await stored(log) == ["child"]


@needs("pickled handles")
async def test_a_handle_that_is_not_open_can_be_pickled_too(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("a")
    pickled = pickle.dumps(real(log)[0])
    copy = pickle.loads(pickled)
    if logs.flavour.name == "blocking":
        with copy:
            assert copy.append("b") == 2
    else:
        async with copy:
            assert await copy.append("b") == 2


async def test_a_handle_that_cannot_leave_its_process_says_so(logs: Logs) -> None:
    async with logs.open() as log:
        if "pickled handles" not in logs.backend.lacks:
            pickle.dumps(real(log)[0])
            return
        with pytest.raises(EventLogError, match="process"):
            pickle.dumps(real(log)[0])
        assert await log.append("a") == 1


# --- fork ------------------------------------------------------------------------------------


def in_forked_child(call: Callable[[], Any]) -> Any:
    """What the call returns in a forked child, or the name of the error that it raises."""
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads; that is the point
        pid = os.fork()
    if pid == 0:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - the parent is to see whatever it is
            result = type(error).__name__
        with contextlib.suppress(BaseException):
            os.write(sending, pickle.dumps(result))
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(answer) if answer else "no answer"


def in_new_thread(call: Callable[[], Any]) -> Any:
    """In a thread an event loop can be run, as in a process of its own."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - as above
            results.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    return results[0] if results else "it hangs"


async def test_a_handle_used_after_a_fork_says_so_and_the_parent_goes_on(
    logs: Logs, flavour: Flavour
) -> None:
    async with logs.open() as log:
        await log.append("a")
        await log.status()

        async def try_all() -> dict[str, str]:
            with anyio.fail_after(5):
                return await outcomes(log)

        def child() -> Any:
            return in_new_thread(lambda: anyio.run(try_all, backend=flavour.event_loop))

        if isinstance(log, ThreadedEventLog):
            assert in_forked_child(lambda: in_child_blocking(log.blocking)) == dict.fromkeys(
                ["append", "append_many", "ack", "status", "last_seq_no", "consumers", "read"],
                "ForkedHandle",
            )
        else:
            assert in_forked_child(child) == dict.fromkeys(CALLS, "ForkedHandle")
        assert await log.append("b") == 2
        assert (await log.status()).last_seq_no == 2
        assert await stored(log) == ["a", "b"]


def in_child_blocking(log: eventlog.blocking.EventLog) -> dict[str, str]:
    calls: dict[str, Callable[[], Any]] = {
        "append": lambda: log.append(1),
        "append_many": lambda: log.append_many([1]),
        "ack": lambda: log.ack("c", 1),
        "status": log.status,
        "last_seq_no": log.last_seq_no,
        "consumers": log.consumers,
        "read": lambda: list(log.read(1)),
    }
    found = {}
    for name, call in calls.items():
        try:
            call()
            found[name] = "no error"
        except Exception as error:  # noqa: BLE001 - it is what the test is about
            found[name] = type(error).__name__
    return found


async def test_streams_and_publishers_used_after_a_fork_say_so(
    logs: Logs, flavour: Flavour
) -> None:
    async with logs.open() as log:
        async with log.subscribe("c") as stream, log.publisher() as publisher:
            await publisher.send("a")
            assert await delivered(stream, 1) == ["a"]

            async def try_both() -> list[str]:
                found = []
                for call in (lambda: take(stream, 1), lambda: publisher.send("child")):
                    try:
                        with anyio.fail_after(5):
                            await call()
                    except Exception as error:  # noqa: BLE001 - it is what the test is about
                        found.append(type(error).__name__)
                return found

            if isinstance(log, ThreadedEventLog):
                real_stream, real_publisher = stream.blocking, publisher.blocking  # type: ignore[attr-defined]
                for call in (lambda: next(iter(real_stream)), lambda: real_publisher.send("x")):
                    assert in_forked_child(lambda c=call: in_new_thread(c)).startswith(  # type: ignore[misc]
                        ForkedHandle.__name__
                    )
            else:
                assert in_forked_child(
                    lambda: in_new_thread(lambda: anyio.run(try_both, backend=flavour.event_loop))
                ) == ["ForkedHandle", "ForkedHandle"]
            await publisher.send("b")
            assert await delivered(stream, 1) == ["b"]
        assert await stored(log) == ["a", "b"]


@needs("processes")
async def test_a_forked_child_does_not_send_what_its_parent_queued(logs: Logs) -> None:
    # It did, under the parent's number, and the parent's own batch was then taken for a repeat.
    with eventlog.blocking.open(logs.path()) as log, log.publisher(linger=60) as publisher:
        publisher.send("a")
        assert in_forked_child(publisher.flush) == "ForkedHandle"
        handle = publisher.send("b")
        assert in_forked_child(handle.result) == "ForkedHandle"
        assert handle.result() == 2
        assert [envelope.event for envelope in log.read(1)] == ["a", "b"]


@needs("processes")
async def test_a_forked_child_may_open_the_log_anew(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("parent")

        def child() -> int:
            with eventlog.blocking.open(logs.path()) as own:
                return own.append("child")

        assert in_forked_child(lambda: in_new_thread(child)) == 2
        assert await log.append("parent again") == 3
        assert await stored(log) == ["parent", "child", "parent again"]
