"""Ranges of events as Arrow tables: types, names, record batches, and who takes them."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog import CorruptLog, blocking
from eventlog.arrow import columns, passes, rows, shape
from eventlog.arrow.alike import NotAlike
from eventlog.testing import batch_of, open_storage

Log = blocking.EventLog
BESIDE = ["seq_no", "timestamp", "stored_at", "key", "headers"]


@pytest.fixture
def log() -> Iterator[Log]:
    with blocking.open(f"memory:{uuid4()}") as opened:
        yield opened


def column_of(log: Log, *values: Any) -> pa.ChunkedArray:
    """The column that events with these values of one field make."""
    log.append_many([{"field": value} for value in values])
    return log.to_arrow()["field"]


# --- types -----------------------------------------------------------------------------------

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
IDENTITY = UUID(int=7)


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        ([1, None, -(2**63)], "int64", [1, None, -(2**63)]),
        ([1, 2**64 - 1], "decimal128(20, 0)", [1, 2**64 - 1]),
        ([-1, 2**64 - 1], "decimal128(20, 0)", [-1, 2**64 - 1]),
        ([1, 0.5], "double", [1.0, 0.5]),
        ([2**63 + 1, 0.5], "double", [float(2**63 + 1), 0.5]),
        ([True, None], "bool", [True, None]),
        (["a", "Łódź"], "string", ["a", "Łódź"]),
        ([b"a", None], "binary", [b"a", None]),
        ([NOON], "timestamp[us, tz=UTC]", [NOON]),
        ([IDENTITY, "a"], "string", [str(IDENTITY), "a"]),
        ([[1, None], [], None], "list<item: int64>", [[1, None], [], None]),
        ([(1, 2.5)], "list<item: double>", [[1.0, 2.5]]),
        ([array("d", [1, 2])], "list<item: double>", [[1.0, 2.0]]),
        (
            [{"x": 1}, {"y": [{"z": "a"}]}, None],
            "struct<x: int64, y: list<item: struct<z: string>>>",
            [{"x": 1, "y": None}, {"x": None, "y": [{"z": "a"}]}, None],
        ),
        ([None, None], "null", [None, None]),
        ([{"x": 1}, {"x": "1"}], "struct<x: large_string>", [{"x": "1"}, {"x": '"1"'}]),
    ],
    ids=str,
)
def test_a_column_has_the_narrowest_type_of_its_values(
    log: Log, values: list[Any], kind: str, read: list[Any]
) -> None:
    column = column_of(log, *values)
    assert str(column.type) == kind
    assert column.to_pylist() == read


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([1, "1", None], ["1", '"1"', None]),
        ([True, 1], ["true", "1"]),
        (["a", b"a"], ['"a"', '"YQ=="']),
        ([NOON, 3], ['"2026-01-31T12:00:00Z"', "3"]),
        ([[1], {"x": 1}], ["[1]", '{"x":1}']),
        ([{}, None], ["{}", None]),
        ([{1: "a"}], ['{"1":"a"}']),
        ([{(1, 2): "a"}], ['{"(1, 2)":"a"}']),
        ([array("d", [1]), "a"], ["[1.0]", '"a"']),
        ([dict.fromkeys(map(str, range(101)), 0)], None),
    ],
    ids=[*("text", "bool", "bytes", "time", "list", "empty", "numbers", "tuples", "array", "wide")],
)
def test_values_that_do_not_agree_are_their_json(
    log: Log, values: list[Any], read: list[str | None] | None
) -> None:
    column = column_of(log, *values)
    assert column.type == pa.large_string()
    assert read is None or column.to_pylist() == read


@pytest.mark.parametrize("later", [0.5, "a", None, [1], {"x": 1}, True, 2**63], ids=str)
def test_types_are_the_same_however_far_apart_the_values_are(log: Log, later: Any) -> None:
    log.append_many([{"field": 1}, {"field": later}])
    together = log.to_arrow()["field"]
    log.append_many({"other": n} for n in range(passes.FIRST_ROWS))
    log.append_many([{"field": 1}])
    log.append_many({"other": n} for n in range(passes.ROWS_MAX))
    log.append_many([{"field": later}])
    apart = log.to_arrow(3)["field"].drop_null()
    assert apart.type == together.type
    assert apart.to_pylist() == together.drop_null().to_pylist()


payloads = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(payloads | st.dictionaries(st.text(max_size=2), payloads), max_size=12))
def test_any_events_make_a_table_with_a_row_for_each(events: list[Any]) -> None:
    with blocking.open(f"memory:{uuid4()}") as log:
        if events:
            log.append_many(events)
        table = log.to_arrow()
    table.validate(full=True)
    assert table.num_rows == len(events)
    for name in {name for one in events if isinstance(one, dict) for name in one}:
        of_field = [one.get(name) if isinstance(one, dict) else None for one in events]
        read = table[shape.column_of(name)].to_pylist()
        assert [one is None for one in read] == [one is None for one in of_field]
        if {type(one) for one in of_field} <= {str, type(None)}:
            assert read == of_field


# --- packed events that are alike ---------------------------------------------------------------

times = st.integers(-(2**32), 2**35).map(lambda n: datetime.fromtimestamp(n / 4, UTC))
wholes = st.sampled_from([0, -1, 2**63 - 1, 2**63, -(2**63)]) | st.integers(-(2**31), 2**32)
floats = st.floats(allow_nan=False)
plain = st.sampled_from(
    [
        *(st.none(), st.booleans(), wholes, floats, wholes | floats, st.text(), st.binary()),
        *(times, st.uuids(), st.text(min_size=30, max_size=300)),
    ]
)
of_one_kind = plain | plain.map(lambda kind: st.none() | kind) | st.just(payloads)
records = st.dictionaries(st.text(max_size=40), of_one_kind, max_size=4).map(st.fixed_dictionaries)
shapes = st.dictionaries(st.sampled_from("abcdef") | st.text(), of_one_kind | records, max_size=4)
kinds = shapes.map(st.fixed_dictionaries) | plain
alike = st.lists(kinds, min_size=1, max_size=3).flatmap(
    lambda several: st.lists(st.one_of(several), max_size=12)
)


@settings(max_examples=30, deadline=None)
@given(st.tuples(alike, alike, st.lists(payloads, max_size=4)))
def test_the_table_of_events_that_are_alike_is_that_of_their_values(
    parts: tuple[list[Any], ...],
) -> None:
    with blocking.open(f"memory:{uuid4()}") as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "FIRST_ROWS", 3)
        patch.setattr(passes, "ROWS_MAX", 6)
        for part in parts:
            for start in range(0, len(part), 4):
                log.append_many(part[start : start + 4])
        table = log.to_arrow()
        patch.setattr(rows, "groups_in", never_alike)
        assert table.equals(log.to_arrow())
    table.validate(full=True)


def never_alike(_: Any) -> None:
    raise NotAlike


def test_events_that_are_alike_make_columns_without_an_object_for_each_value(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows.Rows, "fields_of_values", None)
    values = {"n": 7, "x": 0.5, "s": "Łódź", "b": b"a", "t": NOON, "u": IDENTITY, "in": {"y": True}}
    log.append_many([values] * 3000)
    log.append_many([{**values, "n": -(2**40), "s": None, "x": 1}] * 9000)
    (*_, last) = log.to_arrow().to_pylist()
    assert {name: last[name] for name in values} == {
        **values,
        "n": -(2**40),
        "s": None,
        "x": 1.0,
        "u": str(IDENTITY),
    }


def test_a_few_kinds_of_events_one_among_the_other_make_columns_so_too(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows.Rows, "fields_of_values", None)
    kinds: list[Any] = [
        {"type": "made", "n": 1, "by": "a"},
        {"type": "paid", "n": 0.5},
        {"n": None},
        7,
    ]
    log.append_many(kinds[n % 4] for n in range(4000))
    made, paid, empty, seven = log.to_arrow().drop_columns(BESIDE).to_pylist()[-4:]
    nothing: dict[str, Any] = {"type": None, "n": None, "by": None, "event": None}
    assert made == {**nothing, **kinds[0]}
    assert paid == {**nothing, **kinds[1]}
    assert empty == nothing
    assert seven == {**nothing, "event": 7}


def test_a_float_that_is_no_number_is_not_null(log: Log) -> None:
    column = column_of(log, math.nan, None, 1)
    assert column.null_count == 1
    assert math.isnan(column[0].as_py())


def test_an_event_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    stored = open_storage(str(tmp_path / "log"))
    stored.append(batch_of({"s": "abc"}))
    batch = batch_of({"s": "abc"})
    stored.append(batch._replace(payload=bytes(batch.payload).replace(b"abc", b"a\xffc")))
    stored.close()
    with (
        blocking.open(tmp_path / "log", start_writer=False) as log,
        pytest.raises(CorruptLog, match="from 2 on cannot be decoded") as raised,
    ):
        log.to_arrow()
    assert raised.value.seq_no == 2


@pytest.mark.slow
def test_a_data_frame_takes_about_half_the_time_of_one_of_the_events(log: Log) -> None:
    """In CPU time, which the load of a machine changes too: so there is some room."""
    cities = ["Oslo", "Rome", "Łódź"]
    log.append_many(
        {"order": n, "total": n / 7, "city": cities[n % 3], "items": n % 50, "paid": n % 2 == 0}
        for n in range(100_000)
    )

    def of_events() -> pd.DataFrame:
        return pd.DataFrame([envelope.event for envelope in log.read(1)])

    taken: dict[Callable[[], pd.DataFrame], list[float]] = {of_events: [], log.to_pandas: []}
    for _ in range(5):
        for make, seconds in taken.items():
            start = time.process_time()
            assert make()["order"].sum() == 4_999_950_000
            seconds.append(time.process_time() - start)
    assert median(taken[log.to_pandas]) < 0.6 * median(taken[of_events])


# --- names and fields -------------------------------------------------------------------------


def test_a_field_with_the_name_of_a_column_of_every_log_stands_behind_event(log: Log) -> None:
    log.append({"key": 1, "event": 2, "event_key": 3, "events": 4}, key="k")
    (row,) = log.to_arrow().drop_columns(["timestamp", "stored_at", "headers"]).to_pylist()
    assert (row.pop("seq_no"), row.pop("key")) == (1, "k")
    assert row == {"event_key": 1, "event_event": 2, "event_event_key": 3, "events": 4}


def test_names_that_no_struct_can_have_are_columns(log: Log) -> None:
    names = ['a"b', "a\nb", "a\\b", "", "__class__", "select"]
    log.append_many([dict.fromkeys(names, n) for n in range(2000)])
    table = log.to_arrow()
    assert all(table[name].to_pylist() == [*range(2000)] for name in names)


def test_events_with_more_fields_than_a_table_takes_are_whole(log: Log) -> None:
    log.append_many([{"n": 1}, {f"user-{n}": n for n in range(columns.FIELDS_MAX)}, 7])
    table = log.to_arrow()
    assert table.num_columns == 6
    first, _, last = table["event"].to_pylist()
    assert (first, last) == ('{"n":1}', "7")


def test_deletions_are_rows_without_values(log: Log) -> None:
    log.append_many([{"n": n} for n in range(2000)], keys=["a"] * 2000)
    log.delete("a")
    table = log.to_arrow()
    assert table["n"].to_pylist() == [*range(2000), None]
    assert "event" not in table.column_names


# --- record batches ---------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each pass over the log has read."""
    counts: list[int] = []
    add = passes.Gathering.add
    begin = passes.Gathering.__init__

    def counted_begin(self: passes.Gathering, *arguments: Any) -> None:
        counts.append(0)
        begin(self, *arguments)

    def counted_add(self: passes.Gathering, batch: Any) -> bool:
        counts[-1] += len(batch)
        return add(self, batch)

    monkeypatch.setattr(passes.Gathering, "__init__", counted_begin)
    monkeypatch.setattr(passes.Gathering, "add", counted_add)
    return counts


