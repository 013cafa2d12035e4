"""The engine over a NATS server's JetStream: a log is a stream, an event is one message of it.

::

    shell (`remote`) -> crossing -> driver -> appends, reading, positions -> feed, link -> server

`address` what an address says of servers, stream and user
`appends` appends that are stored once, in order
`client` the client of the library, which sends no secret in clear
`crossing` the driver for trio, too
`driver` the driver: opens the log, and hands its calls on
`feed` messages of a stream, one after the other
`link` the connection: calls that end
`positions` positions of consumers, in a bucket
`reading` events of the log
`streams` how the streams are set, and checked
`times` times as the server writes them

The client library (the extra `jetstream`) is loaded with the first handle.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from eventlog.config import AskedOptions
from eventlog.jetstream.address import parse
from eventlog.jetstream.streams import NAME

if TYPE_CHECKING:
    from eventlog.remote.log import RemoteEventLog

__all__ = ["NAME", "OPTIONS", "open_log"]

OPTIONS: Final = frozenset({"durability", "retention", "max_event_bytes", "retry_s"})


def open_log(address: str, asked: AskedOptions) -> RemoteEventLog:
    """A handle, not entered yet, of the log that `nats://host:port/stream` means.

    Raises:
        InvalidArgument: the address is none.
        NotSupported: the client library is not installed, or no stream can keep an option.
    """
    parsed = parse(address, os.environ)
    from eventlog.jetstream.crossing import CrossingDriver
    from eventlog.jetstream.driver import JetStreamDriver
    from eventlog.remote.log import RemoteEventLog

    return RemoteEventLog(
        address, asked, lambda: CrossingDriver(lambda: JetStreamDriver(parsed, asked))
    )
