"""Copying a log into another one, each event once, however often the copying is interrupted.

How far a mirror is stands in its target, as the position of a consumer whose name says which log
is copied and how much of it: `mirror:LOG_ID:P` at T means that the events up to P of that log are
among the first T of the target. One `seek` writes both numbers in one step; the name before it is
forgotten after that. Events that were copied after the last such note are found again by their
contents: they are, in their order, the next ones of the source.

With `renumber` others may append to the target meanwhile, another mirror too. Without it, an event
has the same number in both logs, so the mirror alone appends to the target.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol
from uuid import UUID

import msgspec

from eventlog.api.blocking_log import EventLog, ManyHandle, Publisher
from eventlog.api.positions import SeekPosition
from eventlog.config import BATCH_BYTES_LIMIT, MIB
from eventlog.errors import EventLogError, EventsTruncated, EventTooLarge, InvalidArgument, LogInUse
from eventlog.event.envelope import EventEnvelope
from eventlog.event.stored_batch import StoredBatch, event_bytes, identity

PREFIX: Final = "mirror"
NOTE_EVERY_S: Final = 1.0
"""How often the mirror notes how far it is; what it copied after that is compared on a restart."""
SMALL_EVENTS: Final = 512
"""Batches with fewer events are put together while the next ones are there already."""
HELD_BYTES_MAX: Final = MIB
WINDOW: Final = 32
"""Batches on their way at once."""


class Source(Protocol):
    """A log that is copied."""

    path: str
    log_id: UUID
    event_bytes_max: int

    def bounds(self) -> tuple[int, int]:
        """The first event that is stored, and the one after the last."""

    def batches(self, start: int) -> Iterator[list[EventEnvelope]]:
        """The events from `start` on as `msgspec.Raw`; endless if it follows."""

    def acknowledge(self, seq_no: int) -> None:
        """Everything up to that event is in the target."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a mirror is: the last event copied, and the last one of the target by then."""

    copied: int
    stored: int


