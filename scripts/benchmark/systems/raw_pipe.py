"""The limit for pipes: os.write and os.readv on a pipe of the kernel, events of a known size.

Nothing frames the events, as all are of one size. The pipe is as large as an unprivileged process
may make it; the packing and unpacking of dicts is part of it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmark.events import EVENT_BYTES
from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System

PIPE_BYTES: Final = 1024 * 1024
"""What /proc/sys/fs/pipe-max-size is unless it was changed."""


class RawPipe(System):
    """One write and one read for each event; a named pipe, which its two ends open."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        assert place.consumers == 1
        self.path = os.path.join(place.directory, "pipe")

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Make the pipe."""
        os.mkfifo(self.path)
        yield []

    def produce(self, task: ProducerTask) -> None:
        """One `write` for each event; it waits while the pipe is full."""
        encode, write = task.payload.encoder(), os.write
        pipe = os.open(self.path, os.O_WRONLY)
        task.wait_for_start()
        for event in task.events():
            data = encode(event)
            done = write(pipe, data)
            while done < len(data):
                done += write(pipe, memoryview(data)[done:])
        os.close(pipe)
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """One `readv` for each event, or as many as it comes in."""
        decode, read = task.payload.decoder(), os.readv
        size = task.payload.size or EVENT_BYTES
        # Opened both ways, so that it need not wait for the producer, who comes later.
        pipe = os.open(self.path, os.O_RDWR)
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        buffer = bytearray(size)
        view, last = memoryview(buffer), None
        task.ready()
        for _ in task.rounds():
            done = read(pipe, [buffer])
            while done < size:
                done += read(pipe, [view[done:]])
            last = decode(bytes(buffer))
        task.received(last)
        os.close(pipe)
