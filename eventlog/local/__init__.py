"""The engine of one machine: a mapped directory, and pipes to the process that writes it.

::

    log, blocking_log      the shells of a log for trio and asyncio, and for threads,
    stream, publisher ...  with their streams, publishers and groups
        |
    client      conversations with the writer, producers, members      writer    one process a log
        |                                                                 |
        +--------- groups: who gets which events; the writer runs it -----+
        +--------- wire: what is said on a pipe --------------------------+
        +--------- storage: what lies in the directory -------------------+

`rendezvous` is where the two sides meet: the lock and the socket. `client` and `writer` do not know
each other. Of `groups`, a client uses its values, and what reads a directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventlog.api.blocking_log import EventLog as BlockingEventLog
    from eventlog.api.log import EventLog
    from eventlog.config import AskedOptions

NAME = "local"
OPTIONS = frozenset(
    {
        *("durability", "retention", "on_full", "segment_bytes", "max_event_bytes"),
        *("start_writer", "writer_cpus"),
    }
)


def open_log(address: str, asked: AskedOptions) -> EventLog:
    """A handle, not entered yet, of the log in that directory."""
    from eventlog.local.log import LocalEventLog

    return LocalEventLog(address, asked)


def open_blocking_log(address: str, asked: AskedOptions) -> BlockingEventLog:
    """The open log in that directory, for threads."""
    from eventlog.local.blocking_log import BlockingLocalEventLog

    return BlockingLocalEventLog(address, asked)
