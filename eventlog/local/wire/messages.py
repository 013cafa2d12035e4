"""The messages of the protocol, and nothing about how they travel.

A message is a MessagePack array: its type number, then its fields in the order given here. Requests
carry a `request_id` that the answer repeats.

====  ==========  ==================================================================================
from a client
1     Hello       the first thing said: magic, protocol version, pid
2     Append      store a record batch: one answer, `Appended` or `Failed`
3     Ack         move a consumer's position forward
4     Seek        set a consumer's position
5     Forget      remove a consumer
6     Park        answer with `Wake` once event `seq_no` is published
7     Status      who serves: answered with `StatusReport`
8     OpenGroup   make the group if need be, with these options
9     Join        become a member of a group, or go on as one: answered with `Joined`
10    Lease       ask for events to work on: answered with `Leased`, once there are some
11    Settle      these events of a lease are done
12    Nack        the handler of an event of a lease failed: try it again after a while
13    Release     these events of a lease were not begun: give them to somebody else
14    Bury        an event is a dead letter
15    Leave       no member any more
16    AwaitCondemned  answered with `Condemned` once events have used up their deliveries
17    AwaitDrained    answered once the group is done with everything up to a number
18    RetryDead   hand dead letters out again: answered with `Counted`
19    DropDead    forget dead letters: answered with `Counted`
20    Dismiss     a member's process has ended, whoever still holds its pipe
21    Stage       ask for a staging ring: answered with `Staged`, or refused
22    AppendStaged  as `Append`, of a batch that lies in the ring
23    AwaitSynced  answer with `Wake` once event `seq_no` is on the disk
24    StandDown   leave for a writer that was told to serve: answered with `Done`, or refused
25    Excuse      a pool is left, and what its members have begun has not failed
26    FailDelivery  an event's handler failed: it is tried again, or a dead letter (version 2)
27    Statistics  what the writer has counted: answered with `StatisticsReport`; an older
            writer, which does not know it, hangs up
from the writer
65    Welcome     the answer to `Hello`: protocol version, writer's pid, epoch, the log's id
66    Appended    the number of the batch's first event
67    Done        the request is carried out
68    Wake        the mark, at or past what was waited for
69    StatusReport
70    Failed      the request was refused: error name, message, fields
71    Joined      the member's page, and the lease that it still has, if any
72    Leased      a lease: its events, and how often each of them failed before
73    Revoke      unasked: others are idle, so give back what can be given back of a lease
74    Condemned   events, with how often they failed and whose they were last
75    Counted     how many there were
76    Staged      the size of the ring, whose descriptor comes with the first byte of this frame
78    StatisticsReport  numbers by name, as `eventlog.api.statistics` declares them
====  ==========  ==================================================================================
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from eventlog import errors
from eventlog.errors import EventLogError, LogFull
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Condemned,
    Counted,
    Dismiss,
    DropDead,
    Excuse,
    FailDelivery,
    Join,
    Joined,
    Lease,
    Leased,
    Leave,
    Nack,
    OpenGroup,
    Passed,
    Release,
    RetryDead,
    Revoke,
    Settle,
)

PROTOCOL_VERSION: Final = 1
FOLLOWS: Final = 0x80
"""A flag of `Append` and `AppendStaged` that is never stored: the batch is of one call with the
producer's batch before it, and is refused if that was refused on this connection."""
MEMBER_VERSION: Final = 2
"""What members of groups say of themselves: a writer that knows `FailDelivery` takes both versions,
and answers in the one that it was greeted with; an earlier one refuses the greeting."""
VERSIONS: Final = (PROTOCOL_VERSION, MEMBER_VERSION)
HELLO_MAGIC: Final = "eventlog"


class Hello(NamedTuple):
    """The first message of a client."""

    magic: str
    version: int
    pid: int


class Append(NamedTuple):
    """A record batch; `payload` is what `record_batch` describes."""

    request_id: int
    producer_id: int
    producer_seq: int
    count: int  # type: ignore[assignment]  # hides tuple.count, of no use here
    flags: int
    acks_bytes: int
    payload: bytes | memoryview


class Stage(NamedTuple):
    """Ask for memory of this connection alone, for batches that a pipe would copy twice."""

    request_id: int


class AppendStaged(NamedTuple):
    """A record batch whose bytes lie in the staging ring; they stay there until the answer."""

    request_id: int
    producer_id: int
    producer_seq: int
    count: int  # type: ignore[assignment]  # as in `Append`
    flags: int
    position: int
    length: int


