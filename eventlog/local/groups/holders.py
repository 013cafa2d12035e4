"""Members of a group and their leases: the values that `GroupState` keeps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from eventlog.local.groups.ranges import Range, RangeSet

RECENT_MAX: Final = 16
"""Leases of a member that are through, remembered so that a repeated message does no harm."""


@dataclass(slots=True)
class Member:
    """A process that takes part."""

    member_id: int
    pid: int
    start: int
    """When the process started; with the pid it names one process (see `storage.identity`)."""
    slot: int
    """The slot of its page."""
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))


@dataclass(slots=True)
class Lease:
    """Events that a member works on."""

    lease_id: int
    member_id: int
    given: tuple[Range, ...]
    """All of them, in the order of the rows in the member's page."""
    open: RangeSet
    """Those that were neither done nor given back."""
