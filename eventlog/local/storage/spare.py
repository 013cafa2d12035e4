"""The file that becomes the next segment, made ready while the active one still has room.

    none ----begin----> making --(thread)--> ready ----take----> none
     |                    ^
     +--recycle--> stale -+     a retired segment that nobody maps, still with its old contents

Making it takes milliseconds that an append need not wait for. It is always all zeros when it is
ready: a place without a batch must read as "nothing here yet".

    durability   a new file                            a recycled one
    "memory"     allocated                             zeros written over it
    "disk"       allocated                             never: its zeros would go to the disk too
    "sync"       allocated, zeros written and synced   the same: its blocks are on the disk before
                                                       a batch is, and a sync has less to do

Zeros in a new file of a "memory" log would only be one more pass over its pages: batches are
written by system calls, which clear nothing that they fill.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final, NamedTuple

from eventlog.config import LogOptions
from eventlog.errors import EventLogError
from eventlog.local.storage.files import Files, os_errors

FILE_NAME: Final = "next.seg.new"
"""Removed at a start, like all that ends so."""
_STEP_BYTES: Final = 1 << 20


class SpareWork(NamedTuple):
    """What is to be done to make it ready: run it in a thread, and then `Spare.finish`."""

    directory: str
    options: LogOptions
    files: Files
    stale: int | None
    """The descriptor of a recycled segment."""

    def run(self) -> int | None:
        """The descriptor of the file; `None` if there is no room for it, or no luck with it."""
        try:
            with os_errors(self.directory, "preparing a segment"):
                return self._reuse(self.stale) if self.stale is not None else self._make_new()
        except EventLogError:
            # The roll makes a segment itself, and says what is wrong if it cannot.
            return None

    def _make_new(self) -> int:
        descriptor = self.files.create(os.path.join(self.directory, FILE_NAME))
        try:
            self.files.allocate(descriptor, self.options.segment_bytes)
            if self.options.durability == "sync":
                self._fill(descriptor)
        except BaseException:
            self.files.close(descriptor)
            raise
        return descriptor

    def _reuse(self, descriptor: int) -> int:
        try:
            if self.options.durability == "sync":
                # After a loss of power, the name that it had must not lead to what it holds now.
                self.files.sync_directory(self.directory)
            self._fill(descriptor)
        except BaseException:
            self.files.close(descriptor)
            raise
        return descriptor

    def _fill(self, descriptor: int) -> None:
        size = self.options.segment_bytes
        zeros = memoryview(bytes(min(_STEP_BYTES, size)))
        for start in range(0, size, _STEP_BYTES):
            self.files.write(descriptor, [zeros[: size - start]], start)
        if self.options.durability == "sync":
            self.files.sync(descriptor)


class Spare:
    """The one spare file of a log; only the log's owner has one."""

    def __init__(self, directory: str, options: LogOptions, files: Files) -> None:
        self._directory = directory
        self._options = options
        self._files = files
        self._path = os.path.join(directory, FILE_NAME)
        self._ready: int | None = None
        self._stale: int | None = None
        self.is_making = False
        self._has_failed = False
        """Not tried again before the next roll, which says what is wrong."""

    @property
    def is_wanted(self) -> bool:
        """Whether there is none, and none in the making."""
        return self._ready is None and not self.is_making and not self._has_failed

    def begin(self) -> SpareWork | None:
        """What is to be done now, in a thread; `None` if there is nothing to do."""
        if not self.is_wanted:
            return None
        self.is_making = True
        stale, self._stale = self._stale, None
        return SpareWork(self._directory, self._options, self._files, stale)

    def finish(self, descriptor: int | None) -> None:
        """Take what the work made."""
        self.is_making = False
        self._ready = descriptor
        self._has_failed = descriptor is None
        if descriptor is None:
            with suppress(OSError):
                self._files.unlink(self._path)

    def take(self) -> int | None:
        """The descriptor of the ready file, which is still to be given its name."""
        ready, self._ready = self._ready, None
        self._has_failed = False
        return ready

    def recycle(self, path: str) -> bool:
        """Make a retired segment the spare one, if none is there and nobody maps this one.

        The name goes while the exclusive lock is held, and a reader looks at the name again once
        it has the shared one: so none maps what will be written over.
        """
        if self._options.durability == "disk" or self._stale is not None or not self.is_wanted:
            return False
        try:
            descriptor = self._files.open_write(path)
        except OSError:
            return False
        try:
            is_ours = self._files.size(
                descriptor
            ) == self._options.segment_bytes and self._files.lock_exclusive(descriptor)
            if is_ours:
                self._files.rename(path, self._path)
                self._files.unlock(descriptor)
        except OSError:
            is_ours = False
        if is_ours:
            self._stale = descriptor
        else:
            self._files.close(descriptor)
        return is_ours

    def discard(self) -> None:
        """Remove the file: the log is closed in order."""
        if self._ready is not None or self._stale is not None:
            with suppress(OSError):
                self._files.unlink(self._path)
        self.abandon()

    def abandon(self) -> None:
        """Give the descriptors back and leave the file, as a killed process would."""
        for descriptor in (self._ready, self._stale):
            if descriptor is not None:
                self._files.close(descriptor)
        self._ready = self._stale = None
