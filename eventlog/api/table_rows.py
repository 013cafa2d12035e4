"""What a table holds: the latest event of each key, as stored; and its snapshot's bytes. Pure.

A row has the event's number and packed payload, which is decoded whenever it is looked up. So a
snapshot serves tables of every type. Rows stand in the order of their numbers, and those of events
that the log no longer has are dropped from the front: a table is what `EventLog.latest` says of
each key, however it came to be.

A snapshot::

    offset  size
         0     8  magic, b"EVLOGTAB"
         8     2  version of the format
        10     2  byte order mark, 0x0102
        12     4  CRC-32C of all that follows
        16    16  id of the log
        32     8  number of the last event with a key that it stands for
        40    16  id of that event
        56        rows: MessagePack array of [key, number, packed payload]
"""

from __future__ import annotations

import struct
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from eventlog.api.stream_options import StreamOptions
from eventlog.checksum import crc32c
from eventlog.event.envelope import PACKED_DELETION, EventEnvelope
from eventlog.event.record_batch import Decode, decode_some, mismatch

MAGIC: Final = b"EVLOGTAB"
VERSION: Final = 1
BYTE_ORDER: Final = 0x0102
SNAPSHOT_EVERY: Final = 1000
"""A snapshot is due after so many events, and after as many as the table has keys."""
_HEADER: Final = struct.Struct("<8sHHI16sQ16s")
_CHECKED_FROM: Final = 16


class Row(NamedTuple):
    """The latest event of a key."""

    seq_no: int
    packed: bytes


class Snapshot(NamedTuple):
    """A table as it was at one moment."""

    log_id: bytes
    seq_no: int
    """The last event with a key."""
    event_id: bytes
    """Id of that event: it tells whether the log has the same one still."""
    rows: dict[str, Row]

    def to_bytes(self) -> bytes:
        """The content of the file."""
        rows = msgspec.msgpack.encode([(key, *row) for key, row in self.rows.items()])
        place = self.log_id, self.seq_no, self.event_id
        header = _HEADER.pack(MAGIC, VERSION, BYTE_ORDER, 0, *place)
        checked = crc32c(rows, crc32c(header[_CHECKED_FROM:]))
        return _HEADER.pack(MAGIC, VERSION, BYTE_ORDER, checked, *place) + rows


_ROWS: Final = msgspec.msgpack.Decoder(list[tuple[str, int, bytes]])


def snapshot_in(data: bytes) -> Snapshot:
    """What a file says.

    Raises:
        ValueError: it is damaged, or of a version that this release does not know; it says which.
    """
    if len(data) < _HEADER.size or data[:8] != MAGIC:
        raise ValueError("it does not begin as a snapshot does")
    _, version, byte_order, checked, log_id, seq_no, event_id = _HEADER.unpack_from(data)
    if version != VERSION or byte_order != BYTE_ORDER:
        raise ValueError(f"its format has the version {version}")
    if crc32c(memoryview(data)[_CHECKED_FROM:]) != checked:
        raise ValueError("its checksum is wrong")
    try:
        rows = _ROWS.decode(memoryview(data)[_HEADER.size :])
    except msgspec.DecodeError as error:
        raise ValueError(f"its rows are none: {error}") from error
    return Snapshot(
        log_id, seq_no, event_id, {key: Row(number, packed) for key, number, packed in rows}
    )


