"""What results came from: the value, its column in a batch, and the ids of results."""

from __future__ import annotations

import pickle
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import Cause, EventEnvelope, InvalidArgument, InvalidArgumentType
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.cause import Causes, causes_of, pack_causes
from eventlog.event.record_batch import (
    FLAG_CAUSED,
    FLAG_KEYED,
    PackedBatch,
    areas_bytes,
    decoder_for,
    unpack_body,
)
from eventlog.event.results import add_results, envelopes_of_results, result_id
from eventlog.local.groups.letter_content import envelope_of_letter, fitting_letter

LIMIT = 1 << 20
LOG = UUID(int=1)
SEVENTH = Cause(LOG, 7, "resize")
causes = st.builds(
    Cause,
    st.sampled_from([UUID(int=1), UUID(int=2)]) | st.uuids(),
    st.integers(1, 2**63 - 1),
    st.sampled_from(["resize", "группа"]),
)
mixed = st.dictionaries(st.integers(0, 29), causes, max_size=10)


def body_of(batch: PackedBatch) -> memoryview:
    return memoryview(batch.payload)[areas_bytes(batch.count, batch.flags, batch.acks_bytes) :]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ((str(LOG), 1, "g"), InvalidArgumentType),
        ((LOG, 1.0, "g"), InvalidArgumentType),
        ((LOG, True, "g"), InvalidArgumentType),
        ((LOG, 0, "g"), InvalidArgument),
        ((LOG, 2**63, "g"), InvalidArgument),
        ((LOG, 1, b"g"), InvalidArgumentType),
        ((LOG, 1, ""), InvalidArgument),
        ((LOG, 1, "g" * 129), InvalidArgument),
        ((LOG, 1, "\ud800"), InvalidArgument),
    ],
)
def test_what_cannot_be_a_cause_is_refused(fields: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Cause(*fields)


def test_a_cause_is_a_value() -> None:
    cause = Cause(LOG, 7, "g")
    assert cause == Cause(LOG, 7, "g")
    assert {cause, Cause(LOG, 7, "g")} == {cause}
    assert pickle.loads(pickle.dumps(cause)) == cause
    with pytest.raises(AttributeError):
        cause.seq_no = 8  # type: ignore[misc]
    with pytest.raises(InvalidArgumentType, match=r"give an eventlog\.Cause"):
        EventEnvelope(1, cause=(LOG, 7, "g"))  # type: ignore[arg-type]


@given(mixed, st.booleans(), st.booleans())
def test_events_of_a_batch_have_their_own_causes_or_none(
    found: dict[int, Cause], is_keyed: bool, is_typed: bool
) -> None:
    builder = BatchBuilder(LIMIT)
    for row in range(30):
        cause, key = found.get(row), "k" if is_keyed else None
        builder.add(row if cause is None else EventEnvelope(row, cause=cause), key)
    batch = builder.build()
    assert batch.flags == (FLAG_CAUSED if found else 0) | (FLAG_KEYED if is_keyed else 0)
    back = unpack_body(body_of(batch), 30, 100, decoder_for(int if is_typed else None))
    assert [one.event for one in back] == list(range(30))
    assert {row: one.cause for row, one in enumerate(back) if one.cause} == found
    assert [one.cause for one in unpack_body(body_of(batch), 30, 100)] == [
        one.cause for one in back
    ]


def test_a_payload_of_another_type_is_named_beside_causes_too() -> None:
    builder = BatchBuilder(LIMIT)
    for event in (1, "two"):
        builder.add(EventEnvelope(event, cause=Cause(LOG, 7, "g")))
    with pytest.raises(msgspec.ValidationError, match=r"\$\[4\]\[1\]"):
        unpack_body(body_of(builder.build()), 2, 1, decoder_for(int))


def test_events_without_causes_make_the_batch_that_they_always_made() -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(EventEnvelope(1, cause=Cause(LOG, 7, "g")))
    builder.build()
    builder.add(2)
    batch = builder.build()
    assert batch.flags == 0
    assert batch.payload[:1] == b"\x95"
    [envelope] = unpack_body(body_of(batch), 1, 1)
    assert envelope.columns.causes is None
    assert envelope.cause is None


@given(mixed, st.data())
def test_a_damaged_column_is_causes_or_a_value_error(
    found: dict[int, Cause], data: st.DataObject
) -> None:
    sources, *columns = pack_causes(found)
    place = data.draw(st.integers(0, 2))
    columns[place] = data.draw(st.binary(max_size=40) | st.just(columns[place]))
    try:
        read = causes_of([[list(one) for one in sources], *columns], 30)
    except ValueError:
        return
    assert isinstance(read, Causes)
    for row in range(30):
        assert isinstance(read.of_row(row), Cause | None)


@pytest.mark.parametrize(
    "column",
    [
        None,
        [],
        [[], b"", b""],
        [1, b"", b"", b""],
        [[], "", b"", b""],
        [[[bytes(15), "g"]], b"", b"", b""],
        [[[bytes(16), 1]], b"", b"", b""],
        [[[bytes(16)]], b"", b"", b""],
        [[], bytes(4), bytes(4), bytes(8)],
        [[[bytes(16), "g"]], bytes(4), bytes(4), bytes(8)],
        [[[bytes(16), "g"]], b"\x02\0\0\0", bytes(4), b"\1" + bytes(7)],
        [[[bytes(16), "g"]], bytes(8), bytes(8), b"\1\0\0\0\0\0\0\0" * 2],
    ],
)
def test_a_column_that_says_nothing_of_the_kind_is_a_value_error(column: Any) -> None:
    with pytest.raises(ValueError, match="cause"):
        causes_of(column, 2)


def test_truncating_forgets_causes_too() -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(1)
    before = builder.bytes
    builder.add(EventEnvelope(2, cause=Cause(LOG, 7, "g")))
    grown = builder.bytes - before
    builder.truncate(1)
    builder.bytes = before
    builder.add(EventEnvelope(3, cause=Cause(LOG, 8, "g")))
    assert builder.bytes - before == grown, "its source is counted again"
    assert [one.cause for one in unpack_body(body_of(builder.build()), 2, 1)] == [
        *(None, Cause(LOG, 8, "g"))
    ]


def test_a_cause_stays_with_the_copy_in_a_dead_letter() -> None:
    envelope = EventEnvelope("event", key="k", cause=Cause(LOG, 7, "g"), seq_no=3)
    for limit in (LIMIT, 400):
        copy = envelope_of_letter(fitting_letter(limit, envelope, error="x", traceback="y"), 3)
        assert copy == envelope


# --- ids of results ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "timestamp_ns", "place", "expected"),
    [
        (
            SEVENTH,
            1_709_209_815_123_456_000,
            0,
            "018df4d8-0853-7482-a0b6-1d8e07f2947c",
        ),
        (
            SEVENTH,
            1_709_209_815_123_999_999,
            1,
            "018df4d8-0853-7ca9-a331-7803a9028b36",
        ),
        (
            *(Cause(UUID(int=2**128 - 1), 2**63 - 1, "группа/0"), 999_999, 2**32 - 1),
            "00000000-0000-7e55-859b-5e0c802c4503",
        ),
    ],
)
def test_the_ids_of_results_never_change(
    cause: Cause, timestamp_ns: int, place: int, expected: str
) -> None:
    """Worked out from the description, apart from the code."""
    identity = UUID(bytes=result_id(cause, timestamp_ns, place))
    assert str(identity) == expected
    assert identity.version == 7


