"""This log, with events read where they lie in the mapped segment (`type=memoryview`)."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmark.systems.log import BlockingLog


class ViewsLog(BlockingLog):
    """As `BlockingLog`; the consumer gets views of bytes, and copies only the last one."""

    options: ClassVar[dict[str, Any]] = {"type": memoryview}

    @staticmethod
    def plain(event: Any) -> Any:
        """A copy."""
        return bytes(event)
