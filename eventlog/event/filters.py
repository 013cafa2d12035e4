"""`EventFilter`: which events of a log a reader wants, by key and headers; and their unpacking.

Four looks at a batch, each deeper than the one before. Most batches need only the first two, most
events only the third::

    refuses          key hashes say that no key of the batch is wanted: nothing else of it is read
    lacks            the wanted bytes stand nowhere in its packed keys or headers
    rows             keys and headers say which of its events are wanted
    unpack_matching  the payloads of these are decoded, the others stay packed

Pure.
"""

from __future__ import annotations

import gc
import struct
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, cast

import msgspec

from eventlog.errors import InvalidArgument, InvalidArgumentType
from eventlog.event.envelope import Columns, EventEnvelope, Row
from eventlog.event.packed_columns import columns_in, payloads_at
from eventlog.event.payload import PLAIN_OPTIONS, pack_plain
from eventlog.event.record_batch import (
    FIVE_COLUMNS,
    FLAG_KEYED,
    Decode,
    check_columns,
    columns_of,
    decode_any,
    decode_some,
    key_hash,
    packed_columns,
    take_deletions,
    text_column,
    unpack_body,
)
from eventlog.event.text_columns import KEY_HASH_BYTES
from eventlog.event.texts import check_headers, check_key

SMALL_BYTES: Final = 8192
"""A body up to this size is searched as a whole, which takes less than finding its columns."""
LOOKED_INTO_FROM: Final = 16
"""Events of a batch from which on finding its columns takes less than unpacking them."""
FEW_ROWS: Final = 4
"""Up to so many payloads of a large batch are found one by one."""
FOUND_BY_BYTES_MAX: Final = 4
"""Up to so many keys are looked for one by one, as bytes; more are compared as numbers."""


