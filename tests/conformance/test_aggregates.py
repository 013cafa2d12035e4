"""`eventlog.aggregates`: states made of the events of their keys, and changed by new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from eventlog import EventLog, InvalidArgument, Retention
from eventlog.aggregates import Aggregates, BlockingAggregates, Loaded

from .backends import needs
from .facade import ThreadedEventLog
from .logs import KIB, Logs

pytestmark = [pytest.mark.anyio, needs("conditional appends")]


class Moved(msgspec.Struct, tag="moved"):
    """Money came, or went."""

    amount: int


class Closed(msgspec.Struct, tag="closed"):
    """No money moves any more."""


@dataclass(frozen=True)
class Account:
    """What the events make."""

    balance: int = 0
    is_closed: bool = False


def apply(account: Account, event: Moved | Closed) -> Account:
    if isinstance(event, Closed):
        return Account(account.balance, is_closed=True)
    return Account(account.balance + event.amount, account.is_closed)


class NotEnough(Exception):
    """What a decision forbids."""


def withdraw(amount: int, account: Account) -> Iterable[Moved]:
    if account.is_closed or account.balance < amount:
        raise NotEnough
    return [Moved(-amount)]


def deposit(amount: int, account: Account) -> Iterable[Moved]:
    return [] if account.is_closed else [Moved(amount)]


class Threaded:
    """`BlockingAggregates` in the clothes of the asynchronous ones."""

    def __init__(self, log: ThreadedEventLog, *rest: Any, snapshots: Any = None, **options: Any):
        given = None if snapshots is None else snapshots.blocking
        self._real = BlockingAggregates(log.blocking, *rest, snapshots=given, **options)

    async def load(self, key: str) -> Loaded[Account]:
        return await anyio.to_thread.run_sync(self._real.load, key)

    async def change(self, key: str, decide: Callable[[Account], Iterable[Any]]) -> Account:
        return await anyio.to_thread.run_sync(self._real.change, key, decide)


def accounts(log: EventLog, **options: Any) -> Any:
    kind: Any = Threaded if isinstance(log, ThreadedEventLog) else Aggregates
    return kind(log, Account, apply, type=Moved | Closed, **options)


async def test_a_change_stores_what_is_decided_on_the_state(logs: Logs) -> None:
    async with logs.open() as log:
        found = accounts(log)
        assert await found.load("a") == Loaded(Account(), 0)
        assert await found.change("a", partial(deposit, 10)) == Account(10)
        assert await found.change("b", partial(deposit, 5)) == Account(5)
        assert await found.change("a", partial(withdraw, 4)) == Account(6)
        loaded = await found.load("a")
        assert (loaded.state, loaded.seq_no) == (Account(6), 3)
        assert [one.key for one in await log.read(0)] == ["a", "b", "a"]


async def test_what_a_decision_forbids_is_not_stored(logs: Logs) -> None:
    async with logs.open() as log:
        found = accounts(log)
        await found.change("a", partial(deposit, 10))
        with pytest.raises(NotEnough):
            await found.change("a", partial(withdraw, 11))
        assert await found.change("a", lambda _: [Closed()]) == Account(10, is_closed=True)
        assert await found.change("a", partial(deposit, 1)) == Account(10, is_closed=True)
        assert await log.last_seq_no() == 2


async def test_whoever_comes_second_decides_again(logs: Logs) -> None:
    """Without that, ten withdrawals of what is there once would all succeed."""
    async with logs.open() as log:
        found = accounts(log)
        await found.change("a", partial(deposit, 100))
        refused: list[int] = []

        async def take(number: int) -> None:
            try:
                await found.change("a", partial(withdraw, 30))
            except NotEnough:
                refused.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(take, number)
        assert (await found.load("a")).state == Account(10)
        assert len(refused) == 5
        assert await log.last_seq_no() == 4


async def test_several_events_of_a_decision_are_one_batch(logs: Logs) -> None:
    async with logs.open() as log:
        found = accounts(log)
        state = await found.change("a", lambda _: [Moved(1), Moved(2), Closed()])
        assert state == Account(3, is_closed=True)
        assert (await found.load("a")).seq_no == 3


async def test_a_deleted_aggregate_begins_anew(logs: Logs) -> None:
    async with logs.open() as log:
        found = accounts(log)
        await found.change("a", partial(deposit, 10))
        await log.delete("a")
        assert (await found.load("a")).state == Account()
        assert await found.change("a", partial(deposit, 1)) == Account(1)


async def test_with_a_snapshot_only_later_events_are_read(logs: Logs) -> None:
    async with logs.open() as log, logs.open("snapshots") as snapshots:
        found = accounts(log, snapshots=snapshots, snapshot_every=10)
        for _ in range(25):
            await found.change("a", partial(deposit, 1))
        stored = await snapshots.read(0)
        assert [(one.key, one.event["seq_no"]) for one in stored] == [("a", 10), ("a", 20)]
        loaded = await found.load("a")
        assert loaded.state == Account(25)
        assert loaded.since_snapshot == 5
        await log.append(Moved(1), key="a")
        assert (await accounts(log, snapshots=snapshots).load("a")).state == Account(26)


async def test_an_aggregate_that_is_only_loaded_gets_snapshots_too(logs: Logs) -> None:
    # Only `change` took one: accounts that change by transfers were read from their first event.
    async with logs.open() as log, logs.open("snapshots") as snapshots:
        found = accounts(log, snapshots=snapshots, snapshot_every=3)
        for number in range(4):
            one = await found.load("a")
            await log.append_many([Moved(1)] * 2, keys=["a", "a"], expect={"a": one.seq_no})
            assert one.since_snapshot == [0, 2, 0, 2][number]
        stored = await snapshots.read(0)
        assert [(one.key, one.event["seq_no"]) for one in stored] == [("a", 4)]
        assert (await found.load("a")).state == Account(8)


async def test_a_snapshot_that_does_not_fit_is_not_used(
    logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    async with logs.open() as log, logs.open("snapshots") as snapshots:
        found = accounts(log, snapshots=snapshots)
        await found.change("a", partial(deposit, 7))
        for wrong in ({"seq_no": 1, "id": bytes(16), "state": {"balance": 9}}, {"seq_no": 1}, "x",
                      {"seq_no": 1, "id": b"", "state": {"balance": "nine"}}):  # fmt: skip
            await snapshots.append(wrong, key="a")
            assert (await found.load("a")).state == Account(7)
        assert "a snapshot is not used" in caplog.text


@needs("prompt retention")
async def test_an_aggregate_outlives_its_events_by_its_snapshot(logs: Logs) -> None:
    retention = Retention(max_bytes=1024 * KIB, keep_unacked=False)
    async with logs.open(retention=retention) as log, logs.open("snapshots") as snapshots:
        found = accounts(log, snapshots=snapshots, snapshot_every=1)
        await found.change("a", partial(deposit, 10))
        for _ in range(40):
            await log.append_many(["x" * 1000] * 50)
        assert (await log.status()).first_seq_no != 1
        assert (await found.load("a")).state == Account(10)
        assert await found.change("a", partial(withdraw, 3)) == Account(7)


async def test_a_snapshot_is_stored_after_one_event_at_least(logs: Logs) -> None:
    async with logs.open() as log:
        with pytest.raises(InvalidArgument):
            accounts(log, snapshot_every=0)
