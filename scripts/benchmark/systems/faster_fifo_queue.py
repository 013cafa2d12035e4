"""faster-fifo: a ring in shared memory behind a lock of the processes; one for each consumer.

Dicts are packed with msgpack, which is faster than the pickle that it takes by itself; bytes are
passed as they are (`dumps` and `loads`). Event by event is `put` and `get_many`, as `get_many` is
what its authors recommend; batched by hand are lists of 256 as one message of msgpack, `put` and
`get`, which is faster than its own `put_many`, measured too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Final, Literal

import msgpack

from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System

RING_BYTES: Final = 4 * 1024 * 1024
LARGE_RING_BYTES: Final = 64 * 1024 * 1024
"""As large as a segment of the log, for large events."""
BATCH_EVENTS: Final = 256
WAIT_S_MAX: Final = 60.0

Way = Literal["one", "many", "lists"]


class FasterFifo(System):
    """`put` of one event, `put_many` of a list, or `put` of a list as one message."""

    needs: ClassVar[str | None] = "faster_fifo"

    def __init__(self, place: Place, way: Way = "one", size: int = BATCH_EVENTS) -> None:
        super().__init__(place)
        self.way = way
        self.size = size
        from faster_fifo import Queue

        ring_bytes = LARGE_RING_BYTES if place.payload.is_large else RING_BYTES
        if way == "lists" or place.payload.size is None:
            # A bound method of a Packer can't be pickled, so the ends make their own.
            codec: dict[str, Any] = {"dumps": msgpack.packb, "loads": msgpack.unpackb}
        else:
            codec = {"dumps": _as_it_is, "loads": bytes}
        self.queues = [Queue(max_size_bytes=ring_bytes, **codec) for _ in range(place.consumers)]

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """The rings are anonymous memory: they go with their processes."""
        yield []

    def produce(self, task: ProducerTask) -> None:
        """It waits while a ring is full."""
        batch_events = task.payload.batch_events(self.size)
        for queue in self.queues:
            if self.way == "lists" or task.payload.size is None:
                queue.dumps = msgpack.Packer().pack
        puts = [queue.put_many if self.way == "many" else queue.put for queue in self.queues]
        task.wait_for_start()
        messages: Any = task.events() if self.way == "one" else task.chunks(batch_events)
        for message in messages:
            for put in puts:
                put(message, timeout=WAIT_S_MAX)
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """`get_many`, or `get` of a list."""
        queue = self.queues[task.index]
        received, events = 0, [None]
        task.ready()
        rounds = task.rounds()
        next(rounds)
        while received < task.count:
            if self.way == "lists":
                events = queue.get(timeout=WAIT_S_MAX)
            else:
                events = queue.get_many(timeout=WAIT_S_MAX)
            received += len(events)
            if self.way == "one":
                for _ in events:
                    next(rounds, None)
        task.received(events[-1])


def _as_it_is(event: Any) -> Any:
    return event


faster_fifo_many = partial(FasterFifo, way="many")
faster_fifo_lists = partial(FasterFifo, way="lists")
