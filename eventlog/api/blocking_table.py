"""`log.table(...)` without an event loop; the twin of `table`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

from eventlog.api import table_file
from eventlog.api.blocking_log import EventLog
from eventlog.api.positions import SeekPosition
from eventlog.api.table_rows import LatestByKey, Snapshot, options_of_reading
from eventlog.errors import EventsTruncated
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode


class Table(LatestByKey):
    """The latest event of each key of a log, as of the last `caught_up` or `changed`."""

    def __init__(self, log: EventLog, decode: Decode, place: str | None) -> None:
        super().__init__(log.path, decode)
        self._log = log
        self._place = place
        self._log_id = UUID(int=0)
        self._turn = threading.Lock()
        self._waiting = threading.Lock()
        self._streams = ExitStack()
        self._batches: Iterator[list[EventEnvelope]] | None = None
        self._untold: dict[str, None] = {}

    def caught_up(self) -> None:
        """Take in all events that are stored by now; see `eventlog.Table.caught_up`."""
        with self._turn:
            first, last = self._log._bounds()
            if last < self.seq_no:
                self._begin_anew()
            if last > self.seq_no:
                position = SeekPosition.sequence(self.seq_no + 1)
                options = options_of_reading(follow=False)
                with self._log._subscribe(None, position, options) as stream:
                    for events in stream.batches():
                        self._apply(events)
                self._pass_to(last)
            self._drop_before(first)
            self._save()

    def changed(self) -> list[str]:
        """Wait for new events of keys, and take them in; see `eventlog.Table.changed`."""
        with self._waiting:
            if self._batches is None:
                position = SeekPosition.sequence(self.seq_no + 1)
                following = self._log._subscribe(None, position, options_of_reading(follow=True))
                self._batches = self._streams.enter_context(following).batches()
            if not self._untold:
                events = next(self._batches)
                with self._turn:
                    self._untold.update(dict.fromkeys(self._apply(events)))
            self.caught_up()
            keys, self._untold = [*self._untold], {}
            return keys

    def _start(self) -> None:
        if self._place is not None:
            self._log_id = self._log.status().log_id
            snapshot = table_file.load(self._place, self._log_id)
            if snapshot is not None and self._is_of_now(snapshot):
                self._take(snapshot)
        self.caught_up()

    def _is_of_now(self, snapshot: Snapshot) -> bool:
        """Whether the log has the snapshot's last event still, or has deleted all that it has."""
        first, last = self._log._bounds()
        if snapshot.seq_no < first or snapshot.seq_no > last:
            return snapshot.seq_no <= last
        try:
            (event,) = self._log.read(snapshot.seq_no, snapshot.seq_no + 1)
        except EventsTruncated:
            return True
        return event.id_bytes == snapshot.event_id

    def _save(self) -> None:
        if self._place is not None and self._is_snapshot_due:
            table_file.save(self._place, self._snapshot(self._log_id))


@contextmanager
def open_table(log: EventLog, decode: Decode, place: str | None) -> Iterator[Table]:
    """The table, with all that is stored in it."""
    table = Table(log, decode, place)
    with table._streams:
        table._start()
        yield table
