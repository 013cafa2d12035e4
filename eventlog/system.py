"""Doors to the operating system for the process that uses a log: descriptors, signals, its place.

A program may run without standard input, output or error. The kernel then gives their numbers,
0 to 2, to whatever is opened next, and a `print` or a C library that writes to number 2 would write
into a log. So no descriptor of this package is below 3.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from eventlog.errors import EventLogError, LogNotFound

STANDARD_MAX: Final = 2
"""The number of standard error, the highest that has a meaning of its own."""
RESERVE_MAX: Final = 32
"""Descriptors that a writer keeps for its files when many clients come: a roll takes five."""


def hold_standard_descriptors() -> None:
    """Open /dev/null under each of the numbers 0 to 2 that is closed.

    Raises:
        OSError: there is no descriptor left.
    """
    while True:
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if nowhere > STANDARD_MAX:
            os.close(nowhere)
            return
        os.set_inheritable(nowhere, True)  # as standard descriptors are


def above_standard(descriptor: int) -> int:
    """The descriptor, or the same file under a number above 2; the given number is free then."""
    if descriptor > STANDARD_MAX:
        return descriptor
    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, STANDARD_MAX + 1)
    finally:
        os.close(descriptor)
    hold_standard_descriptors()  # the next ones, of a map or a socket, are above 2 from the start
    return moved


def has_spare_descriptors(descriptor: int) -> bool:
    """Whether this process may open more than its reserve; `descriptor` is any open one.

    The kernel gives the lowest free number, so the number of a copy tells how many are in use.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return True
    try:
        probe = os.dup(descriptor)
    except OSError:
        return False
    os.close(probe)
    return probe + min(RESERVE_MAX, limit // 4) < limit


def start_thread(thread: threading.Thread, path: str) -> None:
    """Start a thread of the log's.

    Raises:
        EventLogError: the limit of processes and threads is reached.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise EventLogError(
            f"no thread could be started for the log {path}: {error}; raise the limit of processes"
            " (ulimit -u), or of the container's tasks",
            path=path,
        ) from error


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C comes after the block, which waits for nobody: a thread with an event loop starts.

    Whoever starts one waits until it runs. A `KeyboardInterrupt` there would leave a loop that
    nobody can end, and the wait for the end of its thread would be for ever.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not is_main or not callable(before):  # it is nothing that raises an exception here
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def absolute_path(path: str) -> str:
    """The path from the root on.

    Raises:
        LogNotFound: it is relative to a working directory that was deleted.
    """
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise LogNotFound(
            f"{path!r} is relative, and the working directory of this process was deleted; give a"
            " path that begins with /, or change into a directory that is there",
            path=path,
        ) from None
