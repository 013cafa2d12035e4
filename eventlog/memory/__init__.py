"""The engine in this process's memory: the reference that other engines are tested against.

=================  ==================================================
`model`            the log itself; nothing in it waits
`batch`            a batch as it stores it
`keys`             the last event of each key, for conditional appends
`handle`           what both kinds of handle have
`groups`           a group of it, pure: leases, deliveries, key order, dead letters
`letters`          the dead letters of a group, pure
`coordinator`      its groups, with the log, a clock and results
`member`           a member and its leases; nothing in it waits
`feed`             what a stream reads next
`log`              the shell for trio and asyncio
`group`            the shell of groups for trio and asyncio
`blocking_log`     the shell for threads
`blocking_group`   the shell of groups for threads
=================  ==================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventlog.api.blocking_log import EventLog as BlockingEventLog
    from eventlog.api.log import EventLog
    from eventlog.config import AskedOptions

NAME = "memory"
OPTIONS = frozenset({"durability", "retention", "on_full", "segment_bytes", "max_event_bytes"})


def open_log(address: str, asked: AskedOptions) -> EventLog:
    """A handle, not entered yet, of the log that `memory:NAME` means."""
    from eventlog.memory.log import InMemoryEventLog

    return InMemoryEventLog(address.partition(":")[2], asked)


def open_blocking_log(address: str, asked: AskedOptions) -> BlockingEventLog:
    """The open log that `memory:NAME` means, for threads."""
    from eventlog.memory.blocking_log import BlockingInMemoryEventLog

    return BlockingInMemoryEventLog(address.partition(":")[2], asked)
