"""A log that is deleted and made anew while only followers and a pool have it open."""

from __future__ import annotations

import random
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from eventlog import EventLogError, blocking

EVENTS: Final = 50
ABSENT_S: Final = 2.0
TRIES: Final = 20


class RemadeLog:
    """The log, and when it was deleted."""

    def __init__(self, path: str, seed: int) -> None:
        self.path = path
        self.deleted_ns: list[int] = []
        self._chance = random.Random(f"remade {seed}")

    def make(self) -> None:
        """Make the log and append to it; all events name the same producer, another each time."""
        name = f"remade-{len(self.deleted_ns)}"
        for _ in range(TRIES):
            with suppress(EventLogError), blocking.open(self.path) as log:
                log.append_many({"p": name, "n": number} for number in range(EVENTS))
                return
            time.sleep(0.1)

    def delete(self) -> None:
        """Delete the directory at once, or move it aside first."""
        self.deleted_ns.append(time.monotonic_ns())
        if self._chance.random() < 0.5:
            aside = Path(f"{self.path}.{len(self.deleted_ns)}")
            Path(self.path).rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def absent_s(self) -> float:
        """How long there is no log: mostly not at all."""
        return self._chance.choice([0.0, 0.0, self._chance.uniform(0, ABSENT_S)])
