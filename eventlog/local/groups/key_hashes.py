"""The key hashes of stored events, read from the batches' areas; no event is decoded."""

from __future__ import annotations

import sys
from array import array

from eventlog.errors import CorruptLog, EventsTruncated
from eventlog.event.record_batch import FLAG_KEYED
from eventlog.event.text_columns import KEY_HASH_BYTES
from eventlog.local.storage.formats.format import HEADER_BYTES
from eventlog.local.storage.reading.batch_reader import BatchReader
from eventlog.local.storage.reading.reader import LogReader


class KeyHashes:
    """Called with the first and last number of a run of published events; see `HashesOf`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._log: LogReader | None = None
        self._reader: BatchReader | None = None
        self._base = 1
        self._known: list[int] = []
        """The hashes of one batch, from event `_base` on."""

    def __call__(self, first: int, last: int) -> list[int]:
        """One hash for each event; 0 for one without a key.

        Raises:
            EventsTruncated: retention deleted them.
        """
        hashes: list[int] = []
        while first <= last:
            if not self._base <= first < self._base + len(self._known):
                self._load(first)
            start = first - self._base
            part = self._known[start : start + last - first + 1]
            hashes += part
            first += len(part)
        return hashes

    def _load(self, seq_no: int) -> None:
        if self._log is None:
            self._log = LogReader(self._directory)
        if self._reader is None or self._reader.next_seq_no != seq_no:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._log.batches(seq_no)
        try:
            batch = self._reader.next_batch()
        except EventsTruncated as error:
            self._reader = None
            self._base = seq_no
            self._known = [0] * ((error.first_available or seq_no + 1) - seq_no)
            return
        except CorruptLog as error:
            # Whoever reads them reports it; nothing of them is in order any more.
            self._reader = None
            self._base = seq_no
            self._known = [0] * ((error.last_seq_no or seq_no) - seq_no + 1)
            return
        assert batch is not None, f"event {seq_no} is not published"
        self._base = batch.header.base_seq_no
        self._known = [0] * batch.header.count
        if batch.header.flags & FLAG_KEYED:
            start = batch.position + HEADER_BYTES
            area = array("I")
            area.frombytes(batch.segment.view[start : start + KEY_HASH_BYTES * batch.header.count])
            if sys.byteorder == "big":
                area.byteswap()
            self._known = area.tolist()

    def close(self) -> None:
        """Unmap; may be called twice."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._log is not None:
            self._log.close()
            self._log = None
