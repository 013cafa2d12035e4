"""NATS JetStream with `sync_interval: always`, through nats-py on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack

from benchmark.durable.base import Clock, Durable
from benchmark.servers import nats
from benchmark.systems.jetstream import SUBJECT, JetStream, add_stream


class DurableJetStream(Durable):
    """One publication and its answer at a time, or many on their way."""

    name = "JetStream, sync always"

    @classmethod
    def missing(cls) -> str | None:
        """As without the sync."""
        return JetStream.missing()

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Run the server, and make the stream."""
        with nats.served(self.directory, is_synced=True) as (self.address, pid):
            asyncio.run(add_stream(self.address))
            yield [pid]

    def one_at_a_time(self, clock: Clock) -> None:
        """`publish`, and its answer."""
        self.at_once(clock, 1)

    def at_once(self, clock: Clock, size: int) -> None:
        """`gather` of so many `publish`es."""
        asyncio.run(_publish(self.address, clock, size))


async def _publish(address: str, clock: Clock, size: int) -> None:
    import nats as client

    connection: Any = await client.connect(address)
    publish, pack = connection.jetstream().publish, msgpack.Packer().pack
    for chunk in clock.chunks(size):
        await asyncio.gather(*[publish(SUBJECT, pack(event)) for event in chunk])
    await connection.close()
