"""Events that groups hand out from a time on, or until one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

import workers
from eventlog import EventEnvelope, EventLog, SeekPosition
from eventlog.api.group import Member
from eventlog.errors import InvalidArgument, InvalidArgumentType, NotSupported
from workers import blocking as blocking_workers

from .backends import needs
from .facade import ThreadedEventLog
from .logs import Logs
from .test_groups import take_all, take_one

pytestmark = pytest.mark.anyio
SOON_S = 0.15
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def in_s(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def taken_in_turn(member: Member, count: int) -> list[tuple[int, datetime]]:
    """Numbers of so many events, and when each one's handler would have begun."""
    found: list[tuple[int, datetime]] = []
    while len(found) < count:
        lease, _, envelope = await take_one(member)
        found.append((envelope.seq_no or 0, datetime.now(UTC)))
        lease.done(envelope)
    await member.flush()
    return found


@needs("members", "due times")
async def test_a_group_hands_an_event_out_when_it_is_due(logs: Logs) -> None:
    async with (
        logs.open() as log,
        log.group("g") as group,
        await group.open_member() as member,
    ):
        due = in_s(SOON_S)
        await log.append("later", not_before=due)
        [(number, began)] = await taken_in_turn(member, 1)
        assert number == 1
        assert began >= due
        await group.wait_drained()


