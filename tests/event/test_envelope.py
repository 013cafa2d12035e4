from __future__ import annotations

import copy
import pickle
from array import array
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from eventlog import Cause, EventEnvelope, InvalidArgument, InvalidArgumentType
from eventlog.event.ids import new_id
from eventlog.event.moments import datetime_of, timestamp_ns_of

texts = st.text(max_size=20)
causes = st.builds(
    Cause, st.uuids(), st.integers(1, 2**63 - 1), st.sampled_from(["resize", "группа", "g" * 128])
)
envelopes = st.builds(
    EventEnvelope,
    st.integers() | texts,
    key=st.none() | texts,
    headers=st.none() | st.dictionaries(texts, texts, max_size=3),
    id=st.none() | st.uuids(),
    timestamp=st.none()
    | st.datetimes(datetime(1970, 1, 1), datetime(2262, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    seq_no=st.none() | st.integers(1, 2**63 - 1),
    cause=st.none() | causes,
)


def test_an_envelope_with_arrays_survives_pickle_and_copy() -> None:
    views = [
        memoryview(b"ab"),
        memoryview(array("d", [1.5])),
        memoryview(bytes(6)).cast("B", [2, 3]),
    ]
    envelope = EventEnvelope({"views": views, ("k", 1): (views[1],)})
    for twin in (pickle.loads(pickle.dumps(envelope)), copy.deepcopy(envelope)):
        assert twin == envelope
        assert [view.shape for view in twin.event["views"]] == [(2,), (1,), (2, 3)]


@given(envelopes)
def test_an_envelope_survives_pickle_and_copy(envelope: EventEnvelope) -> None:
    for twin in (pickle.loads(pickle.dumps(envelope)), copy.copy(envelope)):
        assert twin == envelope
        assert not twin != envelope  # noqa: SIM202 - `!=` is a method of its own
        assert hash(twin) == hash(envelope)
        assert repr(twin) == repr(envelope)


@given(envelopes)
def test_fields_cannot_be_set(envelope: EventEnvelope) -> None:
    for name in ("event", "seq_no", "id", "timestamp", "key", "headers", "cause", "other"):
        with pytest.raises(AttributeError):
            setattr(envelope, name, 1)


def test_rich_shows_what_there_is_and_not_how_it_is_stored() -> None:
    envelope = EventEnvelope({"a": 1}, key="k", seq_no=7)
    shown = pretty_repr(envelope)
    assert shown.startswith("EventEnvelope(")
    assert "seq_no=7" in shown
    assert "key='k'" in shown
    assert "Columns" not in shown


def test_a_replaced_field_leaves_the_others_as_they_are() -> None:
    cause = Cause(UUID(int=1), 3, "g")
    envelope = EventEnvelope("event", key="k", headers={"a": "b"}, seq_no=7, cause=cause)
    twin = envelope.__replace__(seq_no=8)
    assert twin == EventEnvelope(
        "event",
        key="k",
        headers={"a": "b"},
        id=envelope.id,
        timestamp=envelope.timestamp,
        seq_no=8,
        cause=cause,
    )


def test_envelopes_that_differ_in_one_field_are_not_equal() -> None:
    fields: dict[str, Any] = {
        "key": "k",
        "headers": {"a": "b"},
        "id": UUID(int=1),
        "timestamp": datetime(2024, 1, 1, tzinfo=UTC),
        "seq_no": 3,
        "cause": Cause(UUID(int=2), 7, "g"),
    }
    one = EventEnvelope("event", **fields)
    assert one == EventEnvelope("event", **fields)
    assert one != EventEnvelope("other", **fields)
    for name in fields:
        assert one != EventEnvelope("event", **{**fields, name: None})
    assert one != ("event", 3)


def test_a_missing_id_and_time_are_made() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    envelope = EventEnvelope({"a": 1})
    assert envelope.id.version == 7
    assert before <= envelope.timestamp <= datetime.now(UTC)
    assert envelope.timestamp.tzinfo is UTC
    assert (envelope.key, envelope.headers, envelope.seq_no) == (None, None, None)


def test_headers_are_copied() -> None:
    headers = {"a": "b"}
    envelope = EventEnvelope(1, headers=headers)
    headers["a"] = "c"
    assert envelope.headers == {"a": "b"}


@given(st.integers(0, 2**63 - 1))
def test_an_id_is_a_version_7_uuid_of_its_milliseconds(timestamp_ns: int) -> None:
    made = UUID(bytes=new_id(timestamp_ns))
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == (timestamp_ns // 1_000_000) & 0xFFFF_FFFF_FFFF


def test_ids_do_not_repeat() -> None:
    assert len({new_id(0) for _ in range(1000)}) == 1000


@given(st.datetimes(datetime(1970, 1, 1), datetime(2262, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_times_survive_to_the_microsecond(moment: datetime) -> None:
    try:
        there_and_back = datetime_of(timestamp_ns_of(moment))
    except InvalidArgument:
        assert moment.astimezone(UTC).year < 1970
        return
    assert there_and_back == moment.astimezone(UTC)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"key": 1}, InvalidArgumentType),
        ({"key": "\ud800"}, InvalidArgument),
        ({"headers": [1]}, InvalidArgumentType),
        ({"headers": {"a": 1}}, InvalidArgumentType),
        ({"headers": {1: "a"}}, InvalidArgumentType),
        ({"headers": {"a": "\ud800"}}, InvalidArgument),
        ({"id": "0"}, InvalidArgumentType),
        ({"timestamp": 0}, InvalidArgumentType),
        ({"seq_no": "3"}, InvalidArgumentType),
        ({"seq_no": True}, InvalidArgumentType),
        ({"seq_no": 0}, InvalidArgument),
        ({"timestamp": datetime(2024, 1, 1)}, InvalidArgument),  # noqa: DTZ001
        ({"timestamp": datetime(1969, 1, 1, tzinfo=UTC)}, InvalidArgument),
        ({"timestamp": datetime(2300, 1, 1, tzinfo=UTC)}, InvalidArgument),
    ],
    ids=str,
)
def test_wrong_fields_are_refused(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        EventEnvelope(1, **fields)
