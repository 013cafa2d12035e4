"""Recorders of the `eventsourcing` package over logs; see the package for what is stored how."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    DataError,
    IntegrityError,
    InterfaceError,
    Notification,
    OperationalError,
    PersistenceError,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)

from eventlog import blocking
from eventlog.api.positions import SeekPosition
from eventlog.errors import (
    EventLogError,
    EventsTruncated,
    EventTooLarge,
    InvalidArgument,
    LogClosed,
    LogFull,
    WriterUnavailable,
    WrongExpectation,
)
from eventlog.event.envelope import EventEnvelope

AGGREGATE: Final = "aggregate:"
TRACKING: Final = "tracking:"
ATTEMPTS_MAX: Final = 100
"""Attempts of an append that others come before: each time, one of theirs was stored."""
KNOWN_MAX: Final = 10_000
"""Keys whose last event is remembered; of others it is looked up, by an append that fails."""
LOOK_BACK: Final = 256
_KINDS: Final = (
    (LogFull, OperationalError),
    (WriterUnavailable, OperationalError),
    (EventTooLarge, DataError),
    (InvalidArgument, DataError),
    (LogClosed, InterfaceError),
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of a log into those that users of the package know."""
    try:
        yield
    except EventLogError as error:
        kind = next((kind for ours, kind in _KINDS if isinstance(error, ours)), PersistenceError)
        raise kind(str(error)) from error


class _Known:
    """What is known of a key: the number of its last event, and the largest that one said."""

    def __init__(self) -> None:
        self.seq_no = 0
        self.largest: int | None = None
        """The version of an aggregate, or the notification's id of a tracked application."""


class LogRecorder:
    """What all recorders have: a log, and what is known of its keys."""

    def __init__(self, log: blocking.EventLog) -> None:
        self.log = log
        self._known: dict[str, _Known] = {}
        self._inserting = threading.Lock()
        """An application is used by several threads: what is checked by what is known is stored
        before anybody knows more."""

    def _known_of(self, key: str) -> _Known:
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        return self._known.setdefault(key, _Known())

    def _look_up(self, key: str) -> _Known:
        """What is stored of the key by now."""
        known, last = self._known_of(key), self.log.last_seq_no() or 0
        if known.seq_no < last:
            for envelope in self._events_of(key, known.seq_no + 1):
                self._note(known, envelope)
        return known

    def _note(self, known: _Known, envelope: EventEnvelope) -> None:
        said = envelope.event
        number = said["notification_id"] if isinstance(said, dict) else said[1]
        known.seq_no = envelope.seq_no or 0
        known.largest = number if known.largest is None else max(known.largest, number)

    def _events_of(self, key: str, start: int = 0) -> Iterator[EventEnvelope]:
        try:
            yield from self.log.read(start, key=key)
        except EventsTruncated:  # retention has deleted the first of them
            yield from self.log.read(0, key=key)

    def _append(self, events: list[Any], keys: list[str]) -> tuple[int, int]:
        """Store the events as one batch, behind what is known of their keys.

        Raises:
            WrongExpectation: somebody else has stored an event of a key; it is known now.
        """
        expect = {key: self._known_of(key).seq_no for key in keys}
        try:
            return self.log.append_many(events, keys=keys, expect=expect)
        except WrongExpectation as error:
            if error.key is not None:
                before = self._known_of(error.key).seq_no
                known = self._look_up(error.key)
                if known.seq_no == before:  # nothing is new: retention has deleted the last one
                    known.seq_no = error.last_seq_no or 0
            for key in expect:  # the refusal tells of one key only
                if key != error.key:
                    self._look_up(key)
            raise

    def _check_tracking(self, tracking: Tracking) -> None:
        """Pass if nothing that is known was processed up to there.

        Raises:
            IntegrityError: it was.
        """
        known = self._known_of(TRACKING + tracking.application_name)
        if known.largest is not None and tracking.notification_id <= known.largest:
            raise IntegrityError(
                f"Tracking notification ID {tracking.notification_id} not greater than current max"
                f" tracking ID {known.largest}"
            )


