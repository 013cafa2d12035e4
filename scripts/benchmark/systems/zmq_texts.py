"""pyzmq, PUSH to PULL: a message for each event, which carries a key, or a key and headers, too."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgpack

from benchmark.systems.base import ConsumerTask, Place, ProducerTask
from benchmark.systems.log_texts import HEADERS, key_of
from benchmark.systems.zmq_sockets import ZmqPushPull


class ZmqTexts(ZmqPushPull):
    """Lists of key and event, or of key, headers and event, as one MessagePack."""

    def __init__(self, place: Place, *, has_headers: bool = False) -> None:
        super().__init__(place)
        self.has_headers = has_headers

    def _send_all(self, socket: Any, task: ProducerTask) -> None:
        pack, send = msgpack.Packer().pack, socket.send
        if self.has_headers:
            for event in task.events():
                send(pack((key_of(event), {**HEADERS}, event)))
        else:
            for event in task.events():
                send(pack((key_of(event), event)))

    def _receive_all(self, socket: Any, task: ConsumerTask) -> object:
        receive, event = socket.recv, None
        for _ in task.rounds():
            *_texts, event = msgpack.unpackb(receive())
        return event


zmq_with_headers = partial(ZmqTexts, has_headers=True)
