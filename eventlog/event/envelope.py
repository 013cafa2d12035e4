"""`EventEnvelope`: an event with its id, time, key, headers, cause and number.

A batch stores ids, times, keys, headers and causes as columns beside the payloads (see
`record_batch`), and an envelope is one row of them. It is a struct of three references, so a
batch's worth is made by one `map` in C, and nothing is converted until it is asked for::

    event, seq_no, columns
                       |
                       +-- base_seq_no the number of the first row
                       +-- stored_ns   when the writer stored the batch, or None before that
                       +-- ids         16 bytes for each row, or one base id for all
                       +-- timestamps   8 bytes for each row
                       +-- keys         list or packed list, or None if no row has one
                       +-- headers      list or packed list, or None if no row has one
                       +-- causes       what gives the cause of a row, or None if no row has one
                       +-- deletions    rows that mark their key as deleted

Ids are UUIDs of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds and 74 random bits. Ids
made by a batch share one random base: row i has the milliseconds of its own timestamp and the
base's random bits plus i, so one `os.urandom` serves a whole batch, in every process of its own.
"""

from __future__ import annotations

import os
import time
from abc import ABC
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any, Final, cast, final
from uuid import UUID

import msgspec

from eventlog.errors import InvalidArgument, InvalidArgumentType
from eventlog.event.cause import Cause, Causes, OneCause
from eventlog.event.texts import check_headers, check_key

ID_BYTES: Final = 16
PACKED_DELETION: Final = b"\xc7\x00\x03"  # of an event that marks its key (see `payload`)
TIMESTAMP_BYTES: Final = 8
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
RANDOM_BITS: Final = 74
_RANDOM_MASK: Final = (1 << RANDOM_BITS) - 1
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1


TextColumn = list[Any] | bytes | None
"""A value for each row, or these packed (see `text_columns`); `None` if no row has one."""


class Columns:
    """What a batch stores of its events beside the payloads, each read only when asked for."""

    __slots__ = (
        "attempts",
        "base_seq_no",
        "causes",
        "deletions",
        "ids",
        "packed_headers",
        "packed_keys",
        "stored_ns",
        "timestamps",
    )

    def __init__(
        self,
        base_seq_no: int,
        ids: bytes,
        timestamps: bytes,
        keys: TextColumn,
        headers: TextColumn,
        stored_ns: int | None = None,
        *,
        causes: Causes | OneCause | None = None,
    ) -> None:
        self.base_seq_no = base_seq_no
        self.stored_ns = stored_ns
        self.ids = ids
        self.timestamps = timestamps
        self.packed_keys = keys
        """Packed until somebody asks for a key, and so `packed_headers`."""
        self.packed_headers = headers
        self.causes = causes
        self.attempts: dict[int, int] | None = None
        self.deletions: Collection[int] = ()

    @property
    def keys(self) -> list[str | None] | None:
        """A key for each row.

        Raises:
            CorruptLog: the producer has packed something else.
        """
        keys = self.packed_keys
        if isinstance(keys, bytes):
            keys = self.packed_keys = _unpacked(keys, self.base_seq_no)
        return keys

    @property
    def headers(self) -> list[dict[str, str] | None] | None:
        """The headers of each row.

        Raises:
            CorruptLog: the producer has packed something else.
        """
        headers = self.packed_headers
        if isinstance(headers, bytes):
            headers = self.packed_headers = _unpacked(headers, self.base_seq_no)
        return headers

    def note_attempt(self, seq_no: int, attempt: int) -> None:
        """Say that a group hands the event out for the second time, or a later one."""
        if self.attempts is None:
            self.attempts = {}
        self.attempts[seq_no] = attempt

    def timestamp_ns(self, row: int) -> int:
        """The producer's clock, nanoseconds since 1970."""
        start = row * TIMESTAMP_BYTES
        return int.from_bytes(self.timestamps[start : start + TIMESTAMP_BYTES], "little")

    def stored_ns_of(self, row: int) -> int | None:
        """When the writer stored it, nanoseconds since 1970."""
        return self.stored_ns

    def id_bytes(self, row: int) -> bytes:
        """The 16 bytes of the id."""
        if len(self.timestamps) == TIMESTAMP_BYTES or len(self.ids) > ID_BYTES:
            return self.ids[row * ID_BYTES : (row + 1) * ID_BYTES]
        return _id_after(self.ids, row, self.timestamp_ns(row))


