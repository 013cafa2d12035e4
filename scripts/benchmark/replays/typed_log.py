"""This log, decoded into a class of the user's (`subscribe(..., type=)`)."""

from __future__ import annotations

from typing import Any

import msgspec

import eventlog.blocking
from benchmark.processes import Link
from benchmark.replays.base import Replay, Stopwatch, Stored
from benchmark.systems.log_typed import Order
from eventlog import SeekPosition

BEGINNING = SeekPosition.BEGINNING


class TypedEvents(Replay):
    """`for` over the stream."""

    name = "log, typed, event by event"

    def read(self, stored: Stored, link: Link) -> None:
        """Every event."""
        event: Any = None
        with eventlog.blocking.open(stored.log) as log:
            watch = Stopwatch()
            with log.subscribe("replay", BEGINNING, follow=False, type=Order) as stream:
                for envelope in stream:
                    event = envelope.event
                watch.stop(msgspec.to_builtins(event), stored, link)


class TypedBatches(TypedEvents):
    """`for` over its batches."""

    name = "log, typed, batches"

    def read(self, stored: Stored, link: Link) -> None:
        """Every batch, decoded whole."""
        event: Any = None
        with eventlog.blocking.open(stored.log) as log:
            watch = Stopwatch()
            with log.subscribe("replay", BEGINNING, follow=False, type=Order) as stream:
                for batch in stream.batches():
                    event = batch[-1].event
                watch.stop(msgspec.to_builtins(event), stored, link)


ALL = (TypedEvents, TypedBatches)
