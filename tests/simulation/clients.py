"""Producers and subscribers: the real outbox, channel and feed, one operation at a step."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from typing import Any, Final, TypeVar

from eventlog.api.expectation import Expectation
from eventlog.api.positions import SeekPosition
from eventlog.api.stream_options import StreamOptions
from eventlog.config import AskedOptions
from eventlog.errors import (
    EventLogError,
    EventsTruncated,
    WriterUnavailable,
    WrongExpectation,
)
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.due import Due
from eventlog.event.envelope import envelope_of
from eventlog.event.filters import EventFilter
from eventlog.event.record_batch import PackedBatch
from eventlog.local.client.conversations import Channel
from eventlog.local.client.feed import Feed
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.outbox import Outbox
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.wire.messages import Ack, AckState, Park, Seek
from tests.simulation.history import state_at
from tests.simulation.line import Line, OpenLink
from tests.simulation.writer import Action, Link

KEYS: Final = (None, "a", "a", "b", "c")
CONTESTED: Final = ("k", "plumless", "buckeroo")
"""Keys of conditional appends, mostly; the last two have one hash."""
OPTIONS: Final = StreamOptions()
PENDING_MAX: Final = 4
EVENT_BYTES_MAX: Final = 1024
OVERSIZE_EVENTS: Final = 5
"""So many of the largest events fit a frame, and no segment."""

Note = Callable[..., None]
AnyOutbox = TypeVar("AnyOutbox", bound=Outbox)


def new_handle(directory: str) -> LocalHandle:
    """What a client has of the log without a pipe."""
    handle = LocalHandle(directory, AskedOptions())
    handle._reader = LogReader(directory)
    return handle


class Ways:
    """What every client needs of the world."""

    def __init__(self, directory: str, rng: random.Random, note: Note, open_link: OpenLink) -> None:
        self.directory = directory
        self.rng = rng
        self.note = note
        self.open_link = open_link
        self.serial = count(1)
        """For batches, values and requests."""
        self.left: list[str] = []
        """Clients that have ended by themselves."""
        self.has_conditions = False
        """Some appends are conditional."""
        self.is_settling = False
        """Nothing new is begun any more."""
        self.paddings: tuple[int, ...] = (0, 0, 100, 700)
        """What events may be beyond their value, in bytes."""
        self.keys: dict[str, str | None] = {}
        """Key of every value."""
        self.due: dict[str, int] = {}
        """When the events of some values are due."""
        self.next_due_ns: Callable[[], int] = lambda: 0
        """When the next event is due; 0: at once."""
        self.has_forked = False
        """A child of the process that ends holds its pipes still."""
        self.held: list[Link] = []
        """Pipes of processes that have ended, held by their children."""

    def hang_up(self, links: Iterable[Link | None]) -> None:
        """The process at this end of the pipes has ended."""
        for link in links:
            if link is not None and self.has_forked:
                self.held.append(link)
            elif link is not None:
                link.hang_up(self.rng)


class Client(ABC):
    """A process that uses the log."""

    def __init__(self, name: str, ways: Ways) -> None:
        self.name = name
        self.ways = ways
        self.rng = ways.rng
        self.handle = new_handle(ways.directory)
        self.lines: list[Line] = []

    def new_channel(self) -> Channel:
        """A conversation's state; all processes have the same number, in every run."""
        control = self.handle.reader.control
        limit = self.handle.options.frame_bytes_max
        return Channel(self.ways.directory, control.log_id, limit, pid=1)

    def new_outbox(self, kind: type[AnyOutbox]) -> AnyOutbox:
        """A producer, whose number comes from the seed; there are no staging rings."""
        channel, rng = self.new_channel(), self.rng
        return kind(
            channel,
            self.handle.options,
            randbits=lambda bits: rng.getrandbits(bits) | 1 << bits - 1,
        )

    def new_line(self) -> Line:
        """Another conversation."""
        return self.line_of(self.new_channel())

    def line_of(self, channel: Any) -> Line:
        """A line for an outbox's channel."""
        line = Line(self.name, channel, self.ways.open_link, self.rng)
        self.lines.append(line)
        return line

    def note(self, what: str, **fields: Any) -> None:
        """Tell what happened."""
        self.ways.note(self.name, what, **fields)

    def actions(self) -> list[Action]:
        """What the scheduler may choose."""
        return [*(one for line in self.lines for one in line.actions()), *self.own_actions()]

    @abstractmethod
    def own_actions(self) -> list[Action]:
        """What this client may do by itself."""

    def die(self) -> None:
        """The process ends."""
        self.note("died")
        self.leave()

    def leave(self) -> None:
        """Give back what the simulation's own process has of it."""
        self.ways.hang_up(line.die() for line in self.lines)
        self.lines.clear()
        self.handle.close()


