"""The limit: msgpack alone, which packs and unpacks in one process and hands nothing to anybody."""

from __future__ import annotations

from functools import partial

import msgpack

from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System

BATCH_EVENTS = 1000


class BareLoop(System):
    """One `pack` and one `unpackb` for each event, or for each list of `batch_events`."""

    def __init__(self, place: Place, batch_events: int = 1) -> None:
        super().__init__(place)
        assert place.consumers == 0
        self.batch_events = batch_events

    def produce(self, task: ProducerTask) -> None:
        """Pack and unpack."""
        pack, unpack = msgpack.Packer().pack, msgpack.unpackb
        task.wait_for_start()
        if self.batch_events == 1:
            for event in task.events():
                unpack(pack(event))
        else:
            for chunk in task.chunks(self.batch_events):
                unpack(pack(chunk))
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """There is nobody to consume."""
        raise NotImplementedError


bare_loop_batched = partial(BareLoop, batch_events=BATCH_EVENTS)
