"""iceoryx2: publish-subscribe through shared memory, without copies by the system.

Dicts are packed with msgpack. Each event is loaned, filled and sent; the subscriber copies it out.
The publisher waits while a subscriber's buffer is full (RetryUntilDelivered, no overflow), so that
nothing is lost. `Iceoryx2` wakes the subscriber by iceoryx2's own events; `Iceoryx2Spinning` asks
again and again, which is what it is made for.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from benchmark.events import EVENT_BYTES
from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System

PUBLISHER_UP: Final = "publisher-is-up"
SHARED: Final = "/dev/shm"
BUFFER_EVENTS: Final = 1024
BUFFER_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the events in a subscriber's buffer, where that makes them fewer."""


class Iceoryx2Spinning(System):
    """The subscriber does not sleep."""

    needs: ClassVar[str | None] = "iceoryx2"
    is_woken: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.event_bytes = place.payload.size or EVENT_BYTES
        self.buffer_events = min(BUFFER_EVENTS, BUFFER_BYTES // self.event_bytes)

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Its files lie in this run's directory and in shared memory under this run's name."""
        prefix = f"bench{os.path.basename(self.place.directory)}_"
        self.prefix = "".join(letter if letter.isalnum() else "_" for letter in prefix)
        try:
            yield []
        finally:
            for name in os.listdir(SHARED):
                if name.startswith(self.prefix):
                    os.unlink(os.path.join(SHARED, name))

    def _services(self) -> tuple[Any, Any, Any]:
        """The node, which has to be kept, and the services of events and of their arrival."""
        import iceoryx2 as iox2

        iox2.set_log_level(iox2.LogLevel.Error)
        config = iox2.config.default()
        config.global_cfg.root_path = iox2.Path.new(self.place.directory)
        config.global_cfg.prefix = iox2.FileName.new(self.prefix)
        node = iox2.NodeBuilder.new().config(config).create(iox2.ServiceType.Ipc)
        name = iox2.ServiceName.new("events")
        events = (
            node.service_builder(name)
            .publish_subscribe(iox2.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)
            .max_publishers(16)
            .max_subscribers(self.place.consumers)
            .subscriber_max_buffer_size(self.buffer_events)
            .open_or_create()
        )
        arrivals = node.service_builder(name).event().open_or_create()
        return node, events, arrivals

    def produce(self, task: ProducerTask) -> None:
        """Loan, fill and send each event."""
        import iceoryx2 as iox2

        node, events, arrivals = self._services()
        publisher = (
            events.publisher_builder()
            .initial_max_slice_len(self.event_bytes)
            .backpressure_strategy(iox2.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        notify = arrivals.notifier_builder().create().notify if self.is_woken else None
        Path(self.place.directory, PUBLISHER_UP).touch()
        encode, loan, copy = task.payload.encoder(), publisher.loan_slice_uninit, ctypes.memmove
        task.wait_for_start()
        for event in task.events():
            data = encode(event)
            sample = loan(len(data))
            copy(sample.payload_ptr, data, len(data))
            sample.assume_init().send()
            if notify is not None:
                notify()
        task.sent()
        # What is not yet received would go with its publisher.
        task.wait_for_end()
        del publisher, node

    def consume(self, task: ConsumerTask) -> None:
        """Receive and copy out each event."""
        node, events, arrivals = self._services()
        subscriber = events.subscriber_builder().buffer_size(self.buffer_events).create()
        wait = arrivals.listener_builder().create().blocking_wait if self.is_woken else _go_on
        decode, receive, copy = task.payload.decoder(), subscriber.receive, ctypes.string_at
        size, last = self.event_bytes, None
        task.ready()
        # A subscriber that looks while the publisher is being made may never see it (0.10.0).
        while not Path(self.place.directory, PUBLISHER_UP).exists():
            time.sleep(0.001)
        for _ in task.rounds():
            while (sample := receive()) is None:
                wait()
            last = decode(copy(sample.payload_ptr, size))
            sample.delete()
        task.received(last)
        del subscriber, node


class Iceoryx2(Iceoryx2Spinning):
    """The subscriber sleeps until it is notified."""

    is_woken = True


def _go_on() -> None:
    """Ask again at once."""
