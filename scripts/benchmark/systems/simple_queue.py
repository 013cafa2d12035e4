"""`multiprocessing.SimpleQueue`: a pipe and a lock, without a thread; lists of events, pickled."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System


class SimpleQueueLists(System):
    """One `put` for each list of `size`; pickle is faster with lists of dicts than msgpack."""

    def __init__(self, place: Place, size: int) -> None:
        super().__init__(place)
        self.size = size
        self.queue = multiprocessing.get_context("spawn").SimpleQueue()

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Close this process's ends afterwards."""
        yield []
        self.queue.close()

    def produce(self, task: ProducerTask) -> None:
        """It waits while the pipe is full."""
        put = self.queue.put
        task.wait_for_start()
        for chunk in task.chunks(self.size):
            put(chunk)
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """One `get` for each list."""
        get, received, events = self.queue.get, 0, [None]
        task.ready()
        while received < task.count:
            events = get()
            received += len(events)
        task.received(events[-1])
