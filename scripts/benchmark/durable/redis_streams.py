"""Redis Streams on Valkey, with `appendonly yes` and `appendfsync always`; msgpack in one field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgpack

from benchmark.durable.base import Clock, Durable
from benchmark.servers import valkey

STREAM = "events"


class DurableRedis(Durable):
    """One `XADD` for each round trip, or many in a pipeline: then they share a sync."""

    name = "Redis Streams, appendfsync always"
    needs = valkey.NEEDS

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Run the server; `--appendonly` given twice is the last one."""
        options = ("--appendonly", "yes", "--appendfsync", "always", "--dir", self.directory)
        with valkey.served(self.directory, *options) as (self.path, pid):
            yield [pid]

    def one_at_a_time(self, clock: Clock) -> None:
        """`XADD`."""
        client, pack = valkey.client_of(self.path), msgpack.Packer().pack
        for event in clock.events():
            client.xadd(STREAM, {"e": pack(event)})

    def at_once(self, clock: Clock, size: int) -> None:
        """A pipeline of `XADD`s."""
        client, pack = valkey.client_of(self.path), msgpack.Packer().pack
        for chunk in clock.chunks(size):
            pipeline = client.pipeline(transaction=False)
            for event in chunk:
                pipeline.xadd(STREAM, {"e": pack(event)})
            pipeline.execute()
