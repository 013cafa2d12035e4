"""Logs as the persistence of the `eventsourcing` package: its own tests, as they are, and ours."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest import TestCase
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import (
    InfrastructureFactoryError,
    IntegrityError,
    StoredEvent,
    Tracking,
)
from eventsourcing.tests import persistence as cases
from eventsourcing.utils import Environment

from eventlog import blocking
from eventlog.demo.main_job import stop_process
from eventlog.eventsourcing import (
    LogAggregateRecorder,
    LogApplicationRecorder,
    LogFactory,
    LogProcessRecorder,
    LogTrackingRecorder,
)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestCollectionWarning")


class InDirectories(TestCase):
    """Gives the cases of the package a log for each of their tests."""

    def setUp(self) -> None:
        self.place = tempfile.mkdtemp(prefix="eventlog-eventsourcing-")
        self.path = f"{self.place}/log"
        self.addCleanup(self.end)
        super().setUp()

    def open(self) -> blocking.EventLog:
        log = blocking.open(self.path)
        self.addCleanup(log.close)
        return log

    def end(self) -> None:
        for path in Path(self.place).iterdir():
            with blocking.open(path) as log:
                pid = log.status().writer_pid
            if pid is not None:
                stop_process(pid)
        shutil.rmtree(self.place)


class TestAggregates(InDirectories, cases.AggregateRecorderTestCase):
    def create_recorder(self) -> LogAggregateRecorder:
        return LogAggregateRecorder(self.open())


class TestApplications(InDirectories, cases.ApplicationRecorderTestCase[LogApplicationRecorder]):
    def create_recorder(self) -> LogApplicationRecorder:
        return LogApplicationRecorder(self.open())

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTracking(InDirectories, cases.TrackingRecorderTestCase):
    def create_recorder(self) -> LogTrackingRecorder:
        return LogTrackingRecorder(self.open())


class TestProcesses(InDirectories, cases.ProcessRecorderTestCase):
    def create_recorder(self) -> LogProcessRecorder:
        return LogProcessRecorder(self.open())


class TestApplicationsAsProcesses(
    InDirectories, cases.ApplicationRecorderTestCase[LogProcessRecorder]
):
    def create_recorder(self) -> LogProcessRecorder:
        return LogProcessRecorder(self.open())

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestNotInterleaved(InDirectories, cases.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> LogApplicationRecorder:
        return LogApplicationRecorder(self.open())


class OwnTrackingRecorder(LogTrackingRecorder):
    """What a projection derives."""


class TestFactory(InDirectories, cases.InfrastructureFactoryTestCase[LogFactory]):
    def setUp(self) -> None:
        place = tempfile.mkdtemp(prefix="eventlog-eventsourcing-")
        self.env = Environment(
            env={"PERSISTENCE_MODULE": "eventlog.eventsourcing", "EVENTLOG_PATH": f"{place}/log"}
        )
        super().setUp()
        shutil.rmtree(self.place)
        self.place = place

    def expected_factory_class(self) -> type[LogFactory]:
        return LogFactory

    def expected_aggregate_recorder_class(self) -> type[LogAggregateRecorder]:
        return LogAggregateRecorder

    def expected_application_recorder_class(self) -> type[LogApplicationRecorder]:
        return LogApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[LogTrackingRecorder]:
        return LogTrackingRecorder

    def tracking_recorder_subclass(self) -> type[LogTrackingRecorder]:
        return OwnTrackingRecorder

    def expected_process_recorder_class(self) -> type[LogProcessRecorder]:
        return LogProcessRecorder


# --- ours ----------------------------------------------------------------------------------------


class Dog(Aggregate):
    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event("TrickAdded")
    def add_trick(self, trick: str) -> None:
        self.tricks.append(trick)


class Dogs(Application[UUID]):
    is_snapshotting_enabled = True

    def register(self, name: str) -> UUID:
        dog = Dog(name)
        self.save(dog)
        return dog.id

    def teach(self, dog_id: UUID, trick: str) -> None:
        dog: Dog = self.repository.get(dog_id)
        dog.add_trick(trick)
        self.save(dog)

    def tricks(self, dog_id: UUID) -> list[str]:
        dog: Dog = self.repository.get(dog_id)
        return dog.tricks


def environment(path: Path) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": "eventlog.eventsourcing", "EVENTLOG_PATH": str(path / "dogs")}


@pytest.fixture
def place(tmp_path: Path) -> Any:
    yield tmp_path
    for path in tmp_path.iterdir():
        with blocking.open(path) as log:
            pid = log.status().writer_pid
        if pid is not None:
            stop_process(pid)


def test_an_application_goes_on_where_it_was(place: Path) -> None:
    with Dogs(environment(place)) as app:
        dog_id = app.register("Fido")
        app.teach(dog_id, "roll over")
        app.take_snapshot(dog_id)
        app.teach(dog_id, "fetch")
    with Dogs(environment(place)) as app:
        assert app.tricks(dog_id) == ["roll over", "fetch"]
        app.teach(dog_id, "sit")
        notifications = app.notification_log.select(start=1, limit=10)
        assert [one.id for one in notifications] == [1, 2, 3, 4]
    with blocking.open(place / "dogs") as log:
        assert [one.key for one in log.read(1)] == [f"aggregate:{dog_id}"] * 4
        assert [one.event[1] for one in log.read(1)] == [1, 2, 3, 4]
    assert sorted(path.name for path in place.iterdir()) == ["dogs", "dogs-snapshots"]


def test_of_two_that_change_one_aggregate_one_is_told(place: Path) -> None:
    with Dogs(environment(place)) as one, Dogs(environment(place)) as other:
        dog_id = one.register("Fido")
        mine: Dog = one.repository.get(dog_id)
        theirs: Dog = other.repository.get(dog_id)
        mine.add_trick("sit")
        theirs.add_trick("roll over")
        one.save(mine)
        with pytest.raises(IntegrityError, match="already recorded"):
            other.save(theirs)
        other.teach(dog_id, "roll over")
        assert one.tricks(dog_id) == ["sit", "roll over"]


def stored(originator_id: UUID, version: int) -> StoredEvent:
    return StoredEvent(originator_id, version, "topic", b"state")


def test_of_many_that_store_the_same_versions_one_wins_each(place: Path) -> None:
    originator_id, won = uuid4(), list[int]()

    def run() -> None:
        with blocking.open(place / "log") as log:
            recorder = LogApplicationRecorder(log)
            for version in range(1, 41):
                try:
                    recorder.insert_events([stored(originator_id, version)])
                except IntegrityError:
                    continue
                won.append(version)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, 41))
    with blocking.open(place / "log") as log:
        found = LogApplicationRecorder(log).select_events(originator_id)
    assert [one.originator_version for one in found] == list(range(1, 41))


def test_a_version_that_was_left_out_may_be_stored_later_and_once(place: Path) -> None:
    originator_id = uuid4()
    with blocking.open(place / "log") as log:
        recorder, other = LogAggregateRecorder(log), LogAggregateRecorder(log)
        recorder.insert_events([stored(originator_id, 5)])
        other.insert_events([stored(originator_id, 3)])
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored(originator_id, 3)])
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored(originator_id, 6), stored(originator_id, 3)])
        found = recorder.select_events(originator_id, desc=True)
        assert [one.originator_version for one in found] == [5, 3]


def test_events_and_what_they_came_of_are_stored_together_or_not_at_all(place: Path) -> None:
    originator_id = uuid4()
    with blocking.open(place / "log") as log:
        one, other = LogProcessRecorder(log), LogProcessRecorder(log)
        one.insert_events([stored(originator_id, 1)], tracking=Tracking("upstream", 1))
        with pytest.raises(IntegrityError):  # it does not know yet of the other one
            other.insert_events([stored(originator_id, 2)], tracking=Tracking("upstream", 1))
        assert len(one.select_events(originator_id)) == 1
        other.insert_events([], tracking=Tracking("upstream", 7))
        assert one.max_tracking_id("upstream") == 7
        assert one.max_notification_id() == 2
        assert [found.id for found in one.select_notifications(None, 10)] == [2]


def test_a_subscription_that_waits_is_ended_by_another_thread(place: Path) -> None:
    with blocking.open(place / "log") as log:
        recorder = LogApplicationRecorder(log)
        recorder.insert_events([stored(uuid4(), 1)])
        seen: list[int] = []
        is_waiting = threading.Event()

        def follow() -> None:
            for notification in subscription:
                seen.append(notification.id)
                is_waiting.set()

        with recorder.subscribe() as subscription:
            thread = threading.Thread(target=follow)
            thread.start()
            assert is_waiting.wait(10)
            subscription.stop()
            thread.join(10)
            assert not thread.is_alive()
        assert seen == [1]


def test_an_application_may_live_in_memory_and_under_a_path_with_a_slash(place: Path) -> None:
    for path in ("memory:", f"{place}/dogs/"):
        with Dogs({"PERSISTENCE_MODULE": "eventlog.eventsourcing", "EVENTLOG_PATH": path}) as app:
            dog_id = app.register("Fido")
            app.take_snapshot(dog_id)
            app.teach(dog_id, "sit")
            assert app.tricks(dog_id) == ["sit"]
    assert sorted(path.name for path in place.iterdir()) == ["dogs", "dogs-snapshots"]


def test_without_a_path_the_factory_says_what_is_missing() -> None:
    factory = LogFactory({"PERSISTENCE_MODULE": "eventlog.eventsourcing"})
    with pytest.raises(InfrastructureFactoryError, match="EVENTLOG_PATH is not set"):
        factory.application_recorder()


def test_threads_of_an_application_store_no_version_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One thread checked its version, another stored the same one, and the first stored it again.
    with blocking.open(tmp_path / "log") as log:
        recorder = LogApplicationRecorder(log)
        originator = uuid4()
        recorder.insert_events([StoredEvent(originator, 1, "made", b"")])
        has_checked = threading.Event()
        others: list[threading.Thread] = []
        outcomes: list[Any] = []

        def insert() -> None:
            try:
                outcomes.append(recorder.insert_events([StoredEvent(originator, 2, "more", b"")]))
            except IntegrityError as error:
                outcomes.append(error)

        real = recorder._append

        def append_after_another(*arguments: Any) -> Any:
            if not has_checked.is_set():
                has_checked.set()
                others.append(threading.Thread(target=insert))
                others[0].start()
                others[0].join(0.5)  # it either stores now, or waits for its turn
            return real(*arguments)

        monkeypatch.setattr(recorder, "_append", append_after_another)
        insert()
        others[0].join()
        assert sum(isinstance(one, IntegrityError) for one in outcomes) == 1
        assert [one.originator_version for one in recorder.select_events(originator)] == [1, 2]


def test_an_insert_may_name_more_stored_keys_than_there_are_attempts(tmp_path: Path) -> None:
    with blocking.open(tmp_path / "log") as log:
        originators = [uuid4() for _ in range(120)]
        LogApplicationRecorder(log).insert_events(
            [StoredEvent(one, 1, "made", b"") for one in originators]
        )
        fresh = LogApplicationRecorder(log)  # as after a restart: it knows nothing of them
        stored = fresh.insert_events([StoredEvent(one, 2, "more", b"") for one in originators])
        assert stored is not None
        assert len(stored) == 120
