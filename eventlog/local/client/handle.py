"""A handle of a local log without its pipes: what both shells share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from eventlog.api import forks
from eventlog.api.arguments import Bounds
from eventlog.api.positions import SeekPosition, check_name, check_position, check_seq_no
from eventlog.api.refusals import closed, never_synced, not_opened
from eventlog.api.status import RATE_S, LogStatus
from eventlog.api.waiting import warn_of_options
from eventlog.config import TABLE_NAME, AskedOptions, LogOptions
from eventlog.errors import EventLogError, SequenceOutOfRange, WriterUnavailable
from eventlog.event.envelope import EventEnvelope
from eventlog.event.filters import EventFilter
from eventlog.event.many_events import ManyEvents
from eventlog.event.record_batch import Decode, decode_any
from eventlog.event.texts import Headers, Keys
from eventlog.local.client.conversations import Channel
from eventlog.local.client.launch import prepare
from eventlog.local.client.outbox import Outbox
from eventlog.local.client.room import RoomNotice, notice_of
from eventlog.local.client.staging import StagingRing
from eventlog.local.storage.owner import is_owner
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.sharing import is_in_group, shared_with
from eventlog.system import absolute_path

if TYPE_CHECKING:
    from eventlog.api.loops import LoopOwner


class ClosablePipe(Protocol):
    """What a handle knows of a shell's pipes."""

    def close(self) -> None:
        """Close for good."""


Pipe = TypeVar("Pipe", bound=ClosablePipe)
T = TypeVar("T")


