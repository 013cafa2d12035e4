"""What the suites of other libraries with several backends hold theirs to, over each of ours.

Their names, and the test here, or the test elsewhere in this suite that was there before:

========================================  =========================================================
Watermill (pubsub/tests)
  TestPublishSubscribe                    append: key_and_headers_come_back_with_the_event
  TestConcurrentSubscribe                 subscribe: every_waiting_stream_gets_every_event
  TestConcurrentSubscribeMultipleTopics   many_logs_at_once_do_not_mix
  TestNoAck                               groups: events_of_one_key_go_to_one_member_at_a_time
  TestResendOnError                       every_fifth_delivery_fails_and_nothing_is_lost
  TestContinueAfterSubscribeClose         subscribe: acknowledging_while_reading_is_what_a_...
  TestConcurrentClose                     ten_streams_that_come_and_go_at_once_leave_the_log_usable
  TestContinueAfterErrors                 three_generations_that_fail_leave_every_event_to_the_next
  TestPublishSubscribeInOrder             publisher: publishers_in_several_tasks_each_keep_...
  TestPublisherClose                      twenty_publishers_that_close_at_once_lose_nothing
  TestMessageCtx                          stream_options: views_of_bytes_are_not_copied_and_...
  TestSubscribeCtx                        cancellation: cancelling_a_waiting_stream_loses_and_...
  TestNewSubscriberReceivesOldMessages    each_new_consumer_reads_all_that_came_before_it
  TestConsumerGroups                      two_groups_each_get_every_event_once
  TestReconnect                           engines/test_faults_of_servers.py: all_that_a_hundred_...
Go CDK (pubsub/drivertest)
  TestSendReceive, SendReceiveTwo         as TestPublishSubscribe, TestConsumerGroups
  TestCancelSendReceive                   as TestSubscribeCtx; cancellation: a_cancelled_send_or_...
  ErrorOnSendToClosedTopic                publisher: a_closed_publisher_says_so
  ErrorOnReceiveFromClosedSubscription    subscribe: a_stream_is_closed_after_its_block
  nonexistent topic                       none: `open` makes the log
  TestAs                                  none: no handle of an engine's client is given out
Benthos (public/service/integration)
  OpenCloseIsolated, StreamIsolated       as TestNewSubscriberReceivesOldMessages
  SendBatch, SendBatches, SendBatchCount  lists_of_many_tasks_are_stored_whole
  StreamCheckpointCapture                 what_is_behind_an_acknowledgement_comes_again
  AtLeastOnceDelivery                     what_a_member_has_not_said_done_comes_again_and_no_more
  StreamSaturatedUnacked                  a_backlog_half_of_which_is_held_goes_on_once_it_is_done
  StreamParallelLossy                     as TestResendOnError
  StreamParallelLossyThroughReconnect     engines/test_faults_of_servers.py: failures_and_a_...
Dapr: fails 1st, 2nd and every 5th        as TestResendOnError
FastStream: consume_cancel_skips_ack      a_member_that_is_cancelled_says_neither_done_nor_failed
========================================  =========================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio
import pytest

from eventlog import SeekPosition
from eventlog.api.group import Failure, Group, Member

from .backends import needs
from .logs import Logs, delivered, stored

pytestmark = pytest.mark.anyio

NO = Failure(error="ValueError: no")


async def test_many_logs_at_once_do_not_mix(logs: Logs) -> None:
    async def use(name: str) -> None:
        async with logs.open(name) as log, log.subscribe("c", SeekPosition.BEGINNING) as stream:
            for number in range(10):
                await log.append([name, number])
            assert await delivered(stream, 10) == [[name, number] for number in range(10)]

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(use, f"log-{number}")


async def test_ten_streams_that_come_and_go_at_once_leave_the_log_usable(logs: Logs) -> None:
    async with logs.open() as log:

        async def come_and_go(name: str) -> None:
            async with log.subscribe(name, SeekPosition.BEGINNING):
                pass

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(come_and_go, f"c-{number}")
        await log.append("after")
        async with log.subscribe("c-1", SeekPosition.BEGINNING) as stream:
            assert await delivered(stream, 1) == ["after"]


async def test_twenty_publishers_that_close_at_once_lose_nothing(logs: Logs) -> None:
    async with logs.open() as log:

        async def publish(producer: int) -> None:
            async with log.publisher() as publisher:
                for number in range(50):
                    await publisher.send([producer, number])

        async with anyio.create_task_group() as tasks:
            for producer in range(20):
                tasks.start_soon(publish, producer)
        events = await stored(log)
    for producer in range(20):
        assert [number for one, number in events if one == producer] == list(range(50))


async def test_each_new_consumer_reads_all_that_came_before_it(logs: Logs) -> None:
    async with logs.open() as log:
        for generation in range(3):
            await log.append_many([[generation, number] for number in range(10)])
            expected = [[one, number] for one in range(generation + 1) for number in range(10)]
            async with log.subscribe(f"generation-{generation}") as stream:
                assert await delivered(stream, len(expected)) == expected


async def test_lists_of_many_tasks_are_stored_whole(logs: Logs) -> None:
    async with logs.open() as log:

        async def append(producer: int) -> None:
            for place in range(3):
                await log.append_many([[producer, place, row] for row in range(20)])

        async with anyio.create_task_group() as tasks:
            for producer in range(8):
                tasks.start_soon(append, producer)
        events = await stored(log)
    lists = [events[start : start + 20] for start in range(0, len(events), 20)]
    assert all(one == [[*one[0][:2], row] for row in range(20)] for one in lists)
    assert len(lists) == 24


async def test_what_is_behind_an_acknowledgement_comes_again(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("ABCDE")
        async with log.subscribe("c") as stream:
            assert await delivered(stream, 5) == list("ABCDE")
            await stream.ack(2)  # C has failed, D is done, E is not: D may not be said yet
    async with logs.open() as log, log.subscribe("c") as stream:
        assert await delivered(stream, 3) == list("CDE")


async def test_eight_that_acknowledge_at_once_never_move_a_position_back(logs: Logs) -> None:
    async with logs.open() as log, logs.open() as other:
        await log.append_many(range(80))

        async def acknowledge(start: int) -> None:
            for number in range(start, 81, 8):
                await (log, other)[start % 2].ack("c", number)

        async with anyio.create_task_group() as tasks:
            for start in range(1, 9):
                tasks.start_soon(acknowledge, start)
        [consumer] = await log.consumers()
    assert consumer.last_acked == 80


# --- groups ----------------------------------------------------------------------------------


async def work(member: Member, count: int, fails: Callable[[int], bool]) -> list[int]:
    """Handle so many deliveries, of which some fail; the numbers of those that did not."""
    done: list[int] = []
    seen = 0
    while seen < count:
        lease = await member.lease()
        assert lease is not None
        for _, envelope in lease:
            assert lease.begin(envelope)
            seen += 1
            if fails(seen):
                lease.failed(envelope, NO)
            else:
                done.append(envelope.seq_no or 0)
                lease.done(envelope)
    await member.flush()
    return done


async def work_of(group: Group, count: int, fails: Callable[[int], bool]) -> list[int]:
    """The same, by a member of its own."""
    async with await group.open_member() as member:
        return await work(member, count, fails)


@needs("members")
async def test_two_groups_each_get_every_event_once(logs: Logs) -> None:
    async with logs.open() as log, log.group("one") as one, log.group("other") as other:
        await log.append_many(range(10))
        for group in (one, other):
            assert sorted(await work_of(group, 10, lambda _: False)) == list(range(1, 11))
            await group.wait_drained()


@needs("members")
async def test_every_fifth_delivery_fails_and_nothing_is_lost(logs: Logs) -> None:
    def fails(place: int) -> bool:
        return place in {1, 2} or place % 5 == 0

    async with logs.open() as log, log.group("g", max_deliveries=10) as group:
        await log.append_many(range(20))
        deliveries, left = 0, 20
        while left:  # as many deliveries as it takes for 20 that do not fail
            deliveries += 1
            left -= not fails(deliveries)
        done = await work_of(group, deliveries, fails)
        assert sorted(done) == list(range(1, 21))
        await group.wait_drained()
        assert await log.dead_letters("g") == []


@needs("members")
async def test_three_generations_that_fail_leave_every_event_to_the_next(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", max_deliveries=10) as group:
        await log.append_many(range(8))
        for attempt in range(1, 4):
            async with await group.open_member() as member:
                lease = await member.lease(8, 8)
                assert lease is not None
                for found, envelope in lease:
                    assert found == attempt
                    assert lease.begin(envelope)
                    lease.failed(envelope, NO)
        assert sorted(await work_of(group, 8, lambda _: False)) == list(range(1, 9))


async def hold(member: Member, held: set[int]) -> None:
    """Begin the five events, and say done of those that are not to be held."""
    lease = await member.lease(5, 5)
    assert lease is not None
    for _, envelope in lease:
        assert lease.begin(envelope)
        if envelope.seq_no not in held:
            lease.done(envelope)
    await member.flush()


@needs("members")
async def test_what_a_member_has_not_said_done_comes_again_and_no_more(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many("ABCDE")
        async with await group.open_member() as member:
            await hold(member, {3, 5})
        assert sorted(await work_of(group, 2, lambda _: False)) == [3, 5]
        await group.wait_drained()


@needs("members")
async def test_a_backlog_half_of_which_is_held_goes_on_once_it_is_done(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many(range(40))
        async with await group.open_member() as holder:
            lease = await holder.lease(20, 20)
            assert lease is not None
            held = [envelope for _, envelope in lease if lease.begin(envelope)]
            others = await work_of(group, 20, lambda _: False)
            for envelope in held:
                lease.done(envelope)
            await holder.flush()
        numbers = [*others, *(envelope.seq_no or 0 for envelope in held)]
        assert Counter(numbers) == Counter(range(1, 41))
        await group.wait_drained()


@needs("members", "cancellation")
async def test_a_member_that_is_cancelled_says_neither_done_nor_failed(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", max_deliveries=2) as group:
        await log.append("event")
        async with await group.open_member() as member:
            with anyio.CancelScope() as scope:
                lease = await member.lease()
                assert lease is not None
                for _, envelope in lease:
                    assert lease.begin(envelope)
                    scope.cancel()
                    await anyio.sleep_forever()
            assert [one.in_flight for one in group.members()] == [1]
        assert await work_of(group, 1, lambda _: False) == [1]
        assert await log.dead_letters("g") == []
