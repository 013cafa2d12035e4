"""What a benchmark is run with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

Durability = Literal["memory", "disk", "sync"]

REPEAT_DEFAULT: Final = 3
QUICK_REPEAT: Final = 1
QUICK_DIVISOR: Final = 10
COUNT_UNIT: Final = 1000
"""Event counts are multiples of this, so that lists of it come out even."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of the command line, checked.

    `repeat`: rounds of each workload. `is_quick`: a tenth of the events. `is_long`: also
    what takes many minutes. `directory`: where logs and sockets go while a run lasts.
    """

    directory: str
    repeat: int = REPEAT_DEFAULT
    is_quick: bool = False
    is_long: bool = False
    durability: Durability = "disk"

    def scaled(self, count: int) -> int:
        """As many events as asked for, or a tenth of them."""
        if not self.is_quick:
            return count
        unit = min(COUNT_UNIT, max(count // QUICK_DIVISOR, 1))
        return max(count // QUICK_DIVISOR // unit, 1) * unit

    @contextmanager
    def new_directory(self) -> Iterator[str]:
        """An empty directory for one run, removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="run-", dir=self.directory) as path:
            yield path
