"""The members' pages: what each member of a group is doing, kept where its death cannot take it.

The file `members` holds one page of 4096 bytes for each member of any group; after the header
stands one byte for each event of the member's lease, from `NOT_STARTED` to `FAILED`::

    member page header (64 bytes)
        0    8  lease_id         the lease that the states belong to; 0 while they change
        8    8  member_id        whose page it is
       16    8  handled          events whose handler returned
       24    8  failed           events whose handler raised
       32    8  started_ns       when the longest running handler began, monotonic; 0: idle
       40    8  running          the number of that event
       48    8  retried          events whose handler raised, to be tried again
       56    8  in_flight        handlers that run

A page has one author, the member, and is read by the writer once the member is gone, and by
whoever shows what workers do. So there is nothing to lock: the member stores the state of an event
before its handler begins and after it is done, the kernel keeps the page whatever becomes of the
process, and the writer learns from it which events to count a delivery for, which were done, and
which were never begun. No message is needed for any of them.

A lock on the bytes of the page says only that its author lives: a writer that starts sees it also
of a process in another PID namespace, whose number means nothing to it.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from eventlog.api import forks
from eventlog.errors import CorruptLog
from eventlog.local.storage.files import FILES, Files, os_errors
from eventlog.local.storage.formats.layout import Field, Layout

FILE_NAME: Final = "members"
PAGE_BYTES: Final = 4096
PAGE: Final = Layout(
    "member page header",
    Field("lease_id", "Q", "the lease that the states belong to; 0 while they change"),
    Field("member_id", "Q", "whose page it is"),
    Field("handled", "Q", "events whose handler returned"),
    Field("failed", "Q", "events whose handler raised"),
    Field("started_ns", "Q", "when the longest running handler began, monotonic; 0: idle"),
    Field("running", "Q", "the number of that event"),
    Field("retried", "Q", "events whose handler raised, to be tried again"),
    Field("in_flight", "Q", "handlers that run"),
)
NOT_STARTED: Final = 0
STARTED: Final = 1
DONE: Final = 2
RETURNED: Final = 3
"""The handler did its part, and the result is not stored yet: should the member die, no delivery
has failed."""
FAILED: Final = 4
"""The handler raised, and the writer may not have heard of it: should the member die, this delivery
has failed, whatever else had begun."""
LEASE_EVENTS_MAX: Final = PAGE_BYTES - PAGE.size
"""One byte for the state of each event of a lease."""
STATES_BESIDE_LEASE: Final = 512 - PAGE.size
"""So many of them lie in the sector of the lease's number: after a loss of power they are as old as
that, and the others may be of an earlier lease."""


class PageView(NamedTuple):
    """One page, read."""

    lease_id: int
    member_id: int
    handled: int
    failed: int
    started_ns: int
    running: int
    retried: int
    in_flight: int
    states: bytes


class MemberPages:
    """The whole file, as the writer and observers have it."""

    def __init__(self, directory: str, *, writable: bool = False, files: Files = FILES) -> None:
        self._directory = directory
        self._files = files
        path = os.path.join(directory, FILE_NAME)
        with os_errors(directory, "opening its members"):
            if not writable:
                self._descriptor = files.open_read(path)
                return
            try:
                self._descriptor = files.open_write(path)
            except FileNotFoundError:
                self._descriptor = files.create(path)

    @property
    def count(self) -> int:
        """How many pages the file has room for."""
        with os_errors(self._directory, "reading the members' pages"):
            return self._files.size(self._descriptor) // PAGE_BYTES

    def read(self, slot: int) -> PageView:
        """The page at that place; zeros where none was made yet."""
        with os_errors(self._directory, "reading a member's page"):
            page = self._files.read(self._descriptor, PAGE_BYTES, slot * PAGE_BYTES)
        page = page.ljust(PAGE_BYTES, b"\0")
        return PageView(**PAGE.to_dict(page), states=page[PAGE.size :])

    def make(self, slot: int) -> None:
        """An empty page, with all the room that it needs, so that its author meets no SIGBUS."""
        with os_errors(self._directory, "making a member's page"):
            size = self._files.size(self._descriptor)
            if size < (slot + 1) * PAGE_BYTES:
                self._files.allocate(self._descriptor, (slot + 1) * PAGE_BYTES)
            self._files.write(self._descriptor, [bytes(PAGE_BYTES)], slot * PAGE_BYTES)

    def is_held(self, slot: int) -> bool:
        """Whether the process that is the page's author still has it, wherever it runs."""
        return self._files.is_held(self._descriptor, slot * PAGE_BYTES, PAGE_BYTES)

    def close(self) -> None:
        """Give the descriptor back; may be called twice."""
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
            self._descriptor = -1


class _Hold:
    """A sign of life on a page, which a forked child does not give."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        forks.leave_to_parent(self)

    def drop_copy(self) -> None:
        """Close the descriptor; may be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class MemberPage:
    """One page, as its author has it."""

    def __init__(self, directory: str, slot: int, member_id: int, files: Files = FILES) -> None:
        with os_errors(directory, "mapping a member's page"):
            descriptor = files.open_write(os.path.join(directory, FILE_NAME))
            try:
                end = (slot + 1) * PAGE_BYTES
                if files.size(descriptor) < end:
                    raise CorruptLog(f"the log {directory} lacks a member's page", path=directory)
                self._map = files.map(descriptor, end, writable=True)
            finally:
                files.close(descriptor)
            # Apart from the map, whose own descriptor a forked child keeps.
            held = files.open_read(os.path.join(directory, FILE_NAME))
            self._hold = _Hold(held)
            files.hold(held, slot * PAGE_BYTES, PAGE_BYTES)
        self._view = memoryview(self._map)[slot * PAGE_BYTES :]
        self.words = self._view[: PAGE.size].cast("Q")
        """The header; index it with `PAGE.word(name)`."""
        self.states = self._view[PAGE.size :]
        """One byte for each event of the lease, in ascending order."""
        self.claim(member_id)

    def claim(self, member_id: int) -> None:
        """Say whose page it is, also again: a writer that takes a member for a new one wipes it."""
        self.words[PAGE.word("member_id")] = member_id

    def begin(self, lease_id: int, count: int) -> None:
        """A new lease: none of its events is started."""
        self.words[0] = 0
        self.states[:count] = bytes(count)
        self.words[0] = lease_id

    def close(self) -> None:
        """Unmap; may be called twice."""
        self.states.release()
        self.words.release()
        self._view.release()
        self._map.close()
        self._hold.drop_copy()


def pool_of(member_id: int) -> int:
    """The pool that a member belongs to: the upper half of its id."""
    return member_id >> 32
