"""What client and writer say to each other: each message is declared here, or in `group_messages`.

A declaration is a class. Its `tag` is the message's number on the pipe, its base says who says it,
its fields follow the number in that order. What a client says also declares its answer, whether it
may be said twice, and whether it waits. All else derives from that: the table of who may say what
(`table`), decoding and checking (by msgspec, in C), and the examples in the tests.

Annotations are evaluated here, which saves msgspec 3 ms in each process.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import msgpack
from msgspec import Meta, Raw, Struct

from eventlog import errors
from eventlog.errors import EventLogError, LogFull, ProtocolError, WrongExpectation

PROTOCOL_VERSION: Final = 1
MEMBER_VERSION: Final = 2
"""What members of groups say of themselves: a writer that knows `FailDelivery` takes both versions,
and answers in the one that it was greeted with; an earlier one refuses the greeting."""
VERSIONS: Final = (PROTOCOL_VERSION, MEMBER_VERSION)
HELLO_MAGIC: Final = "eventlog"
FOLLOWS: Final = 0x80
"""A flag of `Append` and `AppendStaged` that is never stored: the batch is of one call with the
producer's batch before it, and is refused if that was refused on this connection."""

Number = Annotated[int, Meta(ge=0)]
"""MessagePack itself has none above 2**64 - 1."""
Zero = Annotated[int, Meta(ge=0, examples=[0])]
"""A number whose usual value is 0."""
if TYPE_CHECKING:
    Payload = bytes | memoryview
else:
    Payload = memoryview  # msgspec makes a view of the frame, without a copy


