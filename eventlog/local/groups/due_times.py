"""The due times of stored events, read from the batches' areas; no event is decoded."""

from __future__ import annotations

from collections.abc import Iterator

from eventlog.errors import CorruptLog, EventsTruncated
from eventlog.event.due import not_before_times
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.reading.batch_reader import BatchReader, StoredBatch
from eventlog.local.storage.reading.reader import LogReader


class DueTimes:
    """Called with the first and last number of a run of published events; see `TimesOf`.

    Logs without due times, and runs before or after those, cost a look at the control page.
    """

    def __init__(self, control: ControlPage) -> None:
        self._control = control
        self._log: LogReader | None = None
        self._reader: BatchReader | None = None

    def __call__(self, first: int, last: int) -> list[tuple[int, int]]:
        """(not_before_ns, number) of those that are not to be handed out at once."""
        first, last = max(first, self._control.due_from), min(last, self._control.due_to)
        if not self._control.due_from or first > last:
            return []
        return [
            (not_before_ns, seq_no)
            for batch in self._batches(first, last)
            if (area := batch.due()) is not None
            for seq_no, not_before_ns in enumerate(not_before_times(area), batch.header.base_seq_no)
            if not_before_ns and first <= seq_no <= last
        ]

    def _batches(self, first: int, last: int) -> Iterator[StoredBatch]:
        """The batches that hold these events, but for those that are deleted or damaged."""
        while first <= last:
            try:
                batch = self._reader_at(first).next_batch()
            except EventsTruncated as error:
                first = max(error.first_available or 0, first + 1)
                self._leave()
                continue
            except CorruptLog as error:  # whoever reads them reports it
                first = max(error.last_seq_no or 0, first) + 1
                self._leave()
                continue
            assert batch is not None, f"event {first} is not published"
            yield batch
            first = batch.header.last_seq_no + 1

    def _reader_at(self, seq_no: int) -> BatchReader:
        if self._log is None:
            self._log = LogReader(self._control.directory)
        if self._reader is not None and self._reader.next_seq_no != seq_no:
            self._leave()
        if self._reader is None:
            self._reader = self._log.batches(seq_no, verify=False)
        return self._reader

    def _leave(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        """Unmap; may be called twice."""
        self._leave()
        if self._log is not None:
            self._log.close()
            self._log = None
