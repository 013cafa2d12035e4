"""An engine as somebody else would ship it: asynchronous only, found by its entry point.

It keeps its logs where the memory engine does, so what the suite tests here is the way from an
address to an engine, and the blocking log that is made over an asynchronous one.
"""

from __future__ import annotations

from typing import Final

from eventlog.config import AskedOptions
from eventlog.memory import OPTIONS
from eventlog.memory.log import InMemoryEventLog

__all__ = ["NAME", "OPTIONS", "open_log"]

NAME: Final = "toy"


class ToyEventLog(InMemoryEventLog):
    """A log in memory under another scheme."""

    prefix = "toy://"


def open_log(address: str, asked: AskedOptions) -> ToyEventLog:
    """A handle of the log that `toy://NAME` means."""
    return ToyEventLog(address.removeprefix(ToyEventLog.prefix), asked)
