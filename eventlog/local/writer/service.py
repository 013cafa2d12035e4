"""What a writer does, and in which order: the schedule that the trio loop of `server` drives.

No trio, no sockets. What blocks on the disk is yielded, so that the loop may call it in a thread:

=====================  ========================================================================
`hear`                 a message: whose log this is, whether it is there still, then the `actor`
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

from eventlog.errors import EventLogError, LogDeleted
from eventlog.local.groups.membership import Absent
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.wire.group_messages import (
    Bury,
    Dismiss,
    DropDead,
    Join,
    OpenGroup,
    RetryCorrected,
    RetryDead,
)
from eventlog.local.wire.messages import (
    Ack,
    AckState,
    Append,
    AppendIf,
    Configure,
    Forget,
    Hello,
    Request,
    Seek,
    Status,
    Trim,
    Welcome,
    failed,
)
from eventlog.local.wire.peer import Peer
from eventlog.local.writer.actor import Actor

logger = logging.getLogger("eventlog.writer")
LASTING: Final = frozenset(
    {
        *(Append, AppendIf, Ack, AckState, Seek, Forget, Status, Configure, Trim),
        *(OpenGroup, Join, Bury, RetryDead, RetryCorrected, DropDead, Dismiss),
    }
)
"""Requests that are refused at once when the log was deleted: each has to last."""
INDEXING_NS: Final = 2_000_000
"""How long indexes are made before others have their turn."""
Blocking = Generator[Callable[[], None], None, None]
"""Steps of which each yields what blocks on the disk, and goes on when that is done."""


class Service:
    """The schedule of one log's writer.

    `on_dirty` is called when something is to be synced, `on_spare` when a segment is to be made,
    `on_due` when the next backoff of a group may end earlier than before, `on_index` when an index
    by key is to be made.
    """

    def __init__(
        self,
        log: WritableLog,
        connections: Callable[[], int],
        on_dirty: Callable[[], None],
        on_due: Callable[[], None],
        on_spare: Callable[[], None],
        clock: Callable[[], int] = time.monotonic_ns,
        *,
        on_index: Callable[[], None] = lambda: None,
    ) -> None:
        self.log = log
        log.on_spare_wanted = on_spare
        self.actor = Actor(log, connections, on_dirty, on_due, clock, on_index=on_index)
        self._clock = clock
        self.sync_s = math.inf
        """How long the last sync took."""
        if log.was_killed:
            on_dirty()  # nobody else syncs what the killed writer had not yet

    def reason_to_end(self) -> str | None:
        """Why nothing may be stored any more; to be asked before anything is.

        The lock keeps other writers away. Should somebody have removed it while this process was
        stopped, the epoch says that there is another one now.
        """
        if self.log.control.is_cut_off() or self.log.offsets.is_cut_off():
            # One more look into them may be a SIGBUS.
            return "the control file or the offset table was truncated"
        if self.log.is_superseded:
            return "another writer has taken over"
        if self.log.failure is not None:
            return f"nothing more can be stored safely ({self.log.failure})"
        return None

    # --- messages ----------------------------------------------------------------------------

    def hear(self, peer: Peer, message: Hello | Request) -> bool:
        """Carry out a message; false if the log was deleted, and this writer has to end.

        Raises:
            ProtocolError: the message makes no sense; the peer is to be dropped.
        """
        if isinstance(message, Hello):
            control = self.log.control
            peer.say(Welcome(message.version, control.writer_pid, control.epoch, control.log_id))
        elif type(message) in LASTING and self.is_deleted():
            peer.say(failed(message.request_id, self.deleted()))
            return False
        else:
            self.actor.handle(peer, message)
        return True

    def is_deleted(self) -> bool:
        """Whether the log's directory is deleted, or another log lies there.

        The writer alone looks. Those who only wait cannot tell: they lose their pipes when it ends,
        look for the log, and find none or another one.
        """
        try:
            return self.log.control.is_replaced()
        except OSError:
            return False  # nobody can look just now, which says nothing of the log

    def deleted(self) -> LogDeleted:
        """The error for whoever uses the deleted log; nothing more is stored in it."""
        error = LogDeleted(
            f"the log {self.log.directory} was deleted while its writer was running; open it again"
            " to make a new one",
            path=self.log.directory,
        )
        self.log.refuse(error)
        return error

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
        if self.reason_to_end() is None:
            self.actor.retry_waiting()

    def indexing(self) -> Iterator[None]:
        """Make indexes by key, as long as this writer may store; others have their turn in between.

        In the loop and not in a thread, since each append changes what this looks at.
        """
        end_ns = self._clock() + INDEXING_NS
        for _ in self.actor.indexing():
            if self._clock() >= end_ns:
                yield
                if self.reason_to_end() is not None:
                    return
                end_ns = self._clock() + INDEXING_NS

    def expire(self) -> None:
        """Delete segments that are too old, and whatever they held up goes on."""
        try:
            self.actor.retire()
        except EventLogError as error:
            logger.error("old events could not be deleted, which is tried again: %s", error)
