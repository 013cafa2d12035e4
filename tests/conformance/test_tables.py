"""`log.table(...)`: a mapping of each key to its latest event, which follows the log."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import eventlog
from eventlog import EventTypeMismatch, InvalidArgumentType, Retention
from eventlog.api.table_rows import SNAPSHOT_EVERY

from .backends import needs
from .logs import KIB, Logs

pytestmark = pytest.mark.anyio


@dataclass
class Balance:
    """A typed event."""

    amount: int


async def as_latest_says(log: eventlog.EventLog) -> dict[str, Any]:
    """What `latest` says of each key that the log has."""
    keys = {envelope.key for envelope in await log.read(0) if envelope.key is not None}
    found = {key: await log.latest(key) for key in keys}
    return {key: envelope.event for key, envelope in found.items() if envelope is not None}


async def test_a_table_has_the_latest_event_of_each_key(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(6), keys=["a", "b", "a", None, "c", "b"])
        await log.delete("c")
        async with log.table() as table:
            assert dict(table) == {"a": 2, "b": 5} == await as_latest_says(log)
            assert (table["a"], table.get("c"), len(table)) == (2, None, 2)
            assert "a" in table
            assert "c" not in table
            assert [table.seq_no_of(key) for key in "abcd"] == [3, 6, 0, 0]
            assert table.seq_no == 7
            with pytest.raises(KeyError):
                table["c"]


async def test_a_table_of_an_empty_log_is_empty(logs: Logs) -> None:
    async with logs.open() as log, log.table() as table:
        assert dict(table) == {}
        assert table.seq_no == 0
        await table.caught_up()
        assert list(table.items()) == list(table.values()) == []


async def test_caught_up_takes_in_what_is_stored_by_then(logs: Logs) -> None:
    async with logs.open() as log, log.table() as table:
        await log.append(1, key="a")
        assert "a" not in table
        await table.caught_up()
        assert table["a"] == 1
        await log.append(2, key="a")
        await log.append("without a key")
        await log.delete("b")
        await table.caught_up()
        assert dict(table) == {"a": 2}
        assert table.seq_no == 4
        await log.delete("a")
        await table.caught_up()
        assert dict(table) == {}
        await log.append(3, key="a")
        await table.caught_up()
        assert dict(table.items()) == {"a": 3}


async def test_changed_waits_for_events_of_keys_and_says_which(logs: Logs) -> None:
    async with logs.open() as log, log.table() as table:
        told: list[str] = []

        async def follow() -> None:
            while len(told) < 4:
                told.extend(await table.changed())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await log.append("without a key")
            await log.append_many([1, 2], keys=["a", "b"])
            await table.caught_up()  # takes some of them in first, or not
            await log.delete("a")
            await log.append(4, key="c")
        assert told == ["a", "b", "a", "c"]
        assert dict(table) == {"b": 2, "c": 4}


@needs("cancellation")
async def test_a_cancelled_wait_loses_no_event(logs: Logs) -> None:
    async with logs.open() as log, log.table() as table:
        with anyio.move_on_after(0.01):
            await table.changed()
        await log.append(1, key="a")
        assert await table.changed() == ["a"]
        assert table["a"] == 1


async def test_events_are_decoded_to_the_type_of_the_table(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([Balance(1), Balance(2), "no balance"], keys=["a", "b", "c"])
        async with log.table(Balance) as table:
            assert table["a"] == Balance(1)
            assert table["a"] is not table["a"]
            with pytest.raises(EventTypeMismatch, match="event 3"):
                table["c"]
            assert table.seq_no_of("c") == 3
        async with log.table(type=msgspec.Raw) as table:
            assert msgspec.msgpack.decode(table["b"]) == {"amount": 2}


async def test_what_is_no_type_or_no_path_is_refused_at_the_call(logs: Logs) -> None:
    async with logs.open() as log:
        for wrong in ({"type": 7}, {"snapshot": 7}):
            with pytest.raises(InvalidArgumentType):
                log.table(**wrong)  # type: ignore[arg-type]


@needs("prompt retention")
async def test_what_retention_deletes_leaves_the_table_too(logs: Logs, tmp_path: Path) -> None:
    place = tmp_path / "snapshot"
    retention = Retention(max_bytes=1024 * KIB, keep_unacked=False)
    async with logs.open(retention=retention) as log:
        await log.append("gone", key="a")
        async with log.table(snapshot=place) as table:
            assert dict(table) == {"a": "gone"}
            for n in range(40):
                await log.append_many([f"{n}" + "x" * 1000] * 50, keys=[f"k{n}"] * 50)
            await table.caught_up()
            assert "a" not in table
            assert dict(table) == await as_latest_says(log)
        async with log.table(snapshot=place) as table:
            assert dict(table) == await as_latest_says(log)


async def test_a_table_with_a_snapshot_reads_what_is_new_only(
    logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "snapshot"
    async with logs.open() as log:
        count = SNAPSHOT_EVERY + 5
        await log.append_many(range(count), keys=[f"k{n % 10}" for n in range(count)])
        async with log.table(snapshot=place) as table:
            before = dict(table)
        assert place.exists()
        await log.append("new", key="k3")
        await log.delete("k4")
        read: list[int] = []
        real = eventlog.api.table_rows.LatestByKey._apply

        def noted(table: Any, events: Any) -> list[str]:
            events = list(events)
            read.extend(one.seq_no for one in events)
            return real(table, events)

        monkeypatch.setattr("eventlog.api.table_rows.LatestByKey._apply", noted)
        async with log.table(snapshot=place) as table:
            assert read == [count + 1, count + 2]
            del before["k4"]
            assert dict(table) == {**before, "k3": "new"} == await as_latest_says(log)
            assert list(table)[-1] == "k3"


async def test_a_snapshot_of_another_log_is_not_used(
    logs: Logs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "snapshot"
    async with logs.open("one") as log:
        await log.append_many(range(SNAPSHOT_EVERY), keys=["one"] * SNAPSHOT_EVERY)
        async with log.table(snapshot=place):
            assert place.exists()
    async with logs.open("two") as log:
        await log.append_many(range(SNAPSHOT_EVERY), keys=["two"] * SNAPSHOT_EVERY)
        async with log.table(snapshot=place) as table:
            assert dict(table) == {"two": SNAPSHOT_EVERY - 1}
    if logs.backend.name != "memory":  # each opening of a log without a name is another one
        assert "it is of another log" in caplog.text


@needs("directory")
async def test_a_directory_has_a_snapshot_for_tables_of_all_types(logs: Logs) -> None:
    place = os.path.join(logs.path(), "table")
    async with logs.open() as log:
        await log.append_many([Balance(n) for n in range(SNAPSHOT_EVERY)], keys=["a"] * 1000)
        async with log.table(Balance):
            before = os.stat(place)
            assert before.st_mode & 0o777 == 0o600
        async with log.table() as table:
            assert table["a"] == {"amount": SNAPSHOT_EVERY - 1}
        assert os.stat(place).st_ino == before.st_ino  # nothing was new
