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
from the writer
65    Welcome     the answer to `Hello`: protocol version, writer's pid, epoch, the log's id
66    Appended    the number of the batch's first event
67    Done        the request is carried out
68    Wake        the high-water mark, at or past what was waited for
69    StatusReport
70    Failed      the request was refused: error name, message, fields
71    Joined      the member's page, and the lease that it still has, if any
72    Leased      a lease: its events, and how often each of them failed before
73    Revoke      unasked: others are idle, so give back what can be given back of a lease
74    Condemned   events, with how often they failed and whose they were last
75    Counted     how many there were
====  ==========  ==================================================================================
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import msgpack

from eventlog import errors
from eventlog.config import LEASE_RANGES_MAX
from eventlog.errors import EventLogError, LogFull, ProtocolError
from eventlog.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Condemned,
    Counted,
    Dismiss,
    DropDead,
    Join,
    Joined,
    Lease,
    Leased,
    Leave,
    Nack,
    OpenGroup,
    Release,
    RetryDead,
    Revoke,
    Settle,
)

PROTOCOL_VERSION: Final = 1
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
    payload: bytes


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


class Status(NamedTuple):
    """Ask for what only the writer knows."""

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


class Done(NamedTuple):
    """The request is carried out."""

    request_id: int


class Wake(NamedTuple):
    """Look again: events up to `high_water` are published."""

    request_id: int
    high_water: int


class StatusReport(NamedTuple):
    """What only the writer knows."""

    request_id: int
    connections: int


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
}
_NUMBERS: Final = {kind: number for number, kind in TYPES.items()}
_FIELD_TYPES: Final[dict[type[Message], tuple[type, ...]]] = {
    Hello: (str, int, int),
    Append: (int, int, int, int, int, int, bytes),
    Ack: (int, str, int),
    Seek: (int, str, int),
    Forget: (int, str),
    Park: (int, int),
    Status: (int,),
    OpenGroup: (int, str, str, int, int),
    Join: (int, str, int, int, int),
    Lease: (int, int, int),
    Settle: (int, int, tuple),
    Nack: (int, int, int, int),
    Release: (int, int, tuple),
    Bury: (int, str, int, int, bytes),
    Leave: (int,),
    AwaitCondemned: (int, str, int),
    AwaitDrained: (int, str, int),
    RetryDead: (int, str, tuple),
    DropDead: (int, str, tuple),
    Dismiss: (int, str, int),
    Welcome: (int, int, int, bytes),
    Appended: (int, int),
    Done: (int,),
    Wake: (int, int),
    StatusReport: (int, int),
    Failed: (int, str, str, dict),
    Joined: (int, int, int, tuple, tuple),
    Leased: (int, int, tuple, tuple),
    Revoke: (int, int),
    Condemned: (int, tuple),
    Counted: (int, int),
}
_PAIRS: Final = frozenset({Settle, Release, RetryDead, DropDead, Joined, Leased})
"""Their last fields are pairs of numbers."""
_BIN_32: Final = struct.Struct(">BI")
_LARGEST_INT: Final = 2**64


def pack_message(message: Message) -> bytes:
    """The message as one MessagePack array."""
    # A path that is no UTF-8 comes back as it was, inside an error.
    packed: bytes = msgpack.packb(
        (_NUMBERS[type(message)], *message), unicode_errors="surrogateescape"
    )
    return packed


def pack_append_head(message: Append) -> bytes:
    """What `pack_message` gives, without the payload that ends it."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(1 + len(message))
    for field in (_NUMBERS[Append], *message[:-1]):
        packer.pack(field)
    return packer.bytes() + _BIN_32.pack(0xC6, len(message.payload))


def unpack_message(data: bytes | memoryview) -> Message:
    """The message that the bytes hold.

    Raises:
        ProtocolError: they hold none; whatever the bytes are, nothing else is raised.
    """
    try:
        fields = msgpack.unpackb(
            data, use_list=False, strict_map_key=True, unicode_errors="surrogateescape"
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a frame holds no MessagePack value: {error}") from error
    if not isinstance(fields, tuple) or not fields or not isinstance(fields[0], int):
        raise ProtocolError("a frame holds no message")
    kind = TYPES.get(fields[0])
    if kind is None:
        raise ProtocolError(f"a message of the unknown type {fields[0]}")
    values = fields[1:]
    types = _FIELD_TYPES[kind]
    if len(values) != len(types) or tuple(map(type, values)) != types:
        raise ProtocolError(f"a {kind.__name__} message with other fields than it has")
    if any(isinstance(value, int) and not 0 <= value < _LARGEST_INT for value in values):
        raise ProtocolError(f"a {kind.__name__} message with a number out of range")
    for value in values:
        if isinstance(value, tuple):
            _check_tuples(value, 2 if kind in _PAIRS else 3)
    return kind(*values)


def _check_tuples(value: tuple[object, ...], size: int) -> None:
    """Pass if it is a bounded list of pairs (or triples) of numbers."""
    if len(value) > LEASE_RANGES_MAX:
        raise ProtocolError(f"a message with {len(value)} ranges; the limit is {LEASE_RANGES_MAX}")
    for one in value:
        if not isinstance(one, tuple) or len(one) != size:
            raise ProtocolError("a message with ranges that are none")
        if not all(type(number) is int and 0 <= number < _LARGEST_INT for number in one):
            raise ProtocolError("a message with ranges that hold no numbers")


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