@needs("members", "due times")
async def test_an_event_that_is_not_due_holds_the_position_and_no_other_event(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        far = in_s(3600)
        await log.append("later", not_before=far)
        await log.append("now")
        async with log.subscribe("c", SeekPosition.BEGINNING, follow=False) as stream:
            seen = [(one.event, one.not_before, one.expires) async for one in stream]
        assert seen == [("later", far, None), ("now", None, None)], "a subscriber sees it at once"
        async with await group.open_member() as member:
            assert await take_all(member, 1) == [(2, 1)]
            [report] = await log.groups()
            assert (report.position, report.lag) == (0, 1)
            writer = (await log.statistics()).writer
            assert writer is not None
            assert writer.postponed == 1


@needs("members", "due times")
async def test_events_of_one_batch_come_out_in_the_order_in_which_they_are_due(logs: Logs) -> None:
    """Each came out as itself: a member took the number of one for its place in the batch."""
    async with logs.open() as log, log.group("g") as group:
        now = datetime.now(UTC)
        waits = [0.4, 0.0, 0.3, 0.0, 0.2]
        await log.append("before")
        await log.append_many(
            [EventEnvelope(one, not_before=now + timedelta(seconds=one)) for one in waits]
        )
        async with await group.open_member() as member:
            found = await taken_in_turn(member, 6)
        assert sorted(number for number, _ in found) == [1, 2, 3, 4, 5, 6]
        for number, began in found:
            assert began >= now + timedelta(seconds=([0.0, *waits])[number - 1])


@needs("members", "due times")
async def test_a_group_is_drained_when_what_was_not_due_is_handled(logs: Logs) -> None:
    async with (
        logs.open() as log,
        log.group("g") as group,
        await group.open_member() as member,
        anyio.create_task_group() as tasks,
    ):
        due = in_s(SOON_S)
        await log.append("later", not_before=due)
        tasks.start_soon(taken_in_turn, member, 1)
        await group.wait_drained()
        assert datetime.now(UTC) >= due


@needs("members", "due times")
async def test_with_key_order_the_later_events_of_a_key_wait_for_one_that_is_not_due(
    logs: Logs,
) -> None:
    async with logs.open() as log, log.group("g", ordering="key") as group:
        await log.append(1, key="a", not_before=in_s(3600))
        await log.append_many([2, 3], keys=["a", "b"])
        due = in_s(SOON_S)
        await log.append(4, key="c", not_before=due)
        await log.append(5, key="c")
        async with await group.open_member() as member:
            found = await taken_in_turn(member, 3)
        assert {number for number, _ in found} == {3, 4, 5}
        began = dict(found)
        assert due <= began[4] <= began[5]


@needs("members", "due times")
async def test_an_event_that_has_expired_is_a_dead_letter_and_a_retry_runs_it(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", max_deliveries=1) as group:
        await log.append("late", key="k", headers={"h": "v"}, expires=LONG_AGO)
        await log.append("in time", expires=in_s(3600))
        async with await group.open_member() as member:
            assert await take_all(member, 1) == [(2, 1)]
            await group.wait_drained()
            [letter] = await group.dead_letters()
            assert letter.error == f"expired: no handler began before {LONG_AGO}"
            assert (letter.seq_no, letter.event, letter.key) == (1, "late", "k")
            assert await log.retry_dead("g", [1]) == 1
            assert await take_all(member, 1) == [(1, 1)]
            await group.wait_drained()
        assert await group.dead_letters() == []


@needs("members", "due times")
async def test_an_event_expires_while_it_waits_in_a_lease(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many([EventEnvelope(n, expires=in_s(SOON_S)) for n in range(2)])
        async with await group.open_member() as member:
            lease = await member.lease(2, 2)
            assert lease is not None
            begun = []
            for _, envelope in lease:
                assert lease.begin(envelope)
                begun.append(envelope.seq_no)
                await anyio.sleep(2 * SOON_S)
                lease.done(envelope)
            await member.flush()
        assert begun == [1]
        [letter] = await group.dead_letters()
        assert letter.seq_no == 2
        assert letter.error.startswith("expired")


@needs("members", "due times", "restart")
async def test_due_times_outlive_whoever_serves_the_log(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        due = in_s(SOON_S)
        await log.append("later", not_before=due)
        await logs.end_writer(log)
        async with await group.open_member() as member:
            [(number, began)] = await taken_in_turn(member, 1)
        assert number == 1
        assert began >= due


@needs("members", "due times")
async def test_a_result_may_be_due_later(logs: Logs) -> None:
    """A handler that returns an envelope asks its own group, or another, to go on later."""
    async with logs.open() as log, log.group("g") as group, log.group("next") as following:
        due = in_s(SOON_S)
        await log.append("begin")
        async with await group.open_member(output=log.path) as member:
            lease, _, envelope = await take_one(member)
            lease.done_with(envelope, [EventEnvelope("go on", not_before=due)])
            await member.flush()
        async with await following.open_member() as member:
            found = await taken_in_turn(member, 2)
        assert dict(found)[2] >= due
        [stored] = await log.read(2)
        assert (stored.event, stored.not_before) == ("go on", due)
        assert stored.cause is not None


@needs("members", "due times")
async def test_a_pool_waits_for_what_is_due_later(logs: Logs) -> None:
    began: list[tuple[str, datetime]] = []

    def handle(event: str) -> None:
        began.append((event, datetime.now(UTC)))

    async with logs.open() as log:
        due = in_s(SOON_S)
        await log.append("later", not_before=due)
        await log.append("late", expires=LONG_AGO)
        await log.append("now")
        options: dict[str, Any] = {"group": "g", "handler": handle, "processes": 0}
        if isinstance(log, ThreadedEventLog):
            real = log.blocking

            def work() -> None:
                with blocking_workers.Pool(real, **options) as pool:
                    pool.drained()

            await anyio.to_thread.run_sync(work)
        else:
            async with workers.Pool(log, **options) as pool:
                await pool.drained()
        assert {event for event, _ in began} == {"now", "later"}
        assert dict(began)["later"] >= due
        assert [one.event for one in await log.dead_letters("g")] == ["late"]


@needs("due times")
async def test_publishers_and_lists_take_the_times_of_envelopes(logs: Logs) -> None:
    due, end = in_s(60), in_s(120)
    async with logs.open() as log:
        await log.append_many([EventEnvelope(1, not_before=due), 2, EventEnvelope(3, expires=end)])
        async with log.publisher() as publisher:
            await publisher.send(EventEnvelope(4, not_before=due, expires=end), key="k")
        await log.append(EventEnvelope(5, not_before=due), expires=end)
        found = [(one.not_before, one.expires) for one in await log.read(1)]
        assert found == [(due, None), (None, None), (None, end), (due, end), (due, end)]
        [keyed] = await log.read(key="k")
        assert keyed.not_before == due


@needs("due times")
async def test_times_that_make_no_sense_are_refused(logs: Logs) -> None:
    moment = in_s(60)
    async with logs.open() as log:
        with pytest.raises(InvalidArgument, match="no group could hand the event out"):
            await log.append(1, not_before=moment, expires=moment)
        with pytest.raises(InvalidArgument, match="naive"):
            await log.append(1, not_before=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the test
        with pytest.raises(InvalidArgumentType, match="aware datetime"):
            await log.append(1, expires=time.time())  # type: ignore[arg-type]
        assert await log.last_seq_no() is None


@needs("no due times")
async def test_an_engine_over_a_server_refuses_due_times(logs: Logs) -> None:
    async def refused(log: EventLog) -> None:
        with pytest.raises(NotSupported, match="does not support not_before") as caught:
            await log.append(1, not_before=in_s(60))
        assert caught.value.option == "not_before"
        with pytest.raises(NotSupported):
            await log.append_many([EventEnvelope(1, expires=in_s(60))])

    async with logs.open() as log:
        await refused(log)
        assert await log.append(2) == 1