class Mirror:
    """A copy in the making, of one source in one target; `begin`, then `run`."""

    def __init__(self, source: Source, target: EventLog, *, renumber: bool) -> None:
        self._source = source
        self._target = target
        self._renumber = renumber
        self._noted: str | None = None
        self._noted_at = time.monotonic()
        self._sent: list[tuple[ManyHandle, int, int]] = []
        """Batches that are not known to be stored, with their first and last numbers."""
        self.place = Place(0, 0)

    # --- where to begin ----------------------------------------------------------------------

    def begin(self) -> Place:
        """Find how far an earlier run came, or that there was none, and check what is in the way.

        Raises:
            InvalidArgument: the numbers cannot be kept, or the target is no copy of the source.
            EventTooLarge: the target does not take an event of the source.
            EventsTruncated: events were deleted before they were copied.
        """
        status = self._target.status()
        if status.log_id == self._source.log_id:
            raise InvalidArgument(
                f"{self._target.path} is the source itself, or a backup of it; give another log",
                path=self._target.path,
            )
        noted = self._last_note()
        stored = status.last_seq_no or 0
        if noted is None:
            place = self._first_place(stored)
        else:
            self._check_numbers_are_kept(noted)
            place = self._found_again(noted, stored)
        self._check_sizes(place.copied + 1, status.max_event_bytes)
        first, _ = self._source.bounds()
        if place.copied + 1 < first:
            raise EventsTruncated(
                f"the events {place.copied + 1} to {first - 1} of {self._source.path} were deleted"
                f" before they were copied to {self._target.path}; mirror it"
                " into an empty log",
                path=self._source.path,
                first_available=first,
            )
        self.place = place
        self._note()
        return place

    def _last_note(self) -> Place | None:
        """The newest note of an earlier run; it forgets older ones, which a kill may have left."""
        notes: list[tuple[int, int, str]] = []
        for one in self._target.consumers():
            prefix, _, copied = one.name.rpartition(":")
            if prefix == f"{PREFIX}:{self._source.log_id}" and copied.isdecimal():
                notes.append((int(copied), one.last_acked or 0, one.name))
        if not notes:
            return None
        *older, (copied_, stored, self._noted) = sorted(notes)
        for *_, name in older:
            self._target.forget(name)
        return Place(copied_, stored)

    def _first_place(self, stored: int) -> Place:
        first, _ = self._source.bounds()
        if not self._renumber and stored + 1 != first:
            raise InvalidArgument(
                f"numbers cannot be kept: the first event of {self._source.path} is {first}, and"
                f" the next one of {self._target.path} gets {stored + 1}; give an empty target"
                " (a directory that is made begins at any number), or --renumber",
                path=self._target.path,
            )
        return Place(first - 1, stored)

    def _check_numbers_are_kept(self, noted: Place) -> None:
        if not self._renumber and noted.copied != noted.stored:
            raise InvalidArgument(
                f"event {noted.copied} of {self._source.path} is among the first {noted.stored} of"
                f" {self._target.path}: its numbers are others; give --renumber to go on",
                path=self._target.path,
            )

    def _found_again(self, noted: Place, stored: int) -> Place:
        """The place of the earlier run: what it copied after its last note is compared."""
        copied = noted.copied
        if stored == noted.stored:
            return noted
        first, stop = self._source.bounds()
        source = _one_by_one(self._source.batches(max(copied + 1, first)))

        def next_wanted() -> EventEnvelope | None:
            # Only of what is stored: a source that follows would wait for more.
            return next(source, None) if max(copied + 1, first) < stop else None

        wanted = next_wanted()
        target = self._target.subscribe(
            PREFIX, SeekPosition.sequence(noted.stored + 1), follow=False, type=msgspec.Raw
        )
        with target as events:
            for event in chain.from_iterable(events.batches()):
                if (event.seq_no or 0) > stored:
                    break
                if wanted is not None and identity(event) == identity(wanted):
                    copied = wanted.seq_no or 0
                    wanted = next_wanted()
                elif not self._renumber:
                    raise self._foreign(event.seq_no or 0)
        return Place(copied, stored)

    def _foreign(self, seq_no: int) -> EventLogError:
        return InvalidArgument(
            f"event {seq_no} of {self._target.path} is not that of {self._source.path}: somebody"
            " else has appended it; give another target, or --renumber",
            path=self._target.path,
            seq_no=seq_no,
        )

    def _check_sizes(self, start: int, event_bytes_max: int) -> None:
        """Name an event that is too large for the target before anything is copied."""
        if event_bytes_max >= self._source.event_bytes_max:
            return
        _, stop = self._source.bounds()
        for event in _one_by_one(self._source.batches(start)):
            if (size := event_bytes(event)) > event_bytes_max:
                raise EventTooLarge(
                    f"event {event.seq_no} of {self._source.path} takes {size} bytes, and"
                    f" {self._target.path} takes {event_bytes_max}; make the target with a larger"
                    " max_event_bytes",
                    path=self._target.path,
                    seq_no=event.seq_no,
                )
            if (event.seq_no or 0) + 1 >= stop:
                break

    # --- copying -----------------------------------------------------------------------------

    def run(self, on_copied: Callable[[int], None]) -> None:
        """Copy from where `begin` has found; endless if the source follows.

        `on_copied` gets the number of the last event that is stored in the target. However it
        ends, what is stored by then is noted if the target can be reached.
        """
        with self._target.publisher(
            max_batch_bytes=BATCH_BYTES_LIMIT, max_in_flight=WINDOW
        ) as publisher:
            try:
                self._copy(publisher, on_copied)
            except BaseException:
                with suppress(EventLogError):  # what went wrong is being raised already
                    self._settle(0)
                    self._note()
                raise

    def _copy(self, publisher: Publisher, on_copied: Callable[[int], None]) -> None:
        for events, is_last in self._put_together(self._source.batches(self.place.copied + 1)):
            handle = publisher.send_many(StoredBatch(events))
            self._sent.append((handle, events[0].seq_no or 0, events[-1].seq_no or 0))
            self._settle(0 if is_last else WINDOW)
            if is_last or time.monotonic() - self._noted_at >= NOTE_EVERY_S:
                self._note()
            on_copied(self.place.copied)

    def _put_together(
        self, batches: Iterator[list[EventEnvelope]]
    ) -> Iterator[tuple[list[EventEnvelope], bool]]:
        """The batches, small ones together; whether nothing more is there for now."""
        held: list[EventEnvelope] = []
        held_bytes = 0
        end = self._source.bounds()[1] - 1
        for batch in batches:
            last = batch[-1].seq_no or 0
            if last >= end:
                end = self._source.bounds()[1] - 1
            if len(batch) >= SMALL_EVENTS:
                if held:
                    yield held, False
                held, held_bytes = [], 0
                yield batch, last >= end
                continue
            held = held + batch
            held_bytes += sum(map(event_bytes, batch))
            if last >= end or len(held) >= SMALL_EVENTS or held_bytes >= HELD_BYTES_MAX:
                yield held, last >= end
                held, held_bytes = [], 0
        if held:
            yield held, True

    def _settle(self, left: int) -> None:
        """Wait for the answers to all batches but the last `left`."""
        while len(self._sent) > left:
            handle, first, last = self._sent[0]
            stored_first, stored_last = handle.result()
            if not self._renumber and (stored_first, stored_last) != (first, last):
                raise self._foreign(first)
            self.place = Place(last, stored_last)
            del self._sent[0]

    def _note(self) -> None:
        """Store the mirror's place in the target."""
        copied, stored = self.place.copied, self.place.stored
        name = f"{PREFIX}:{self._source.log_id}:{copied}"
        self._noted_at = time.monotonic()
        if name == self._noted:
            return
        self._target.seek(name, SeekPosition.sequence(stored + 1))
        if self._noted is not None:
            self._target.forget(self._noted)
        self._noted = name
        self._source.acknowledge(copied)


@contextmanager
def alone(source_id: UUID, target_id: UUID) -> Iterator[None]:
    """While the block runs, no other process of this machine mirrors the one into the other.

    Raises:
        LogInUse: one does.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        try:
            # A name without a file: the kernel takes it back however the process ends.
            lock.bind(f"\0eventlog-{PREFIX}-{source_id}-{target_id}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise LogInUse(
                "another process mirrors the same log into the same one; wait for its end"
            ) from None
        yield


def _one_by_one(batches: Iterator[list[EventEnvelope]]) -> Iterator[EventEnvelope]:
    return chain.from_iterable(batches)
