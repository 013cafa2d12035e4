"""Pages of records: unpacked at once, they are what they are one by one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from eventlog import Cause, EventEnvelope
from eventlog.errors import CorruptLog, EventTypeMismatch
from eventlog.remote.driver import Stored
from eventlog.remote.pages import page_of, page_unpacker
from eventlog.remote.record import ANY, Limits, RecordBuilder, Unpacker, envelope_of

LIMITS = Limits(1 << 20, 1 << 20, 1 << 20, 1000)


def stored(*events: Any) -> list[Stored]:
    """Events, or envelopes of them, as a server has them."""
    builder = RecordBuilder(LIMITS, "a test")
    return [
        Stored(number, number * 1000, builder.pack(event)) for number, event in enumerate(events, 5)
    ]


class Order(msgspec.Struct):
    number: int


PAGES: dict[str, list[Any]] = {
    "plain": [{"a": 1}, "text", None, b"bytes", [1, 2]],
    "with keys": [EventEnvelope(n, key=f"k{n}") for n in range(4)],
    "some with keys": [1, EventEnvelope(2, key="k"), 3],
    "with headers": [EventEnvelope(1, headers={"a": "b"}), 2],
    "with times and ids": [UUID(int=1), EventEnvelope(1, id=UUID(int=7 << 76)), 2],
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_records_are_one_by_one(name: str) -> None:
    records = stored(*PAGES[name])
    page = page_of(records, page_unpacker(None))
    assert page == [envelope_of(one, "a test") for one in records]
    assert page is not None
    assert [one.stored_at for one in page] == [
        envelope_of(one, "a test").stored_at for one in records
    ]
    [replaced] = [one.__replace__(key="other") for one in page[:1]]
    assert (replaced.key, replaced.stored_at) == ("other", page[0].stored_at)


def test_a_record_with_a_cause_is_read_beside_others() -> None:
    cause = Cause(UUID(int=1), 7, "resize")
    records = stored(1, EventEnvelope(2, cause=cause), 3)
    assert page_of(records, page_unpacker(None)) is None
    assert [one.cause for one in ANY.envelopes_of(records, "a test")] == [None, cause, None]


def test_a_page_of_a_type_is_unpacked_to_it_and_names_what_is_of_another() -> None:
    unpacker = Unpacker(Order)
    good = stored({"number": 1}, {"number": 2})
    assert page_of(good, page_unpacker(Order)) is not None
    assert [one.event for one in unpacker.envelopes_of(good, "a test")] == [Order(1), Order(2)]
    with pytest.raises(EventTypeMismatch) as told:
        unpacker.envelopes_of([*good, *stored(0, 0, {"number": "x"})[2:]], "a test")
    assert told.value.seq_no == 7


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x95",
        b"\xc0",
        b"\x95\xc4\x01a\xc4\x01b\xc0\xc0\x91\x01",
        b"\x95\xc0\xc0\xc0\xc0\x91\x01",
    ],
)
def test_what_is_no_record_is_named_wherever_it_stands(record: bytes) -> None:
    for place in range(3):
        records = stored(1, 2, 3)
        records[place] = records[place]._replace(record=record)
        with pytest.raises(CorruptLog) as told:
            ANY.envelopes_of(records, "a test")
        assert told.value.seq_no == 5 + place


def test_records_with_a_gap_between_them_are_read_one_by_one() -> None:
    records = stored(1, 2, 3)
    del records[1]
    assert [(one.seq_no, one.event) for one in ANY.envelopes_of(records, "a test")] == [
        (5, 1),
        (7, 3),
    ]
