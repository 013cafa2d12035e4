"""`EventEnvelope`, as a producer makes it and as a consumer gets it."""

from __future__ import annotations

import pickle
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from eventlog import Cause, EventEnvelope, EventLogError, SeekPosition

from .backends import needs
from .logs import Logs


def milliseconds_of(identity: UUID) -> int:
    return identity.int >> 80


def test_an_envelope_has_all_fields_from_the_start() -> None:
    before = time.time_ns()
    envelope = EventEnvelope({"a": 1}, key="k", headers={"h": "v"})
    assert (envelope.event, envelope.key, envelope.headers) == ({"a": 1}, "k", {"h": "v"})
    assert envelope.seq_no is None
    assert envelope.timestamp.tzinfo is UTC
    assert before // 1_000_000 <= milliseconds_of(envelope.id) <= time.time_ns() // 1_000_000


def test_an_id_is_a_uuid_of_version_7_and_its_own() -> None:
    ids = [EventEnvelope(None).id for _ in range(1_000)]
    assert {(identity.version, identity.variant) for identity in ids} == {
        (7, "specified in RFC 4122")
    }
    assert len(set(ids)) == 1_000


@pytest.mark.anyio
async def test_ids_of_events_in_batches_are_their_own_and_of_version_7(logs: Logs) -> None:
    before = time.time_ns() // 1_000_000
    async with logs.open() as log:
        await log.append_many(range(500))
        await log.append_many(range(500))
        async with log.publisher() as publisher:
            for number in range(500):
                await publisher.send(number)
        envelopes = await log.read(1)
        again = await log.read(1)
    ids = [envelope.id for envelope in envelopes]
    assert len(set(ids)) == 1_500
    assert {identity.version for identity in ids} == {7}
    assert all(before <= milliseconds_of(i) <= time.time_ns() // 1_000_000 for i in ids)
    assert [envelope.id for envelope in again] == ids
    assert again == envelopes


@pytest.mark.anyio
async def test_a_cause_stays_with_its_event_however_it_is_appended_and_read(logs: Logs) -> None:
    causes = [Cause(UUID(int=n % 3), n, f"группа/{n % 2}") for n in range(1, 5)]
    given = [EventEnvelope(n, cause=cause) for n, cause in enumerate(causes)]
    async with logs.open() as log:
        await log.append(given[0], key="k", headers={"h": "v"})
        await log.append("without")
        await log.append_many([given[1], "without", given[2]])
        async with log.publisher() as publisher:
            await publisher.send(given[3])
        envelopes = await log.read(1)
        async with log.subscribe("c", SeekPosition.BEGINNING, follow=False) as stream:
            subscribed = [envelope async for envelope in stream]
        async with log.subscribe("t", SeekPosition.BEGINNING, follow=False, type=Any) as stream:
            typed = [envelope async for envelope in stream]
    expected = [causes[0], None, causes[1], None, causes[2], causes[3]]
    for read in (envelopes, subscribed, typed):
        assert [envelope.cause for envelope in read] == expected
    assert [envelope.event for envelope in envelopes] == [0, "without", 1, "without", 2, 3]
    assert (envelopes[0].key, envelopes[0].headers) == ("k", {"h": "v"})
    assert [one.id for one in envelopes if one.cause] == [one.id for one in given]
    assert pickle.loads(pickle.dumps(envelopes)) == envelopes


@pytest.mark.anyio
async def test_a_log_has_an_id_of_its_own(logs: Logs) -> None:
    async with logs.open() as log:
        log_id = (await log.status()).log_id
        assert isinstance(log_id, UUID)
        assert (await log.status()).log_id == log_id


@needs("segments")
@pytest.mark.anyio
async def test_the_time_of_storing_is_the_logs_own_whatever_the_producer_says(logs: Logs) -> None:
    # A log that is filled from another one keeps the events' own times; nothing told when they
    # were stored.
    own = datetime(2001, 2, 3, tzinfo=UTC)
    given = EventEnvelope("a", timestamp=own)
    assert given.stored_at is None
    async with logs.open() as log:
        before = datetime.now(UTC)
        await log.append(given)
        await log.append_many(["b", "c"])
        after = datetime.now(UTC)
        envelopes = await log.read(1)
        again = await log.read(1)
    a, b, c = (envelope.stored_at for envelope in envelopes)
    assert a is not None
    assert b is not None
    slack = timedelta(seconds=1)
    assert before - slack <= a <= b <= after + slack
    assert b == c
    assert b.tzinfo is UTC
    assert given.stored_at is None
    assert envelopes[0].timestamp == own
    assert [envelope.stored_at for envelope in again] == [a, b, c]


@pytest.mark.anyio
async def test_what_a_seek_by_time_goes_by_is_the_time_of_storing(logs: Logs) -> None:
    async with logs.open() as log:
        for number in range(3):
            await log.append(number)
        for envelope in await log.read(1):
            assert envelope.stored_at is not None
            position = SeekPosition.timestamp(envelope.stored_at)
            async with log.subscribe("c", position, follow=False) as stream:
                found = [one async for one in stream]
            # Cut to microseconds, it may be the time of one that was stored right before.
            assert found[0].seq_no is not None
            assert envelope.seq_no is not None
            assert found[0].seq_no <= envelope.seq_no
            assert found[0].stored_at == envelope.stored_at


@pytest.mark.anyio
async def test_an_envelope_takes_its_time_of_storing_along(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(3))
        envelope = (await log.read(2))[0]
        assert pickle.loads(pickle.dumps(envelope)).stored_at == envelope.stored_at
        changed = envelope.__replace__(event="changed")
        assert (changed.stored_at, changed.seq_no) == (envelope.stored_at, 2)
        # Appended elsewhere or again, it gets another one.
        await log.append(envelope)
        (again,) = await log.read(4)
    assert again.id == envelope.id
    assert again.stored_at is not None
    assert envelope.stored_at is not None
    assert again.stored_at >= envelope.stored_at


@pytest.mark.parametrize(
    "name", ["event", "seq_no", "id", "timestamp", "key", "headers", "stored_at", "new"]
)
def test_an_envelope_is_immutable(name: str) -> None:
    envelope = EventEnvelope(1)
    with pytest.raises(AttributeError):
        setattr(envelope, name, None)
    with pytest.raises(AttributeError):
        delattr(envelope, name)


def test_a_timestamp_of_another_zone_is_the_same_moment_in_utc() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=3)))
    envelope = EventEnvelope(1, timestamp=moment)
    assert envelope.timestamp == moment
    assert envelope.timestamp.utcoffset() == timedelta(0)