class LogAggregateRecorder(LogRecorder, AggregateRecorder):
    """Events of aggregates, such as snapshots."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Store the events, all or none."""
        self._insert(stored_events, kwargs.get("tracking"))
        return None

    def _insert(
        self, stored_events: Sequence[StoredEvent], tracking: Tracking | None = None
    ) -> list[int]:
        """Store the events as one batch; the number of each."""
        if not stored_events and tracking is None:
            return []
        _check_unique(stored_events)
        with translated():
            for _ in range(ATTEMPTS_MAX):
                try:
                    with self._inserting:
                        return self._try_to_insert(stored_events, tracking)
                except WrongExpectation:
                    continue
        raise OperationalError(f"others of {self.log.path} append all the time; try it again")

    def _try_to_insert(
        self, stored_events: Sequence[StoredEvent], tracking: Tracking | None
    ) -> list[int]:
        self._check_versions(stored_events)
        events: list[Any] = []
        keys: list[str] = []
        if tracking is not None:  # first, so that the last event is mostly a stored event
            self._check_tracking(tracking)
            events.append({"notification_id": tracking.notification_id})
            keys.append(TRACKING + tracking.application_name)
        for one in stored_events:
            events.append([one.originator_id, one.originator_version, one.topic, one.state])
            keys.append(_key_of(one.originator_id))
        first, last = self._append(events, keys)
        for seq_no, key, event in zip(range(first, last + 1), keys, events, strict=True):
            self._note(self._known_of(key), EventEnvelope(event, seq_no=seq_no))
        return [*range(first + (tracking is not None), last + 1)]

    def _check_versions(self, stored_events: Sequence[StoredEvent]) -> None:
        """Pass if none of the versions is known to be stored.

        Raises:
            IntegrityError: one is.
        """
        lowest: dict[UUID | str, int] = {}
        for one in stored_events:
            version = lowest.get(one.originator_id, one.originator_version)
            lowest[one.originator_id] = min(version, one.originator_version)
        for originator_id, version in lowest.items():
            known = self._known_of(_key_of(originator_id))
            if known.largest is not None and version <= known.largest:
                stored = {one.originator_version for one in self._stored(originator_id)}
                for one in stored_events:
                    if one.originator_id == originator_id and one.originator_version in stored:
                        raise IntegrityError(f"Stored event already recorded: {one}")

    def _stored(self, originator_id: UUID | str) -> list[StoredEvent]:
        events = self._events_of(_key_of(originator_id))
        return [StoredEvent(*envelope.event) for envelope in events]

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The events of an aggregate, by version."""
        with translated():
            found = [
                one
                for one in self._stored(originator_id)
                if (gt is None or one.originator_version > gt)
                and (lte is None or one.originator_version <= lte)
            ]
        found.sort(key=lambda one: one.originator_version, reverse=desc)
        return found if limit is None else found[:limit]


class LogApplicationRecorder(LogAggregateRecorder, ApplicationRecorder):
    """Events of an application, in the order in which they were stored."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Store the events, all or none; the numbers that they have."""
        return self._insert(stored_events, kwargs.get("tracking"))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Up to `limit` events from a number on."""
        first = max((start or 0) + (start is not None and not inclusive_of_start), 0)
        found: list[Notification] = []
        with translated():
            for envelope in self._read(first, None if stop is None else stop + 1):
                notification = _notification_of(envelope, topics)
                if notification is not None:
                    found.append(notification)
                if len(found) == limit:
                    break
        return found

    def _read(self, start: int, stop: int | None) -> Iterator[EventEnvelope]:
        try:
            yield from self.log.read(start, stop)
        except EventsTruncated:
            yield from self.log.read(0, stop)

    def max_notification_id(self) -> int | None:
        """The number of the last stored event."""
        with translated():
            stop = (self.log.last_seq_no() or 0) + 1
            while stop > 1:
                start = max(stop - LOOK_BACK, 1)
                events = [*self._read(start, stop)]
                for envelope in reversed(events):
                    if _notification_of(envelope) is not None:
                        return envelope.seq_no
                stop = start if events else 1
        return None

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        """The events after a number, and those that are stored from now on."""
        return LogSubscription(self, gt, topics)


class LogSubscription(Subscription[LogApplicationRecorder]):
    """A stream of the log; `stop` ends it, from whichever thread."""

    def __init__(
        self, recorder: LogApplicationRecorder, gt: int | None, topics: Sequence[str]
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._following = recorder.log.follow(
            SeekPosition.sequence((gt or 0) + 1), on_truncated="skip"
        )
        self._stream: blocking.EventStream | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End the iteration, also while a thread waits in it."""
        with self._lock:
            super().stop()
            stream, self._stream = self._stream, None
        if stream is not None:
            self._following.__exit__(None, None, None)

    def __next__(self) -> Notification:
        """The next one, waiting for it."""
        with self._lock:
            if self._has_been_stopped:
                raise StopIteration
            if self._stream is None:
                self._stream = self._following.__enter__()
            stream = self._stream
        with translated():
            while True:
                try:
                    found = _notification_of(next(stream), self._topics)
                except LogClosed:
                    if self._has_been_stopped:
                        raise StopIteration from None
                    raise
                if found is not None:
                    return found


class LogTrackingRecorder(LogRecorder, TrackingRecorder):
    """What was processed of other applications."""

    def insert_tracking(self, tracking: Tracking) -> None:
        """Note that everything up to a notification was processed."""
        with translated():
            for _ in range(ATTEMPTS_MAX):
                try:
                    with self._inserting:
                        self._look_up(TRACKING + tracking.application_name)
                        self._try_to_track(tracking)
                except WrongExpectation:
                    continue
                return
        raise OperationalError(f"others of {self.log.path} append all the time; try it again")

    def _try_to_track(self, tracking: Tracking) -> None:
        self._check_tracking(tracking)
        key = TRACKING + tracking.application_name
        self._append([{"notification_id": tracking.notification_id}], [key])

    def max_tracking_id(self, application_name: str) -> int | None:
        """Up to where another application was processed."""
        with translated(), self._inserting:
            return self._look_up(TRACKING + application_name).largest


class LogProcessRecorder(LogTrackingRecorder, LogApplicationRecorder, ProcessRecorder):
    """Events of an application, each together with what it was made of."""


def _key_of(originator_id: UUID | str) -> str:
    return f"{AGGREGATE}{originator_id}"


def _check_unique(stored_events: Sequence[StoredEvent]) -> None:
    if len({(one.originator_id, one.originator_version) for one in stored_events}) < len(
        stored_events
    ):
        raise IntegrityError(f"Stored events are not unique: {stored_events}")


def _notification_of(envelope: EventEnvelope, topics: Sequence[str] = ()) -> Notification | None:
    """The notification that an event is; `None` if it is no stored event, or of another topic."""
    if envelope.key is None or not envelope.key.startswith(AGGREGATE):
        return None
    originator_id, version, topic, state = envelope.event
    if topics and topic not in topics:
        return None
    return Notification(
        id=envelope.seq_no or 0,
        originator_id=originator_id,
        originator_version=version,
        topic=topic,
        state=state,
    )
