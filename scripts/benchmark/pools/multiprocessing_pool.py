"""`multiprocessing.Pool`, and the same of `multiprocess`, which serialises with dill."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from benchmark.pools.base import PROCESSES, HandleAll, Handler, PoolSystem


class MultiprocessingPool(PoolSystem):
    """`imap_unordered`, one event at a time."""

    name = "multiprocessing.Pool"
    module: ClassVar[str] = "multiprocessing"

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """The pool, spawned."""
        context = importlib.import_module(self.module).get_context("spawn")
        with context.Pool(PROCESSES) as pool:

            def handle_all(events: Sequence[Any]) -> None:
                deque(pool.imap_unordered(handler, events, chunksize=1), maxlen=0)

            yield handle_all


class MultiprocessPool(MultiprocessingPool):
    """The same, of the other package."""

    name = "multiprocess.Pool"
    module = "multiprocess"
    needs = ("multiprocess",)
