"""What the processes hold: looked at now and then, and held against limits at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

WRITER_MIB_MAX = 150
WRITER_DESCRIPTORS_MAX = 250


class Sample(NamedTuple):
    """One process at one moment."""

    mib: float
    """Private memory."""
    descriptors: int
    maps: int


def sample(pid: int) -> Sample | None:
    """What a process holds now; `None` if it is gone."""
    with suppress(OSError, ValueError):
        status = Path(f"/proc/{pid}/status").read_text()
        (anonymous,) = [line.split()[1] for line in status.splitlines() if "RssAnon" in line]
        maps = Path(f"/proc/{pid}/maps").read_text().count("\n")
        return Sample(int(anonymous) / 1024, len(os.listdir(f"/proc/{pid}/fd")), maps)
    return None


class Highest:
    """The most that any writer held at any time."""

    def __init__(self) -> None:
        self.mib = 0.0
        self.descriptors = 0
        self.maps = 0
        self.samples = 0

    def look(self, pid: int | None) -> None:
        """Take a sample of a writer."""
        one = sample(pid) if pid is not None else None
        if one is not None:
            self.mib = max(self.mib, one.mib)
            self.descriptors = max(self.descriptors, one.descriptors)
            self.maps = max(self.maps, one.maps)
            self.samples += 1

    def check(self) -> Iterator[str]:
        """Sentences about what was too much."""
        if self.mib > WRITER_MIB_MAX:
            yield f"a writer held {self.mib:.0f} MiB; the limit is {WRITER_MIB_MAX}"
        if self.descriptors > WRITER_DESCRIPTORS_MAX:
            yield f"a writer held {self.descriptors} descriptors, of {WRITER_DESCRIPTORS_MAX}"


def leftovers(marker: str) -> dict[int, str]:
    """The processes that have the marker in their environment and should be gone, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if marker.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(entry.name)] = command
    return found
