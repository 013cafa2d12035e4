"""The limit: `pwrite` and `fdatasync` on a file whose blocks are there; nothing numbers or frames.

The file was written whole and synced before, so that a sync has no blocks to allocate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgpack

from benchmark.durable.base import Clock, Durable

FILE_BYTES: Final = 64 * 1024 * 1024
"""As large as a segment of the log."""


class DurableFile(Durable):
    """One write and one sync for each event, or for each list of them."""

    name = "limit: pwrite and fdatasync"

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Make the file."""
        self.path = os.path.join(self.directory, "file")
        file = os.open(self.path, os.O_RDWR | os.O_CREAT)
        for offset in range(0, FILE_BYTES, len(_ZEROS)):
            os.pwrite(file, _ZEROS, offset)
        os.fsync(file)
        os.close(file)
        yield []

    def one_at_a_time(self, clock: Clock) -> None:
        """Pack, write, sync."""
        self.at_once(clock, 1)

    def at_once(self, clock: Clock, size: int) -> None:
        """Pack one by one, write all together, sync: a group commit."""
        file, pack, offset = os.open(self.path, os.O_RDWR), msgpack.Packer().pack, 0
        for chunk in clock.chunks(size):
            data = b"".join(map(pack, chunk))
            if offset + len(data) > FILE_BYTES:
                offset = 0
            offset += os.pwrite(file, data, offset)
            os.fdatasync(file)
        os.close(file)


_ZEROS: Final = bytes(1024 * 1024)
