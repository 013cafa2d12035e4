"""Staging rings: memory that a producer fills and the writer reads, private to the two.

The memory is sealed: neither side can change its size, so neither can make the other touch a page
that is not there. What lies in it may change while it is read, so the writer copies a batch before
it looks at it, and computes its checksum over the copy.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket

from eventlog.config import STAGING_BYTES, STAGING_RINGS_MAX
from eventlog.errors import EventLogError, ProtocolError
from eventlog.local.wire.connection import frame
from eventlog.local.wire.messages import Append, AppendStaged, Staged
from eventlog.system import has_spare_descriptors


class StagingRing:
    """The ring of one pipe, as the writer has it."""

    def __init__(self) -> None:
        """Make the memory.

        Raises:
            OSError, AttributeError: this system has no such memory, or no more of it.
        """
        self.descriptor = os.memfd_create("eventlog-staging", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, STAGING_BYTES)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
            self._map = mmap.mmap(self.descriptor, STAGING_BYTES, access=mmap.ACCESS_READ)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._view = memoryview(self._map)

    def close(self) -> None:
        """Unmap, and give the descriptor back."""
        self._view.release()
        self._map.close()
        os.close(self.descriptor)

    def copy(self, message: AppendStaged, target: mmap.mmap) -> Append:
        """The batch that the message tells of, its bytes in `target`: valid until the next one.

        Raises:
            ProtocolError: it would lie outside of the ring.
        """
        start, end = message.position, message.position + message.length
        if end > STAGING_BYTES:
            raise ProtocolError(f"a staged batch that ends at {end}, outside of the ring")
        with self._view[start:end] as staged:
            target[: len(staged)] = staged
        payload = memoryview(target)[: end - start]
        return Append(
            message.request_id,
            message.producer_id,
            message.producer_seq,
            message.count,
            message.flags,
            0,
            payload,
        )


class StagingArea:
    """All the rings of a writer."""

    def __init__(self) -> None:
        self._rings: dict[socket.socket, StagingRing] = {}
        self._copy: mmap.mmap | None = None
        """Not a bytearray: of a map only what was once written to takes up memory."""

    def open(self, pipe: socket.socket, request_id: int) -> None:
        """Make a ring for a pipe that has nothing unsent, and send it there.

        Raises:
            EventLogError: the pipe gets none, and its producer goes on without.
        """
        is_full = len(self._rings) >= STAGING_RINGS_MAX or not has_spare_descriptors(pipe.fileno())
        if pipe in self._rings or is_full:
            raise EventLogError("no more staging rings; send batches through the pipe")
        try:
            ring = StagingRing()
        except (OSError, AttributeError) as error:
            raise EventLogError(f"no staging ring: {error}") from error
        answer = frame(Staged(request_id, STAGING_BYTES))
        try:
            sent = socket.send_fds(pipe, [answer], [ring.descriptor])
            assert sent == len(answer), "a few bytes into an empty pipe go whole or not at all"
        except OSError as error:
            ring.close()
            raise EventLogError(f"no staging ring: {error}") from error
        self._copy = self._copy or mmap.mmap(-1, STAGING_BYTES)
        self._rings[pipe] = ring

    def take(self, pipe: socket.socket, message: AppendStaged) -> Append:
        """The batch that lies in the pipe's ring, copied; valid until the next call.

        Raises:
            ProtocolError: the pipe has no ring, or the batch lies outside of it.
        """
        ring = self._rings.get(pipe)
        if ring is None or self._copy is None:
            raise ProtocolError("a staged batch without a ring")
        return ring.copy(message, self._copy)

    def forget(self, pipe: socket.socket) -> None:
        """The pipe is gone, and its ring with it."""
        ring = self._rings.pop(pipe, None)
        if ring is not None:
            ring.close()
