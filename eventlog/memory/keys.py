"""The last event of each key of a log in memory, for conditional appends."""

from __future__ import annotations

from collections.abc import Iterable

from eventlog.event.packed_columns import keys_in
from eventlog.event.record_batch import PackedBatch, areas_bytes


class LastOfKeys:
    """The number of the last stored event of each key; made when it is first asked for."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] | None = None

    def find(self, key: str, stored: Iterable[tuple[int, PackedBatch]]) -> int:
        """The number; 0 if no event of the key is stored. `stored` has all batches, in order."""
        if self._numbers is None:
            self._numbers = {}
            for base_seq_no, packed in stored:
                self.note(base_seq_no, packed)
        return self._numbers.get(key, 0)

    def note(self, base_seq_no: int, packed: PackedBatch) -> None:
        """A batch was stored."""
        if self._numbers is not None:
            self._numbers |= _last_in(base_seq_no, packed)

    def forget(self, base_seq_no: int, packed: PackedBatch) -> None:
        """The oldest batch was deleted."""
        for key, number in _last_in(base_seq_no, packed).items() if self._numbers else ():
            if self._numbers and self._numbers.get(key) == number:
                del self._numbers[key]


def _last_in(base_seq_no: int, packed: PackedBatch) -> dict[str, int]:
    """The last number of each key of a batch."""
    count, flags, acks_bytes, payload = packed
    body = payload[areas_bytes(count, flags, acks_bytes) :]
    keys = enumerate(keys_in(body, count, base_seq_no), base_seq_no)
    return {key: number for number, key in keys if key is not None}
