"""This log, on trio or blocking, event by event or in batches."""

from __future__ import annotations

from typing import Any

import eventlog
import eventlog.blocking
from benchmark.processes import Link
from benchmark.replays.base import Replay, Stopwatch, Stored
from eventlog import SeekPosition


class BlockingEvents(Replay):
    """`for` over the stream."""

    name = "log, blocking, event by event"

    def read(self, stored: Stored, link: Link) -> None:
        """Every event."""
        event: Any = None
        with eventlog.blocking.open(stored.log) as log:
            watch = Stopwatch()
            with log.subscribe("replay", SeekPosition.BEGINNING, follow=False) as stream:
                for envelope in stream:
                    event = envelope.event
                watch.stop(event, stored, link)


class BlockingBatches(Replay):
    """`for` over its batches."""

    name = "log, blocking, batches"

    def read(self, stored: Stored, link: Link) -> None:
        """Every batch, decoded whole."""
        event: Any = None
        with eventlog.blocking.open(stored.log) as log:
            watch = Stopwatch()
            with log.subscribe("replay", SeekPosition.BEGINNING, follow=False) as stream:
                for batch in stream.batches():
                    event = batch[-1].event
                watch.stop(event, stored, link)


class TrioEvents(Replay):
    """`async for` over the stream."""

    name = "log, trio, event by event"

    def read(self, stored: Stored, link: Link) -> None:
        """Every event."""
        import trio

        trio.run(self._read, stored, link)

    async def _read(self, stored: Stored, link: Link) -> None:
        event: Any = None
        async with eventlog.open(stored.log) as log:
            watch = Stopwatch()
            async with log.subscribe("replay", SeekPosition.BEGINNING, follow=False) as stream:
                async for envelope in stream:
                    event = envelope.event
                watch.stop(event, stored, link)


class TrioBatches(Replay):
    """`async for` over its batches."""

    name = "log, trio, batches"

    def read(self, stored: Stored, link: Link) -> None:
        """Every batch, decoded whole."""
        import trio

        trio.run(self._read, stored, link)

    async def _read(self, stored: Stored, link: Link) -> None:
        event: Any = None
        async with eventlog.open(stored.log) as log:
            watch = Stopwatch()
            async with log.subscribe("replay", SeekPosition.BEGINNING, follow=False) as stream:
                async for batch in stream.batches():
                    event = batch[-1].event
                watch.stop(event, stored, link)


ALL = (TrioEvents, TrioBatches, BlockingEvents, BlockingBatches)
