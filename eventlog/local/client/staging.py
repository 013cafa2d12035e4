"""A producer's staging ring: memory that it shares with the writer alone, for batches on their way.

A pipe copies each byte into the kernel and out again; the ring is written once, and the pipe
carries only where the batch lies. The writer makes it (`writer.staging`), so that its size is known
and stays what it is.

    |  free  | oldest batch | ... | latest batch |  free  |
             ^ released by its answer            ^ the next one goes here, or to the start
"""

from __future__ import annotations

import mmap
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Final

from eventlog.local.client.conversations import Channel
from eventlog.system import above_standard

RECEIVE_BYTES: Final = 64 * 1024
ALIGNMENT: Final = 64
"""A cache line: two batches never share one."""


class StagingRing:
    """The ring as its producer has it. Batches are released in any order."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Map the memory behind a descriptor, which belongs to the ring from now on."""
        try:
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._size = size
        self._taken: deque[tuple[int, int]] = deque()
        """Start and end of each batch, in the order in which they were put there."""
        self._released: set[int] = set()

    def put(self, parts: Sequence[bytes | memoryview], size: int) -> int | None:
        """Copy a batch into the ring; where it lies, or `None` if there is no room for it now."""
        place = self._place_for(size)
        if place is None:
            return None
        end = place
        for part in parts:
            start, end = end, end + len(part)
            self._map[start:end] = part
        self._taken.append((place, end + -end % ALIGNMENT))
        return place

    def _place_for(self, length: int) -> int | None:
        if not self._taken:
            # Always the same pages, if one batch at a time is on its way: they stay in the cache.
            return 0 if length <= self._size else None
        oldest, latest_end = self._taken[0][0], self._taken[-1][1]
        if latest_end > oldest:
            if latest_end + length <= self._size:
                return latest_end
            latest_end = 0
        return latest_end if latest_end + length < oldest else None

    def release(self, place: int) -> None:
        """The writer has answered the batch that lies there, and will not look at it any more."""
        self._released.add(place)
        while self._taken and self._taken[0][0] in self._released:
            self._released.remove(self._taken.popleft()[0])

    def close(self) -> None:
        """Unmap; may be called twice."""
        self._map.close()


def receive_descriptors(pipe: socket.socket, found: list[int]) -> bytes:
    """What `recv` gives, and descriptors put with those that were found."""
    data, descriptors, _, _ = socket.recv_fds(pipe, RECEIVE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    found += map(above_standard, descriptors)
    return data


def drop_descriptors(channel: Channel) -> None:
    """Give back what came and was never used: the pipe is gone."""
    for descriptor in channel.descriptors or ():
        os.close(descriptor)
    channel.descriptors = None
