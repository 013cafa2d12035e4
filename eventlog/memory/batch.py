"""A batch as a log in memory stores it: packed, as it came."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from eventlog.errors import CorruptLog
from eventlog.event.envelope import EventEnvelope
from eventlog.event.filters import EventFilter, unpack_matching
from eventlog.event.record_batch import (
    Decode,
    PackedBatch,
    areas_bytes,
    due_area,
    mismatch,
    note_due,
    unpack_body,
)


class Batch(NamedTuple):
    """A stored batch."""

    base_seq_no: int
    append_time_ns: int
    steady_ns: int
    """When it was stored, by a clock that never jumps (see `storage.times`)."""
    packed: PackedBatch

    @property
    def last_seq_no(self) -> int:
        """The number of its last event."""
        return self.base_seq_no + self.packed.count - 1

    def envelopes(
        self, path: str, decode: Decode, wanted: EventFilter | None = None
    ) -> list[EventEnvelope]:
        """Its events, unpacked anew; only those that the filter wants, if there is one."""
        count, flags, acks_bytes, payload = self.packed
        if wanted is not None and wanted.refuses(flags, count, payload):
            return []
        body = payload[areas_bytes(count, flags, acks_bytes) :]
        if wanted is not None and wanted.lacks(body, count):
            return []
        try:
            if wanted is not None:
                time_ns = self.append_time_ns
                found = unpack_matching(body, count, self.base_seq_no, wanted, decode, time_ns)
            else:
                found = unpack_body(body, count, self.base_seq_no, decode, self.append_time_ns)
            note_due(found, self.due())
            return found
        except (msgspec.ValidationError, RecursionError) as error:
            raise mismatch(error, self.base_seq_no, path) from error
        except (ValueError, TypeError) as error:
            raise CorruptLog(
                f"event {self.base_seq_no} of the log {path} was not written by eventlog; read on"
                " after it",
                path=path,
                seq_no=self.base_seq_no,
                last_seq_no=self.last_seq_no,
            ) from error

    def due(self) -> bytes | None:
        """The due times of its events (see `event.due`); `None` if they have none."""
        count, flags, _, payload = self.packed
        return due_area(flags, count, payload)