def test_equal_envelopes_are_equal_in_every_field() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    fields: dict[str, Any] = {
        "key": "k", "headers": {"h": "v"}, "id": UUID(int=1), "timestamp": moment, "seq_no": 3,
    }  # fmt: skip
    others: dict[str, Any] = {
        "key": None, "headers": None, "id": UUID(int=2), "timestamp": moment + timedelta(1),
        "seq_no": 4,
    }  # fmt: skip
    envelope = EventEnvelope("e", **fields)
    assert envelope == EventEnvelope("e", **fields)
    assert hash(envelope) == hash(EventEnvelope("e", **fields))
    assert envelope != EventEnvelope("f", **fields)
    for name, value in others.items():
        assert envelope != EventEnvelope("e", **fields | {name: value})
    assert envelope != ("e", 3)
    assert envelope != "e"


@pytest.mark.anyio
async def test_an_envelope_survives_pickling_whole(logs: Logs) -> None:
    made = EventEnvelope([1, {"a": None}], key="k", headers={"h": "v"}, seq_no=9)
    assert pickle.loads(pickle.dumps(made)) == made
    async with logs.open() as log:
        await log.append_many(range(1_000))
        envelopes = await log.read(1)
    copy = pickle.loads(pickle.dumps(envelopes[500]))
    assert copy == envelopes[500]
    assert (copy.id, copy.timestamp, copy.seq_no) == (
        envelopes[500].id,
        envelopes[500].timestamp,
        501,
    )
    assert len(pickle.dumps(envelopes[500])) < 1_000


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"key": 1}, TypeError),
        ({"key": "\ud800"}, ValueError),
        ({"headers": {"a": 1}}, TypeError),
        ({"headers": 7}, TypeError),
        ({"id": "text"}, TypeError),
        ({"id": 7}, TypeError),
        ({"timestamp": datetime(2026, 1, 1)}, ValueError),  # noqa: DTZ001
        ({"timestamp": 0.0}, TypeError),
    ],
)
def test_a_field_that_means_nothing_is_refused(
    options: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        EventEnvelope("e", **options)
    assert isinstance(caught.value, EventLogError)


def test_the_repr_of_an_envelope_tells_event_number_and_id() -> None:
    envelope = EventEnvelope({"order": 7}, seq_no=3)
    assert "{'order': 7}" in repr(envelope)
    assert "seq_no=3" in repr(envelope)
    assert str(envelope.id) in repr(envelope)
