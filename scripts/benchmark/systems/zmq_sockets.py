"""pyzmq over ipc, with msgpack: PUSH to PULL, and PUB to SUB where several must get all events.

Consumers bind and producers connect, so that nobody has to wait and try again. Bytes are sent as
they are, large ones without a copy by pyzmq (`copy=False`). "The log's codecs" are ormsgpack and
msgspec instead of msgpack: what the log does beside them is seen then.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Final

import msgpack
import msgspec
import ormsgpack

from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System

BATCH_EVENTS: Final = 256
"""Events in a message where they are batched by hand."""
FOR_EVER: Final = -1


class ZmqPushPull(System):
    """One message for each event, or for each `batch_events`, with pyzmq's own limits."""

    needs: ClassVar[str | None] = "zmq"

    def __init__(
        self, place: Place, batch_events: int = 1, *, has_codecs_of_log: bool = False
    ) -> None:
        super().__init__(place)
        self.batch_events = batch_events
        self.has_codecs_of_log = has_codecs_of_log

    def _address(self, index: int) -> str:
        return f"ipc://{self.place.directory}/{index}.zmq"

    def produce(self, task: ProducerTask) -> None:
        """One `send` for each message; the context's end waits until all of them are gone."""
        import zmq

        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.connect(self._address(0))
        task.wait_for_start()
        self._send_all(socket, task)
        _hand_over(context, socket)
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """One `recv` for each message."""
        import zmq

        context = zmq.Context()
        socket = context.socket(zmq.PULL)
        socket.bind(self._address(task.index))
        task.ready()
        task.received(self._receive_all(socket, task))
        context.destroy()

    def _send_all(self, socket: Any, task: ProducerTask) -> None:
        is_batched, send = self.batch_events > 1, socket.send
        pack = msgpack.Packer().pack if is_batched else task.payload.encoder()
        if self.has_codecs_of_log:
            pack = ormsgpack.packb
        messages: Any = task.chunks(self.batch_events) if is_batched else task.events()
        is_copied = not task.payload.is_large
        for message in messages:
            send(pack(message), 0, is_copied)

    def _receive_all(self, socket: Any, task: ConsumerTask) -> object:
        """Receive and unpack all events; the last one."""
        receive, event = socket.recv, None
        unpack = msgspec.msgpack.decode if self.has_codecs_of_log else msgpack.unpackb
        if self.batch_events == 1:
            decode = unpack if self.has_codecs_of_log else task.payload.decoder()
            for _ in task.rounds():
                event = decode(receive())
            return event
        received = 0
        while received < task.count:
            batch = unpack(receive())
            received += len(batch)
            event = batch[-1]
        return event


class ZmqPubSub(ZmqPushPull):
    """One message for each event, sent once and published by pyzmq to all consumers.

    Without high-water marks, at which PUB would drop events.
    """

    def produce(self, task: ProducerTask) -> None:
        """As with PUSH, once every consumer's subscription has arrived (XPUB tells)."""
        import zmq

        context = zmq.Context()
        socket = context.socket(zmq.XPUB)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        socket.set_hwm(0)
        for index in range(self.place.consumers):
            socket.connect(self._address(index))
        for _ in range(self.place.consumers):
            socket.recv()
        task.wait_for_start()
        self._send_all(socket, task)
        _hand_over(context, socket)
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """One `recv` for each message."""
        import zmq

        context = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.set_hwm(0)
        socket.subscribe(b"")
        socket.bind(self._address(task.index))
        task.ready()
        task.received(self._receive_all(socket, task))
        context.destroy()


class ZmqSpinning(ZmqPushPull):
    """PUSH to PULL; the consumer asks again and again, and does not sleep."""

    def consume(self, task: ConsumerTask) -> None:
        """`recv` with NOBLOCK until there is a message."""
        import zmq

        context = zmq.Context()
        socket = context.socket(zmq.PULL)
        socket.bind(self._address(task.index))
        task.ready()
        receive, decode, last = socket.recv, task.payload.decoder(), None
        for _ in task.rounds():
            while True:
                try:
                    last = decode(receive(zmq.NOBLOCK))
                    break
                except zmq.Again:
                    pass
        task.received(last)
        context.destroy()


zmq_batched = partial(ZmqPushPull, batch_events=BATCH_EVENTS)
"""PUSH to PULL, with lists of events that the program makes itself."""
zmq_with_codecs_of_log = partial(ZmqPushPull, has_codecs_of_log=True)
zmq_batched_with_codecs_of_log = partial(zmq_batched, has_codecs_of_log=True)
zmq_pub_sub_batched = partial(ZmqPubSub, batch_events=BATCH_EVENTS)


def _hand_over(context: Any, socket: Any) -> None:
    socket.close(linger=FOR_EVER)
    context.term()
