"""The snapshot of a table: where it lies, and what becomes of one that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import blocking
from eventlog.api import table_file
from eventlog.api.table_rows import (
    SNAPSHOT_EVERY,
    LatestByKey,
    Row,
    Snapshot,
    options_of_reading,
    snapshot_in,
)
from eventlog.checksum import crc32c
from eventlog.event.record_batch import decode_any
from eventlog.memory.model import MemoryLog

ROWS = {"a": Row(3, b"\x01"), "\u65e5\u672c": Row(2**40, b"\xa3abc")}
SNAPSHOT = Snapshot(bytes(range(16)), 2**40, bytes(16), ROWS)


def test_a_snapshot_comes_back_as_it_was() -> None:
    assert snapshot_in(SNAPSHOT.to_bytes()) == SNAPSHOT
    assert list(snapshot_in(SNAPSHOT.to_bytes()).rows) == list(ROWS)


@given(st.data())
def test_a_snapshot_that_is_damaged_anywhere_is_no_snapshot(data: st.DataObject) -> None:
    content = bytearray(SNAPSHOT.to_bytes())
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        snapshot_in(bytes(content))


@pytest.mark.parametrize(
    "rows", [b"", b"\xc1", b"\x91\x01", msgspec.msgpack.encode([("a", "b", b"c")])]
)
def test_rows_that_are_none_are_no_snapshot_although_their_checksum_is_right(rows: bytes) -> None:
    content = bytearray(SNAPSHOT.to_bytes()[:56] + rows)
    content[12:16] = crc32c(content[16:]).to_bytes(4, "little")
    with pytest.raises(ValueError, match="its rows are none"):
        snapshot_in(bytes(content))


@pytest.fixture
def place(tmp_path: Path) -> str:
    """The directory of a log with a snapshot, which has the keys `a` and `b`."""
    path = str(tmp_path / "log")
    with blocking.open(path) as log:
        log.append_many(range(SNAPSHOT_EVERY), keys=["a", "b"] * (SNAPSHOT_EVERY // 2))
        with log.table() as table:
            assert dict(table) == {"a": SNAPSHOT_EVERY - 2, "b": SNAPSHOT_EVERY - 1}
    assert os.path.exists(os.path.join(path, "table"))
    return path


def read_numbers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers that tables read from now on."""
    read: list[int] = []
    real = LatestByKey._apply

    def noted(table: Any, events: Any) -> list[str]:
        read.extend(one.seq_no for one in events)
        return real(table, events)

    monkeypatch.setattr(LatestByKey, "_apply", noted)
    return read


@pytest.mark.parametrize("fault", ["byte", "end", "empty", "other", "version", "directory"])
def test_a_snapshot_that_cannot_be_used_is_said_so_and_the_log_is_read(
    place: str, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(place, "table")
    content = bytearray(path.read_bytes())
    if fault == "byte":
        content[-1] ^= 1
    elif fault == "end":
        del content[-5:]
    elif fault == "empty":
        content.clear()
    elif fault == "other":
        content[:] = b"something else, and much longer than the header of a snapshot is"
    elif fault == "version":
        content[8] = 2
    path.unlink()
    if fault == "directory":
        path.mkdir()
    else:
        path.write_bytes(content)
    read = read_numbers(monkeypatch)
    with blocking.open(place) as log, log.table() as table:
        assert dict(table) == {"a": SNAPSHOT_EVERY - 2, "b": SNAPSHOT_EVERY - 1}
    assert read == list(range(1, SNAPSHOT_EVERY + 1))
    assert "is not used, and the log is read" in caplog.text
    assert place in caplog.text


def test_a_snapshot_of_events_that_the_log_has_lost_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server, or a loss of power, takes the latest events; others get their numbers."""
    snapshot = str(tmp_path / "snapshot")
    keys = ["k"] * SNAPSHOT_EVERY
    with blocking.open("memory:lossy") as log:
        log.append_many(range(SNAPSHOT_EVERY), keys=keys)
        with log.table(snapshot=snapshot) as table:
            assert table["k"] == SNAPSHOT_EVERY - 1
        model: MemoryLog = log.log  # type: ignore[attr-defined]
        kept, model.last = model.last, 0
        model._batches.clear()
        with log.table(snapshot=snapshot) as table:
            assert dict(table) == {}
        log.append_many([-1] * SNAPSHOT_EVERY, keys=["other"] * SNAPSHOT_EVERY)
        assert model.last == kept
        with log.table(snapshot=snapshot) as table:
            assert dict(table) == {"other": -1}


def test_a_snapshot_that_cannot_be_stored_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with blocking.open("memory:") as log:
        log.append_many(range(SNAPSHOT_EVERY), keys=["k"] * SNAPSHOT_EVERY)
        with log.table(snapshot=tmp_path / "missing" / "snapshot") as table:
            assert table["k"] == SNAPSHOT_EVERY - 1
    assert "could not be stored: No such file or directory" in caplog.text


def test_a_table_reads_only_events_with_a_key() -> None:
    wanted = options_of_reading(follow=False).filter
    assert wanted is not None
    table = LatestByKey("path", decode_any)
    assert (len(table), table.seq_no, repr(table)) == (0, 0, "<LatestByKey of 'path': 0 keys at 0>")


def test_two_tables_may_store_their_snapshots_at_once(place: str) -> None:
    """Each file is put there whole, so the last one counts."""
    path = os.path.join(place, "table")
    with blocking.open(place) as log:
        log_id = log.status().log_id
        found = table_file.load(path, log_id)
        assert found is not None
        table_file.save(path, found)
        table_file.save(path, found._replace(rows={}))
        again = table_file.load(path, log_id)
        assert again is not None
        assert again.rows == {}
    assert [name for name in os.listdir(place) if name.startswith("table")] == ["table"]