class Producer(Client):
    """Appends in batches, some of them while others are on their way."""

    def __init__(self, name: str, ways: Ways) -> None:
        super().__init__(name, ways)
        self._outbox = self.new_outbox(Outbox)
        self._line = self.line_of(self._outbox.channel)
        self.told: EventLogError | None = None
        """What the last answer was, if it was a refusal."""

    def own_actions(self) -> list[Action]:
        found: list[Action] = []
        if not self.ways.is_settling and self._outbox.pending < PENDING_MAX:
            found.append(self.append)
        if self._line.is_idle and self._outbox.pending:
            found.append(self._deliver)
        return found

    def _deliver(self) -> None:
        pending_max = 0 if self.ways.is_settling else self.rng.choice([0, 0, 1])
        self._line.begin(self._outbox.deliver(pending_max), lambda _result, _error: None)

    def append(self) -> None:
        """Put another batch on its way."""
        if self.ways.has_conditions and self.rng.random() < 0.4:
            self._append_expecting()
        elif self.rng.random() < 0.03:
            values = [self._value() for _ in range(OVERSIZE_EVENTS)]
            self._put(self._pack(values, EVENT_BYTES_MAX - 64), values)
        else:
            values = [self._value() for _ in range(self.rng.choice([1, 1, 2, 3]))]
            padding = self.rng.choice(self.ways.paddings)
            self._put(self._pack(values, padding), values)

    def _put(self, packed: PackedBatch, values: list[str], **more: Any) -> None:
        expect = more.get("expect")
        expected = None if expect is None else Expectation(None, expect)
        [batch] = self._outbox.add_many([packed], expected).batches
        number = next(self.ways.serial)
        batch.on_done = lambda: self._on_done(number, batch)
        self.note("append", batch=number, values=values, **more)

    def _append_expecting(self) -> None:
        """Append events of contested keys if nothing of one or two of them is new."""
        keys = self.rng.sample(CONTESTED, self.rng.choice([1, 1, 2]))
        expect = {key: self._last_of(key) for key in keys}
        if self.rng.random() < 0.2:
            expect[keys[0]] = max(expect[keys[0]] + self.rng.choice([-1, 1]), 0)
        values = [self._value() for _ in range(self.rng.choice([1, 1, 2]))]
        for value in values:
            self.ways.keys[value] = self.rng.choice([*keys, *keys, *CONTESTED])
        packed = self._pack(values, self.rng.choice(self.ways.paddings))
        self._put(packed, values, expect=expect)

    def _last_of(self, key: str) -> int:
        """The number of the last event of a key, as it can be read now."""
        last = 0
        with suppress(EventsTruncated):  # just now
            for events in self.handle.read_range(
                0, self.handle.reader.last_seq_no + 1, EventFilter(keys=[key])
            ):
                last = max([last, *(one.seq_no or 0 for one in events)])
        return last

    def _on_done(self, number: int, batch: OutBatch) -> None:
        self.told = batch.error
        note_answer(self, number, batch)

    def _value(self) -> str:
        value = f"{self.name}.{next(self.ways.serial)}"
        contested = CONTESTED[:1] if self.ways.has_conditions else ()
        self.ways.keys[value] = self.rng.choice([*KEYS, *contested])
        if due_ns := self.ways.next_due_ns():
            self.ways.due[value] = due_ns
        return value

    def _pack(self, values: list[str], padding: int) -> PackedBatch:
        """One batch; what an event is beyond its value is padding."""
        builder = BatchBuilder(EVENT_BYTES_MAX)
        for value in values:
            event: Any = [value, bytes(padding)]
            if due_ns := self.ways.due.get(value):
                event = envelope_of(
                    event,
                    id_bytes=bytes(16),
                    timestamp_ns=due_ns,
                    key=None,
                    headers=None,
                    due=Due(due_ns),
                )
            builder.add(event, self.ways.keys[value])
        return builder.build()


def note_answer(client: Client, number: int, batch: OutBatch) -> None:
    """Tell what became of a batch; without a writer, nobody knows."""
    if batch.error is None:
        client.note("stored", batch=number, base=batch.base_seq_no)
    elif isinstance(batch.error, WrongExpectation):
        client.note("refused", batch=number, error="WrongExpectation")
        client.note("wrong", batch=number, key=batch.error.key, last=batch.error.last_seq_no)
    elif not isinstance(batch.error, WriterUnavailable):
        client.note("refused", batch=number, error=type(batch.error).__name__)


