"""Payloads on their way into columns: packed while they are gathered, and then decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from eventlog.errors import CorruptLog
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import (
    Decode,
    decode_any,
    decode_some,
    packed_columns,
    plain_decoder_for,
    take_deletions,
)

ROW_FIELDS_MAX: Final = 64
"""Rows have a place for each field that is known: with many, most of them would be empty."""
MISSES_MAX: Final = 16
"""Batches that do not fit, after which none is tried until more fields are known."""


class PackedDecoder:
    """The decoder that leaves payloads packed, and counts their bytes."""

    def __init__(self) -> None:
        self.decoded_bytes = 0
        """Bytes of all bodies so far; 0 where an engine decodes by itself."""

    def __call__(self, body: bytes | memoryview) -> Any:
        """The columns of a body; see `record_batch.Decode`."""
        self.decoded_bytes += len(body)
        try:
            return packed_columns(body)
        except (ValueError, RecursionError):
            return decode_any(body)


class RowDecoder:
    """Decodes payloads: to rows, where events have no other fields than those known."""

    def __init__(self) -> None:
        self._decode: Decode | None = None
        self._misses = 0

    def learn(self, names: Sequence[str]) -> None:
        """Decode to rows of these fields from now on."""
        self._decode, self._misses = None, 0
        if 0 < len(names) <= ROW_FIELDS_MAX:
            fields = {f"field_{place}": name for place, name in enumerate(names)}
            try:
                row = msgspec.defstruct(
                    "Row",
                    [(place, Any, None) for place in fields],
                    rename=fields,
                    forbid_unknown_fields=True,
                    gc=False,
                )
            except ValueError:  # a name with a quote or a line end is none for a struct
                return
            self._decode = plain_decoder_for(row)

    def decode(self, payloads: Sequence[Any], first: EventEnvelope) -> list[Any]:
        """The values of some packed payloads, those of `first` and what follows it.

        Raises:
            CorruptLog: they cannot be decoded.
        """
        rows = range(len(payloads))
        if self._decode is not None and self._misses < MISSES_MAX:
            try:
                return decode_some(payloads, rows, self._decode)
            except (ValueError, TypeError, OverflowError, RecursionError):
                self._misses += 1
        try:
            values = decode_some(payloads, rows, decode_any)
        except ValueError as error:
            raise CorruptLog(
                f"the events from {first.seq_no} on cannot be decoded: {error}; they were stored so"
                " by their producer",
                seq_no=first.seq_no,
            ) from error
        take_deletions(values)
        return values
