"""A member of a group, for processes without an event loop; `AsyncLocalMember` is its twin."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from uuid import UUID

from eventlog.api import forks
from eventlog.api.arguments import check_count
from eventlog.api.engines import is_directory
from eventlog.api.group import BlockingMember, OnRefused, failed_by_refusal
from eventlog.config import AskedOptions
from eventlog.errors import EventLogError, NotSupported
from eventlog.local.client.conversations import Steps
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.lease import LocalLease
from eventlog.local.client.lease_timer import SETTLE_S, SETTLE_SOON_S, LeaseTimer
from eventlog.local.client.member_events import MemberEvents
from eventlog.local.client.member_pipe import MemberPipe
from eventlog.local.client.results import ResultWriter
from eventlog.local.client.threads import BlockingPipe
from eventlog.local.groups.acks import Acks
from eventlog.system import absolute_path

logger = logging.getLogger("eventlog")


class LocalMember(BlockingMember):
    """See `BlockingMember`. `fields` are the group's name, ordering and deliveries."""

    def __init__(
        self,
        handle: LocalHandle,
        fields: tuple[str, str, int],
        owner: int,
        output: str | None = None,
        on_refused: OnRefused | None = None,
    ) -> None:
        if output is not None and not is_directory(output):
            raise _foreign_output(handle.path, output)
        self._handle = handle
        self.group, ordering, self.max_deliveries = fields
        self.is_ordered = bool(ordering)
        self.on_refused = on_refused or failed_by_refusal
        settle_s = SETTLE_SOON_S if output is not None or self.is_ordered else SETTLE_S
        self.settle_ns = int(settle_s * 1e9)
        """How long what is done may stay unsaid."""
        self._output: LocalHandle | None = None
        self.pipe = MemberPipe(handle, self.group, owner)
        self._results_pipe: BlockingPipe | None = None
        self.results = None if output is None else self._results(output)
        self.events = MemberEvents(handle, self.group)
        self._timer = LeaseTimer(settle_s, handle.path)
        self._lease: LocalLease | None = None

    def _results(self, output: str) -> ResultWriter:
        """A producer of results for the log at that path.

        On the member's own log a result and the word that its event is done are stored in one step;
        on another one, the result goes first.
        """
        handle = LocalHandle(absolute_path(output), AskedOptions())
        try:
            handle.open()
            self._output = handle
            log_id = self._handle.reader.control.log_id
            is_same = handle.reader.control.log_id == log_id
            acks = Acks(self.group, self.member_id, 0, []) if is_same else None
            outbox = handle.new_outbox()
            self._results_pipe = handle.adopt(BlockingPipe(handle.path, outbox.channel))
            return ResultWriter(handle, outbox, UUID(bytes=log_id), self.group, acks)
        except BaseException:
            self.pipe.close()
            raise

    def __repr__(self) -> str:
        """Which group, and what it holds."""
        left = self.pipe.not_begun
        return f"<Member of {self.group!r} {self.member_id:#x} not begun: {left}>"

    @property
    def path(self) -> str:
        """The log's."""
        return self._handle.path

    def carry_out(self, settling: Steps[None]) -> None:
        """Perform what settling asks for; without results, it only says something."""
        if self._results_pipe is None:
            assert next(settling, None) is None, "only results are stored"
            return
        with self._results_pipe.lock:
            self._results_pipe.run(settling)

    @property
    def member_id(self) -> int:
        return self.pipe.member_id

    def lease(
        self, count: int = 1, least: int = 1, call: threading.Event | None = None
    ) -> LocalLease | None:
        count, least = check_count("count", count), check_count("least", least)
        self.end_lease()
        held = self.pipe.ask(count, least, call)
        while self.pipe.passed:
            events, first, last = self.pipe.passed.popleft()
            logger.warning(
                "retention of the log %s deleted %s events (%d to %d) before the group %s handled"
                " them",
                *(self._handle.path, f"{events:,}", first, last, self.group),
            )
        if held is None:
            return None
        self.events.corrections.look()
        self._lease = lease = LocalLease(self, held)
        if held.count > 1:  # what is done of one event is said at once
            self._timer.watch(lease)
        return lease

    def end_lease(self) -> None:
        """Say what became of the lease, and give back what was not begun."""
        lease, self._lease = self._lease, None
        if lease is not None:
            if lease.count > 1:
                self._timer.watch(None)
            lease.end()

    def stop(self) -> None:
        self.pipe.stop()

    def call_off(self, call: threading.Event) -> None:
        """End the `lease` that waits with this; callable from any thread."""
        self.pipe.call_off(call)

    def flush(self) -> None:
        if self._lease is not None:
            self._lease.settle()
        self.pipe.flush()

    def close(self) -> None:
        if self._handle.generation != forks.generation:
            return
        if self.pipe.is_open:
            with suppress(EventLogError):  # the writer learns from the page what is done
                self.end_lease()
        self._timer.close()
        self.pipe.close()
        if self._output is not None:
            self._output.close()
        self.events.close()


def _foreign_output(path: str, output: str) -> NotSupported:
    scheme = output.partition(":")[0]  # an address may have a password
    return NotSupported(
        f"results of a group of the log {path} go to logs in directories, and output= is the"
        f" address of another engine ({scheme}:); give a directory, and copy it there with"
        " `eventlog mirror`",
        path=path,
        engine="local",
        option="output",
    )