class Subscriber(Client):
    """Reads, parks, acknowledges, seeks, and begins again somewhere."""

    def __init__(self, name: str, ways: Ways) -> None:
        super().__init__(name, ways)
        self._requests = self.new_line()
        self._parking = self.new_line()
        self._opened = 0
        self._last_read = 0
        self._stream = ""
        self._feed = self._open(SeekPosition.LAST_ACKNOWLEDGED)

    @property
    def next_seq_no(self) -> int:
        """How far it has come."""
        return self._feed.next_seq_no

    def _open(self, position: SeekPosition) -> Feed:
        self._opened += 1
        self._stream = f"{self.name}/{self._opened}"
        if position.kind == "last_acknowledged":
            self._note_position()
        feed = Feed(self.handle.reader, self.name, position, OPTIONS)
        self.ways.note(self._stream, "opened", at=feed.next_seq_no)
        return feed

    def _note_position(self) -> None:
        at, state = self.handle.reader.position_and_state(self.name)
        self.note("position", consumer=self.name, at=at, state=state)

    def own_actions(self) -> list[Action]:
        found: list[Action] = []
        if self._parking.is_idle:
            found.append(self._read)
        if self._requests.is_idle:
            found += self._requests_to_make()
        if not self.ways.is_settling and self.rng.random() < 0.1:
            found.append(self._begin_again)
        return found

    def _requests_to_make(self) -> list[Action]:
        if self.ways.is_settling:
            # So that retention keeps nothing back on its account.
            reader = self.handle.reader
            done = min(max(self._last_read, self.next_seq_no - 1), reader.last_seq_no)
            is_behind = reader.position_of(self.name) < done
            may_move = is_behind and not self._parking.is_idle
            return [lambda: self._move(Ack, done)] if may_move else []
        found: list[Action] = [self._note_position]
        if self._last_read:
            found.append(lambda: self._move(Ack, self.rng.randint(1, self._last_read)))
        if self.rng.random() < 0.2:
            last = self.handle.reader.last_seq_no
            found.append(lambda: self._move(Seek, self.rng.randint(0, last)))
            found.append(lambda: self._move(Ack, last + self.rng.randint(0, 3)))
        return found

    def _read(self) -> None:
        try:
            events = self._feed.next_batch()
        except EventsTruncated as error:
            first = error.first_available or 0
            self.ways.note(self._stream, "truncated", first=first)
            self._close_feed()
            self._feed = self._open(SeekPosition.sequence(first))
            return
        if events is None:
            at = self._feed.next_seq_no
            self.ways.note(self._stream, "caught_up", at=at)
            self._parking.begin(
                self._parking.channel.request(Park, at), lambda _result, _error: None
            )
            return
        for event in events:
            assert event.seq_no is not None
            value, _ = event.event
            self.ways.note(self._stream, "read", seq_no=event.seq_no, value=value)
            self._last_read = max(self._last_read, event.seq_no)

    def _move(self, kind: Any, to: int) -> None:
        op = next(self.ways.serial)
        fields: tuple[Any, ...] = (self.name, to)
        if kind is Ack and op % 2 == 0:
            kind, fields = AckState, (self.name, to, state_at(to))
        self.note(kind.__name__.lower(), op=op, consumer=self.name, to=to)

        def on_end(result: Any, error: EventLogError | None) -> None:
            if result is None and error is None:  # two writers died before they answered
                error = WriterUnavailable("nobody knows whether it moved")
            if error is None:
                self.note("moved", op=op)
            else:
                last = error.last_seq_no or 0
                kind_of_error = type(error).__name__
                self.note("not_moved", op=op, error=kind_of_error, to=to, last=last)

        self._requests.begin(self._requests.channel.request(kind, *fields), on_end)

    def _begin_again(self) -> None:
        if not self._parking.is_idle:
            self.ways.hang_up([self._parking.die()])
            self.lines.remove(self._parking)
            self._parking = self.new_line()
        self._close_feed()
        last = self.handle.reader.last_seq_no
        self._feed = self._open(
            self.rng.choice(
                [
                    SeekPosition.BEGINNING,
                    SeekPosition.LAST_ACKNOWLEDGED,
                    SeekPosition.LAST_ACKNOWLEDGED,
                    SeekPosition.LATEST,
                    SeekPosition.sequence(self.rng.randint(0, last + 2)),
                ]
            )
        )

    def _close_feed(self) -> None:
        self._feed.close()

    def leave(self) -> None:
        self._close_feed()
        super().leave()
