"""A log as every engine has it: what `eventlog.open` gives, for trio and asyncio.

`blocking_log` has the same names without `async`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from eventlog.api.arguments import Bounds, PublisherOptions, check_follow
from eventlog.api.data import LogOfData
from eventlog.api.event_stream import EventRange, EventStream
from eventlog.api.latest import filter_of_key, latest_of
from eventlog.api.log_of_groups import LogOfGroups
from eventlog.api.log_of_tables import LogOfTables
from eventlog.api.operated import OperatedLog
from eventlog.api.positions import ConsumerState, SeekPosition, check_name, check_position
from eventlog.api.publisher import Publisher
from eventlog.api.refusals import no_statistics
from eventlog.api.statistics import LogStatistics
from eventlog.api.status import LogStatus
from eventlog.api.stream_options import OnTruncated, StreamOptions
from eventlog.config import FLUSH_S_DEFAULT, MAX_IN_FLIGHT_DEFAULT, PUBLISHER_BATCH_BYTES_DEFAULT
from eventlog.event.envelope import EventEnvelope
from eventlog.event.payload import DELETION
from eventlog.event.texts import Headers, Keys, check_key


class EventLog(OperatedLog, LogOfGroups, LogOfTables, LogOfData):
    """A persistent, ordered, replayable log; `async with` opens it, else calls are `LogClosed`."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Where the log is."""

    def opening(self) -> tuple[str, dict[str, Any]]:
        """With which address and options another process opens it as this handle does."""
        return self.path, {}

    @abstractmethod
    async def open(self) -> None:
        """Open the log, as `async with` does: for frameworks with a hook at their start.

        The handle belongs to the event loop that runs now. Opening an open handle changes nothing;
        one that was closed is opened again.

        Raises:
            WrongEventLoop: it is open in another event loop.
            EventLogError: what `eventlog.open` says of entering.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close this handle, as the end of `async with` does; the log stays.

        Whoever waits with it gets `LogClosed`. It may be called twice.

        Raises:
            WrongEventLoop: it is open in another event loop, which still runs.
        """

    async def __aenter__(self) -> Self:
        """Open the log."""
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close this handle; the log stays."""
        await self.aclose()

    @abstractmethod
    async def append(
        self,
        event: Any,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        expect: int | None = None,
        expect_last: int | None = None,
        not_before: datetime | None = None,
        expires: datetime | None = None,
    ) -> int:
        """Append one event and return its sequence number.

        `event` is an `EventEnvelope` or any value that MessagePack can carry, `datetime` (aware)
        and `UUID` too. When this returns, every subscriber in every process can read the event,
        and it has reached the durability that the log was made with. A cancelled append leaves the
        event stored or not, never half.

        `expect`: it is stored only if the last event of its key that is stored has this number (0:
        there is none). `expect_last`: the same for the whole log. Of concurrent appends that expect
        the same, one is stored. Such an append is a batch of its own, so it takes as long as an
        append alone.

        `not_before` and `expires` (aware datetimes) are for groups; subscribers see the event at
        once. Groups hand it out from `not_before` on, by the clock that stamps events, which a jump
        of the wall clock does not mislead; with key order, the later events of its key wait for it.
        Until then it holds the group's position, and `wait_drained`. From `expires` on, no handler
        begins with it: it becomes a dead letter, whose error begins with "expired", and which a
        retry runs. Everything else that appends (`append_many`, publishers, results of handlers)
        takes these times as those of an `EventEnvelope`.

        Raises:
            InvalidEvent, EventTooLarge, InvalidArgument: before anything is sent.
            WrongExpectation: the last event is another one; nothing was stored.
            NotSupported: the engine cannot append conditionally, or has no due times (those over
                servers).
            LogFull: there is no room.
            WriterUnavailable: no writer could be reached or started.
        """

    @abstractmethod
    async def append_many(
        self,
        events: Iterable[Any] | AsyncIterable[Any],
        *,
        keys: Keys = None,
        headers: Headers = None,
        expect: Mapping[str, int] | None = None,
        expect_last: int | None = None,
    ) -> tuple[int, int]:
        """Append all the events, in order; the first and the last number.

        Each is stored as it was when the iterable gave it. `keys` has a key, or `None`, for each
        event; `headers` is one mapping for all of them, or has one, or `None`, for each.

        Up to 1 MiB or 16,384 events are one batch: stored whole or not at all, with contiguous
        numbers. More are several batches, between which other producers may append. All events are
        packed before the first is sent; for an endless source use `publisher()`.

        The batches are on their way together. After an error the first `error.stored` events are
        stored, and no others. (Only with `WriterUnavailable`, and a `LogClosed` from elsewhere,
        batches after those may be, too: nobody is there to tell.)

        `expect` has, for one key or more, the number of its last event: all are stored, as one
        batch, or none, as `append` says. The keys may be others than those of the events.

        Raises:
            InvalidArgument: there are none, or fewer or more of them than keys or headers.
            InvalidEvent, EventTooLarge: before anything is sent; conditional ones are one batch.
            WrongExpectation, NotSupported: nothing was stored, as with `append`.
            LogFull, WriterUnavailable: this batch and those after it were not stored.
        """

    def publisher(
        self,
        linger: float = 0.0,
        max_batch_bytes: int = PUBLISHER_BATCH_BYTES_DEFAULT,
        max_in_flight: int = MAX_IN_FLIGHT_DEFAULT,
        flush_s: float = FLUSH_S_DEFAULT,
    ) -> AbstractAsyncContextManager[Publisher]:
        """A pipelined producer that batches by itself and keeps its order.

        `linger`: seconds that a batch waits for more events once the producer is idle.
        `max_batch_bytes`: where a batch is full. `max_in_flight`: batches sent and unanswered,
        after which `send` waits. `flush_s`: how long the end of the block waits for the events that
        were sent in it; one second after Ctrl-C or `sys.exit`, and not at all when the block is
        cancelled (which is what Ctrl-C does in asyncio). What is not stored by then is told: by
        `NotFlushed`, or, where the block ends with an exception of its own, by a `ResourceWarning`.
        `flush` in the block waits as long as it takes.

        Raises:
            InvalidArgument, InvalidArgumentType: an option makes no sense.
        """
        options = PublisherOptions(linger, max_batch_bytes, max_in_flight, flush_s)
        return self._publisher(options.checked(self.path))

    @abstractmethod
    def _publisher(self, options: PublisherOptions) -> AbstractAsyncContextManager[Publisher]:
        """The publisher of a block, whose options are checked."""

    def subscribe(
        self,
        consumer: str,
        position: SeekPosition = SeekPosition.LAST_ACKNOWLEDGED,
        *,
        follow: bool = True,
        on_truncated: OnTruncated = "error",
        type: Any = None,  # noqa: A002 - what it is
        spin: float = 0.0,
        verify: bool = True,
        durable_only: bool = False,
        keys: Collection[str] | None = None,
        key_prefix: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[EventStream]:
        """The stream of events from `position` on, which is resolved when the block is entered.

        By default that is the event after the last one that the consumer acknowledged, and the
        first stored one for a new consumer. Subscribing neither creates the consumer nor moves it.

        `follow`: wait for new events; without, the stream ends at the last one stored when it was
        opened. `on_truncated="skip"`: go on from the first stored event where retention ran past
        the reader. `type`: what payloads are decoded to, straight from the stored bytes: a
        `msgspec.Struct`, a dataclass, any type that msgspec knows; `memoryview` (of payloads that
        are bytes) and `msgspec.Raw` (packed ones) are not copied, and keep their segment mapped.
        `spin`: seconds to look for the next event before sleeping, which costs a processor and
        saves a wake-up. `verify=False` believes the checksums. `durable_only`: only events that are
        on the disk.

        `keys`: only events with one of these keys; `key_prefix`: with a key that begins so;
        `headers`: with all these headers. All that is given must hold. A directory skips batches
        unread whose key hashes, keys and headers say that nothing is wanted, and decodes no other
        payloads; on a server, events are read and then refused. `lag` counts all events. When the
        stream reaches the last stored event, and the consumer has acknowledged all that it was
        given, and all before the stream's begin, its position moves there, past what the filter
        left out.

        Raises:
            InvalidName, InvalidArgument, InvalidArgumentType: at the call.
            (when entered) InvalidArgument: `durable_only` where nothing is ever on the disk.
            (from the stream) EventsTruncated: retention deleted the next event.
            (from the stream) EventTypeMismatch: a payload is not of the type.
            (from the stream) CorruptLog: stored bytes are damaged.
        """
        options = StreamOptions(
            follow=follow,
            on_truncated=on_truncated,
            type=type,
            spin=spin,
            verify=verify,
            durable_only=durable_only,
            keys=keys,
            key_prefix=key_prefix,
            headers=headers,
        )
        return self._subscribe(check_name(consumer), check_position(position), options)

    def follow(
        self,
        position: SeekPosition = SeekPosition.LATEST,
        *,
        on_truncated: OnTruncated = "error",
        type: Any = None,  # noqa: A002 - what it is
        spin: float = 0.0,
        verify: bool = True,
        durable_only: bool = False,
        keys: Collection[str] | None = None,
        key_prefix: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[EventStream]:
        """An endless stream without a consumer, for readers that keep their position themselves.

        They go on with `SeekPosition.sequence(n + 1)` after event n. The options are those of
        `subscribe`, with its filters.

        Raises:
            InvalidArgument: `LAST_ACKNOWLEDGED`, which needs a consumer.
            InvalidArgument, InvalidArgumentType: an option makes no sense.
            (from the stream's `ack`) InvalidArgument: always.
            (from the stream) what `subscribe` says.
        """
        options = StreamOptions(
            on_truncated=on_truncated,
            type=type,
            spin=spin,
            verify=verify,
            durable_only=durable_only,
            keys=keys,
            key_prefix=key_prefix,
            headers=headers,
        )
        return self._subscribe(None, check_follow(position), options)

    @abstractmethod
    def _subscribe(
        self, consumer: str | None, position: SeekPosition, options: StreamOptions
    ) -> AbstractAsyncContextManager[EventStream]:
        """The same, with all arguments checked; without a consumer it is `follow`."""

    def read(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
    ) -> EventRange:
        """The events from number `start` to before `stop`, or of times; no consumer.

        It ends at the last event that is stored at the call, or, on a server, at its first use.
        `start` 0 is the first one stored; a negative `start` counts from the end, so -10 means the
        last ten, or all if there are fewer.

        `since` and `until` are times of storing (`EventEnvelope.stored_at`), aware datetimes: the
        first event stored at or after `since`, to before the first one stored at or after `until`.
        One of them is enough.

        `key`: only events of this key; it is enough alone, for all of them that are stored. A
        directory has indexes by key, which the first such read makes if it may write there.

        Raises:
            InvalidArgument, InvalidArgumentType: a bound is none, or numbers and times are mixed.
            LogClosed: the handle is not open.
            (from the range) EventsTruncated: retention deleted event `start`.
        """
        return self._read(Bounds.of(start, stop, since, until, key))

    @abstractmethod
    def _read(self, bounds: Bounds) -> EventRange:
        """The same, with all arguments checked."""

    async def latest(self, key: str) -> EventEnvelope | None:
        """The last event of a key; `None` if the key has none, or was deleted since.

        It is looked for from the end backwards: in a directory by indexes, which the first call
        makes if it may; on a server, a key that nobody has used takes as long as the whole log.

        Raises:
            InvalidArgument, InvalidArgumentType: the key is no valid text.
        """
        wanted = filter_of_key(key)
        return await latest_of(self._read, await self.last_seq_no(), wanted)

    async def delete(self, key: str) -> int:
        """Append an event that marks the key as deleted: `latest` is `None` from then on.

        Readers see it as any event, with `EventEnvelope.is_deletion`; its `event` is `None`, also
        for who reads with a `type`. The earlier events of the key stay. Returns its number.

        Raises:
            InvalidArgument, InvalidArgumentType: the key is no valid text.
            LogFull, WriterUnavailable: as `append`.
        """
        return await self.append(DELETION, key=check_key(key))

    @abstractmethod
    async def ack(self, consumer: str, seq_no: int, state: bytes | None = None) -> None:
        """Say that the consumer has processed everything up to and including `seq_no`.

        A smaller number than before changes nothing. The consumer is created if need be.

        `state` is what the consumer has made of the events so far, in up to 64 KiB. Position and
        state are stored in one step: a consumer that is killed anywhere finds both as they were
        together, in `EventStream.state` and in `consumers()`. Moving on without a state drops it,
        and so do `seek` and `forget`; the same number with a state replaces it.

        Raises:
            SequenceOutOfRange: there is no such event yet.
            InvalidName, InvalidArgument, InvalidArgumentType: before anything is sent.
            InvalidArgument: a state for a group.
            LogFull: there is no room for the state.
            NotSupported: the engine keeps no states.
        """

    @abstractmethod
    async def seek(self, consumer: str, position: SeekPosition) -> None:
        """Set where the consumer's next `LAST_ACKNOWLEDGED` subscription starts.

        Backward or forward; streams already open are not moved.

        Raises:
            InvalidName, InvalidArgument, InvalidArgumentType: before anything is sent.
        """

    @abstractmethod
    async def last_seq_no(self) -> int | None:
        """The number of the last event ever appended; `None` on an empty log."""

    @abstractmethod
    async def synced(self, seq_no: int | None = None) -> None:
        """Return when event `seq_no`, and all before it, are on the disk; by default, the last one.

        With durability "disk" that is at most a second after the append, with "sync" at once.

        Raises:
            InvalidArgument: the log lives in memory, and nothing of it ever gets there.
            SequenceOutOfRange: there is no such event yet.
        """

    @abstractmethod
    async def consumers(self) -> list[ConsumerState]:
        """All consumers, by name."""

    @abstractmethod
    async def forget(self, consumer: str) -> None:
        """Remove a consumer; an unknown one is none to remove."""

    @abstractmethod
    async def status(self) -> LogStatus:
        """The log at this moment."""

    async def statistics(self) -> LogStatistics:
        """What this handle has appended, and what the log's writer has done since it started.

        Publishers and streams count for themselves: see their `statistics`.

        Raises:
            NotSupported: the engine counts nothing.
        """
        raise no_statistics()
