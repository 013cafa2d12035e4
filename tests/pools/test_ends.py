"""The end of a pool reaches all who wait for it; reapers, forks and log handlers hold nobody."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import eventlog
from eventlog import ForkedHandle, blocking
from tests.pools import handlers
from tests.pools.parts import ROOT, kill, within
from tests.pools.records import Record
from workers import Pool as AsyncPool
from workers import PoolError, PoolFailed
from workers.blocking import Pool
from workers.relay import RECORDS_MAX, Relay


class Waiter:
    """A thread that waits; `error` is how that ended."""

    def __init__(self, wait: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self._wait = wait
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._wait()
        except BaseException as error:  # noqa: BLE001 - it is what the test is about
            self.error = error

    def ended_with(self) -> type[BaseException] | None:
        """Wait for the end; the kind of its error."""
        self._thread.join(10)
        assert not self._thread.is_alive(), "it waits for ever"
        return None if self.error is None else type(self.error)


# --- Ctrl-C while an event loop starts in a thread -----------------------------------------------


INTERRUPTED = """
import os, signal, sys, threading, traceback
import eventlog.blocking
from eventlog.api.portal import Portal
from workers.blocking import Pool
from workers.foreground import in_foreground
from workers.handlers import Code


def interrupt(frame, event, argument):
    if frame.f_code.co_name == "run_portal":  # in the new thread, whose loop runs from here on
        threading.setprofile(None)
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGINT)


async def handler(event):
    pass


def enter_pool():
    with eventlog.blocking.open("memory:") as log, Pool(log, group="g", handler=print, processes=0):
        pass


def enter_foreground():
    with in_foreground(Code(handler, None)):
        pass


signal.signal(signal.SIGINT, signal.default_int_handler)
for start in (enter_pool, Portal("redis", "trio").open, enter_foreground):
    threading.setprofile(interrupt)
    try:
        start()
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_ctrl_c_while_a_thread_with_an_event_loop_starts_ends_the_call(tmp_path: Path) -> None:
    """It came before the loop was handed over, and the wait for its thread was for ever."""
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.split() == ["interrupted"] * 3, done.stderr


# --- the end of a pool -----------------------------------------------------------------------


