"""The engine over a NATS server's JetStream: a log is a stream, an event is one message of it.

::

    shell (`remote`) -> crossing -> driver -> appends, reading, positions -> feed, link -> server
                                        `-- group -> handing_out, results -> document -> bucket

A group is one JSON document in the log's bucket, beside the position of the consumer of its name.
Every step of a member is a change of that document, stored if nobody else has changed it meanwhile:
so a lease, a settlement and a dead letter are each one step, whoever is killed at whatever time.

`address` what an address says of servers, stream and user; pure
`answers` what comes over a connection, for whoever asked
`appends` appends that are stored once, in order
`bucket` keys and values: read, and written by revision
`client` the client of the library, which sends no secret in clear
`connection` one connection, from its greeting to its end
`credentials` who asks, in the words of the client library
`crossing` the driver for trio, too
`crossing_groups` its groups for trio, too
`document` a consumer's document, changed by several handles
`driver` the driver: opens the log, and hands its calls on
`feed` messages of a stream, one after the other
`group` what members say, as changes of the document
`handing_out` which events a member gets
`letters` dead letters, in the bucket
`link` the connection: calls that end
`parts` what an open log has for its groups
`positions` positions of consumers, in the bucket
`reading` events of the log
`records` events that a group hands out
`results` results for the group's own log, each stored once
`state` what a document holds; pure
`streams` how the streams are set, and checked; pure
`times` times as the server writes them; pure
`watch` word of changes, for members that wait

The client library (the extra `jetstream`) is loaded with the first handle.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from eventlog.api.extras import check_extra
from eventlog.config import CREDENTIALS, AskedOptions
from eventlog.jetstream.address import parse
from eventlog.jetstream.streams import NAME

if TYPE_CHECKING:
    from eventlog.remote.log import RemoteEventLog

__all__ = ["NAME", "OPTIONS", "open_log"]

OPTIONS: Final = frozenset(
    {"durability", "retention", "max_event_bytes", "retry_s", "lease_s", *CREDENTIALS}
)


def open_log(address: str, asked: AskedOptions) -> RemoteEventLog:
    """A handle, not entered yet, of the log that `nats://host:port/stream` means.

    Raises:
        InvalidArgument: the address is none.
        NotSupported: the client library is not installed, or no stream can keep an option.
    """
    parsed = parse(address, os.environ, asked)
    check_extra("jetstream", "logs on NATS need", engine=NAME)
    from eventlog.jetstream.crossing import CrossingDriver
    from eventlog.jetstream.driver import JetStreamDriver
    from eventlog.remote.log import RemoteEventLog

    return RemoteEventLog(
        address, asked, lambda: CrossingDriver(lambda: JetStreamDriver(parsed, asked))
    )
