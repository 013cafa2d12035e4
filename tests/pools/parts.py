"""What the tests of this folder share: waiting under a limit, and a look for what was left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.pools.records import Record
from tests.processes import processes_with, words_of
from workers import Backoff

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PARENTS: Final = Path(__file__).with_name("parents.py")
WAIT_S: Final = 40.0
"""Longer than anything here takes on a small, busy machine; only a hang takes that long."""
MARK: Final = "POOL_TEST_MARK"
"""In the environment of everything that a test starts, directly or not: nothing can hide."""
AT_ONCE: Final = Backoff(first_s=0.0, factor=1.0, max_s=0.0, jitter=0.0)


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call that blocks, or its exception; fails the test if it hangs."""
    outcomes: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcomes.append((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised again below
            outcomes.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcomes, f"{call} is not back after {seconds} s"
    result, error = outcomes[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def drained(pool: Any, seconds: float = WAIT_S) -> None:
    """Wait for a blocking pool, but not for ever."""
    within(seconds, pool.drained)


def until(condition: Callable[[], Any], seconds: float = WAIT_S) -> None:
    """Wait for what nobody announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def until_noted(record: Record, word: str, count: int = 1) -> None:
    """Wait until handlers have written that many lines that begin with the word."""
    until(lambda: len(record.numbers(word)) >= count)


def in_order_by_key(lines: Iterable[list[str]]) -> dict[str, list[int]]:
    """The numbers of lines `did NUMBER KEY`, by key."""
    found: dict[str, list[int]] = {}
    for word, number, key, *_ in lines:
        if word == "did":
            found.setdefault(key, []).append(int(number))
    return found


# --- processes -------------------------------------------------------------------------------


def marked_processes(mark: str) -> dict[int, str]:
    """Everything that was started under the mark and still runs: the command line by pid."""
    found = processes_with(f"{MARK}={mark}".encode(), "environ")
    commands = {pid: words_of(pid, "cmdline").rstrip(b"\0") + b"\0" for pid in found}
    return {
        pid: command.replace(b"\0", b" ").decode(errors="replace")
        for pid, command in commands.items()
    }


def marked_workers(mark: str) -> list[int]:
    """Those of them that are workers of a pool."""
    return [pid for pid, text in marked_processes(mark).items() if " worker " in text]


def ends_within(pid: int, seconds: float = 10.0) -> bool:
    """Whether the process is gone by then."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(wait([process], seconds))
    finally:
        os.close(process)


def kill(pid: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; to a process that is gone already it need not be sent."""
    assert pid, "there is a process to kill"
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def descriptors() -> dict[str, str]:
    """What this process has open."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[entry.name] = str(entry.readlink())
    return found


class Parent:
    """A process that runs a pool (`parents.py`), in a session of its own."""

    def __init__(self, role: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PARENTS), role, *map(str, arguments)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def line(self) -> list[str]:
        """The words of the next line that it prints."""
        assert self.process.stdout is not None
        line = within(WAIT_S, self.process.stdout.readline)
        assert line, f"the parent ended with {self.process.wait(WAIT_S)}"
        return line.split()

    def end(self) -> int:
        """Wait for its end: its exit code."""
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        """Whatever it does, it is over."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def parent(role: str, *arguments: object) -> Iterator[Parent]:
    running = Parent(role, *arguments)
    try:
        yield running
    finally:
        running.close()
