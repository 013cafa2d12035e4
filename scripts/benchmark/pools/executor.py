"""`concurrent.futures.ProcessPoolExecutor`, from the standard library."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmark.pools.base import PROCESSES, HandleAll, Handler, PoolSystem


class Executor(PoolSystem):
    """See the module."""

    name = "ProcessPoolExecutor"

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """The executor, spawned."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(PROCESSES, mp_context=context) as executor:

            def handle_all(events: Sequence[Any]) -> None:
                deque(executor.map(handler, events, chunksize=1), maxlen=0)

            yield handle_all
