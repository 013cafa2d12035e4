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
                       +-- due          16 bytes for each row (see `due`), or None if none has
                       +-- deletions    rows that mark their key as deleted

Ids are UUIDs of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds and 74 random bits (see
`ids`).
"""

from __future__ import annotations

import time
from abc import ABC
from collections.abc import Collection, Mapping
from datetime import datetime
from itertools import repeat
from typing import Any, Final, cast, final
from uuid import UUID

import msgspec

from eventlog.errors import InvalidArgument, InvalidArgumentType
from eventlog.event.arrays import picklable
from eventlog.event.cause import Cause, Causes, OneCause
from eventlog.event.due import NO_TIMES, Due, checked_due, due_ns_of, due_of_row, pack_due
from eventlog.event.ids import ID_BYTES, id_after, new_id
from eventlog.event.moments import datetime_of, timestamp_ns_of
from eventlog.event.texts import check_headers, check_key

PACKED_DELETION: Final = b"\xc7\x00\x03"  # of an event that marks its key (see `payload`)
TIMESTAMP_BYTES: Final = 8


TextColumn = list[Any] | bytes | None
"""A value for each row, or these packed (see `text_columns`); `None` if no row has one."""


class Columns:
    """What a batch stores of its events beside the payloads, each read only when asked for."""

    __slots__ = (
        "attempts",
        "base_seq_no",
        "causes",
        "deletions",
        "due",
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
        self.due: bytes | None = None
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

    def due_of(self, row: int) -> Due:
        """When groups may hand it out, and until when."""
        return NO_TIMES if self.due is None else due_of_row(self.due, row)

    def id_bytes(self, row: int) -> bytes:
        """The 16 bytes of the id."""
        if len(self.timestamps) == TIMESTAMP_BYTES or len(self.ids) > ID_BYTES:
            return self.ids[row * ID_BYTES : (row + 1) * ID_BYTES]
        return id_after(self.ids, row, self.timestamp_ns(row))


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
        return datetime_of(self.timestamp_ns)

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
        columns = self.columns
        keys = columns.packed_keys  # one call of Python for each event, once they are unpacked
        keys = keys if isinstance(keys, list) else columns.keys
        return None if keys is None else keys[(self.seq_no or 0) - columns.base_seq_no]

    @property
    def headers(self) -> dict[str, str] | None:
        """What the producer noted beside the event."""
        columns = self.columns
        headers = columns.packed_headers
        headers = headers if isinstance(headers, list) else columns.headers
        return None if headers is None else headers[(self.seq_no or 0) - columns.base_seq_no]

    @property
    def cause(self) -> Cause | None:
        """The event that this one came from, if it is a result of a pool; `None` for others."""
        causes = self.columns.causes
        return None if causes is None else causes.of_row(self._row)

    @property
    def due(self) -> Due:
        """`not_before` and `expires` in nanoseconds since 1970; 0 for one that is not set."""
        return self.columns.due_of(self._row)

    @property
    def not_before(self) -> datetime | None:
        """Groups hand the event out at that time (UTC), not before; `None`: at once."""
        moment_ns = self.due.not_before_ns
        return datetime_of(moment_ns) if moment_ns else None

    @property
    def expires(self) -> datetime | None:
        """From that time (UTC) on, groups make a dead letter of the event; `None`: never."""
        moment_ns = self.due.expires_ns
        return datetime_of(moment_ns) if moment_ns else None

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
            *(stored_ns, self.cause, self.is_deletion, self.due),
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
        extra += "".join(f", {name}={moment!r}" for name, moment in self._times().items())
        return f"EventEnvelope({self.event!r}, seq_no={self.seq_no}, id={self.id}{extra})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What rich prints; a struct would show how it is stored."""
        names = ("event", "seq_no", "id", "timestamp", "key", "headers", "stored_at", "cause")
        return [(name, getattr(self, name)) for name in names] + [*self._times().items()]

    def _times(self) -> dict[str, datetime]:
        """Those of `not_before` and `expires` that are set, by their names."""
        moments = {"not_before": self.not_before, "expires": self.expires}
        return {name: moment for name, moment in moments.items() if moment is not None}

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
        return (_rebuild, picklable(self._identity()))


@final
class EventEnvelope(_Fields, ABC):
    """One event as the log hands it out; immutable.

    `event` is the payload, `seq_no` the number in the log (`None` until appended); `id`,
    `timestamp`, `timestamp_ns`, `key`, `headers`, `stored_at`, `cause`, `not_before` and `expires`
    are worked out when they are asked for. `timestamp` is the producer's, `stored_at` the log's
    (`None` until it is stored), `cause` what a result of a pool came from (`None` for other
    events). Groups hand the event out from `not_before` on, and until `expires` (see
    `EventLog.append`).

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
        not_before: datetime | None = None,
        expires: datetime | None = None,
    ) -> EventEnvelope:
        """Wrap `event`; a missing id or timestamp is made now.

        Raises:
            InvalidArgumentType: one of them has another type.
            InvalidArgument: a time is naive, `key` no valid text, `seq_no` below 1, or `expires`
                not after `not_before`.
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
            due=checked_due(
                0 if not_before is None else due_ns_of(not_before),
                0 if expires is None else due_ns_of(expires),
            ),
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
    due: Due = NO_TIMES,
) -> EventEnvelope:
    """An envelope that was somewhere else before, to the nanosecond; the values are checked."""
    return _rebuild(id_bytes, None, timestamp_ns, key, headers, event, cause=cause, due=due)


def _unpacked(column: bytes, base_seq_no: int) -> list[Any]:
    from eventlog.event.text_columns import unpacked  # importing eventlog loads no codec

    return unpacked(column, base_seq_no)


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
    due: Due = NO_TIMES,
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
    columns.due = pack_due({0: due}, 1) if any(due) else None
    return cast("EventEnvelope", Row(event, seq_no, columns))