@given(st.lists(st.tuples(causes, st.integers(0, 3)), unique=True, max_size=20))
def test_other_results_have_other_ids(found: list[tuple[Cause, int]]) -> None:
    assert len({result_id(cause, 0, place) for cause, place in found}) == len(found)


def test_results_have_the_key_of_their_source_unless_they_set_one() -> None:
    source = EventEnvelope("source", key="k", headers={"of": "source"}, seq_no=7)
    own = EventEnvelope("own", key="own", headers={"a": "b"}, cause=Cause(LOG, 1, "other"))
    results = envelopes_of_results(source, [1, own, source, None], LOG, "g")
    assert [(one.event, one.key, one.headers) for one in results] == [
        (1, "k", None),
        ("own", "own", {"a": "b"}),
        ("source", "k", {"of": "source"}),
        (None, "k", None),
    ]
    assert {one.cause for one in results} == {Cause(LOG, 7, "g")}
    again = envelopes_of_results(source, ["another", 2, 3, 4, 5], LOG, "g")
    assert [one.id for one in again][:4] == [one.id for one in results]
    assert {one.seq_no for one in results} == {None}
    builder = BatchBuilder(LIMIT)
    add_results(builder, source, [1, own, source, None], LOG, "g")
    for row, one in enumerate(unpack_body(body_of(builder.build()), 4, 1)):
        given_ = results[row]
        assert (one.event, one.key, one.headers) == (given_.event, given_.key, given_.headers)
        assert (one.id, one.cause) == (given_.id, given_.cause)
    assert results[1].timestamp == own.timestamp
