"""When the handlers of a worker began, in memory that the worker shares with its pool.

A pool with a `timeout` gives each worker a file in memory, with a word of 8 bytes for each handler
that may run at a time: when it began, by the monotonic clock, or 0. The worker writes; the pool
looks. So a pool learns of a handler that takes too long from no log and no server, and from no
answer of the worker, which may be stopped, or hold the interpreter's lock.
"""

from __future__ import annotations

import mmap
import os
from time import monotonic_ns
from typing import Any, Final

from workers import forks
from workers.handlers import Handler, is_async

WORD_BYTES: Final = 8


class StartTimes:
    """The file, as the pool has it."""

    def __init__(self, concurrency: int) -> None:
        """Make it, with all the room that it needs, so that the worker meets no SIGBUS.

        Raises:
            OSError: there is no descriptor or no memory left.
        """
        self._bytes = concurrency * WORD_BYTES
        self.descriptor = os.memfd_create("worker-times", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(self.descriptor, 0, self._bytes)
        except BaseException:
            self.close()
            raise

    def oldest_ns(self) -> int | None:
        """When the handler began that has run longest; `None` if none runs."""
        words = memoryview(os.pread(self.descriptor, self._bytes, 0)).cast("Q")
        return min(filter(None, words), default=None)

    def close(self) -> None:
        """Give the descriptor back; may be called twice."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def timed(handler: Handler, descriptor: int) -> Handler:
    """The handler, which notes in that file when it begins and that it has ended; in the worker.

    A child that it forks has the same file, and notes nothing.
    """
    size = os.fstat(descriptor).st_size
    words = memoryview(mmap.mmap(descriptor, size)).cast("Q")
    os.close(descriptor)
    free = list(range(size // WORD_BYTES))

    def begin() -> int:
        word = free.pop()
        if not forks.is_child:
            words[word] = monotonic_ns()
        return word

    def end(word: int) -> None:
        if not forks.is_child:
            words[word] = 0
        free.append(word)

    def call(argument: Any) -> Any:
        word = begin()
        try:
            return handler(argument)
        finally:
            end(word)

    async def wait_for(argument: Any) -> Any:
        word = begin()
        try:
            return await handler(argument)
        finally:
            end(word)

    return wait_for if is_async(handler) else call
