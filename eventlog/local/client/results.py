"""Results of handlers on their way to a log, with the acknowledgements that belong to them."""

from __future__ import annotations

from typing import Any

from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.record_batch import FLAG_KEYED, KEY_HASH_BYTES, PackedBatch
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.threads import BlockingPipe
from eventlog.local.groups.acks import Acks, pack_acks
from eventlog.local.groups.ranges import Range

ROOM_FOR_ACKS_BYTES = 64 * 1024
"""More than the acknowledgements of a whole lease take."""


class ResultWriter:
    """Collects the results of events, and stores them in one batch.

    With `acks` the batch also says which events of a lease are done: both or neither are stored.
    """

    def __init__(self, handle: LocalHandle, acks: Acks | None) -> None:
        self._handle = handle
        self._acks = acks
        self._outbox = handle.new_outbox()
        self._pipe = BlockingPipe(handle.path, self._outbox.channel)
        handle.pipes.add(self._pipe)
        self._builder = BatchBuilder(handle.options.max_event_bytes, handle.path)

    @property
    def acknowledges(self) -> bool:
        """Whether storing results is all that has to be said of their events."""
        return self._acks is not None

    @property
    def is_full(self) -> bool:
        """Whether to `store` before anything is added."""
        limit = self._handle.options.batch_bytes_max - ROOM_FOR_ACKS_BYTES
        return self._builder.is_full or self._builder.bytes >= max(limit, 1)

    def add(self, result: Any) -> None:
        """Take a handler's result.

        Raises:
            InvalidEvent, EventTooLarge: it is none that a log can store.
        """
        self._builder.add(result)

    def add_all(self, results: list[Any]) -> None:
        """Take all results of one event, or none.

        Raises:
            InvalidEvent, EventTooLarge: one of them is none that a log can store.
        """
        rows = len(self._builder)
        try:
            for result in results:
                self._builder.add(result)
        except BaseException:
            self._builder.truncate(rows)
            raise

    def store(self, lease_id: int, ranges: list[Range]) -> None:
        """Store what was added, and that the events of these ranges are done.

        Raises:
            StaleLease: the events are somebody else's by now; nothing was stored.
            EventLogError: nothing was stored.
        """
        if not len(self._builder):
            return
        self._handle.check_open()
        packed = self._builder.build()
        if self._acks is not None:
            packed = _with_acks(packed, self._acks._replace(lease_id=lease_id, ranges=ranges))
        batch = self._outbox.add_packed(packed)
        with self._pipe.lock:
            self._pipe.run(self._outbox.deliver(0))
        batch.seq_no_of(0)

    def clear(self) -> None:
        """Forget what was added."""
        if len(self._builder):
            self._builder.build()


def _with_acks(packed: PackedBatch, acks: Acks) -> PackedBatch:
    """The batch, with the area of acknowledgements between key hashes and body."""
    area = pack_acks(acks)
    hashes_end = KEY_HASH_BYTES * packed.count if packed.flags & FLAG_KEYED else 0
    payload = b"".join((packed.payload[:hashes_end], area, packed.payload[hashes_end:]))
    return packed._replace(acks_bytes=len(area), payload=payload)