class Message(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A MessagePack array: the message's number, then its fields. Nobody changes one."""


class FromWriter(Message):
    """What the writer says."""


class Answer(FromWriter):
    """What the writer says to a request; with a `request_id` of 0 it is said unasked."""

    request_id: Number


class Done(Answer, tag=67):
    """The request is carried out."""


class FromClient(Message):
    """What a client says: one answer follows, which is `Failed` if the writer refuses."""

    answer: ClassVar[type[FromWriter]] = Done


class Request(FromClient):
    """What a client says once it was welcomed. Its `request_id` is repeated by the answer."""

    is_repeatable: ClassVar[bool] = True
    """It may be said again when the pipe broke before the answer came: twice does no harm."""
    waits: ClassVar[bool] = False
    """It is answered when something happens, perhaps in a month."""
    may_be_unknown: ClassVar[bool] = False
    """A writer of an older release hangs up on it."""
    needs_log: ClassVar[bool] = False
    """The writer looks first whether the log was deleted, and refuses it then."""

    request_id: Number


# --- the greeting --------------------------------------------------------------------------------


class Welcome(FromWriter, tag=65):
    """The first message of the writer, unless it refuses."""

    version: Annotated[int, Meta(ge=0, examples=[PROTOCOL_VERSION])]
    pid: Number
    epoch: Number
    log_id: bytes


class Hello(FromClient, tag=1):
    """The first message of a client."""

    answer = Welcome

    magic: Annotated[str, Meta(examples=[HELLO_MAGIC])]
    version: Annotated[int, Meta(ge=0, examples=[PROTOCOL_VERSION])]
    pid: Number


class Failed(Answer, tag=70):
    """The request was refused, for this reason; the connection goes on.

    `failed` makes one of an error, and `error_of` an error of one. Its text and its fields stay
    packed, because a path in them need not be UTF-8.
    """

    error: str
    message: Raw
    fields: Raw


# --- appending -----------------------------------------------------------------------------------


class Appended(Answer, tag=66):
    """The batch is stored, from this number on."""

    base_seq_no: Number


class Append(Request, tag=2):
    """Store a record batch; `payload` is what `record_batch` describes.

    The writer knows a batch that it has stored by its producer's numbers, and stores it once.
    """

    answer = Appended
    needs_log = True

    producer_id: Number
    producer_seq: Number
    count: Number
    flags: Zero
    acks_bytes: Zero
    payload: Payload


class AppendIf(Request, tag=28):
    """Store a record batch, unless the log is not as expected: `WrongExpectation` then.

    `base_seq_no` is the number that the first event is to get, 0 for any; `last_seq_nos` has the
    number of the last event of each key that is named, 0 for none. A batch that is stored already
    is answered as it was, however the log is by now.
    """

    answer = Appended
    may_be_unknown = True
    needs_log = True
    acks_bytes: ClassVar[int] = 0

    producer_id: Number
    producer_seq: Number
    count: Number
    flags: Zero
    base_seq_no: Zero
    last_seq_nos: Annotated[dict[str, Number], Meta(examples=[{"key": 2}])]
    payload: Payload


class Staged(Answer, tag=76):
    """The ring has this many bytes; its descriptor comes with the first byte of this frame."""

    size: Number


class Stage(Request, tag=21):
    """Make a staging ring: memory of this connection alone, for what a pipe would copy twice."""

    answer = Staged
    is_repeatable = False


class AppendStaged(Request, tag=22):
    """Store a record batch whose bytes lie in the staging ring, and stay there until the answer."""

    answer = Appended
    is_repeatable = False

    producer_id: Number
    producer_seq: Number
    count: Number
    flags: Zero
    position: Zero
    length: Number


# --- consuming -----------------------------------------------------------------------------------


class Ack(Request, tag=3):
    """Everything up to and including `seq_no` is processed."""

    needs_log = True

    consumer: str
    seq_no: Number


class AckState(Request, tag=30):
    """The same, and the consumer's state after it; `None` keeps the one that it has."""

    may_be_unknown = True
    needs_log = True

    consumer: str
    seq_no: Number
    state: Annotated[bytes | None, Meta(examples=[b"state"])]


class Seek(Request, tag=4):
    """Event `position + 1` is the consumer's next one."""

    needs_log = True

    consumer: str
    position: Number


class Forget(Request, tag=5):
    """Remove the consumer."""

    needs_log = True

    consumer: str


class Wake(Answer, tag=68):
    """Look again: events up to `seq_no` are published, or synced."""

    seq_no: Number


class Park(Request, tag=6):
    """Wake me when event `seq_no` is published; at once if it already is."""

    answer = Wake
    waits = True

    seq_no: Number


class AwaitSynced(Request, tag=23):
    """Wake me when event `seq_no` is on the disk; at once if it already is."""

    answer = Wake
    waits = True

    seq_no: Number


# --- the writer itself ---------------------------------------------------------------------------


class StatusReport(Answer, tag=69):
    """What only the writer knows."""

    connections: Number


class Status(Request, tag=7):
    """Ask who serves."""

    answer = StatusReport
    needs_log = True


class StatisticsReport(Answer, tag=78):
    """The fields of `WriterStatistics` that the writer knows."""

    numbers: Annotated[dict[str, Any], Meta(examples=[{"batches": 2}])]


class Statistics(Request, tag=27):
    """Ask for what the writer has counted."""

    answer = StatisticsReport
    may_be_unknown = True


class Configure(Request, tag=32):
    """Change these options of the log, by name as the control page has them; the others stay."""

    may_be_unknown = True
    needs_log = True

    options: Annotated[dict[str, Any], Meta(examples=[{"on_full": "error"}])]


class TrimmedTo(Answer, tag=83):
    """So many events are deleted; the oldest that is stored now."""

    deleted: Number
    first_available: Number


class Trim(Request, tag=33):
    """Delete whole segments before event `before`; `force`: also what is not acknowledged."""

    answer = TrimmedTo
    may_be_unknown = True
    needs_log = True

    before: Number
    force: Annotated[bool, Meta(examples=[False])]


class StandDown(Request, tag=24):
    """Leave, so that I can be the writer; who says this holds the directory's lock.

    `Done` if the writer does, as one that clients started; `Failed` from one that was told to
    serve.
    """

    is_repeatable = False


def failed(request_id: int, error: EventLogError) -> Failed:
    """The answer that carries an error back to the caller's process."""
    return Failed(request_id, type(error).__name__, _packed(str(error)), _packed(error.fields))


def error_of(message: Failed) -> EventLogError:
    """The error that the writer meant, as the caller's process knows it."""
    kind = getattr(errors, message.error, EventLogError)
    if not (isinstance(kind, type) and issubclass(kind, EventLogError)):
        kind = EventLogError
    known = {"path", "consumer", "seq_no", "first_available", "last_seq_no"}
    if kind is LogFull:
        known.add("is_by_retention")
    if kind is WrongExpectation:
        known.add("key")
    try:
        text, fields = _unpacked(message.message), _unpacked(message.fields)
        return kind(str(text), **{name: fields[name] for name in known.intersection(fields)})
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        return ProtocolError(f"the writer refused a request with what is no reason: {error}")


def _packed(value: Any) -> Raw:
    return Raw(msgpack.packb(value, unicode_errors="surrogateescape"))


def _unpacked(value: Raw) -> Any:
    return msgpack.unpackb(value, unicode_errors="surrogateescape")
