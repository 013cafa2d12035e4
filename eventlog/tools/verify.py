"""Reading every byte of a log that means anything, and saying what is wrong with it. No writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from eventlog.errors import CorruptLog
from eventlog.local.storage.reading.reader import LogReader
from eventlog.tools.survey import survey


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
    for fault in survey(log):
        (found.problems if fault.is_problem else found.notes).append(fault.text)
    return found
