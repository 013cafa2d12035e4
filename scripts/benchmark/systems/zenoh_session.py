"""zenoh: two peers over a Unix socket; with shared memory, for large bytes.

Dicts are packed with msgpack. Peers connect directly, without a router or multicast; a full
congestion window blocks the publisher, so nothing is lost. With shared memory, each event is copied
into a buffer of its provider, and out of it by the subscriber.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from benchmark.systems.base import ConsumerTask, ProducerTask, System

SHARED_BYTES: Final = 64 * 1024 * 1024
"""As large as a segment of the log."""
KEY: Final = "bench/events"


class Zenoh(System):
    """Through the socket."""

    needs: ClassVar[str | None] = "zenoh"
    is_shared: ClassVar[bool] = False

    def _config(self, **endpoints: list[str]) -> Any:
        import json

        import zenoh

        config = zenoh.Config()
        config.insert_json5("mode", '"peer"')
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("transport/shared_memory/enabled", json.dumps(self.is_shared))
        for kind in ("listen", "connect"):
            config.insert_json5(f"{kind}/endpoints", json.dumps(endpoints.get(kind, [])))
        return config

    def _address(self, index: int) -> str:
        return "unixsock-stream/" + os.path.join(self.place.directory, f"{index}.zenoh")

    def produce(self, task: ProducerTask) -> None:
        """One `put` for each event."""
        import zenoh

        addresses = [self._address(index) for index in range(self.place.consumers)]
        session: Any = zenoh.open(self._config(connect=addresses))
        block = zenoh.CongestionControl.BLOCK
        publisher = session.declare_publisher(KEY, congestion_control=block)
        self._wait_for_subscribers(publisher)
        encode, put = task.payload.encoder(), publisher.put
        make = _copier() if self.is_shared else _as_it_is
        task.wait_for_start()
        for event in task.events():
            put(make(encode(event)))
        task.sent()
        task.wait_for_end()
        session.close()

    def _wait_for_subscribers(self, publisher: Any) -> None:
        import time

        while not publisher.matching_status.matching:
            time.sleep(0.01)  # before the clock starts

    def consume(self, task: ConsumerTask) -> None:
        """One `recv` for each event, of a handler with a queue."""
        import zenoh

        session: Any = zenoh.open(self._config(listen=[self._address(task.index)]))
        subscriber = session.declare_subscriber(KEY, zenoh.handlers.FifoChannel(1024))
        decode, receive, last = task.payload.decoder(), subscriber.recv, None
        task.ready()
        for _ in task.rounds():
            last = decode(bytes(receive().payload))
        task.received(last)
        session.close()


class ZenohShared(Zenoh):
    """Through shared memory."""

    is_shared = True

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Remove what it leaves in shared memory when its processes have gone."""
        before = set(Path("/dev/shm").glob("*.zenoh"))
        try:
            yield []
        finally:
            for path in set(Path("/dev/shm").glob("*.zenoh")) - before:
                path.unlink(missing_ok=True)


def _copier() -> Any:
    import zenoh

    provider = zenoh.shm.ShmProvider.default_backend(SHARED_BYTES)
    policy = zenoh.shm.BlockOn(zenoh.shm.GarbageCollect())

    def copied(data: bytes) -> Any:
        buffer = provider.alloc(len(data), policy)
        buffer[:] = data
        return buffer

    return copied


def _as_it_is(data: Any) -> Any:
    return data
