"""Word of what a member waits for: its group's document was changed, or events were appended.

Two feeds of the server say so. The one of events is read only while somebody waits for some, so a
busy handle is not sent all that others append.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from eventlog.errors import EventLogError
from eventlog.jetstream.bucket import Bucket, Value
from eventlog.jetstream.document import Document
from eventlog.jetstream.feed import Feed
from eventlog.jetstream.reading import Events
from eventlog.remote.driver import Unreachable

BEHIND_MAX: Final = 256
"""A feed of events that is so far behind is given up for one that begins at the end."""
PARKED_S: Final = 5.0
"""So is one that nobody has read for so long."""


class Watch:
    """The watch over one group, through one handle."""

    def __init__(self, events: Events, bucket: Bucket, document: Document) -> None:
        self._events = events
        self._bucket = bucket
        self._document = document
        self.last = 0
        """The log's last event, as far as is known here."""
        self._revision = 0
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._waiting = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None

    async def wait(self, revision: int, last: int | None, within_s: float | None) -> None:
        """Return once the document has another revision, the log is longer, or the time is over.

        Raises:
            LogDeleted, Unreachable: nobody would say so.
        """
        self._start()
        is_for_events = last is not None
        self._waiting += is_for_events
        if is_for_events:
            self._wanted.set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    while not self._has_come(revision, last):
                        await self._changed.wait()
        finally:
            self._waiting -= is_for_events
            if not self._waiting:
                self._wanted.clear()

    def _has_come(self, revision: int, last: int | None) -> bool:
        if self._has_ended():
            raise self._failure or Unreachable("the handle is closed")
        return self._revision > revision or (last is not None and self.last > last)

    def _has_ended(self) -> bool:
        return any(task.done() for task in self._tasks)

    async def aclose(self) -> None:
        """End both tasks."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def note_last(self, last: int) -> None:
        """Somebody has asked."""
        self.last = max(self.last, last)

    # --- its tasks ---------------------------------------------------------------------------

    def _start(self) -> None:
        if self._tasks and not self._has_ended():
            return
        for task in self._tasks:
            task.cancel()
        self._failure = None
        self._revision = 0
        self._tasks = [
            asyncio.create_task(self._guarded(self._run_document())),
            asyncio.create_task(self._guarded(self._run_events())),
        ]

    async def _guarded(self, run: Coroutine[Any, Any, None]) -> None:
        try:
            await run
        except (Unreachable, EventLogError) as error:
            self._failure = error
        finally:
            asyncio.get_running_loop().call_soon(self._tell)  # the task is done by then

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run_document(self) -> None:
        feed = self._bucket.feed(self._document.key)
        try:
            while True:
                for one in await feed.next():
                    self._revision = one.seq_no
                    value = Value(self._document.key, one.seq_no, one.data, one.stored_ns)
                    self._document.note(value)
                self._tell()
        finally:
            await feed.aclose()

    async def _run_events(self) -> None:
        feed: Feed | None = None
        read_until, parked_since = 0, 0.0
        clock = asyncio.get_running_loop().time
        try:
            while True:
                await self._wanted.wait()
                is_old = self.last - read_until > BEHIND_MAX or clock() - parked_since > PARKED_S
                if feed is None or (parked_since and is_old):
                    if feed is not None:
                        await feed.aclose()
                    feed, read_until = (
                        self._events.feed(self.last + 1, headers_only=True),
                        self.last,
                    )
                messages = await feed.next()
                read_until = messages[-1].seq_no
                parked_since = 0.0 if self._wanted.is_set() else clock()
                self.note_last(read_until)
                self._tell()
        finally:
            if feed is not None:
                await feed.aclose()
