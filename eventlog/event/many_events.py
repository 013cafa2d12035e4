"""Many events as record batches: what `append_many` packs, each event as it was when it came.

An iterable may hand out one object again and again and change it in between, so an event is packed
before the next one is asked for. A list, a tuple or a range runs no code of the caller's meanwhile:
their events are packed some hundreds at a time, which is three times as fast.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from itertools import islice, repeat
from typing import Any, Final, Generic, Protocol, TypeGuard, TypeVar

from eventlog.config import BATCH_EVENTS_LIMIT
from eventlog.errors import (
    EventLogError,
    EventTooLarge,
    InvalidArgument,
    InvalidArgumentType,
    InvalidEvent,
)
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.envelope import Row
from eventlog.event.record_batch import PackedBatch
from eventlog.event.stored_batch import StoredBatch
from eventlog.event.texts import Headers, Keys

CHUNK_EVENTS: Final = 256
LIST_EVENTS_MAX: Final = 1024
"""Longer lists are batches of their own."""
_REFUSALS: Final = (InvalidEvent, EventTooLarge, InvalidArgument, InvalidArgumentType)
_NO_MORE: Final = object()
_ONE_BY_ONE: Final = frozenset({Row, memoryview})
"""Types of events that cannot be packed as parts of a list."""

_PLAIN_KEYS: Final = frozenset({str, type(None)})


B = TypeVar("B")


class Builder(Protocol[B]):
    """What packs events into batches of some kind; see `BatchBuilder`."""

    @property
    def bytes(self) -> int:
        """The size of what was added since `build`."""

    @property
    def is_full(self) -> bool:
        """Whether no other event may be added before `build`."""

    def __len__(self) -> int:
        """How many were added since `build`."""

    def add(
        self, event: Any, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        """Pack one event."""

    def add_all(self, events: list[Any], limit_bytes: int) -> list[B]:
        """Pack many; the batches that reached the limit."""

    def build(self) -> B:
        """The batch of those that were added since the last call."""


class Packing(Generic[B]):
    """Packs the events of one call into batches of some kind.

    `keys` has a key, or `None`, for each event; `headers` is one mapping for all of them, or has
    one, or `None`, for each.
    """

    def __init__(
        self,
        new_builder: Callable[[], Builder[B]],
        batch_bytes_max: int,
        path: str | None = None,
        keys: Keys = None,
        headers: Headers = None,
    ) -> None:
        self._path = path
        self._limit_bytes = batch_bytes_max
        self._new_builder = new_builder
        self._builder = new_builder()
        self._batches: list[B] = []
        self._count = 0
        self._keys = None if keys is None else _each("keys", keys, path)
        self._headers_of_all: Mapping[str, str] | None = None
        self._headers: Iterator[Mapping[str, str] | None] | None = None
        if headers is not None:
            if isinstance(headers, Mapping):
                self._headers_of_all = headers
            else:
                self._headers = _each("headers", headers, path)
        self._is_bare = keys is None and headers is None

    def pack(self, events: Iterable[Any]) -> list[B]:
        """All the events, in as many batches as the limit asks for.

        Raises:
            InvalidArgument: there are none, or fewer or more of them than keys or headers.
            InvalidArgumentType: one of the arguments is nothing of the kind.
            InvalidEvent, EventTooLarge: one of them is bad; the message tells which.
        """
        if self._is_bare and type(events) in (list, tuple, range):
            source = iter(events)
            while chunk := list(islice(source, CHUNK_EVENTS)):
                self._add_chunk(chunk)
        else:
            for event in _iterated(events, self._path):
                self._add(event)
        return self._finished()

    async def pack_any(self, events: Iterable[Any] | AsyncIterable[Any]) -> list[B]:
        """As `pack`, of an asynchronous iterable too."""
        if not isinstance(events, AsyncIterable):
            return self.pack(events)
        async for event in events:
            self._add(event)
        return self._finished()

    def _add(self, event: Any) -> None:
        """Pack the next event."""
        try:
            if self._is_bare:
                self._builder.add(event)
            else:
                key = self._next(self._keys, "keys")
                headers = self._headers_of_all
                if self._headers is not None:
                    headers = self._next(self._headers, "headers")
                self._builder.add(event, key, headers)
        except _REFUSALS as error:
            raise self._blamed(error, self._count) from error.__cause__
        self._count += 1
        if self._builder.bytes >= self._limit_bytes or self._builder.is_full:
            self._batches.append(self._builder.build())

    def _next(self, source: Iterator[Any] | None, name: str) -> Any:
        """What stands there for the next event."""
        value = None if source is None else next(source, _NO_MORE)
        if value is _NO_MORE:
            raise InvalidArgument(f"{name} has none for it", path=self._path)
        return value

    def _add_chunk(self, chunk: list[Any]) -> None:
        if not _ONE_BY_ONE.isdisjoint(map(type, chunk)):
            for event in chunk:
                self._add(event)
            return
        try:
            self._batches += self._builder.add_all(chunk, self._limit_bytes)
        except (InvalidEvent, EventTooLarge):
            self._blame(chunk)
            raise
        self._count += len(chunk)

    def _blame(self, chunk: list[Any]) -> None:
        """Raise the error of the first bad event of the chunk; the others are good."""
        builder = self._new_builder()
        for place, event in enumerate(chunk, self._count):
            try:
                builder.add(event)
            except (InvalidEvent, EventTooLarge) as error:
                raise self._blamed(error, place) from error.__cause__

    def _blamed(self, error: EventLogError, place: int) -> EventLogError:
        return type(error)(
            f"nothing was appended, as events[{place}] is bad: {error}", path=self._path, stored=0
        )

    def _finished(self) -> list[B]:
        for name, source in (("keys", self._keys), ("headers", self._headers)):
            if source is not None and next(source, _NO_MORE) is not _NO_MORE:
                raise InvalidArgument(
                    f"nothing was appended: {name} has more than the {self._count} events",
                    path=self._path,
                    stored=0,
                )
        if len(self._builder):
            self._batches.append(self._builder.build())
        if not self._batches:
            raise InvalidArgument(
                f"no events to append to the log {self._path}", path=self._path, stored=0
            )
        return self._batches


class ManyEvents(Packing[PackedBatch]):
    """Packs the events of one call into record batches."""

    def __init__(
        self,
        max_event_bytes: int,
        batch_bytes_max: int,
        path: str | None = None,
        keys: Keys = None,
        headers: Headers = None,
    ) -> None:
        super().__init__(
            lambda: BatchBuilder(max_event_bytes, path), batch_bytes_max, path, keys, headers
        )
        self._builder: BatchBuilder
        self._given = keys, headers
        self._max_event_bytes = max_event_bytes

    def pack(self, events: Iterable[Any]) -> list[PackedBatch]:
        """Pack the events of one call; a batch that comes from another log is packed as a whole."""
        if isinstance(events, StoredBatch) and events.fits(self._max_event_bytes):
            packed = events.packed()
            # Batches are cut once they are past the limit, so they may be somewhat larger.
            if packed is not None and len(packed.payload) <= 2 * self._limit_bytes:
                return [packed]
        if add_list(self._builder, events, self._given[0], self._given[1], self._limit_bytes):
            return [self._builder.build()]
        return super().pack(events)


def add_list(
    builder: BatchBuilder, events: object, keys: Keys, headers: Headers, limit_bytes: int
) -> bool:
    """Add a list to a batch in the making, whole or not at all.

    It is not added if there is no room for it, if anything in it is bad, or if it is no short list
    with as many keys and headers: `ManyEvents` takes these, or says what is wrong.
    """
    if not isinstance(events, list | tuple | range) or not 0 < len(events) <= LIST_EVENTS_MAX:
        return False
    if type(events) not in {list, tuple, range}:
        return False  # one of the caller's own, whose code may do anything
    values: list[Any] = list(events)
    columns = [values, _column(keys, len(values)), _column(headers, len(values))]
    if None in columns or len(builder) + len(values) >= BATCH_EVENTS_LIMIT:
        return False
    is_plain = keys is None or _PLAIN_KEYS.issuperset(map(type, keys))
    if is_plain and _ONE_BY_ONE.isdisjoint(map(type, values)):
        return builder.add_list(values, limit_bytes, keys, headers)  # type: ignore[arg-type]  # a list of them
    return _add_each(builder, columns, limit_bytes)


def _add_each(builder: BatchBuilder, columns: list[Any], limit_bytes: int) -> bool:
    """Add a list event by event, and drop those that were added if one is bad or has no room."""
    rows, size = len(builder), builder.bytes
    try:
        for event, key, its_headers in zip(*columns, strict=False):
            builder.add(event, key, its_headers)
    except _REFUSALS:
        pass
    else:
        if builder.bytes < limit_bytes:
            return True
    builder.truncate(rows)
    builder.bytes = size
    return False


def _column(given: Any, count: int) -> Iterable[Any] | None:
    """A value for each of so many events; `None` if they cannot be told beforehand."""
    if given is None or isinstance(given, Mapping):
        return repeat(given, count)
    return given if type(given) in {list, tuple} and len(given) == count else None


def pack_batches(
    events: Iterable[Any], max_event_bytes: int, batch_bytes_max: int, path: str | None = None
) -> list[PackedBatch]:
    """The batches of events that have neither keys nor headers; see `ManyEvents.pack`."""
    return ManyEvents(max_event_bytes, batch_bytes_max, path).pack(events)


def stored_before(error: EventLogError, count: int) -> EventLogError:
    """The error as `append_many` raises it: the first `count` events are stored."""
    twin = type(error)(str(error), **{**error.fields, "stored": count})
    twin.__cause__ = error.__cause__
    return twin


def _each(name: str, values: Any, path: str | None) -> Iterator[Any]:
    """One by one; a text is no list of keys, though it can be iterated."""
    if isinstance(values, str | bytes | Mapping):
        raise InvalidArgumentType(
            f"{name} is {values!r:.80}; give a list with one for each event", path=path, stored=0
        )
    return iter(_iterated(values, path))


def _iterated(values: Any, path: str | None) -> Iterable[Any]:
    if not _is_iterable(values):
        raise InvalidArgumentType(
            f"{values!r:.80} is no iterable of events; give a list", path=path, stored=0
        )
    return values


def _is_iterable(values: Any) -> TypeGuard[Iterable[Any]]:
    try:
        iter(values)
    except TypeError:
        return False
    return True
