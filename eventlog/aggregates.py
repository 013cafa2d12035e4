"""Aggregates: the state of each key, made of its events, and changed by events decided on it.

::

    load     snapshot, if there is one --> apply each event of the key since then --> state
    change   load --> decide(state) --> append_many(events, expect={key: last number})
                ^------- somebody else was first: apply theirs -------'

`apply(state, event)` gives the state after an event, and `decide(state)` the events that are to
happen now, or raises what forbids it. Neither reads or stores anything, so `decide` may be called
again on a newer state. `Aggregates` is for logs of `eventlog.open`, `BlockingAggregates` for those
of `eventlog.blocking.open`. Snapshots lie in a log of their own, under the aggregate's key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from eventlog.api.blocking_log import EventLog as BlockingEventLog
from eventlog.api.log import EventLog
from eventlog.api.positions import SeekPosition
from eventlog.api.stream_options import StreamOptions
from eventlog.errors import EventLogError, EventsTruncated, InvalidArgument, WrongExpectation
from eventlog.event.envelope import EventEnvelope
from eventlog.event.texts import check_key

State = TypeVar("State")
Decide = Callable[[State], Iterable[Any]]

logger = logging.getLogger("eventlog")
ATTEMPTS_MAX: Final = 100
"""How often a change is tried; before each further attempt, another program has stored an event."""
SNAPSHOT_EVERY_DEFAULT: Final = 100


class Loaded(NamedTuple, Generic[State]):
    """An aggregate, as it is after its last event."""

    state: State
    seq_no: int
    """The number of its last event, which the next append expects; 0 if it has none."""
    last_id: bytes = b""
    """The id of its last event."""
    since_snapshot: int = 0
    """The number of events after the newest snapshot."""


class _Rules(Generic[State]):
    """The part that both kinds share: makes states of events, and snapshots of states; no I/O."""

    def __init__(
        self,
        initial: Callable[[], State],
        apply: Callable[[State, Any], State],
        kind: Any,
        snapshot_every: int,
    ) -> None:
        if snapshot_every < 1:
            raise InvalidArgument(f"snapshot_every={snapshot_every}; give 1 or more")
        self._initial = initial
        self._apply = apply
        self._kind = kind
        self._snapshot_every = snapshot_every
        self._load_saves = True

    def _first(self) -> Loaded[State]:
        return Loaded(self._initial(), 0)

    def _after(self, at: Loaded[State], envelope: EventEnvelope) -> Loaded[State]:
        """The aggregate after one more event; a deleted one begins anew."""
        deleted = envelope.is_deletion
        state = self._initial() if deleted else self._apply(at.state, envelope.event)
        since = at.since_snapshot + 1
        return Loaded(state, envelope.seq_no or 0, envelope.id_bytes, since)

    def _after_all(
        self, at: Loaded[State], stored: list[EventEnvelope], first: int
    ) -> Loaded[State]:
        """The aggregate after events that were just stored, from that number on."""
        for seq_no, envelope in enumerate(stored, first):
            at = self._after(at, envelope.__replace__(seq_no=seq_no))
        return at

    def _decided(self, at: Loaded[State], decide: Decide[State], key: str) -> list[EventEnvelope]:
        return [EventEnvelope(event, key=key) for event in decide(at.state)]

    def _options(self, key: str) -> StreamOptions:
        return StreamOptions(
            follow=False, on_truncated="skip", type=self._kind, keys=[check_key(key)]
        )

    def _is_snapshot_due(self, at: Loaded[State]) -> bool:
        return at.since_snapshot >= self._snapshot_every

    def _note_unsaved(self, key: str, error: EventLogError) -> None:
        """Whoever may only read snapshots gets one warning: `load` does not try again."""
        self._load_saves = False
        logger.warning("the snapshot of %r could not be stored: %s", key, error)

    def _snapshot_of(self, at: Loaded[State]) -> dict[str, Any]:
        return {"seq_no": at.seq_no, "id": at.last_id, "state": at.state}

    def _loaded_from(self, snapshot: EventEnvelope) -> Loaded[State]:
        fields = snapshot.event
        state = fields["state"]
        if isinstance(self._initial, type):
            builtin = (bytes, datetime, UUID)
            state = msgspec.convert(state, self._initial, builtin_types=builtin)
        return Loaded(state, fields["seq_no"], fields["id"])

    def _from_snapshot(self, found: EventEnvelope | None) -> Loaded[State]:
        """What a snapshot says; the beginning if there is none, or one of another kind of state."""
        try:
            return self._first() if found is None else self._loaded_from(found)
        except (msgspec.ValidationError, LookupError, TypeError) as error:
            logger.warning("a snapshot is not used, and all events are read: %s", error)
            return self._first()


def _past_nothing(at: Loaded[State], error: WrongExpectation) -> Loaded[State]:
    """The aggregate whose last event retention has deleted: no event of its key is stored."""
    return at._replace(seq_no=error.last_seq_no or 0)


class Aggregates(_Rules[State]):
    """Aggregates of one kind in a log, for trio and asyncio.

    `initial()` is the state before the first event; if it is a class, snapshots are decoded to it.
    `type` is what events are decoded to, as in `subscribe`. With `snapshots`, another open log, a
    snapshot is stored after each `snapshot_every` events of an aggregate: by `change` that appends
    them, and by `load` that reads them. A `snapshots` log that cannot be written is used as it is.
    """

    def __init__(
        self,
        log: EventLog,
        initial: Callable[[], State],
        apply: Callable[[State, Any], State],
        *,
        type: Any = None,  # noqa: A002 - what it is
        snapshots: EventLog | None = None,
        snapshot_every: int = SNAPSHOT_EVERY_DEFAULT,
    ) -> None:
        super().__init__(initial, apply, type, snapshot_every)
        self._log = log
        self._snapshots = snapshots

    async def load(self, key: str) -> Loaded[State]:
        """The aggregate of a key, as it is now."""
        at = self._first()
        if self._snapshots is not None:
            at = self._from_snapshot(await self._snapshots.latest(key))
            if at.seq_no and not await self._has(at):
                at = self._first()  # the log has lost that event, and others have its number
        at = await self._newer(key, at)
        return await self._save(key, at) if self._load_saves else at

    async def change(self, key: str, decide: Decide[State]) -> State:
        """Store what `decide` makes of the state, and return the state after it.

        If somebody else has stored an event of the key meanwhile, it decides again on the new
        state. Without any event nothing is stored.

        Raises:
            WrongExpectation: others were first, a hundred times in a row.
            LogFull, EventTooLarge, ...: as `append_many`; and what `decide` raises.
        """
        at = await self.load(key)
        attempts = 0
        while events := self._decided(at, decide, key):
            try:
                first, _ = await self._log.append_many(events, expect={key: at.seq_no})
            except WrongExpectation as error:
                attempts += 1
                if attempts == ATTEMPTS_MAX:
                    raise
                newer = await self._newer(key, at)
                at = _past_nothing(at, error) if newer is at else newer
                continue
            at = await self._save(key, self._after_all(at, events, first))
            break
        return at.state

    async def _newer(self, key: str, at: Loaded[State]) -> Loaded[State]:
        position = SeekPosition.sequence(at.seq_no + 1)
        async with self._log._subscribe(None, position, self._options(key)) as stream:
            async for envelope in stream:
                at = self._after(at, envelope)
        return at

    async def _has(self, at: Loaded[State]) -> bool:
        try:
            return [one.id_bytes for one in await self._log.read(at.seq_no, at.seq_no + 1)] == [
                at.last_id
            ]
        except EventsTruncated:
            return True

    async def _save(self, key: str, at: Loaded[State]) -> Loaded[State]:
        if self._snapshots is None or not self._is_snapshot_due(at):
            return at
        try:
            await self._snapshots.append(self._snapshot_of(at), key=key)
        except EventLogError as error:
            self._note_unsaved(key, error)
            return at
        self._load_saves = True
        return at._replace(since_snapshot=0)


class BlockingAggregates(_Rules[State]):
    """Aggregates of one kind in a log of `eventlog.blocking.open`; see `Aggregates`."""

    def __init__(
        self,
        log: BlockingEventLog,
        initial: Callable[[], State],
        apply: Callable[[State, Any], State],
        *,
        type: Any = None,  # noqa: A002 - what it is
        snapshots: BlockingEventLog | None = None,
        snapshot_every: int = SNAPSHOT_EVERY_DEFAULT,
    ) -> None:
        super().__init__(initial, apply, type, snapshot_every)
        self._log = log
        self._snapshots = snapshots

    def load(self, key: str) -> Loaded[State]:
        """The aggregate of a key, as it is now."""
        at = self._first()
        if self._snapshots is not None:
            at = self._from_snapshot(self._snapshots.latest(key))
            if at.seq_no and not self._has(at):
                at = self._first()
        at = self._newer(key, at)
        return self._save(key, at) if self._load_saves else at

    def change(self, key: str, decide: Decide[State]) -> State:
        """Store what `decide` makes of the state; see `Aggregates.change`."""
        at = self.load(key)
        attempts = 0
        while events := self._decided(at, decide, key):
            try:
                first, _ = self._log.append_many(events, expect={key: at.seq_no})
            except WrongExpectation as error:
                attempts += 1
                if attempts == ATTEMPTS_MAX:
                    raise
                newer = self._newer(key, at)
                at = _past_nothing(at, error) if newer is at else newer
                continue
            at = self._save(key, self._after_all(at, events, first))
            break
        return at.state

    def _newer(self, key: str, at: Loaded[State]) -> Loaded[State]:
        position = SeekPosition.sequence(at.seq_no + 1)
        with self._log._subscribe(None, position, self._options(key)) as stream:
            for envelope in stream:
                at = self._after(at, envelope)
        return at

    def _has(self, at: Loaded[State]) -> bool:
        try:
            events = self._log.read(at.seq_no, at.seq_no + 1)
            return [one.id_bytes for one in events] == [at.last_id]
        except EventsTruncated:
            return True

    def _save(self, key: str, at: Loaded[State]) -> Loaded[State]:
        if self._snapshots is None or not self._is_snapshot_due(at):
            return at
        try:
            self._snapshots.append(self._snapshot_of(at), key=key)
        except EventLogError as error:
            self._note_unsaved(key, error)
            return at
        self._load_saves = True
        return at._replace(since_snapshot=0)
