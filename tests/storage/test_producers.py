from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.config import MAX_IN_FLIGHT_LIMIT, PRODUCERS_REMEMBERED
from eventlog.local.storage.formats.producers import MAGIC, ProducerTable

notes = st.lists(
    st.tuples(st.integers(1, 2**64 - 1), st.integers(1, 2**63), st.integers(1, 2**63)), max_size=20
)


def table_of(rows: list[tuple[int, int, int]]) -> ProducerTable:
    table = ProducerTable()
    for row in rows:
        table.note(*row)
    return table


def test_a_batch_is_known_by_its_producer_and_count() -> None:
    table = table_of([(7, 1, 100), (7, 2, 200), (8, 1, 300)])
    assert [table.find(7, 1), table.find(7, 2), table.find(8, 1)] == [100, 200, 300]
    assert [table.find(7, 3), table.find(8, 2), table.find(9, 1)] == [None, None, None]


def test_a_batch_that_is_stored_after_later_ones_hides_none_of_them() -> None:
    # Batch 1 was refused (a full disk), 2 and 3 were stored, and the pipe broke before any answer:
    # the producer repeated all three. Once 1 was stored, 2 and 3 looked new and were stored twice.
    table = table_of([(7, 2, 10), (7, 3, 20)])
    assert table.find(7, 1) is None
    table.note(7, 1, 30)
    assert [table.find(7, n) for n in (1, 2, 3)] == [30, 10, 20]


def test_as_many_batches_are_remembered_as_can_be_in_flight() -> None:
    table = table_of([(7, n, n * 10) for n in range(1, 1001)])
    known = [n for n in range(1, 1001) if table.find(7, n) is not None]
    assert known == list(range(1001 - MAX_IN_FLIGHT_LIMIT, 1001))


def test_the_producer_that_was_silent_longest_is_forgotten() -> None:
    table = table_of([(producer, 1, 1) for producer in range(1, PRODUCERS_REMEMBERED + 1)])
    table.note(1, 2, 2)
    table.note(PRODUCERS_REMEMBERED + 1, 1, 3)
    assert table.find(1, 1) == 1
    assert table.find(2, 1) is None
    assert table.find(3, 1) == 1


@given(notes, st.integers(0, 2**63))
def test_a_snapshot_stands_for_the_table(rows: list[tuple[int, int, int]], last: int) -> None:
    table = table_of(rows)
    snapshot = table.to_bytes(last)
    back, back_last = ProducerTable.from_bytes(snapshot)
    assert back_last == last
    assert back.to_bytes(last) == snapshot
    assert all(back.find(p, seq) == table.find(p, seq) for p, seq, _ in rows)


@given(notes, st.integers(0, 2**63))
def test_batches_that_the_log_does_not_have_are_forgotten(
    rows: list[tuple[int, int, int]], last: int
) -> None:
    table = table_of(rows)
    wanted = {(p, seq): table.find(p, seq) for p, seq, _ in rows}
    table.forget_after(last)
    for (producer, seq), base in wanted.items():
        assert table.find(producer, seq) == (base if base and base <= last else None)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_an_empty_table(data: bytes) -> None:
    for content in (data, MAGIC + data):
        table, last = ProducerTable.from_bytes(content)
        assert last == 0
        assert table.to_bytes(0) == ProducerTable().to_bytes(0)


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_a_flipped_snapshot_is_an_empty_table(place: int) -> None:
    snapshot = bytearray(table_of([(7, n, n) for n in range(1, 9)]).to_bytes(9))
    snapshot[place] ^= 4
    table, last = ProducerTable.from_bytes(bytes(snapshot))
    assert (table.find(7, 1), last) == (None, 0)
