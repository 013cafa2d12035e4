"""Groups on JetStream: what one step promises, and what is left when somebody is killed in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlog
from eventlog import EventEnvelope, EventLog
from eventlog.api.group import Failure, Group, Member
from eventlog.config import AskedOptions, GroupOrdering
from eventlog.errors import CorruptLog, EventTooLarge
from eventlog.event.results import envelopes_of_results
from eventlog.jetstream.address import parse
from eventlog.jetstream.driver import JetStreamDriver
from eventlog.jetstream.group import JetStreamGroup
from eventlog.remote import numbers
from eventlog.remote.driver import Delivery, Done, Failed, GivenBack, GivenUp, Outcome
from eventlog.remote.record import Limits, RecordBuilder, envelope_of
from tests import servers
from tests.engines.cutting import cutting

HANG_S = 60.0
BOOM = Failure(error="ValueError: boom")
DEAD = Failure(error="rejected", is_final=True)


@pytest.fixture
def anyio_backend() -> str:
    """The driver's own; the conformance suite has the others."""
    return "asyncio"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[servers.Server]:
    """A server that the test may kill."""
    servers.require("nats")
    with servers.own("nats", tmp_path / "nats") as own:
        yield own


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A stream of the server that tests share."""
    servers.require("nats")
    return f"{servers.shared('nats').address}groups-{tmp_path.name[-40:].replace('.', '-')}"


# --- the driver ------------------------------------------------------------------------------


def record(event: object, key: str | None = None) -> bytes:
    return RecordBuilder(Limits(100_000, 100_000, 100_000, 100), "a test").pack(event, key)


@asynccontextmanager
async def driver_at(address: str, **options: Any) -> AsyncIterator[JetStreamDriver]:
    driver = JetStreamDriver(parse(address, {}), AskedOptions(**options))
    try:
        await driver.open()
        with anyio.fail_after(HANG_S):
            yield driver
    finally:
        with anyio.CancelScope(shield=True):  # as the shell does
            await driver.aclose()


@asynccontextmanager
async def group_at(
    address: str, *keys: str | None, ordering: GroupOrdering = None, members: int = 2
) -> AsyncIterator[JetStreamGroup]:
    """A group with members 1, 2, ... and an event for each of the keys."""
    async with driver_at(address) as driver:
        if keys:
            events = [record(number, key) for number, key in enumerate(keys, 1)]
            await driver.append(1, 1, events)
        group = await driver.group("work", ordering, 3, 0)
        for member in range(1, members + 1):
            await group.join(member, 0, 100)
        yield group


def seen(deliveries: list[Delivery]) -> list[tuple[int, int]]:
    return [(one.event.seq_no, one.attempt) for one in deliveries]


pytestmark = pytest.mark.anyio


async def test_what_an_unheard_answer_gave_is_given_again_as_the_same_attempt(
    address: str,
) -> None:
    async with group_at(address, *[None] * 3) as group:
        assert seen(await group.take(1, 2, 2)) == [(1, 1), (2, 1)]
        group._known[1].clear()  # as if the answer was lost
        assert seen(await group.take(1, 2, 2)) == [(1, 1), (2, 1)]
        assert seen(await group.take(2, 9, 9)) == [(3, 1)]


async def test_what_is_settled_again_with_more_counts_once(address: str) -> None:
    async with group_at(address, *[None] * 3) as group:
        await group.take(1, 3, 3)
        said: list[Outcome] = [Done(1), Failed(2, DEAD)]
        assert await group.settle(1, said) == set()
        assert await group.settle(1, [*said, GivenBack(3)]) == set()
        [report] = [one for one in await group.members() if one.member_id == 1]
        assert (report.handled, report.failed) == (1, 1)
        assert [one.seq_no for one in await group.dead_letters()] == [2]
        assert seen(await group.take(2, 9, 9)) == [(3, 1)]


async def test_what_a_member_settles_late_is_refused(address: str) -> None:
    async with group_at(address, None) as group:
        await group.take(1, 1, 1)
        await group.end(1, has_failed=True)
        assert seen(await group.take(2, 1, 1)) == [(1, 2)]
        assert await group.settle(1, [Done(1)]) == {1}
        with pytest.raises(GivenUp):
            await group.take(1, 1, 1)


async def test_a_member_of_which_nothing_is_heard_is_dead(address: str) -> None:
    async with group_at(address, None) as group:
        await group.take(1, 1, 1)
        group._lease_ns = 200_000_000
        await group.join(3, 0, 100)
        group._lease_ns = 60_000_000_000
        with anyio.fail_after(HANG_S):
            while 3 not in await group.keep([1, 2]):
                if 3 not in {one.member_id for one in await group.members()}:
                    break
        assert await group.keep([1, 2, 3]) == {3}


async def test_handles_that_race_hand_each_event_out_once(address: str) -> None:
    count, found = 120, []
    async with driver_at(address) as driver:
        await driver.append(1, 1, [record(number) for number in range(count)])

        async def work(member: int) -> None:
            async with driver_at(address) as own:
                group = await own.group("work", None, 3, 0)
                await group.join(member, 0, 100)
                while True:
                    deliveries = await group.take(member, 5, 1)
                    found.extend(seen(deliveries))
                    stale = await group.settle(member, [Done(n) for n, _ in seen(deliveries)])
                    assert stale == set()

        async with anyio.create_task_group() as tasks:
            for member in range(1, 5):
                tasks.start_soon(work, member)
            group = await driver.group("work", None, 3, 0)
            await group.drained(count)
            tasks.cancel_scope.cancel()
    assert sorted(found) == [(number, 1) for number in range(1, count + 1)]


async def test_with_key_order_a_key_waits_behind_its_failure_in_every_handle(address: str) -> None:
    async with group_at(address, "a", "a", "b", ordering="key") as group:
        assert seen(await group.take(1, 2, 2)) == [(1, 1), (2, 1)]
        assert seen(await group.take(2, 9, 9)) == [(3, 1)]
        await group.settle(1, [Failed(1, BOOM)])
        assert seen(await group.take(2, 9, 9)) == [(1, 2), (2, 1)]


async def test_a_letter_s_own_copy_is_retried_once_its_event_is_deleted(address: str) -> None:
    options: dict[str, Any] = {
        "retention": eventlog.Retention(max_bytes=100_000, keep_unacked=False)
    }
    async with driver_at(address, **options) as driver:
        await driver.append(1, 1, [record("first", "key")])
        group = await driver.group("work", None, 3, 0)
        await group.join(1, 0, 100)
        await group.take(1, 1, 1)
        await group.settle(1, [Failed(1, DEAD)])
        producer_seq = 2
        while (await driver.state()).first == 1:
            await driver.append(1, producer_seq, [record(b"x" * 20_000)])
            producer_seq += 1
        group._records._kept.clear()
        assert await group.retry_dead([1]) == 1
        [delivery, *_] = await group.take(1, 1, 1)
        assert envelope_of(delivery.event, "a test").event == "first"
        await group.settle(1, [Done(1)])
        assert await group.dead_letters() == []


async def test_a_document_that_strangers_wrote_is_corrupt_and_named(address: str) -> None:
    async with group_at(address, None) as group:
        await group._document._bucket.write(
            "consumer.work",
            (await group._document._bucket.read("consumer.work")).revision,
            b"?",
            {},
        )
        with pytest.raises(CorruptLog, match=r"consumer\.work"):
            await group.take(1, 1, 1)


async def test_a_document_that_grows_too_large_gets_no_new_events(address: str) -> None:
    async with group_at(address, *[None] * 4) as group:
        assert seen(await group.take(1, 1, 1)) == [(1, 1)]
        await group.settle(1, [Failed(1, BOOM)])
        group._handing._size_max = 10
        assert seen(await group.take(1, 9, 9)) == [(1, 2)]
        with anyio.move_on_after(0.05):
            await group.take(2, 9, 9)
            pytest.fail("it got a new event")
        group._handing._size_max = 100_000
        assert seen(await group.take(2, 9, 9)) == [(2, 1), (3, 1), (4, 1)]


# --- results ---------------------------------------------------------------------------------


async def stored(group: JetStreamGroup, driver: JetStreamDriver) -> list[Any]:
    found = await driver.read(1, 100)
    return [envelope_of(one, "a test").event for one in found]


def results_of(delivery: Delivery, driver: JetStreamDriver, events: list[str]) -> list[bytes]:
    """Records of what handlers return, as a member makes them."""
    source = envelope_of(delivery.event, "a test")
    found = envelopes_of_results(source, events, UUID(driver._parts.log_id), "work")
    return [record(one) for one in found]


@pytest.mark.parametrize("step", ["asked for", "stored", "looked for"])
async def test_results_of_a_member_that_died_at_a_step_are_stored_once(
    address: str, step: str
) -> None:
    async with driver_at(address) as driver:
        await driver.append(1, 1, [record(number) for number in range(2)])
        group = await driver.group("work", None, 3, 0)
        await group.join(1, 0, 100)
        [delivery] = await group.take(1, 1, 1)
        results, outcome = group._results, Done(1, results_of(delivery, driver, ["one", "two"]))
        storing, _ = await results._intend(1, outcome, 1)
        assert storing is not None
        if step != "asked for":
            await results._append(storing, outcome.results)
        if step == "looked for":  # the server has forgotten the name by then
            results._window_ns = 0
        async with driver_at(address) as other:
            rest = await other.group("work", None, 3, 0)
            rest._results._window_ns = results._window_ns
            await rest.join(2, 0, 100)
            await rest.end(1, has_failed=True)
            assert seen(await rest.take(2, 9, 9)) == [(2, 1)]
            await rest.settle(2, [Done(2)])
            await rest.drained(4)
        assert await stored(group, driver) == [0, 1, "one", "two"]
        assert (await driver.positions())["work"].position == 4


async def test_whoever_completes_too_late_stores_nothing_of_another_event(address: str) -> None:
    async with group_at(address, None, None) as group:
        await group.take(1, 2, 2)
        results = group._results
        first, _ = await results._intend(1, Done(1, [record("one")]), 2)
        assert first is not None
        await results._revoke(1, first)
        second, _ = await results._intend(1, Done(2, [record("two")]), 2)
        assert second is not None
        assert second.place == first.place
        await results.complete(1, first)
        assert (await results._events.state()).last == 2


async def test_results_said_twice_are_stored_once(address: str) -> None:
    async with group_at(address, None) as group:
        await group.take(1, 1, 1)
        for _ in range(2):
            assert await group.settle(1, [Done(1, [record("one")])]) == set()
        await group.drained(2)
        assert (await group._results._events.state()).last == 2


async def test_results_that_the_log_refuses_leave_the_event_to_its_member(address: str) -> None:
    async with group_at(address, None) as group:
        await group.take(1, 1, 1)
        with pytest.raises(EventTooLarge, match="results"):
            await group.settle(1, [Done(1, [record("x")] * 1000)])
        assert await group.settle(1, [Failed(1, DEAD)]) == set()
        assert [one.seq_no for one in await group.dead_letters()] == [1]


async def test_a_group_is_not_handed_results_that_it_wrote_before_a_seek(address: str) -> None:
    async with driver_at(address) as driver:
        await driver.append(1, 1, [record("event")])
        group = await driver.group("work", None, 3, 0)
        await group.join(1, 0, 100)
        [delivery] = await group.take(1, 1, 1)
        await group.settle(1, [Done(1, results_of(delivery, driver, ["result"]))])
        await driver.append(1, 2, [record("later")])
        await driver.move("work", 0, is_ack=False)
        for number in (1, 3):
            assert seen(await group.take(1, 1, 1)) == [(number, 1)]
            await group.settle(1, [Done(number)])
        assert (await driver.positions())["work"].position == 3


# --- servers that are killed, connections that break -----------------------------------------


async def take_one(member: Member) -> tuple[Any, int, EventEnvelope]:
    """The next event, begun, alone in its lease."""
    lease = await member.lease()
    assert lease is not None
    for attempt, envelope in lease:
        assert lease.begin(envelope)
        return lease, attempt, envelope
    raise AssertionError("a lease without an event")


async def restart(server: servers.Server) -> None:
    def kill_and_start() -> None:
        server.kill()
        server.start()

    await anyio.to_thread.run_sync(kill_and_start)


@pytest.mark.parametrize("moment", ["lease", "settle", "letter", "between"])
async def test_a_server_killed_in_a_step_loses_and_doubles_nothing(
    server: servers.Server, moment: str
) -> None:
    count = 4
    async with eventlog.open(f"{server.address}orders") as log:
        await log.append_many(range(count))
        handled: list[tuple[int, int]] = []
        with anyio.fail_after(HANG_S):
            async with log.group("g") as group, await group.open_member() as member:
                for number in range(count):
                    async with anyio.create_task_group() as tasks:
                        if moment == "lease":
                            tasks.start_soon(restart, server)
                        lease, attempt, envelope = await take_one(member)
                        handled.append((envelope.event, attempt))
                    async with anyio.create_task_group() as tasks:
                        if moment == "settle" or (moment == "letter" and number % 2):
                            tasks.start_soon(restart, server)
                        if number % 2:
                            lease.failed(envelope, DEAD)
                        else:
                            lease.done(envelope)
                        await member.flush()
                    if moment == "between":
                        await restart(server)
                await group.wait_drained()
        assert handled == [(number, 1) for number in range(count)]
        letters = await log.dead_letters("g")
        assert [(one.event, one.deliveries) for one in letters] == [(1, 1), (3, 1)]


async def test_a_member_outlives_connections_that_are_cut(address: str) -> None:
    count = 30
    async with (
        cutting(address, 5_000, 9_000, 14_000) as cut_address,
        eventlog.open(cut_address, retry_s=HANG_S) as log,
    ):
        with anyio.fail_after(HANG_S):
            await log.append_many([[number, "x" * 300] for number in range(count)])
            handled = await work_off(log, count)
    assert handled == [(number, 1) for number in range(count)]
    async with eventlog.open(address) as log:
        letters = await log.dead_letters("g")
        assert [one.seq_no for one in letters] == list(range(5, count + 1, 5))
        assert [event[0] for event in await payloads(log)] == [
            *range(count),
            *(number for number in range(count) if (number + 1) % 5),
        ]


async def work_off(log: EventLog, count: int) -> list[tuple[int, int]]:
    """Every fifth event dies; the others have themselves as results."""
    handled: list[tuple[int, int]] = []
    async with log.group("g") as group, await group.open_member(output=log.path) as member:
        for _ in range(count):
            lease, attempt, envelope = await take_one(member)
            handled.append((envelope.event[0], attempt))
            if (envelope.seq_no or 0) % 5:
                lease.done_with(envelope, [envelope.event])
            else:
                lease.failed(envelope, DEAD)
        await member.flush()
        await drained(group)
    return handled


async def drained(group: Group) -> None:
    with anyio.fail_after(HANG_S):
        await group.wait_drained()


async def payloads(log: EventLog) -> list[Any]:
    return [one.event for one in await log.read(1)]


# --- sets of numbers -------------------------------------------------------------------------


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(1, 30), st.integers(0, 5)),
            st.integers(1, 35),
        )
    )
)
def test_ranges_hold_what_a_set_holds(
    changes: list[tuple[int, int] | int],
) -> None:
    ranges: list[numbers.Range] = []
    model: set[int] = set()
    for change in changes:
        if isinstance(change, int):
            numbers.remove(ranges, change)
            model.discard(change)
        else:
            first, more = change
            numbers.add(ranges, first, first + more)
            model.update(range(first, first + more + 1))
        assert list(numbers.others(ranges, 1, 40)) == [n for n in range(1, 41) if n not in model]
        assert numbers.count(ranges) == len(model)
        assert all(one[1] + 1 < other[0] for one, other in pairwise(ranges))