class _Fields:
    """What an envelope is, whichever class its constructor is of."""

    __slots__ = ()

    event: Any
    seq_no: int | None
    columns: Columns

    @property
    def id(self) -> UUID:
        """A UUID of version 7, unless the producer set another."""
        return UUID(bytes=self.id_bytes)

    @property
    def id_bytes(self) -> bytes:
        """The 16 bytes of `id`."""
        return self.columns.id_bytes(self._row)

    @property
    def timestamp(self) -> datetime:
        """The producer's clock when it made the envelope (UTC); it means nothing for order."""
        return _EPOCH + timedelta(microseconds=self.timestamp_ns // 1000)

    @property
    def timestamp_ns(self) -> int:
        """`timestamp` in nanoseconds since 1970."""
        return self.columns.timestamp_ns(self._row)

    @property
    def stored_at(self) -> datetime | None:
        """When the writer stored the event (UTC); `None` until then.

        It is what a seek by time and retention go by: the writer's clock, one time for a batch.
        """
        stored_ns = self.columns.stored_ns_of(self._row)
        return None if stored_ns is None else datetime_of(stored_ns)

    @property
    def key(self) -> str | None:
        """What events are ordered by in a keyed group."""
        keys = self.columns.keys
        return None if keys is None else keys[self._row]

    @property
    def headers(self) -> dict[str, str] | None:
        """What the producer noted beside the event."""
        headers = self.columns.headers
        return None if headers is None else headers[self._row]

    @property
    def cause(self) -> Cause | None:
        """The event that this one came from, if it is a result of a pool; `None` for others."""
        causes = self.columns.causes
        return None if causes is None else causes.of_row(self._row)

    @property
    def attempt(self) -> int:
        """Which delivery this is, where a group hands out the event (1 is the first); else 1."""
        attempts = self.columns.attempts
        return 1 if attempts is None else attempts.get(self.seq_no or 0, 1)

    @property
    def is_deletion(self) -> bool:
        """Whether it marks its key as deleted (see `EventLog.delete`); its `event` is `None`."""
        if type(self.event) is msgspec.Raw:
            return bytes(self.event) == PACKED_DELETION
        return self.event is None and self._row in self.columns.deletions

    @property
    def _row(self) -> int:
        return (self.seq_no or 0) - self.columns.base_seq_no

    def _identity(self) -> tuple[Any, ...]:
        """All that tells one envelope from another, the id first."""
        columns = self.columns
        id_bytes, stored_ns = columns.id_bytes(self._row), columns.stored_ns_of(self._row)
        return (
            *(id_bytes, self.seq_no, self.timestamp_ns, self.key, self.headers, self.event),
            *(stored_ns, self.cause, self.is_deletion),
        )

    def __eq__(self, other: object) -> bool:
        """Equal in every field."""
        if not isinstance(other, _Fields):
            return NotImplemented
        return self._identity() == other._identity()

    def __ne__(self, other: object) -> bool:
        """Not equal; a struct has its own, which would compare identities."""
        return not self == other

    def __hash__(self) -> int:
        """The id's hash: equal envelopes have equal ids."""
        return hash(self.columns.id_bytes(self._row))

    def __repr__(self) -> str:
        """The fields that a reader of a log file looks for."""
        extra = f", key={self.key!r}" if self.key is not None else ""
        extra += f", headers={self.headers!r}" if self.headers is not None else ""
        extra += f", cause={self.cause!r}" if self.cause is not None else ""
        return f"EventEnvelope({self.event!r}, seq_no={self.seq_no}, id={self.id}{extra})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What rich prints; a struct would show how it is stored."""
        names = ("event", "seq_no", "id", "timestamp", "key", "headers", "stored_at", "cause")
        return [(name, getattr(self, name)) for name in names]

    def __replace__(self, **changes: Any) -> EventEnvelope:
        """What `copy.replace` gives; `stored_at` is the log's to set and stays as it is."""
        if changes.keys() == {"event"}:  # all else is the same: of its batch, and its delivery
            return cast("EventEnvelope", Row(changes["event"], self.seq_no, self.columns))
        fields = dict(self.__rich_repr__())
        del fields["stored_at"]
        replaced = EventEnvelope(**fields | changes)
        replaced.columns.stored_ns = self.columns.stored_ns_of(self._row)
        replaced.columns.deletions = (0,) if self.is_deletion and "event" not in changes else ()
        return replaced

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle this row alone, not the columns of its whole batch."""
        return (_rebuild, self._identity())


@final
class EventEnvelope(_Fields, ABC):
    """One event as the log hands it out; immutable.

    `event` is the payload, `seq_no` the number in the log (`None` until appended); `id`,
    `timestamp`, `timestamp_ns`, `key`, `headers`, `stored_at` and `cause` are worked out when they
    are asked for. `timestamp` is the producer's, `stored_at` the log's (`None` until it is stored),
    `cause` what a result of a pool came from (`None` for other events).

    `append` takes one too, where a program wants to set the id or the time itself; the number is
    always the log's. The garbage collector passes over envelopes: don't make one a part of its own
    event.
    """

    __slots__ = ()

    def __new__(
        cls,
        event: Any,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: UUID | None = None,  # noqa: A002 - the attribute's name is the contract's
        timestamp: datetime | None = None,
        seq_no: int | None = None,
        cause: Cause | None = None,
    ) -> EventEnvelope:
        """Wrap `event`; a missing id or timestamp is made now.

        Raises:
            InvalidArgumentType: one of them has another type.
            InvalidArgument: `timestamp` is naive, `key` no valid text, or `seq_no` below 1.
        """
        timestamp_ns = time.time_ns() if timestamp is None else timestamp_ns_of(timestamp)
        if id is not None and not isinstance(id, UUID):
            raise InvalidArgumentType(f"the id is {id!r}; give a uuid.UUID")
        if seq_no is not None and (isinstance(seq_no, bool) or not isinstance(seq_no, int)):
            raise InvalidArgumentType(f"the sequence number is {seq_no!r}; give a whole number")
        if cause is not None and not isinstance(cause, Cause):
            raise InvalidArgumentType(f"the cause is {cause!r}; give an eventlog.Cause")
        if seq_no is not None and seq_no < 1:
            raise InvalidArgument(f"the sequence number is {seq_no}; numbers start at 1")
        return _rebuild(
            new_id(timestamp_ns) if id is None else id.bytes,
            seq_no,
            timestamp_ns,
            None if key is None else check_key(key),
            None if headers is None else check_headers(headers),
            event,
            cause=cause,
        )


@EventEnvelope.register
class Row(_Fields, msgspec.Struct, frozen=True, eq=False, gc=False):
    """What every `EventEnvelope` really is: it is made, and its fields are read, in C.

    A class of its own, because a struct cannot have the constructor that users see. The garbage
    collector does not look at it, which saves as much again: an envelope that is part of its own
    event is the only cycle there could be.
    """

    event: Any
    seq_no: int | None
    columns: Columns


Row.__name__ = Row.__qualname__ = "EventEnvelope"  # what errors and rich call it


def envelopes_of(events: list[Any], columns: Columns) -> list[EventEnvelope]:
    """The envelopes of a whole batch."""
    first = columns.base_seq_no
    rows = map(Row, events, range(first, first + len(events)), repeat(columns))
    return cast("list[EventEnvelope]", list(rows))


def envelope_of(
    event: Any,
    *,
    id_bytes: bytes,
    timestamp_ns: int,
    key: str | None,
    headers: dict[str, str] | None,
    cause: Cause | None = None,
) -> EventEnvelope:
    """An envelope that was somewhere else before, to the nanosecond; the values are checked."""
    return _rebuild(id_bytes, None, timestamp_ns, key, headers, event, cause=cause)


def timestamp_ns_of(moment: datetime) -> int:
    """Nanoseconds since 1970 of an aware datetime.

    Raises:
        InvalidArgumentType: it is not a datetime.
        InvalidArgument: it is naive, or before 1970.
    """
    if not isinstance(moment, datetime):
        raise InvalidArgumentType(f"the time is {moment!r}; give an aware datetime")
    if moment.tzinfo is None:
        raise InvalidArgument(f"the time {moment} is naive; give it a time zone, such as UTC")
    timestamp_ns = (moment - _EPOCH) // _MICROSECOND * 1000
    if not 0 <= timestamp_ns < 2**63:
        raise InvalidArgument(f"the time {moment} is outside of the years 1970 to 2262")
    return timestamp_ns


def datetime_of(timestamp_ns: int) -> datetime:
    """The aware datetime (UTC) of nanoseconds since 1970, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=timestamp_ns // 1000)


def new_id(timestamp_ns: int) -> bytes:
    """A fresh UUIDv7 for that time."""
    return id_of(timestamp_ns, int.from_bytes(os.urandom(10), "little") & _RANDOM_MASK)


def _unpacked(column: bytes, base_seq_no: int) -> list[Any]:
    from eventlog.event.text_columns import unpacked  # importing eventlog loads no codec

    return unpacked(column, base_seq_no)


def _id_after(base: bytes, row: int, timestamp_ns: int) -> bytes:
    value = int.from_bytes(base, "big")
    random = (value & _LOW_MASK) | ((value >> 64 & 0xFFF) << _LOW_BITS)
    return id_of(timestamp_ns, (random + row) & _RANDOM_MASK)


def id_of(timestamp_ns: int, random: int) -> bytes:
    """The UUIDv7 of that time and of those `RANDOM_BITS`."""
    milliseconds = (timestamp_ns // 1_000_000) & 0xFFFF_FFFF_FFFF
    high = milliseconds << 16 | 0x7 << 12 | random >> _LOW_BITS
    low = 0b10 << 62 | (random & _LOW_MASK)
    return (high << 64 | low).to_bytes(ID_BYTES, "big")


def _rebuild(  # noqa: PLR0917 - pickles, also older ones, call it so
    id_bytes: bytes,
    seq_no: int | None,
    timestamp_ns: int,
    key: str | None,
    headers: dict[str, str] | None,
    event: Any,
    stored_ns: int | None = None,
    cause: Cause | None = None,
    is_deletion: bool = False,
) -> EventEnvelope:
    columns = Columns(
        seq_no or 0,
        id_bytes,
        timestamp_ns.to_bytes(TIMESTAMP_BYTES, "little"),
        None if key is None else [key],
        None if headers is None else [headers],
        stored_ns,
        causes=None if cause is None else OneCause(cause),
    )
    columns.deletions = (0,) if is_deletion else ()
    return cast("EventEnvelope", Row(event, seq_no, columns))
