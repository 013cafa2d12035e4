"""`workers.Pool` on a Redis server: the same program as on a directory, with another address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmark.engines import redis
from benchmark.pools.base import PROCESSES, HandleAll, Handler, PoolSystem
from benchmark.servers import valkey
from benchmark.systems.log import CHUNK_EVENTS
from eventlog import blocking
from workers.blocking import Pool


class RedisPool(PoolSystem):
    """See the module. Storing the events is part of what is measured."""

    name = "workers.Pool on Redis"
    needs = (*valkey.NEEDS, "coredis")

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """The server, a log on it, and the pool."""
        with redis.served(directory) as (address, _), blocking.open(address) as log:

            def handle_all(events: Sequence[Any]) -> None:
                for start in range(0, len(events), CHUNK_EVENTS):
                    log.append_many(events[start : start + CHUNK_EVENTS])
                pool.drained()

            with Pool(log, group="pool", handler=handler, processes=PROCESSES) as pool:
                yield handle_all
