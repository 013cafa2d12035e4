"""A pipe with msgpack: `multiprocessing.Pipe`, which writes a length before each message."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack

from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System


class MsgpackPipe(System):
    """Packs an event once and sends it into one pipe for each consumer."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        context = multiprocessing.get_context("spawn")
        self.pipes = [context.Pipe(duplex=False) for _ in range(place.consumers)]

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Close this process's ends afterwards."""
        yield []
        for receiver, sender in self.pipes:
            receiver.close()
            sender.close()

    def produce(self, task: ProducerTask) -> None:
        """One `send_bytes` for each event and consumer; it waits while a pipe is full."""
        pack = msgpack.Packer().pack
        sends = [sender.send_bytes for _, sender in self.pipes]
        task.wait_for_start()
        for event in task.events():
            data = pack(event)
            for send in sends:
                send(data)
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """One `recv_bytes` for each event."""
        receive, unpack = self.pipes[task.index][0].recv_bytes, msgpack.unpackb
        last = None
        task.ready()
        for _ in range(task.count):
            last = unpack(receive())
        task.received(last)
