"""This log, with a subscriber that asks again and again before it sleeps (`subscribe(spin=)`)."""

from __future__ import annotations

import inspect
from typing import Any, Final

import eventlog.blocking
from benchmark.systems.base import ConsumerTask
from benchmark.systems.log import BlockingLog

SPIN_S: Final = 0.01
"""Longer than between two events of a thousand a second: it never sleeps."""


class SpinningLog(BlockingLog):
    """As `BlockingLog`, with `spin=`."""

    @classmethod
    def missing(cls) -> str | None:
        """It is for versions that have the option."""
        parameters = inspect.signature(eventlog.blocking.EventLog.subscribe).parameters
        why = None if "spin" in parameters else "this eventlog has no subscribe(spin=)"
        return super().missing() or why

    def consume(self, task: ConsumerTask) -> None:
        """`for` over the events."""
        options: dict[str, Any] = {"spin": SPIN_S}
        with (
            eventlog.blocking.open(self.path) as log,
            log.subscribe(f"consumer-{task.index}", **options) as stream,
        ):
            task.ready()
            task.received(self._last_of(stream, task))
