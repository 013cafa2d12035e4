"""Reading every byte of a log that means anything, and saying what is wrong with it. No writer."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from eventlog.errors import CorruptLog, EventLogError
from eventlog.storage.format import index_name
from eventlog.storage.reader import LogReader
from eventlog.storage.segment import SegmentReader


@dataclass(slots=True)
class Verification:
    """What was found."""

    events: int = 0
    batches: int = 0
    segments: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Nothing is damaged or missing."""
        return not self.problems


def verify_log(
    log: LogReader, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Verification:
    """Check every CRC, every number from the first available to the last, and decode every event.

    `on_progress` is given the number just checked and the last one, once for each batch.
    """
    found = Verification(segments=len(log.segment_bases()))
    last = log.last_seq_no
    reader = log.batches(log.first_available)
    try:
        while reader.next_seq_no <= last:
            try:
                batch = reader.next_batch()
                if batch is None:
                    break
                found.events += len(batch.envelopes(log.directory))
                found.batches += 1
            except CorruptLog as error:
                found.problems.append(str(error))
                following = (error.last_seq_no or last) + 1
                reader.close()
                reader = log.batches(max(following, reader.next_seq_no))
            on_progress(min(reader.next_seq_no - 1, last), last)
    finally:
        reader.close()
    _verify_positions(log, found)
    _verify_indexes(log, found)
    return found


def _verify_positions(log: LogReader, found: Verification) -> None:
    """The offset table can be read; a position ahead of the log is allowed, and worth a note."""
    try:
        states = log.consumers()
    except EventLogError as error:
        found.problems.append(str(error))
        return
    for state in states:
        if (state.last_acked or 0) > log.last_seq_no:
            found.notes.append(f"consumer {state.name!r} waits for event {state.last_acked} + 1")


def _verify_indexes(log: LogReader, found: Verification) -> None:
    """An index that is missing or wrong only makes a seek longer: a note."""
    for base in log.segment_bases():
        if not os.path.exists(os.path.join(log.directory, index_name(base))):
            found.notes.append(f"segment {base} has no index; the writer's next start makes one")
            continue
        try:
            segment = SegmentReader(log.directory, base, log.files)
        except (OSError, CorruptLog):
            continue  # reported with its events
        try:
            wrong = [entry for entry in segment.entries() if not segment.leads_to_batch(entry)]
        finally:
            segment.close()
        if wrong:
            found.notes.append(f"the index of segment {base} has {len(wrong)} wrong entries")
