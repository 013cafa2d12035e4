"""What happened in a simulation, entry by entry: what the checkers judge and people read.

An entry is who did what, with its fields; `checker`, `positions` and `groups` say which there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One thing that happened, as a client saw it, or one fault that was made."""

    step: int
    who: str
    what: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.fields.items())
        return f"{self.step:5} {self.who:12} {self.what} {told}".rstrip()


class Violation(NamedTuple):
    """A promise that a history breaks."""

    kind: str
    text: str
    step: int

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step}: {self.text}"


class Checker:
    """Judges a history entry by entry: an entry `x` goes to the method `on_x`, if there is one."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._step = 0

    def note(self, entry: Entry) -> None:
        """Take the next entry."""
        self._step = entry.step
        method = getattr(self, f"on_{entry.what}", None)
        if method is not None:
            method(entry.who, **entry.fields)

    def blame(self, kind: str, text: str) -> None:
        """Note a violation at this entry."""
        self.violations.append(Violation(kind, text, self._step))


def state_at(seq_no: int) -> bytes:
    """What a consumer has made of all events up to there."""
    return b"state of %d" % seq_no
