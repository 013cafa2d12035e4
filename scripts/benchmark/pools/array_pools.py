"""Pools that are given arrays: through a log, pickled, and by hand through shared memory.

Each array is handed to one of four processes, which transforms it. The log stores them and keeps
the last 256 MiB; the others store nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Final

from benchmark.pools.base import PROCESSES, HandleAll, Handler, PoolSystem
from benchmark.pools.multiprocessing_pool import MultiprocessingPool
from benchmark.systems.log import served
from eventlog import Retention
from workers.blocking import Pool

KEPT: Final = Retention(max_bytes=256 * 1024 * 1024)
SLOTS: Final = 2 * PROCESSES
"""Blocks of shared memory: one at each process, and one ready for it."""


def transform(frame: Any) -> None:
    """Calculate for about as long as it takes to look at each value a few times."""
    import numpy as np

    np.fft.rfft(frame)


class ArraysThroughLog(PoolSystem):
    """`workers.Pool`, its handlers given views of the mapped segments."""

    name = "workers.Pool"
    needs = ("numpy",)

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """A log, its writer, a publisher, and the pool."""
        import numpy as np

        options: dict[str, Any] = {"processes": PROCESSES, "type": np.ndarray}
        with (
            served(os.path.join(directory, "log"), "disk", KEPT) as (log, _),
            Pool(log, group="pool", handler=handler, **options) as pool,
            log.publisher() as publisher,
        ):

            def handle_all(frames: Sequence[Any]) -> None:
                for frame in frames:
                    publisher.send(frame)
                publisher.flush()
                pool.drained()

            yield handle_all


class ArraysPickled(MultiprocessingPool):
    """`imap_unordered`: each array is pickled into a pipe."""

    name = "multiprocessing.Pool, pickled"
    needs = ("numpy",)


class ArraysInSharedMemory(PoolSystem):
    """`apply_async` with the number of a block, into which the array was copied."""

    name = "multiprocessing.Pool, shared_memory"
    needs = ("numpy",)

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """The pool, spawned; blocks are made for the first arrays, and again for larger ones."""
        blocks = _Blocks()
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:

            def handle_all(frames: Sequence[Any]) -> None:
                for frame in frames:
                    blocks.hold(frame.nbytes)
                    slot, name = blocks.take()
                    blocks.copy(slot, frame)
                    arguments = handler, slot, name, frame.shape, frame.dtype.str
                    pool.apply_async(
                        _handle, arguments, callback=blocks.give, error_callback=blocks.fail
                    )
                blocks.await_all()

            try:
                yield handle_all
            finally:
                blocks.close()


class _Blocks:
    """Blocks of shared memory, each free or at a process."""

    def __init__(self) -> None:
        self._all: list[SharedMemory] = []
        self._free: deque[int] = deque()
        self._room = threading.Semaphore(0)
        self._error: BaseException | None = None

    def hold(self, size: int) -> None:
        """Have blocks of at least that size."""
        if self._all and self._all[0].size >= size:
            return
        if self._all:
            self.await_all()
            self.close()
        self._all = [SharedMemory(create=True, size=size) for _ in range(SLOTS)]
        self._free = deque(range(SLOTS))
        self._room = threading.Semaphore(SLOTS)

    def take(self) -> tuple[int, str]:
        """A free block, once there is one."""
        self._room.acquire()
        slot = self._free.popleft()
        return slot, self._all[slot].name

    def copy(self, slot: int, frame: Any) -> None:
        """Put an array there."""
        import numpy as np

        np.copyto(np.ndarray(frame.shape, frame.dtype, self._all[slot].buf), frame)

    def give(self, slot: int) -> None:
        """The block is free again."""
        self._free.append(slot)
        self._room.release()

    def fail(self, error: BaseException) -> None:
        """A handler failed; nobody waits for its block."""
        self._error = error
        self._room.release()

    def await_all(self) -> None:
        """Return when all blocks are free.

        Raises:
            BaseException: what a handler raised.
        """
        for _ in range(SLOTS):
            self._room.acquire()
        if self._error is not None:
            raise self._error
        self._room.release(SLOTS)

    def close(self) -> None:
        """Remove them."""
        for block in self._all:
            block.close()
            block.unlink()
        self._all = []


_attached: dict[str, SharedMemory] = {}
"""The blocks that a worker has mapped."""


def _handle(handler: Handler, slot: int, name: str, shape: Sequence[int], dtype: str) -> int:
    """In a worker: handle the array in a block; its number."""
    import numpy as np

    if name not in _attached:
        _attached[name] = SharedMemory(name)
    handler(np.ndarray(shape, dtype, _attached[name].buf))
    return slot
