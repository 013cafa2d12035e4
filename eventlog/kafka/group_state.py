"""Groups in a ledger."""

from __future__ import annotations

from typing import Any

from eventlog.remote.driver import Position


class GroupsState:
    def __init__(self, positions: dict[str, Position]) -> None:
        self._positions = positions

    def apply(self, name: str, arguments: list[Any], now_ns: int) -> Any:
        return None

    def moved(self, consumer: str, position: int, *, is_ack: bool) -> None:
        pass

    def forget(self, consumer: str) -> None:
        pass

    def dump(self) -> Any:
        return []

    def load(self, dumped: Any) -> None:
        pass
