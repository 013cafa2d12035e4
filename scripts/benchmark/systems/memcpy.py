"""The limit for bytes: a copy into mapped memory and a copy out of it, in one process."""

from __future__ import annotations

import mmap
from typing import Final

from benchmark.systems.base import ConsumerTask, ProducerTask, System

RING_BYTES: Final = 64 * 1024 * 1024
"""As large as a segment of the log; each page is touched before the clock starts."""


class Memcpy(System):
    """Copies each event to the next place of a ring, and from there into new bytes."""

    def produce(self, task: ProducerTask) -> None:
        """Copy in and out."""
        size = task.payload.size
        assert size is not None, "memcpy is for bytes"
        ring = mmap.mmap(-1, RING_BYTES)
        ring[:] = bytes(RING_BYTES)
        offset, last = 0, b""
        task.wait_for_start()
        for event in task.events():
            ring[offset : offset + size] = event
            last = ring[offset : offset + size]
            offset += size
            if offset + size > RING_BYTES:
                offset = 0
        task.sent()
        assert last == task.payload.event_at(task.count - 1)

    def consume(self, task: ConsumerTask) -> None:
        """There is nobody to consume."""
        raise NotImplementedError