class LocalHandle:
    """Path, options and the reading side of an open log."""

    def __init__(self, path: str | os.PathLike[str], asked: AskedOptions) -> None:
        self.path = absolute_path(os.fspath(path))
        self.asked = asked
        self.generation = forks.generation
        self.loop: LoopOwner | None = None
        """The event loop that it belongs to; a blocking handle belongs to none."""
        self._reader: LogReader | None = None
        self._was_opened = False
        self.pipes: set[ClosablePipe] = set()
        """Pipes of this handle, its streams and publishers: its end closes them, and ends waits."""

    @property
    def is_open(self) -> bool:
        """Between `open` and `close`."""
        return self._reader is not None

    def open(self) -> None:
        """Make the log if there is none, and map it; blocking, but short.

        Raises:
            InvalidConfig: the log was made with other options.
            NotALog, PermissionDenied, UnknownFormat: it cannot be used.
        """
        prepare(self.path, self.asked)
        reader = LogReader(self.path)
        try:
            control = reader.control
            warn_of_options(
                self.asked.check_against(control.options, self.path, control.changed_options)
            )
        except BaseException:
            reader.close()
            raise
        self.generation = forks.generation
        self._reader = reader
        self._was_opened = True

    def check_open(self) -> None:
        """Pass if the handle is open, and of this process and event loop.

        Raises:
            LogClosed, ForkedHandle, WrongEventLoop: it is not.
        """
        _ = self.reader
        if self.loop is not None:
            self.loop.check(self.path)

    def unless_closed(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call something that reads the maps, which another thread may take away by `close`.

        Raises:
            LogClosed: it did, whatever the call made of that.
        """
        try:
            return call(*arguments)
        except Exception:
            self.check_open()
            raise

    @property
    def reader(self) -> LogReader:
        """The mapped log.

        Raises:
            LogClosed: before `open` or after `close`.
            ForkedHandle: in a forked child.
        """
        reader = self._reader
        if reader is None or self.generation != forks.generation:
            raise self._not_usable()
        return reader

    def _not_usable(self) -> EventLogError:
        forks.check(self.generation, self.path)
        return closed("handle", self.path) if self._was_opened else not_opened(self.path)

    @property
    def options(self) -> LogOptions:
        """What the log was made with."""
        return self.reader.options

    @property
    def can_write(self) -> bool:
        """Whether this process may start a writer here, or make files; else it can only read them.

        Root may not, where the log is another user's: the writer's files would be root's.
        """
        return is_owner(self.path) and os.access(self.path, os.W_OK)

    @property
    def can_ask(self) -> bool:
        """Whether a writer of the log hears this process; else the log can only be read."""
        return self.can_write or is_in_group(self.path)

    @property
    def starts_writer(self) -> bool:
        """Whether this handle starts a writer when none serves the log; none does of a shared one.

        One that a client starts leaves when it is idle, and the others could start none.
        """
        return self.asked.start_writer is not False and shared_with(self.path) is None

    @property
    def may_ask(self) -> bool:
        """Whether there is, or this handle starts, a writer that answers it."""
        is_there = self.starts_writer or self.reader.control.running_writer is not None
        return is_there and self.can_ask

    @contextmanager
    def opening(self) -> Iterator[None]:
        """A handle that starts no writer opens without one too: what is stored can be read.

        One was named a moment ago, and was killed, or does not listen yet.
        """
        try:
            yield
        except WriterUnavailable:
            if self.starts_writer:
                raise

    @property
    def snapshot_place(self) -> str | None:
        """Where the snapshot of tables lies; `None` if this process may leave nothing there."""
        return os.path.join(self.path, TABLE_NAME) if self.can_write else None

    def bounds(self) -> tuple[int, int]:
        """The first event that is stored, and the last one."""
        reader = self.reader
        return reader.first_available, reader.last_seq_no

    def adopt(self, pipe: Pipe) -> Pipe:
        """The pipe, which is closed with the handle from now on."""
        self.pipes.add(pipe)
        return pipe

    def new_channel(self) -> Channel:
        """A conversation with the log's writer, on a pipe of its own."""
        reader = self.reader
        return Channel(
            self.path,
            reader.control.log_id,
            reader.options.frame_bytes_max,
            os.getpid(),
            starts_writer=self.starts_writer,
            writer_cpus=self.asked.writer_cpus or (),
        )

    def new_outbox(self) -> Outbox:
        """A producer with a pipe of its own."""
        return Outbox(self.new_channel(), self.options, StagingRing)

    def notice_of(self, outbox: Outbox) -> RoomNotice | None:
        """What is to be called while an outbox's pipe is silent."""
        return notice_of(self.reader, outbox)

    def many_events(
        self, keys: Keys, headers: Headers, batch_bytes_max: int | None = None
    ) -> ManyEvents:
        """What packs the events of an `append_many` or a `send_many`."""
        options = self.options
        limit = batch_bytes_max or options.batch_bytes_max
        return ManyEvents(options.max_event_bytes, limit, self.path, keys, headers)

    def seek_number(self, consumer: str, position: SeekPosition) -> int | None:
        """The last number behind `position`; `None` if there is nothing to set."""
        check_name(consumer)
        match check_position(position).kind:
            case "last_acknowledged":
                return None
            case "beginning":
                return 0
            case "sequence":
                return max(position.value - 1, 0)
        return self.reader.resolve(position, consumer) - 1

    def numbers_of(self, bounds: Bounds) -> tuple[int, int]:
        """Where a range begins, and before which event it ends."""
        reader = self.reader
        return bounds.numbers(reader.first_available, reader.last_seq_no, reader.find_time)

    def read_range(
        self, start: int, stop: int, wanted: EventFilter | None, decode: Decode = decode_any
    ) -> Iterator[list[EventEnvelope]]:
        """See `storage.reading.reader`; who may write here makes the missing indexes by key."""
        makes_index = wanted is not None and self.starts_writer and self.can_write
        return read_range(self.reader, start, stop, wanted, makes_index=makes_index, decode=decode)

    def number_to_sync(self, seq_no: int | None) -> int | None:
        """The number to wait for until it is on the disk; `None` if it is there already.

        Raises:
            InvalidArgument: nothing of this log ever gets there.
            SequenceOutOfRange: there is no such event yet.
        """
        reader = self.reader
        last = reader.last_seq_no
        wanted = last if seq_no is None else check_seq_no(seq_no)
        if reader.options.durability == "memory":
            raise never_synced(self.path)
        if wanted > last:
            raise SequenceOutOfRange(
                f"event {wanted} of the log {self.path} cannot be waited for: the last one is"
                f" {last}",
                path=self.path,
                seq_no=wanted,
                last_seq_no=last,
            )
        return wanted if wanted > reader.control.synced else None

    def status(self, connections: int) -> LogStatus:
        """The log as it can be seen from here."""
        reader = self.reader
        control = reader.control
        last, first = reader.last_seq_no, reader.first_available
        return LogStatus(
            path=self.path,
            log_id=UUID(bytes=control.log_id),
            writer_pid=control.running_writer,
            first_seq_no=first if first <= last else None,
            last_seq_no=last or None,
            bytes=reader.stored_bytes(),
            segments=len(reader.segment_bases()),
            durability=reader.options.durability,
            synced_seq_no=min(control.synced, last) or None,
            events_per_s=reader.events_since(time.time_ns() - int(RATE_S * 1e9)) / RATE_S,
            connections=connections,
            max_event_bytes=reader.options.max_event_bytes,
        )

    def close(self) -> None:
        """Close all pipes, and unmap; may be called twice."""
        with suppress(KeyError):  # another thread has closed the last one
            while self.pipes:
                self.pipes.pop().close()
        reader, self._reader = self._reader, None  # in one step: two threads may close at once
        if reader is not None:
            reader.close()
