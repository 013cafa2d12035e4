"""Results of handlers on their way to a log, with the acknowledgements that belong to them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from eventlog.errors import EventTooLarge
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import PackedBatch, areas_bytes
from eventlog.event.results import add_results
from eventlog.local.client.conversations import Steps
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.outbox import Outbox
from eventlog.local.groups.acks import Acks, pack_acks
from eventlog.local.groups.ranges import Range

ROOM_FOR_ACKS_BYTES = 64 * 1024
"""More than the acknowledgements of a whole lease take."""


class ResultWriter:
    """Collects the results of events, and stores them in one batch.

    `log_id` and `group` are those of the events. With `acks` the batch also says which events of a
    lease are done: both or neither are stored.
    """

    def __init__(
        self, handle: LocalHandle, outbox: Outbox, log_id: UUID, group: str, acks: Acks | None
    ) -> None:
        self._handle = handle
        self._outbox = outbox
        self._log_id = log_id
        self._group = group
        self._acks = acks
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

    def add_all(self, source: EventEnvelope, results: Collection[Any]) -> None:
        """Take all results of one event, or none.

        Raises:
            InvalidEvent, EventTooLarge: one of them is none that a log can store, or together they
                are more than a batch holds.
        """
        builder = self._builder
        rows, size = len(builder), builder.bytes
        try:
            add_results(builder, source, results, self._log_id, self._group)
            if len(results) > 1:
                self._check_together(len(results), builder.bytes - size)
        except BaseException:
            builder.truncate(rows)
            builder.bytes = size
            raise

    def _check_together(self, count: int, size: int) -> None:
        """They are stored in one step, so they share a batch; it has room for one largest event."""
        options = self._handle.options
        limit = max(options.max_event_bytes, options.batch_bytes_max)
        if size > limit:
            raise EventTooLarge(
                f"the {count} results of one event take {size} bytes, {limit} are allowed in the"
                f" log {self._handle.path}: they are stored in one step; return fewer or smaller"
                " ones",
                path=self._handle.path,
            )

    def store(self, lease_id: int, ranges: list[Range]) -> Steps[None]:
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
        yield from self._outbox.deliver(0)
        batch.seq_no_of(0)

    def clear(self) -> None:
        """Forget what was added."""
        if len(self._builder):
            self._builder.build()


def _with_acks(packed: PackedBatch, acks: Acks) -> PackedBatch:
    """The batch, with the area of acknowledgements between the other areas and the body."""
    area = pack_acks(acks)
    before = areas_bytes(packed.count, packed.flags, 0)
    payload = b"".join((packed.payload[:before], area, packed.payload[before:]))
    return packed._replace(acks_bytes=len(area), payload=payload)