class LatestByKey(Mapping[str, Any]):
    """The mapping: looking something up never waits, and never reads the log."""

    def __init__(self, path: str, decode: Decode) -> None:
        self._path = path
        self._decode = decode
        self._rows: dict[str, Row] = {}
        self._seq_no = 0
        self._last_keyed = 0
        self._last_id = b""
        """The last event with a key that was taken in, and its id."""
        self._saved = 0
        """The last event that the latest snapshot stands for."""

    @property
    def seq_no(self) -> int:
        """The last event that the table stands for, with or without a key; 0: none."""
        return self._seq_no

    def __getitem__(self, key: str) -> Any:
        """The latest event of the key.

        Raises:
            KeyError: it has none, or was deleted.
            EventTypeMismatch: the event is not of the table's type.
        """
        return self._event(self._rows[key])

    def __contains__(self, key: object) -> bool:
        """Whether the key has an event, and was not deleted since."""
        return key in self._rows

    def __iter__(self) -> Iterator[str]:
        """The keys, those of the latest events last; the table may go on meanwhile."""
        return iter([*self._rows])

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._rows)

    def items(self) -> ItemsView[str, Any]:
        """Keys and events, as they are when the iteration begins."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """The events, as they are when the iteration begins."""
        return _Values(self)

    def seq_no_of(self, key: str) -> int:
        """The number of the key's latest event; 0 if it has none, or was deleted."""
        row = self._rows.get(key)
        return 0 if row is None else row.seq_no

    def __repr__(self) -> str:
        """The log, and how much there is of it."""
        return f"<{type(self).__name__} of {self._path!r}: {len(self)} keys at {self._seq_no}>"

    def _event(self, row: Row) -> Any:
        try:
            return decode_some([row.packed], [0], self._decode)[0]
        except (msgspec.ValidationError, RecursionError) as error:
            raise mismatch(error, row.seq_no, self._path) from error

    def _all(self) -> list[tuple[str, Row]]:
        return [*self._rows.items()]

    # --- following the log -----------------------------------------------------------------------

    def _apply(self, events: Iterable[EventEnvelope]) -> list[str]:
        """Take events in, in their order; the keys whose latest event is another one now."""
        keys: dict[str, None] = {}
        rows, seen, last = self._rows, self._seq_no, None
        for envelope in events:
            key, seq_no = envelope.key, envelope.seq_no or 0
            if key is None:
                continue
            keys[key] = None
            if seq_no <= seen:
                continue  # `caught_up` was there before
            packed = bytes(envelope.event)
            rows.pop(key, None)  # the order is that of the numbers
            if packed != PACKED_DELETION:
                rows[key] = Row(seq_no, packed)
            last = envelope
        if last is not None:
            self._seq_no = self._last_keyed = last.seq_no or 0
            self._last_id = last.id_bytes
        return [*keys]

    def _pass_to(self, seq_no: int) -> None:
        """All events up to this one were looked at."""
        self._seq_no = max(self._seq_no, seq_no)

    def _drop_before(self, first_available: int) -> None:
        """Drop the rows whose events retention has deleted."""
        for key, row in self._all() if self._is_before(first_available) else ():
            if row.seq_no >= first_available:
                break
            del self._rows[key]

    def _is_before(self, first_available: int) -> bool:
        first = next(iter(self._rows.values()), None)
        return first is not None and first.seq_no < first_available

    def _begin_anew(self) -> None:
        self._rows = {}
        self._seq_no = self._last_keyed = self._saved = 0

    def _take(self, snapshot: Snapshot) -> None:
        self._rows = snapshot.rows
        self._seq_no = self._last_keyed = self._saved = snapshot.seq_no
        self._last_id = snapshot.event_id

    @property
    def _is_snapshot_due(self) -> bool:
        return self._last_keyed - self._saved >= max(SNAPSHOT_EVERY, len(self._rows))

    def _snapshot(self, log_id: UUID) -> Snapshot:
        self._saved = self._last_keyed
        return Snapshot(log_id.bytes, self._last_keyed, self._last_id, dict(self._rows))


class _Items(ItemsView[str, Any]):
    """See `LatestByKey.items`."""

    _mapping: LatestByKey

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((key, self._mapping._event(row)) for key, row in self._mapping._all())


class _Values(ValuesView[Any]):
    """See `LatestByKey.values`."""

    _mapping: LatestByKey

    def __iter__(self) -> Iterator[Any]:
        return (self._mapping._event(row) for _, row in self._mapping._all())


def options_of_reading(*, follow: bool) -> StreamOptions:
    """How a table reads its log: events with a key, as they are stored, from the first there is."""
    return StreamOptions(follow=follow, on_truncated="skip", type=msgspec.Raw, key_prefix="")
