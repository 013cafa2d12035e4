"""`to_arrow`: a range of events as a table, on any engine."""

from __future__ import annotations

import pyarrow as pa
import pytest

from eventlog import EventEnvelope

from .logs import Logs

pytestmark = pytest.mark.anyio


async def test_a_table_has_a_column_for_each_field_and_what_stands_beside(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append({"order": 7, "total": 12.5}, key="a", headers={"source": "shop"})
        await log.append({"order": 8, "city": "Łódź"})
        table = await log.to_arrow()
        stored = await log.read(0)
    assert table.column_names == [
        *("seq_no", "timestamp", "stored_at", "key", "headers", "order", "total", "city")
    ]
    assert table["order"].to_pylist() == [7, 8]
    assert table["total"].to_pylist() == [12.5, None]
    assert table["city"].to_pylist() == [None, "Łódź"]
    assert table["key"].to_pylist() == ["a", None]
    assert table["headers"].to_pylist() == [[("source", "shop")], None]
    assert table["seq_no"].to_pylist() == [one.seq_no for one in stored]
    assert table["timestamp"].to_pylist() == [one.timestamp for one in stored]
    assert table["stored_at"].to_pylist() == [one.stored_at for one in stored]


async def test_a_table_takes_the_bounds_of_read(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(100), keys=[str(n % 10) for n in range(100)])
        assert (await log.to_arrow(-3))["event"].to_pylist() == [97, 98, 99]
        assert (await log.to_arrow(11, 13))["event"].to_pylist() == [10, 11]
        assert (await log.to_arrow(key="7"))["seq_no"].to_pylist() == [*range(8, 101, 10)]
        assert (await log.to_arrow(1000)).num_rows == 0


async def test_fields_that_appear_late_or_change_their_type_are_columns_all_the_same(
    logs: Logs,
) -> None:
    async with logs.open() as log:
        await log.append_many({"n": n} for n in range(3000))
        await log.append_many([{"n": 0.5, "late": "x"}, {"n": 1}, 5])
        table = await log.to_arrow(1)
    assert table.schema.field("n").type == pa.float64()
    assert table["n"].to_pylist() == [*map(float, range(3000)), 0.5, 1.0, None]
    assert table["late"].to_pylist() == [None] * 3000 + ["x", None, None]
    assert table["event"].to_pylist() == [None] * 3002 + [5]


async def test_a_table_of_an_empty_log_has_the_columns_of_every_log(logs: Logs) -> None:
    async with logs.open() as log:
        table = await log.to_arrow()
        assert (table.num_rows, table.num_columns) == (0, 5)
        await log.append(EventEnvelope(None))
        assert (await log.to_arrow()).num_columns == 5
