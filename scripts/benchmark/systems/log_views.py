"""This log, with events read where they lie in the mapped segment (`stream.views()`)."""

from __future__ import annotations

from typing import Any

import eventlog.blocking
from benchmark.systems.base import ConsumerTask
from benchmark.systems.log import BlockingLog


class ViewsLog(BlockingLog):
    """As `BlockingLog`; the consumer gets views of bytes, and copies only the last one."""

    @classmethod
    def missing(cls) -> str | None:
        """It is for versions that have the method."""
        has_views = hasattr(eventlog.blocking.EventStream, "views")
        return super().missing() or (None if has_views else "this eventlog has no stream.views()")

    def _last_of(self, stream: Any, task: ConsumerTask) -> Any:
        for index, view in zip(task.rounds(), stream.views(), strict=False):
            if index == task.count - 1:
                return bytes(view)
        return None