class Ack(NamedTuple):
    """Everything up to and including `seq_no` is processed."""

    request_id: int
    consumer: str
    seq_no: int


class Seek(NamedTuple):
    """Event `position + 1` is the consumer's next one."""

    request_id: int
    consumer: str
    position: int


class Forget(NamedTuple):
    """Remove the consumer."""

    request_id: int
    consumer: str


class Park(NamedTuple):
    """Wake me when event `seq_no` is published; at once if it already is."""

    request_id: int
    seq_no: int


class AwaitSynced(NamedTuple):
    """Wake me when event `seq_no` is on the disk; at once if it already is."""

    request_id: int
    seq_no: int


class Status(NamedTuple):
    """Ask for what only the writer knows."""

    request_id: int


class StandDown(NamedTuple):
    """Leave, so that I can be the writer; who says this holds the directory's lock.

    `Done` if the writer does, as one that clients started; `Failed` from one that was told to
    serve.
    """

    request_id: int


class Statistics(NamedTuple):
    """Ask for what the writer has counted."""

    request_id: int


class Welcome(NamedTuple):
    """The first message of the writer."""

    version: int
    pid: int
    epoch: int
    log_id: bytes


class Appended(NamedTuple):
    """The batch is stored, from this number on."""

    request_id: int
    base_seq_no: int


class Staged(NamedTuple):
    """The ring is there, this many bytes of it."""

    request_id: int
    size: int


class Done(NamedTuple):
    """The request is carried out."""

    request_id: int


class Wake(NamedTuple):
    """Look again: events up to `seq_no` are published, or synced."""

    request_id: int
    seq_no: int


class StatusReport(NamedTuple):
    """What only the writer knows."""

    request_id: int
    connections: int


class StatisticsReport(NamedTuple):
    """The fields of `WriterStatistics` that the writer knows."""

    request_id: int
    numbers: dict[str, Any]


class Failed(NamedTuple):
    """The request was refused, for this reason; the connection goes on."""

    request_id: int
    error: str
    message: str
    fields: dict[str, Any]


ClientMessage = (
    Hello
    | Append
    | Ack
    | Seek
    | Forget
    | Park
    | Status
    | OpenGroup
    | Join
    | Lease
    | Settle
    | Nack
    | Release
    | Bury
    | Leave
    | AwaitCondemned
    | AwaitDrained
    | RetryDead
    | DropDead
    | Dismiss
    | Stage
    | AppendStaged
    | AwaitSynced
    | StandDown
    | Excuse
    | Statistics
    | FailDelivery
)
WriterMessage = (
    Welcome
    | Appended
    | Done
    | Wake
    | StatusReport
    | Failed
    | Joined
    | Leased
    | Revoke
    | Condemned
    | Counted
    | Staged
    | Passed
    | StatisticsReport
)
Message = ClientMessage | WriterMessage

TYPES: Final[dict[int, type[Message]]] = {
    1: Hello,
    2: Append,
    3: Ack,
    4: Seek,
    5: Forget,
    6: Park,
    7: Status,
    8: OpenGroup,
    9: Join,
    10: Lease,
    11: Settle,
    12: Nack,
    13: Release,
    14: Bury,
    15: Leave,
    16: AwaitCondemned,
    17: AwaitDrained,
    18: RetryDead,
    19: DropDead,
    20: Dismiss,
    21: Stage,
    22: AppendStaged,
    23: AwaitSynced,
    24: StandDown,
    25: Excuse,
    26: FailDelivery,
    27: Statistics,
    65: Welcome,
    66: Appended,
    67: Done,
    68: Wake,
    69: StatusReport,
    70: Failed,
    71: Joined,
    72: Leased,
    73: Revoke,
    74: Condemned,
    75: Counted,
    76: Staged,
    77: Passed,
    78: StatisticsReport,
}


def failed(request_id: int, error: EventLogError) -> Failed:
    """The answer that carries an error back to the caller's process."""
    return Failed(request_id, type(error).__name__, str(error), error.fields)


def error_of(message: Failed) -> EventLogError:
    """The error that the writer meant, as the caller's process knows it."""
    kind = getattr(errors, message.error, EventLogError)
    if not (isinstance(kind, type) and issubclass(kind, EventLogError)):
        kind = EventLogError
    known = {"path", "consumer", "seq_no", "first_available", "last_seq_no"}
    if kind is LogFull:
        known.add("is_by_retention")
    fields = {name: value for name, value in message.fields.items() if name in known}
    return kind(message.message, **fields)
