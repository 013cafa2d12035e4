"""Groups: consumers that share one position among many members. Decisions; only `stored` does I/O.

=============  ==========================================================================
`ranges`       sets of sequence numbers
`order`        which events may be handed out next
`state`        one group: position, leases, deliveries; changed by records only
`endings`      what becomes of events whose member is gone, or that are deleted
`acks`         acknowledgements that travel with a batch of results
`losses`       what a group still says of events that a loss of power took
`stored`       groups and dead letters, read without a writer
=============  ==========================================================================

The writer owns the groups (`writer.group_desk`); members ask it for leases, read the events from
their own maps, and settle them. `groups.stored` reads what is on the disk without a writer.
"""

from __future__ import annotations

from eventlog.local.groups.ranges import ranges_of
from eventlog.local.groups.stored import (
    DeadLetter,
    GroupReport,
    MemberPages,
    fitting_letter,
    pack_letter,
    read_dead_letters,
    read_groups,
)
from eventlog.local.storage.members import pool_of

__all__ = [
    "DeadLetter",
    "GroupReport",
    "MemberPages",
    "fitting_letter",
    "pack_letter",
    "pool_of",
    "ranges_of",
    "read_dead_letters",
    "read_groups",
]
