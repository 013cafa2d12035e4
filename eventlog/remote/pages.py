"""Many records at once, as envelopes: a page of them is unpacked by one C call.

The envelopes of a page share its columns, as those of a local log's batch do. A page with a record
that is not like most (it has a cause, is of another type, marks a key as deleted, or is nobody's of
ours) gives `None`: then each record is unpacked by itself, which tells what is wrong with which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import msgspec

from eventlog.event.arrays import as_array
from eventlog.event.envelope import TIMESTAMP_BYTES, Columns, EventEnvelope, envelopes_of
from eventlog.event.ids import ID_BYTES
from eventlog.event.payload import Deletions, lend_extension, unpack_extension
from eventlog.event.record_batch import FIVE_COLUMNS
from eventlog.remote.driver import Stored

Unpack = Callable[[bytes], Any]
"""Turns the records of a page, packed as one array, into a list of their columns."""
_ARRAY_32: Final = b"\xdd"
_FIRST_BYTE: Final = FIVE_COLUMNS[0]
_first_byte: Final = itemgetter(0)
_REFUSALS: Final = (
    *(msgspec.DecodeError, ValueError, TypeError, OverflowError),
    *(RecursionError, IndexError),
)


class PageColumns(Columns):
    """The columns of a page; its events were stored at times of their own."""

    __slots__ = ("_times_ns",)

    def __init__(
        self,
        base_seq_no: int,
        ids: bytes,
        timestamps: bytes,
        keys: list[str | None] | None,
        headers: list[dict[str, str] | None] | None,
        times_ns: Sequence[int],
    ) -> None:
        super().__init__(base_seq_no, ids, timestamps, keys, headers)
        self._times_ns = times_ns

    def stored_ns_of(self, row: int) -> int:
        """When the server stored it, nanoseconds since 1970."""
        return self._times_ns[row]


def page_unpacker(kind: Any) -> Unpack:
    """What unpacks pages whose payloads are of this type; `None` is whatever they are."""
    page = Any if kind is None else list[tuple[Any, Any, Any, Any, list[kind]]]
    extension = unpack_extension if kind is None else lend_extension
    return msgspec.msgpack.Decoder(page, ext_hook=extension, dec_hook=as_array).decode


def page_of(stored: Sequence[Stored], unpack: Unpack) -> list[EventEnvelope] | None:
    """The envelopes of records whose numbers follow each other, if all are like most."""
    seq_nos, times_ns, records = zip(*stored, strict=True)
    if seq_nos[-1] - seq_nos[0] != len(seq_nos) - 1:
        return None
    try:
        if set(map(_first_byte, records)) != {_FIRST_BYTE}:
            return None
        last_deletion = Deletions.last
        rows = unpack(b"".join((_ARRAY_32, len(records).to_bytes(4, "big"), *records)))
        if Deletions.last is not last_deletion:
            return None
        ids, timestamps, keys, headers, events = zip(*rows, strict=True)
        _check_all(ids, bytes, ID_BYTES)
        _check_all(timestamps, bytes, TIMESTAMP_BYTES)
        _check_all(events, list, 1)
        columns = PageColumns(
            seq_nos[0],
            b"".join(ids),
            b"".join(timestamps),
            _column_of(keys),
            _column_of(headers),
            times_ns,
        )
    except _REFUSALS:
        return None
    return envelopes_of(list(chain.from_iterable(events)), columns)


def _check_all(values: Sequence[Any], kind: type, size: int) -> None:
    if set(map(type, values)) != {kind} or set(map(len, values)) != {size}:
        raise ValueError("a record is of another form")


def _column_of(values: Sequence[list[Any] | None]) -> list[Any] | None:
    """What stands in arrays of one; nothing if there are none."""
    if values.count(None) == len(values):
        return None
    _check_all([one for one in values if one is not None], list, 1)
    return [None if one is None else one[0] for one in values]