def test_events_are_read_once_if_all_are_alike(log: Log, reads: list[int]) -> None:
    log.append_many({"n": n} for n in range(50_000))
    assert pa.table(log.read(1))["n"].to_pylist() == [*range(50_000)]
    assert reads == [50_000]


def test_a_long_range_is_no_large_memory(
    log: Log, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes.RecordBatches.__init__, "__defaults__", (1000,))
    log.append_many({"n": n} for n in range(50_000))
    reader = pa.RecordBatchReader.from_stream(log.read(1))
    assert reads == [50_000], "nothing is kept, and nothing read again before it is wanted"
    assert reader.read_next_batch()["n"][0].as_py() == 0
    assert reads[1] < 25_000
    numbers = [n for batch in reader for n in batch["n"].to_pylist()]
    assert numbers[-1] == 49_999


def test_record_batches_of_large_events_have_few_of_them(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "PACKED_BYTES_MAX", 100_000)
    for _ in range(10):
        log.append({"blob": bytes(30_000)})
    sizes = [len(batch) for batch in pa.RecordBatchReader.from_stream(log.read(1))]
    assert sum(sizes) == 10
    assert max(sizes) == 4


def test_a_range_is_a_table_from_its_begin_each_time_and_an_iterator_once(log: Log) -> None:
    log.append_many("abc")
    events = log.read(1)
    assert next(events).event == "a"
    log.append("d")
    assert pa.table(events)["event"].to_pylist() == ["a", "b", "c"]
    assert pa.table(events).num_rows == 3
    assert [one.event for one in events] == ["b", "c"]
    assert [*events] == []


