"""This log, with events decoded into a class of the user's (`subscribe(..., type=)`)."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import msgspec

import eventlog.blocking
from benchmark.systems.base import ConsumerTask
from benchmark.systems.log import BlockingLog


class Order(msgspec.Struct):
    """The dict that is sent, as a class."""

    order: int
    customer: str
    items: list[str]
    total: float
    paid: bool
    currency: str
    note: str


def why_untyped() -> str | None:
    """Why typed decoding cannot be measured; `None` if it can."""
    parameters = inspect.signature(eventlog.blocking.EventLog.subscribe).parameters
    return None if "type" in parameters else "this eventlog has no subscribe(type=)"


class TypedLog(BlockingLog):
    """As `BlockingLog`; the consumer gets instances of `Order`."""

    @classmethod
    def missing(cls) -> str | None:
        """It is for versions that have the method."""
        return super().missing() or why_untyped()

    def consume(self, task: ConsumerTask) -> None:
        """`for` over the events, or over the batches."""
        options: dict[str, Any] = {"type": Order}
        with (
            eventlog.blocking.open(self.path) as log,
            log.subscribe(f"consumer-{task.index}", **options) as stream,
        ):
            task.ready()
            task.received(msgspec.to_builtins(self._last_of(stream, task)))


typed_log_batched = partial(TypedLog, in_batches=True)