class EventFilter:
    """Keys and headers that an event must have; all that is given must hold."""

    __slots__ = (
        "_hashes",
        "_numbers",
        "_pairs",
        "_prefix",
        "headers",
        "key_hashes",
        "key_prefix",
        "keys",
    )

    def __init__(
        self,
        *,
        keys: Iterable[str] | None = None,
        key_prefix: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.keys: frozenset[str] | None = None
        """One of these is the event's key; of those that were given, the ones with the prefix."""
        if keys is not None:
            self.keys = frozenset(key for key in keys if key.startswith(key_prefix or ""))
        self.key_prefix = key_prefix
        """The event's key begins so."""
        self.headers = None if headers is None else dict(headers)
        """The event has all these headers, and perhaps others."""
        self._prefix = (key_prefix or "").encode()
        self._pairs = [_packed_pair(*pair) for pair in (headers or {}).items()]
        """Each name and its value, as they stand one after the other in packed headers."""
        self.key_hashes = frozenset(map(key_hash, self.keys or ()))
        self._hashes = {_packed_hash(key) for key in self.keys or ()}
        self._numbers = {struct.unpack("=I", packed)[0] for packed in self._hashes}
        """The same, as this machine reads four bytes of the area of hashes."""

    @classmethod
    def of(
        cls, keys: object = None, key_prefix: object = None, headers: object = None
    ) -> EventFilter | None:
        """The filter of what a stream was asked for; `None` if it wants every event.

        Raises:
            InvalidArgument, InvalidArgumentType: an argument makes no sense.
        """
        if keys is None and key_prefix is None and headers is None:
            return None
        return cls(
            keys=None if keys is None else _check_keys(keys),
            key_prefix=None if key_prefix is None else _check_key_prefix(key_prefix),
            headers=None if headers is None else _check_pairs(headers),
        )

    def __repr__(self) -> str:
        """What it wants."""
        given = {"keys": self.keys, "key_prefix": self.key_prefix, "headers": self.headers}
        texts = [f"{name}={value!r}" for name, value in given.items() if value is not None]
        return f"EventFilter({', '.join(texts)})"

    def refuses(self, flags: int, count: int, buffer: bytes | memoryview, start: int = 0) -> bool:
        """Whether no event of a batch is wanted, by the key hashes that begin at `start`.

        Events without a key have none, so a batch without these has no key at all. `False` says
        nothing: two keys may have one hash, and headers are looked at later.
        """
        if self.keys is None:
            return self.key_prefix is not None and not flags & FLAG_KEYED
        if not flags & FLAG_KEYED:
            return True
        area = bytes(buffer[start : start + count * KEY_HASH_BYTES])
        if len(self._hashes) > FOUND_BY_BYTES_MAX:
            return self._numbers.isdisjoint(memoryview(area).cast("I"))
        for packed in self._hashes:  # noqa: SIM110 - `all` would take three times as long
            if packed in area and _holds(area, packed):
                return False
        return True

    def lacks(self, body: bytes | memoryview, count: int) -> bool:
        """Whether no event of a body is wanted, by a search for bytes in its keys and headers.

        `False` says nothing: the prefix of a key may stand in the middle of another one, and the
        names and values that are wanted may be several events'.
        """
        if self.key_prefix is None and self.headers is None:
            return False
        if len(body) <= SMALL_BYTES:
            keys = headers = bytes(body)  # whatever stands nowhere in it stands in no key
        else:
            try:
                _, _, keys, headers, _ = columns_in(body, count)
            except ValueError:
                return False  # whoever unpacks it says what is wrong
        if self._prefix not in keys:
            return True
        for pair in self._pairs:  # noqa: SIM110 - `any` would take half as long again
            if pair not in headers:
                return True
        return False

    def rows(self, columns: Columns, count: int) -> Sequence[int]:
        """The rows of a batch of `count` events that are wanted, in order.

        Raises:
            CorruptLog: the producer has packed something else than keys or headers.
        """
        rows: Sequence[int] = range(count)
        keys = [] if columns.keys is None else columns.keys
        if self.keys is not None:
            rows = _rows_with(keys, self.keys)
        elif self.key_prefix is not None:
            prefix = self.key_prefix
            rows = [
                row for row, key in enumerate(keys) if type(key) is str and key.startswith(prefix)
            ]
        if self.headers is None:
            return rows
        headers, pairs = columns.headers or [None] * count, self.headers.items()
        return [
            row for row in rows if isinstance(one := headers[row], dict) and pairs <= one.items()
        ]


def unpack_matching(
    body: bytes | memoryview,
    count: int,
    base_seq_no: int,
    wanted: EventFilter,
    decode: Decode = decode_any,
    stored_ns: int | None = None,
) -> list[EventEnvelope]:
    """The envelopes of a batch that the filter wants; the payloads of others stay packed.

    Raises:
        msgspec.ValidationError, RecursionError, ValueError: as `unpack_body`, of these payloads.
        CorruptLog: as `EventFilter.rows`.
    """
    was_collecting = gc.isenabled()
    gc.disable()  # as in `unpack_body`
    try:
        if count >= LOOKED_INTO_FROM and body[:1] == FIVE_COLUMNS:
            found = _found_in_packed(body, count, base_seq_no, wanted, decode, stored_ns)
            if found is not None:
                return found
        payloads, columns = columns_of(body, count, base_seq_no, packed_columns, stored_ns)
        rows = wanted.rows(columns, count)
        if len(rows) == count:
            return unpack_body(body, count, base_seq_no, decode, stored_ns)
        return _envelopes([payloads[row] for row in rows], rows, columns, decode)
    finally:
        if was_collecting:
            gc.enable()


def _found_in_packed(
    body: bytes | memoryview,
    count: int,
    base_seq_no: int,
    wanted: EventFilter,
    decode: Decode,
    stored_ns: int | None,
) -> list[EventEnvelope] | None:
    """What is wanted, if that is little of much, and so found without unpacking all payloads."""
    ids, timestamps, keys, headers, events = columns_in(body, count)
    texts = text_column(msgspec.Raw(keys)), text_column(msgspec.Raw(headers))
    check_columns(ids, timestamps, *texts, count)
    columns = Columns(base_seq_no, ids, timestamps, *texts, stored_ns)
    rows = wanted.rows(columns, count)
    if len(rows) > FEW_ROWS:
        return None
    return _envelopes(payloads_at(body, events, rows), rows, columns, decode)


def _envelopes(
    payloads: list[Any], rows: Sequence[int], columns: Columns, decode: Decode
) -> list[EventEnvelope]:
    events = decode_some(payloads, rows, decode)
    columns.deletions = [rows[place] for place in take_deletions(events)]
    base_seq_no = columns.base_seq_no
    envelopes = [
        Row(event, base_seq_no + row, columns) for event, row in zip(events, rows, strict=True)
    ]
    return cast("list[EventEnvelope]", envelopes)


def _rows_with(keys: Sequence[object], wanted: frozenset[str]) -> list[int]:
    """The rows with one of the keys."""
    if len(wanted) != 1:
        return [row for row, key in enumerate(keys) if type(key) is str and key in wanted]
    [key], rows, row = wanted, [], -1
    with suppress(ValueError):  # there are no more
        while True:
            row = keys.index(key, row + 1)
            rows.append(row)
    return rows


def _packed_pair(name: str, value: str) -> bytes:
    """The two as every producer packs them: in MessagePack's shortest form."""
    packed: bytes = pack_plain({name: value}, None, PLAIN_OPTIONS)
    return packed[1:]


def _packed_hash(key: str) -> bytes:
    return zlib.crc32(key.encode()).to_bytes(KEY_HASH_BYTES, "little")


def _holds(area: bytes, packed: bytes) -> bool:
    """Whether one of the hashes in the area is that one, and not the end of one and the next."""
    place = area.find(packed)
    while place % KEY_HASH_BYTES:
        place = area.find(packed, place + 1)
        if place < 0:
            return False
    return place >= 0


def _check_keys(keys: object) -> Collection[str]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Collection):
        raise InvalidArgumentType(f"keys={keys!r:.80}; give a set of keys, such as {{'account-7'}}")
    if not keys:
        raise InvalidArgument("keys is empty, and no event has one of no keys; give one or more")
    return [check_key(key) for key in keys]


def _check_key_prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        raise InvalidArgumentType(f"key_prefix={prefix!r:.80}; give a string")
    return check_key(prefix)


def _check_pairs(headers: Any) -> dict[str, str]:
    found = check_headers(headers)
    if not found:
        raise InvalidArgument("headers is empty; give one or more pairs that an event must have")
    return found