def test_leaving_the_block_in_another_thread_ends_run_forever_and_drained(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    # `run_forever` went on in its thread, and the thread that left the block waited for it.
    log.append(1)
    handler = partial(handlers.pass_gate, record, str(gate))
    pool = Pool(log, group="g", handler=handler, processes=1, stop_s=0.1)
    pool.__enter__()
    waiters = [Waiter(pool.run_forever), Waiter(pool.drained)]
    within(30, lambda: pool.__exit__(None, None, None))
    assert [waiter.ended_with() for waiter in waiters] == [PoolError, PoolError]
    for call in (pool.run_forever, pool.drained, pool.kill):
        with pytest.raises(PoolError, match="ended"):
            call()


def test_a_killed_pool_keeps_nobody_waiting(
    log: blocking.EventLog, record: Record, gate: Path
) -> None:
    # `drained` waited for ever for events that no worker was left to handle.
    log.append(1)
    handler = partial(handlers.pass_gate, record, str(gate))
    with Pool(log, group="g", handler=handler, processes=1) as pool:
        waiters = [Waiter(pool.run_forever), Waiter(pool.drained)]
        time.sleep(0.1)  # mostly they wait by then; either way it must end
        pool.kill()
        assert [waiter.ended_with() for waiter in waiters] == [PoolError, PoolError]
        with pytest.raises(PoolError, match="killed"):
            within(10, pool.drained)


def break_it(flag: Path, pool: Any) -> None:
    """From now on no worker can start, and one has to."""
    flag.touch()
    kill(pool.stats().workers[0].pid)


def break_if(flag: str) -> None:
    if os.path.exists(flag):
        raise RuntimeError("the initializer is broken now")


def test_the_failure_of_a_pool_reaches_every_thread(log: blocking.EventLog, gate: Path) -> None:
    # trio and asyncio raised it at once; the blocking pool waited for ever.
    initializer = partial(break_if, str(gate))
    pool = Pool(log, group="g", handler=print, initializer=initializer, processes=1)
    pool.__enter__()
    waiters = [Waiter(pool.run_forever), Waiter(pool.run_forever)]
    gate.touch()
    kill(pool.stats().workers[0].pid)
    assert [waiter.ended_with() for waiter in waiters] == [PoolFailed, PoolFailed]
    assert "the initializer is broken now" in str(waiters[0].error)
    with pytest.raises(PoolFailed):
        pool.__exit__(None, None, None)
    with pytest.raises(PoolFailed):
        pool.drained()


@pytest.mark.anyio
async def test_a_task_outside_of_the_block_hears_of_the_end_too(
    anyio_backend: str, log_path: str, gate: Path
) -> None:
    # The pool's cancellation reaches what is in its block, and no other task.
    errors: list[type[BaseException]] = []

    async def wait(pool: AsyncPool) -> None:
        try:
            await pool.run_forever()
        except PoolError as error:
            errors.append(type(error))

    initializer = partial(break_if, str(gate))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, eventlog.open(log_path) as log:
            options: dict[str, Any] = {"initializer": initializer, "processes": 1}
            pool = AsyncPool(log, group="g", handler=print, **options)

            async def be_in_the_block() -> None:
                async with pool:
                    tasks.start_soon(wait, pool)
                    break_it(gate, pool)
                    await anyio.sleep_forever()

            with pytest.raises(PoolFailed):
                await be_in_the_block()
    assert errors == [PoolFailed]


# --- fork ------------------------------------------------------------------------------------


def kind_in_child(call: Callable[[], Any]) -> str:
    """The name of the error that the call raises in a forked child."""
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads; that is the point
        pid = os.fork()
    if pid == 0:
        name = "no error"
        try:
            signal.alarm(10)
            call()
        except BaseException as error:  # noqa: BLE001 - the parent is to see whatever it is
            name = type(error).__name__
        os.write(sending, name.encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        name = pipe.read().decode()
    os.waitpid(pid, 0)
    return name or "it hangs"


def test_a_forked_child_is_refused_by_its_parents_pool(
    log: blocking.EventLog, record: Record
) -> None:
    # It waited for an event loop whose thread only the parent has.
    options: dict[str, Any] = {"group": "g", "handler": partial(handlers.note, record)}
    early = Pool(log, processes=1, **options)
    assert kind_in_child(early.__enter__) == ForkedHandle.__name__
    with Pool(log, processes=1, **options) as pool:
        calls: list[Callable[[], Any]] = [
            *(pool.drained, pool.run_forever, pool.stats, pool.kill, pool.dead_letters),
            lambda: pool.__exit__(None, None, None),
        ]
        assert {kind_in_child(call) for call in calls} == {ForkedHandle.__name__}
        log.append(1)
        within(60, pool.drained)
    assert record.numbers() == [1]


def test_a_forked_child_is_refused_by_its_parents_member(log: blocking.EventLog) -> None:
    # The thread that takes the writer's answers is in the parent alone.
    with log.group("g") as group, group.open_member() as member:
        assert kind_in_child(lambda: member.lease(1)) == ForkedHandle.__name__
        assert kind_in_child(member.flush) == ForkedHandle.__name__
        assert kind_in_child(member.close) == "no error"
        log.append(1)
        lease = member.lease(1)
        assert lease is not None
        assert lease.count == 1
        lease.give_back()


def test_a_forked_child_of_a_pool_that_runs_is_ended_by_sigterm(log: blocking.EventLog) -> None:
    # It had the pool's signal handler, and no pool to stop.
    forks: list[int] = []

    def stop() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        forks.append(os.waitstatus_to_exitcode(_killed(pid)))
        os.kill(os.getpid(), signal.SIGTERM)

    with Pool(log, group="g", handler=print, processes=1) as pool:
        timer = threading.Timer(0.3, stop)
        timer.start()
        pool.run_forever()
    timer.join()
    assert forks == [-signal.SIGTERM]


def _killed(pid: int) -> int:
    time.sleep(0.2)
    os.kill(pid, signal.SIGTERM)
    return os.waitpid(pid, 0)[1]


# --- who reaps -------------------------------------------------------------------------------

REAPED = """
    import os, signal, sys, threading, time
    {reaper}
    import eventlog.blocking
    from workers.blocking import Pool

    def handle(event):
        if event == "die" and not os.path.exists(sys.argv[2]):
            open(sys.argv[2], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

    def main():
        path, flag = sys.argv[1:]
        def handler(event, flag=flag):
            import os, signal
            if event == "die" and not os.path.exists(flag):
                open(flag, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
        with eventlog.blocking.open(path) as log:
            log.append_many(["die", 1, 2])
            with Pool(log, group="g", handler=handler, processes=2) as pool:
                pool.drained()
                print("handled", pool.stats().handled)
    main()
"""
REAPERS = {
    "ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "reaped": """
    def reap():
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.001)
    threading.Thread(target=reap, daemon=True).start()
    """,
}


@pytest.mark.parametrize("reaper", REAPERS)
def test_a_pool_works_where_nobody_can_wait_for_its_workers(
    log_path: str, tmp_path: Path, reaper: str
) -> None:
    # It waited for exit codes that were gone, and only SIGKILL ended it.
    lines = textwrap.dedent(REAPED).format(reaper=textwrap.dedent(REAPERS[reaper]))
    done = subprocess.run(
        [sys.executable, "-c", lines, log_path, str(tmp_path / "flag")],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout == "handled 3\n", done.stderr


# --- logging ---------------------------------------------------------------------------------


class Collecting(logging.Handler):
    """Notes each line; slow, or raising, if told to."""

    def __init__(self, pause_s: float = 0.0, error: Exception | None = None) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._pause_s = pause_s
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        time.sleep(self._pause_s)
        if self._error is not None:
            raise self._error


@pytest.fixture
def use_handler() -> Iterator[Callable[[logging.Handler], None]]:
    used: list[logging.Handler] = []

    def use(handler: logging.Handler) -> None:
        used.append(handler)
        logging.getLogger("chatty").addHandler(handler)

    yield use
    for handler in used:
        logging.getLogger("chatty").removeHandler(handler)


def chat(event: int) -> None:
    for number in range(event):
        logging.getLogger("chatty").warning("line %d", number)


def test_a_slow_log_handler_holds_nobody_up(
    log: blocking.EventLog, use_handler: Callable[[logging.Handler], None]
) -> None:
    # The pool's event loop stood still for as long as the handler took for all lines.
    slow = Collecting(pause_s=0.2)
    use_handler(slow)
    log.append(200)  # 40 seconds
    with Pool(log, group="g", handler=chat, processes=1) as pool:
        within(20, pool.drained)
        left_from = time.monotonic()
    assert time.monotonic() - left_from < 15
    assert 0 < len(slow.lines) < 200


def test_a_log_handler_that_raises_does_not_end_the_pool(
    log: blocking.EventLog,
    use_handler: Callable[[logging.Handler], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = Collecting(error=RuntimeError("mine"))
    use_handler(bad)
    log.append_many([1, 1])
    with Pool(log, group="g", handler=chat, processes=1) as pool:
        within(60, pool.drained)
        assert pool.stats().handled == 2
    for _ in range(1_000):
        if len(bad.lines) == 2:
            break
        time.sleep(0.01)  # a bounded look at what the relay's thread does
    assert bad.lines == ["line 0", "line 0"]
    assert "Logging error" in capsys.readouterr().err


def test_dropped_log_records_are_counted() -> None:
    slow = threading.Event()
    lines: list[str] = []

    class Waiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            slow.wait(30)
            lines.append(record.getMessage())

    target, relay = logging.getLogger("workers"), Relay()
    handler = Waiting()
    target.addHandler(handler)
    try:
        for number in range(RECORDS_MAX + 11):
            record = target.makeRecord("workers", logging.WARNING, "", 0, "%d", (number,), None)
            relay.put(target, record)
        slow.set()
        relay.flush(60)
    finally:
        target.removeHandler(handler)
    dropped = RECORDS_MAX + 11 - (len(lines) - 1)
    assert dropped in (10, 11), "the thread had perhaps taken one before the queue was full"
    assert lines[-1].startswith(f"{dropped} log records")
