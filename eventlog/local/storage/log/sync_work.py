"""What a sync of the log has to cover; run apart from the log, because it may take a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eventlog.local.storage.segment import SegmentWriter


@dataclass(slots=True, frozen=True)
class SyncWork:
    """What a sync has to cover; made and finished by the log's owner, run in a thread."""

    sealed: tuple[SegmentWriter, ...]
    """Full when the work was made, so that the sync covers all that they will ever hold."""
    active: SegmentWriter | None
    last_seq_no: int
    sync_names: Callable[[], None] | None
    """Set if a segment was made since the last sync: its name has to be on the disk too. Not done
    while rolling, because it makes the file system write much else first."""

    def run(self) -> None:
        """Return when all the segments are on the disk.

        Raises:
            StorageFailed: the disk refused; what it has is not known.
        """
        for segment in self.sealed:
            segment.sync()
        if self.active is not None:
            self.active.sync()
        if self.sync_names is not None:
            self.sync_names()
