"""Redis Streams, on Valkey over a Unix socket, without persistence; msgpack in one field.

The producer pipelines `XADD`s, 256 at a time, which is how redis-py gets fast; each consumer reads
the stream for itself with `XREAD`, up to 1000 entries at a time. redis-py parses with hiredis.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from benchmark.servers import valkey
from benchmark.systems.base import ConsumerTask, ProducerTask, System, first_missing

STREAM: Final = "events"
WRITE_EVENTS: Final = 256
READ_EVENTS: Final = 1000


class RedisStreams(System):
    """See the module."""

    needs: ClassVar[str | None] = "redis"

    @classmethod
    def missing(cls) -> str | None:
        """A client and a server are needed."""
        return first_missing(*valkey.NEEDS)

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Run the server."""
        with valkey.served(self.place.directory) as (self.path, pid):
            yield [pid]

    def produce(self, task: ProducerTask) -> None:
        """One `XADD` for each event, one round trip for many; or for each, if events are paced."""
        client, encode = valkey.client_of(self.path), task.payload.encoder()
        task.wait_for_start()
        if task.is_paced:
            for event in task.events():
                client.xadd(STREAM, {"e": encode(event)})
        else:
            for chunk in task.chunks(task.payload.batch_events(WRITE_EVENTS)):
                pipeline = client.pipeline(transaction=False)
                for event in chunk:
                    pipeline.xadd(STREAM, {"e": encode(event)})
                pipeline.execute()
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """`XREAD`, from one entry to the next."""
        client, decode, last = valkey.client_of(self.path), task.payload.decoder(), None
        position: Any = b"0-0"
        task.ready()
        rounds, received = task.rounds(), 0
        next(rounds)
        while received < task.count:
            entries = client.xread({STREAM: position}, count=READ_EVENTS, block=0)[0][1]
            for _, fields in entries:
                last = decode(fields[b"e"])
                next(rounds, None)
            received += len(entries)
            position = entries[-1][0]
        task.received(last)
        client.close()
