"""`workers.Pool`: events are stored in a log, leased, read from its maps, and acknowledged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmark.pools.base import PROCESSES, HandleAll, Handler, PoolSystem
from benchmark.systems.log import CHUNK_EVENTS, served
from workers.blocking import Pool


class LogPool(PoolSystem):
    """See the module. Storing the events is part of what is measured."""

    name = "workers.Pool"

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """A log, its writer, and the pool."""
        with served(os.path.join(directory, "log"), "disk") as (log, _):

            def handle_all(events: Sequence[Any]) -> None:
                for start in range(0, len(events), CHUNK_EVENTS):
                    log.append_many(events[start : start + CHUNK_EVENTS])
                pool.drained()

            with Pool(log, group="pool", handler=handler, processes=PROCESSES) as pool:
                yield handle_all
