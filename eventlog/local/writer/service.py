"""What a writer does beside messages, and in which order: the trio loop of `server` drives it.

No trio, no sockets. What blocks on the disk is yielded, so that the loop may call it in a thread:

=====================  ========================================================================
`syncing`              what groups did, then the batches; answers when both are on the disk
`making_spare`         the next segment; what waited for room is appended then
`indexing`             indexes by key; what waited for one is appended then
`expire`               old segments go; so do groups and appends that they held up
`end_absent`           a member of before the start whose process has ended
=====================  ========================================================================
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Final

from eventlog.errors import EventLogError
from eventlog.local.groups.membership import Absent
from eventlog.local.writer.actor import Actor

logger = logging.getLogger("eventlog.writer")
INDEXING_NS: Final = 2_000_000
"""How long indexes are made before others have their turn."""
Blocking = Generator[Callable[[], None], None, None]
"""Steps of which each yields what blocks on the disk, and goes on when that is done."""


class Service:
    """The schedule of one log's writer."""

    def __init__(self, actor: Actor, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.actor = actor
        self.log = actor.log
        self._clock = clock
        self.sync_s = math.inf
        """How long the last sync took."""

    def end_absent(self, absent: Absent) -> None:
        """A member of before this writer's start has ended, unless it has come back."""
        if absent in self.actor.groups.absent():
            self.actor.groups.end_member(absent.state, absent.member_id)

    # --- the disk ----------------------------------------------------------------------------

    def syncing(self, *, with_positions: bool) -> Blocking:
        """Have all that is there on the disk, and answer who waited for that.

        First what groups did: the acknowledgements in batches past the synced mark are found again
        at the next start, those before it must be in the journal.

        Raises:
            StorageFailed, LogFull: it is not, and this writer has to end (`on_sync_failed`).
        """
        work = self.log.begin_sync()

        def run() -> None:
            self.actor.groups.store.sync()
            work.run()

        started_ns = self._clock()
        yield run
        self.sync_s = (self._clock() - started_ns) / 1e9
        self.log.finish_sync(work)
        self.actor.note_sync(self.sync_s)
        if with_positions:
            yield self.log.sync_positions
        self.actor.on_synced()

    def making_spare(self) -> Blocking:
        """Make the next segment ready, and append what waited for room."""
        work = self.log.spare.begin()
        if work is None:
            return
        made: list[int | None] = []
        yield lambda: made.append(work.run())
        self.log.spare.finish(*made)
        if self.log.reason_to_end() is None:
            self.actor.retry_waiting()

    def indexing(self) -> Iterator[None]:
        """Make indexes by key, as long as this writer may store; others have their turn in between.

        In the loop and not in a thread, since each append changes what this looks at.
        """
        end_ns = self._clock() + INDEXING_NS
        for _ in self.actor.indexing():
            if self._clock() >= end_ns:
                yield
                if self.log.reason_to_end() is not None:
                    return
                end_ns = self._clock() + INDEXING_NS

    def expire(self) -> None:
        """Delete segments that are too old, and whatever they held up goes on."""
        try:
            self.actor.retire()
        except EventLogError as error:
            logger.error("old events could not be deleted, which is tried again: %s", error)
