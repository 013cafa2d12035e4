"""The limits: msgpack, or msgspec, over a mapped file of the same events, one after the other.

Nothing is checked, numbered or framed. The log decodes with msgspec, so a loop of that is shown
too: it knows nothing of streams, so it is given the place of each event beforehand.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import msgpack

from benchmark.events import EVENT_BYTES
from benchmark.processes import Link
from benchmark.replays.base import Replay, Stopwatch, Stored


def _mapped(stored: Stored) -> memoryview:
    with Path(stored.messages).open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class UnpackLoop(Replay):
    """One `unpackb` for each event."""

    name = "limit: msgpack.unpackb over the file"

    def read(self, stored: Stored, link: Link) -> None:
        """Every event."""
        data, unpack = _mapped(stored), msgpack.unpackb
        event: Any = None
        watch = Stopwatch()
        for offset in range(0, len(data), EVENT_BYTES):
            event = unpack(data[offset : offset + EVENT_BYTES])
        watch.stop(event, stored, link)


class UnpackStream(Replay):
    """`Unpacker`, which reads from a file by itself."""

    name = "limit: msgpack.Unpacker over the file"

    def read(self, stored: Stored, link: Link) -> None:
        """Every event."""
        event: Any = None
        with Path(stored.messages).open("rb") as file:
            watch = Stopwatch()
            for unpacked in msgpack.Unpacker(file):
                event = unpacked
            watch.stop(event, stored, link)


class MsgspecLoop(Replay):
    """One `decode` for each event."""

    name = "limit: msgspec decode over the file"

    def read(self, stored: Stored, link: Link) -> None:
        """Every event."""
        import msgspec

        data, decode = _mapped(stored), msgspec.msgpack.Decoder().decode
        event: Any = None
        watch = Stopwatch()
        for offset in range(0, len(data), EVENT_BYTES):
            event = decode(data[offset : offset + EVENT_BYTES])
        watch.stop(event, stored, link)


ALL = (UnpackLoop, UnpackStream, MsgspecLoop)
