"""`multiprocessing.Queue`: one for each consumer, as each takes events away."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System


class MultiprocessingQueue(System):
    """Pickles in a thread of the producer, without a bound on what waits there."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        context = multiprocessing.get_context("spawn")
        self.queues = [context.Queue() for _ in range(place.consumers)]

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Close this process's ends afterwards."""
        yield []
        for queue in self.queues:
            queue.close()

    def produce(self, task: ProducerTask) -> None:
        """One `put` for each event and consumer."""
        puts = [queue.put for queue in self.queues]
        task.wait_for_start()
        for event in task.events():
            for put in puts:
                put(event)
        for queue in self.queues:
            queue.close()
        for queue in self.queues:
            queue.join_thread()
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """One `get` for each event."""
        get = self.queues[task.index].get
        last = None
        task.ready()
        for _ in task.rounds():
            last = get()
        task.received(last)
