"""A pipe with msgpack: `multiprocessing.Pipe`, which writes a length before each message.

Bytes are sent as they are. For several consumers, an event is packed once and sent to each.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import msgpack

from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System

BATCH_EVENTS: Final = 256


class MsgpackPipe(System):
    """One message for each event, or a list of so many, into one pipe for each consumer."""

    def __init__(self, place: Place, batch_events: int = 1) -> None:
        super().__init__(place)
        self.batch_events = batch_events
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
        """One `send_bytes` for each message and consumer; it waits while a pipe is full."""
        is_batched = self.batch_events > 1
        encode = msgpack.Packer().pack if is_batched else task.payload.encoder()
        sends = [sender.send_bytes for _, sender in self.pipes]
        task.wait_for_start()
        messages: Any = task.chunks(self.batch_events) if is_batched else task.events()
        for message in messages:
            data = encode(message)
            for send in sends:
                send(data)
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """One `recv_bytes` for each message."""
        receive = self.pipes[task.index][0].recv_bytes
        if self.batch_events > 1:
            task.ready()
            task.received(_last_of_batches(receive, task.count))
            return
        decode, last = task.payload.decoder(), None
        task.ready()
        for _ in task.rounds():
            last = decode(receive())
        task.received(last)


def _last_of_batches(receive: Any, count: int) -> Any:
    received, last = 0, None
    while received < count:
        batch = msgpack.unpackb(receive())
        received += len(batch)
        last = batch[-1]
    return last


pipe_batched = partial(MsgpackPipe, batch_events=BATCH_EVENTS)
"""Lists of events that the program makes itself."""