# --- who takes it -----------------------------------------------------------------------------


def by_polars(log: Log) -> list[Any]:
    return [*pl.DataFrame(log.read(1))["total"]]


def by_pandas(log: Log) -> list[Any]:
    return [*pd.DataFrame.from_arrow(log.read(1))["total"]]


def by_duckdb(log: Log) -> list[Any]:
    events = log.read(1)
    found = duckdb.sql("select a.total from events a join events b using (seq_no) order by 1")
    assert events is not None
    return [total for (total,) in found.fetchall()]


def by_pyarrow(log: Log) -> list[Any]:
    return [*pa.table(log.read(1))["total"].to_pylist()]


@pytest.mark.parametrize("by", [by_polars, by_pandas, by_duckdb, by_pyarrow])
def test_libraries_take_a_range_as_it_is(log: Log, by: Callable[[Log], list[Any]]) -> None:
    log.append_many({"order": n, "total": n / 2, "tags": ["a"], "in": {"x": n}} for n in range(9))
    assert by(log) == [n / 2 for n in range(9)]


def test_data_frames_are_one_line(log: Log) -> None:
    log.append({"order": 7, "total": 12.5}, headers={"source": "shop"})
    log.append({"order": 8, "total": 1.0})
    frame = log.to_pandas()
    assert frame["total"].sum() == 13.5
    assert frame["headers"][0] == {"source": "shop"}
    assert str(frame["stored_at"].dtype) == "datetime64[us, UTC]"
    assert log.to_polars(2).select("order").to_series().to_list() == [8]
    assert math.isclose(log.to_polars()["total"].sum(), 13.5)
