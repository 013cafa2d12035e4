"""What a finding is; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "problem"]
"""A note asks for nothing, a warning will become a problem, a problem is one now."""
Remedy = Literal["repair", "socket", "modes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str
    """A word: place, room, access, format, writer, files, consumers, ..."""
    what: str
    do: str | None = None
    """What to do about it; `None` if nothing."""
    remedy: Remedy | None = None
    """What `--fix` does about it."""


def size(count: int) -> str:
    """Bytes for people."""
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
