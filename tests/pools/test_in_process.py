"""Pools with `processes=0`, used from a thread, over logs in memory: how programs test handlers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import eventlog
import workers
from eventlog import blocking
from workers import PoolFailed
from workers.blocking import Pool
from workers.handlers import Handler


def half(event: int) -> int:
    return event // 2


def test_a_blocking_pool_tells_of_itself_while_it_runs_and_after() -> None:
    # It asked the log in the caller's thread, which got WrongEventLoop.
    with blocking.open("memory:") as log:
        log.append_many([2, 4])
        with Pool(log, group="g", handler=half, processes=0) as pool:
            pool.drained()
            assert pool.statistics().handled == 2
            assert pool.stats().lag == 0
        assert pool.statistics().handled == 2


@pytest.mark.parametrize("name", ["", "results-of-halves"])
def test_results_go_to_a_log_with_a_name_or_to_the_source_itself(name: str) -> None:
    with blocking.open("memory:") as log, blocking.open(f"memory:{name}") as other:
        output = other if name else log
        log.append(8, key="k")
        with Pool(log, group="g", handler=half, processes=0, output=output) as pool:
            pool.drained()
        result = list(output.read(0))[-1]
        assert (result.event, result.key) == (4, "k")
        assert result.cause is not None


# --- exceptions that no thread or coroutine lets through -------------------------------------


def raising(error: Callable[[], BaseException]) -> Handler:
    def handle(event: int) -> int:
        if event == 1:
            raise error()
        return event

    return handle


def raising_async(error: Callable[[], BaseException]) -> Handler:
    plain = raising(error)

    async def handle(event: int) -> Any:
        return plain(event)

    return handle


def exhausted() -> BaseException:
    return StopIteration()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (raising(exhausted), "StopIteration"),
        (raising(KeyboardInterrupt), "KeyboardInterrupt"),
        (raising(asyncio.CancelledError), "asyncio.exceptions.CancelledError"),
        (raising_async(asyncio.CancelledError), "asyncio.exceptions.CancelledError"),
        (raising_async(SystemExit), "SystemExit"),
    ],
)
def test_whatever_a_handler_raises_fails_its_event_alone(
    loop: str, handler: Handler, error: str
) -> None:
    """`CancelledError` made a pool on asyncio wait for ever, `KeyboardInterrupt` ended it, and
    `StopIteration` was another error: "coroutine raised StopIteration"."""

    async def handle_all() -> None:
        async with eventlog.open("memory:") as log:
            await log.append_many([1, 2])
            options: dict[str, Any] = {"processes": 0, "max_deliveries": 1}
            async with workers.Pool(log, group="g", handler=handler, **options) as pool:
                with anyio.fail_after(10):
                    await pool.drained()
                [letter] = [one async for one in pool.dead_letters()]
                assert (letter.seq_no, letter.error) == (1, error)
                assert pool.stats().handled == 1

    anyio.run(handle_all, backend=loop)


def test_an_async_handler_of_a_blocking_pool_cannot_interrupt_the_program() -> None:
    # Ctrl-C reaches the main thread only, and the handler runs in another one.
    with blocking.open("memory:") as log:
        log.append_many([1, 2])
        handler = raising_async(KeyboardInterrupt)
        with Pool(log, group="g", handler=handler, processes=0, max_deliveries=1) as pool:
            pool.drained()
            [letter] = pool.dead_letters()
            assert letter.error == "KeyboardInterrupt"


LEFT_BEHIND = """
import sys, threading, anyio, eventlog
from workers import Pool

async def main():
    began = anyio.Event()
    token = anyio.lowlevel.current_token()
    def hang(event):
        anyio.from_thread.run_sync(began.set, token=token)
        threading.Event().wait()
    async with eventlog.open("memory:") as log:
        await log.append(1)
        async with Pool(log, group="g", handler=hang, processes=0, stop_s=0.0):
            await began.wait()

anyio.run(main, backend=sys.argv[1])
print("ended")
"""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_handler_that_is_left_behind_keeps_no_program_from_ending(loop: str) -> None:
    # On asyncio it did: the thread was one of anyio's, which Python waits for.
    command = [sys.executable, "-c", LEFT_BEHIND, loop]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr


@pytest.mark.parametrize("error", [SystemExit("no licence"), KeyboardInterrupt("no licence")])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_initializer_that_exits_fails_the_pool(loop: str, error: BaseException) -> None:
    # On asyncio, the program did not end after it.
    def initialize() -> None:
        raise error

    async def enter() -> None:
        async with eventlog.open("memory:") as log:
            pool = workers.Pool(log, group="g", handler=half, initializer=initialize, processes=0)
            with pytest.raises(PoolFailed, match="no licence") as caught:
                async with pool:
                    pytest.fail("the pool has started")
            assert "in initialize" in (caught.value.worker_traceback or "")

    anyio.run(enter, backend=loop)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_child_that_a_handler_forks_ends_with_the_handler(is_async: bool) -> None:
    # It went on in the pool's thread or event loop, of which a child has nothing.
    def fork(event: int) -> str:
        pid = os.fork()
        if pid == 0:
            return "child"
        return f"{event} {os.waitpid(pid, 0)[1]}"

    async def fork_async(event: int) -> str:
        return fork(event)

    name = f"memory:forks-{is_async}"
    with blocking.open(name) as log:
        log.append_many([7, 8])
        handler = fork_async if is_async else fork
        with Pool(log, group="g", handler=handler, processes=0, output=log) as pool:
            pool.drained()
            assert pool.stats().handled == 2
        assert [envelope.event for envelope in log.read(3)] == ["7 0", "8 0"]


def test_a_thread_can_end_run_forever() -> None:
    # `request_stop` was there on trio and asyncio only.
    with blocking.open("memory:") as log, Pool(log, group="g", handler=half, processes=0) as pool:
        stopper = threading.Thread(target=pool.request_stop)
        stopper.start()
        pool.run_forever()
        stopper.join()
