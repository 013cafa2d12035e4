"""Groups of the driver for Redis and Valkey: what one step on the server promises."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from eventlog.api.group import Exhausted, ExitReport, Failure
from eventlog.config import AskedOptions, GroupOrdering
from eventlog.errors import GroupMismatch, InvalidArgument
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.record_batch import areas_bytes
from eventlog.redis.driver import RedisDriver
from eventlog.redis.group import RedisGroup
from eventlog.remote.driver import Delivery, Done, Failed, GivenBack, GivenUp
from tests import servers

pytestmark = pytest.mark.anyio
LIMIT = 3


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["valkey", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    servers.require(request.param)
    return servers.shared(request.param).address + str(tmp_path).strip("/")


def record(event: object, key: str | None = None) -> bytes:
    builder = BatchBuilder(10_000, "a test")
    builder.add(event, key)
    count, flags, acks, payload = builder.build()
    return bytes(payload[areas_bytes(count, flags, acks) :])


@asynccontextmanager
async def group_of(
    address: str,
    *keys: str | None,
    ordering: GroupOrdering = None,
    lease_s: float | None = None,
) -> AsyncIterator[RedisGroup]:
    driver = RedisDriver(address, AskedOptions(lease_s=lease_s))
    try:
        await driver.open()
        await driver.append(1, 1, [record(place, key) for place, key in enumerate(keys, 1)])
        group = await driver.group("work", ordering, LIMIT, 0)
        await group.join(1, 0, 100)
        await group.join(2, 0, 200)
        yield group
    finally:
        await driver.aclose()


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [one.event.seq_no for one in deliveries]


def failed(seq_no: int, *, is_final: bool = False) -> Failed:
    return Failed(seq_no, Failure(error="ValueError: no", is_final=is_final))


async def is_waiting(group: RedisGroup, member: int) -> bool:
    with anyio.move_on_after(0.1):
        await group.take(member, 10, 10)
        return False
    return True


async def test_members_share_events_and_what_is_done_moves_the_position(address: str) -> None:
    async with group_of(address, *[None] * 4) as group:
        first = numbers(await group.take(1, 2, 2))
        second = numbers(await group.take(2, 10, 10))
        assert (first, second) == ([1, 2], [3, 4])
        assert await group.settle(2, [Done(4), Done(3)]) == set()
        [report] = await group.reports()
        assert (report.position, report.lag, report.in_flight) == (0, 2, 2)
        assert await group.settle(1, [Done(1), Done(2)]) == set()
        [report] = await group.reports()
        assert (report.position, report.lag, report.in_flight) == (4, 0, 0)
        await group.drained(4)


async def test_an_idle_member_gets_its_share(address: str) -> None:
    async with group_of(address, *[None] * 4) as group:
        assert len(await group.take(1, 10, 1)) == 2
        assert len(await group.take(2, 10, 1)) == 2


async def test_what_was_said_twice_counts_once(address: str) -> None:
    async with group_of(address, None, None) as group:
        await group.take(1, 1, 1)
        said, attempts = [Done(1, [record("result")])], dict(group._attempts)
        for _ in range(2):
            group._attempts.update(attempts)  # as if the reply was lost
            assert await group.settle(1, said) == set()
        assert (await group._driver.state()).last == 3


async def test_a_group_is_not_handed_its_own_results(address: str) -> None:
    async with group_of(address, None, None) as group:
        await group.take(1, 2, 2)
        await group.settle(1, [Done(1, [record("a"), record("b")]), Done(2)])
        [report] = await group.reports()
        assert (report.position, report.lag) == (4, 0)
        assert await is_waiting(group, 1)


async def test_a_dead_member_s_events_go_to_others_one_by_one(address: str) -> None:
    async with group_of(address, *[None] * 3) as group:
        await group.take(1, 3, 3)
        await group.end(1, has_failed=True)
        for number in (1, 2, 3):
            [delivery] = await group.take(2, 10, 10)
            assert (delivery.event.seq_no, delivery.attempt) == (number, 2)
            await group.settle(2, [Done(number)])
        with pytest.raises(GivenUp):
            await group.take(1, 1, 1)
        assert await group.settle(1, [Done(1)]) == {1}


async def test_an_event_whose_members_die_is_exhausted_and_then_rejected(address: str) -> None:
    async with group_of(address, None) as group:
        for member in range(11, 11 + LIMIT):
            await group.join(member, 0, 1)
            assert numbers(await group.take(member, 1, 1)) == [1]
            await group.end(member, has_failed=True)
        [one] = await group.exhausted(0)
        assert one == Exhausted(seq_no=1, deliveries=LIMIT, member_id=10 + LIMIT, owner=0)
        report = ExitReport(error="killed by SIGSEGV", exit_code=-11, log_lines=("last",))
        await group.reject(one, report)
        [letter] = await group.dead_letters()
        assert (letter.event, letter.error, letter.exit_code) == (1, "killed by SIGSEGV", -11)
        assert (letter.deliveries, letter.log_lines) == (LIMIT, ("last",))
        await group.drained(1)


async def test_a_member_that_nobody_keeps_is_dead_after_its_lease(
    address: str,
) -> None:
    async with group_of(address, None, lease_s=0.2) as group:
        await group.take(1, 1, 1)
        group._lease_us = 30_000_000
        assert await group.keep([2]) == set()
        with anyio.fail_after(10):
            [delivery] = await group.take(2, 1, 1)
        assert (delivery.event.seq_no, delivery.attempt) == (1, 2)
        assert await group.keep([1, 2]) == {1}


async def test_a_failed_event_comes_again_and_is_a_dead_letter_at_the_limit(address: str) -> None:
    async with group_of(address, "key") as group:
        for attempt in range(1, LIMIT + 1):
            [delivery] = await group.take(1, 1, 1)
            assert delivery.attempt == attempt
            assert await group.settle(1, [failed(1)]) == set()
        [letter] = await group.dead_letters()
        assert (letter.seq_no, letter.key, letter.deliveries) == (1, "key", LIMIT)
        assert await group.retry_dead([1, 2]) == 1
        assert await group.dead_letters() == []
        [delivery] = await group.take(1, 1, 1)
        assert delivery.attempt == 1
        await group.settle(1, [failed(1, is_final=True)])
        assert await group.drop_dead([1]) == 1
        assert await group.dead_letters() == []


async def test_a_retried_letter_that_succeeds_is_gone(address: str) -> None:
    async with group_of(address, None, None) as group:
        await group.take(1, 2, 2)
        await group.settle(1, [failed(1, is_final=True), Done(2)])
        await group.retry_dead([1])
        [report] = await group.reports()
        assert (report.position, report.lag, report.dead_letters) == (2, 1, 0)
        assert numbers(await group.take(1, 5, 5)) == [1]
        await group.settle(1, [Done(1)])
        assert await group.dead_letters() == []
        await group.drained(2)


async def test_with_key_order_one_key_is_in_one_hand_and_waits_behind_a_failure(
    address: str,
) -> None:
    async with group_of(address, "a", "a", "b", None, "a", ordering="key") as group:
        assert numbers(await group.take(1, 2, 2)) == [1, 2]
        assert numbers(await group.take(2, 9, 9)) == [3, 4]
        await group.settle(2, [Done(3), Done(4)])
        failure = Failure(error="ValueError: no", delay_s=0.3)
        await group.settle(1, [Failed(1, failure)])
        assert await is_waiting(group, 2)
        with anyio.fail_after(10):
            deliveries = await group.take(2, 9, 9)
        assert [(one.event.seq_no, one.attempt) for one in deliveries] == [(1, 2), (2, 1), (5, 1)]


async def test_each_event_of_a_key_with_many_costs_the_server_the_same(address: str) -> None:
    async def costs(group: RedisGroup) -> int:
        before = await commands_of(group)
        for _ in range(20):
            [delivery] = await group.take(1, 1, 1)
            await group.settle(1, [Done(delivery.event.seq_no)])
        return await commands_of(group) - before

    async with group_of(address, *["a"] * 1000, ordering="key") as group:
        assert numbers(await group.take(2, 1, 1)) == [1]
        assert await is_waiting(group, 1)  # all others wait for the first one
        await group.settle(2, [Done(1)])
        assert await costs(group) < 20 * 300


async def commands_of(group: RedisGroup) -> int:
    """How many the server has carried out, those of scripts too."""
    said = (await group._driver.link.call(b"INFO", b"commandstats")).decode()
    return sum(int(calls) for calls in re.findall(r":calls=(\d+)", said))


async def test_a_key_with_many_events_keeps_their_order_over_members(address: str) -> None:
    seen: list[int] = []
    async with group_of(address, *["a", "a", "b"] * 30, ordering="key") as group:

        async def work(member: int, count: int) -> None:
            while True:
                found = await group.take(member, count, 1)
                seen.extend(numbers(found))
                await group.settle(member, [Done(number) for number in numbers(found)])

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for member, count in ((1, 1), (2, 7)):
                    tasks.start_soon(work, member, count)
                await group.drained(90)
                tasks.cancel_scope.cancel()
    assert [n for n in seen if n % 3] == [n for n in range(1, 91) if n % 3]
    assert [n for n in seen if not n % 3] == list(range(3, 91, 3))


async def test_what_waits_for_a_key_comes_though_those_before_it_are_passed_over(
    address: str,
) -> None:
    async with group_of(address, *["a"] * 60, ordering="key") as group:
        assert numbers(await group.take(1, 1, 1)) == [1]
        assert await is_waiting(group, 2)
        await group.settle(1, [Done(1)])
        await group._driver.move("work", 40, is_ack=True)
        found: list[int] = []
        while len(found) < 20:
            with anyio.fail_after(10):
                deliveries = await group.take(2, 50, 50)
            found += numbers(deliveries)
            await group.settle(2, [Done(number) for number in numbers(deliveries)])
        assert found == list(range(41, 61))


async def test_what_a_pool_s_member_did_is_told_after_its_end(address: str) -> None:
    async with group_of(address, None) as group:
        await group.join(3, 7, 300)
        await group.take(3, 1, 1)
        await group.settle(3, [Done(1)])
        await group.end(3, has_failed=False)
        [report] = [one for one in await group.members() if one.member_id == 3]
        assert (report.owner, report.pid, report.handled, report.in_flight) == (7, 0, 1, 0)
        [group_report] = await group.reports()
        assert group_report.members == 2


async def test_what_is_given_back_counts_as_no_delivery(address: str) -> None:
    async with group_of(address, "a", "a", ordering="key") as group:
        await group.take(1, 2, 2)
        await group.settle(1, [GivenBack(2), Done(1)])
        [delivery] = await group.take(2, 2, 2)
        assert (delivery.event.seq_no, delivery.attempt) == (2, 1)


async def test_ack_and_seek_move_a_group(address: str) -> None:
    async with group_of(address, *[None] * 5) as group:
        driver = group._driver
        await group.take(1, 3, 3)
        await driver.move("work", 2, is_ack=True)
        assert await group.settle(1, [Done(1), Done(2), Done(3)]) == {1, 2}
        assert (await driver.positions())["work"].position == 3
        await driver.move("work", 1, is_ack=False)
        assert numbers(await group.take(1, 9, 9)) == [2, 3, 4, 5]
        await driver.forget("work")
        assert await driver.groups() == []
        with pytest.raises(InvalidArgument, match="has no group"):
            await group.take(1, 1, 1)


async def test_members_of_one_group_work_with_the_same_options(address: str) -> None:
    async with group_of(address, None) as group:
        with pytest.raises(GroupMismatch):
            await group._driver.group("work", "key", LIMIT, 0)
        for member in (1, 2):
            await group.end(member, has_failed=False)
        await group._driver.group("work", "key", LIMIT, 0)
        assert [one.ordering for one in await group._driver.groups()] == ["key"]
