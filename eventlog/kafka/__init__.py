"""The engine over Apache Kafka: a log is a topic of one partition, an event is one record of it.

::

    kafka://user:password@host:9092/orders      (kafka+tls:// with TLS)

    RemoteEventLog -> KafkaDriver -> Sender  -> a producer, in a thread: whole batches, in order
                      |             Reads    -> a consumer of one partition, in threads
                      |             Client   -> what else is asked of the cluster
                      `- Journal -> Ledger   -> a topic of commands: positions and groups

An event's number is its offset and one. Positions and groups are what the commands in a second
topic, the journal, make of nothing: every handle reads the same commands in the same order, so all
of them know the same, and the broker decides who was first.

=============  ==================================================
`address`      an address, taken apart; pure
`client`       calls of the cluster, and how clients are set
`driver`       the log
`group`        a group of it, and what is asked of groups
`group_state`  the groups in a ledger; pure
`journal`      the topic of commands, written and followed
`ledger`       what the commands say; pure
`reading`      events of the log
`refusals`     what errors of the client library mean
`sender`       records on their way, stored once
`topics`       how topics are set, and checked; pure
`watch`        the end of the log, for members that wait for events
=============  ==================================================
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from eventlog.api.extras import check_extra

if TYPE_CHECKING:
    from eventlog.config import AskedOptions
    from eventlog.remote.log import RemoteEventLog

NAME: Final = "kafka"
OPTIONS: Final = frozenset(
    {"durability", "retention", "max_event_bytes", "retry_s", "lease_s", "user", "password"}
)


def open_log(address: str, asked: AskedOptions) -> RemoteEventLog:
    """A handle, not entered yet, of the log that `kafka://host:port/topic` means.

    Raises:
        InvalidArgument: the address is none.
        NotSupported: the client library is not installed.
    """
    from eventlog.kafka.address import parse

    parsed = parse(address, os.environ, asked)
    check_extra("kafka", "logs on Kafka need", engine=NAME)
    from eventlog.kafka.driver import KafkaDriver
    from eventlog.remote.log import RemoteEventLog

    return RemoteEventLog(address, asked, lambda: KafkaDriver(parsed, asked))
