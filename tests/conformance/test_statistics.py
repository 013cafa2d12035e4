"""What logs, streams, publishers and writers count, on every engine and in every colour."""

from __future__ import annotations

import dataclasses
from typing import Any

import anyio
import pytest

from eventlog import (
    EventLog,
    EventTooLarge,
    Failure,
    LogFull,
    LogStatistics,
    PublisherStatistics,
    Retention,
    SeekPosition,
    StreamStatistics,
    WriterStatistics,
)

from .backends import needs
from .logs import KIB, Logs, take, until

pytestmark = pytest.mark.anyio


def writer_of(statistics: LogStatistics) -> WriterStatistics:
    assert statistics.writer is not None
    return statistics.writer


async def fill(log: EventLog) -> None:
    """Append more than the log may keep."""
    for _ in range(40):
        await log.append(b"x" * 32 * KIB)


async def test_a_log_counts_what_its_appends_stored(logs: Logs) -> None:
    async with logs.open() as log:
        assert (await log.statistics()).appended == 0
        await log.append({"order": 1})
        await log.append_many([{"order": 2}, {"order": 3}])
        counted = await log.statistics()
    assert (counted.appended, counted.batches) == (3, 2)
    assert (counted.refused, counted.repeated, counted.in_flight) == (0, 0, 0)
    assert counted.bytes > 3 * len(b"order")


@needs("counts of the writer")
async def test_a_writer_counts_what_all_handles_have_done(logs: Logs) -> None:
    async with logs.open() as log, logs.open() as other:
        await log.append(1)
        await other.append_many([2, 3])
        async with log.publisher() as publisher:
            await publisher.send(4)
        mine, its = await log.statistics(), await other.statistics()
    assert (mine.appended, its.appended) == (1, 2)
    writer = writer_of(its)
    assert (writer.appended, writer.batches) == (4, 3)
    assert writer.bytes > mine.bytes + its.bytes
    assert writer.uptime_s > 0
    assert writer.connections >= 2
    assert (writer.waiting, writer.repeated, writer.leased, writer.in_flight) == (0, 0, 0, 0)


@needs("counts of the writer")
async def test_a_writer_counts_positions_that_were_set(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(1)
        before = writer_of(await log.statistics()).positions
        await log.ack("c", 1)
        await log.seek("c", SeekPosition.BEGINNING)
        await log.forget("c")
        assert writer_of(await log.statistics()).positions == before + 3


async def test_a_publisher_counts_what_is_stored_and_on_its_way(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.publisher() as publisher:
            assert publisher.statistics() == PublisherStatistics()
            for number in range(10):
                await publisher.send(number)
            await publisher.flush()
            counted = publisher.statistics()
            assert counted.appended == 10
            assert 1 <= counted.batches <= 10
            assert counted.bytes > 10
            assert counted.in_flight == 0
            await publisher.send(10)
        assert publisher.statistics().appended == 11, "it tells after its end, too"
        assert (await log.statistics()).appended == 0, "publishers count for themselves"


async def test_what_is_refused_before_it_is_sent_is_not_counted(logs: Logs) -> None:
    async with logs.open(max_event_bytes=100) as log:
        with pytest.raises(EventTooLarge):
            await log.append("x" * 200)
        counted = await log.statistics()
    assert (counted.appended, counted.refused) == (0, 0)


@needs("waiting for room")
async def test_events_that_found_no_room_are_refused(logs: Logs) -> None:
    full = Retention(max_bytes=512 * KIB, keep_unacked=True)
    async with logs.open(retention=full, on_full="error") as log:
        await log.seek("c", SeekPosition.BEGINNING)
        with pytest.raises(LogFull):
            await fill(log)
        counted = await log.statistics()
        assert counted.refused == 1
        assert counted.appended == await log.last_seq_no()


async def test_a_stream_counts_what_it_read_and_how_far_it_is_behind(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            assert stream.statistics() == StreamStatistics(lag=3)
            await take(stream, 3)
            counted = stream.statistics()
            assert counted == StreamStatistics(events=3, batches=1, bytes=counted.bytes)
            assert counted.bytes == (await log.statistics()).bytes
            await log.append(4)
            assert stream.statistics().lag == 1
            await take(stream, 1)
        assert stream.statistics().events == 4, "it tells after its end, too"
        assert stream.statistics().lag == 0


@needs("cancellation", "counts of the writer")
async def test_a_stream_that_waits_is_parked_and_its_wake_up_counted(logs: Logs) -> None:
    async with logs.open() as log, log.subscribe("c", SeekPosition.LATEST) as stream:
        before = writer_of(await log.statistics())
        assert before.parked == 0
        got: list[Any] = []

        async def read() -> None:
            got.extend(await take(stream, 1))

        async def is_parked() -> bool:
            return writer_of(await log.statistics()).parked == 1

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await until(is_parked)
                await log.append(1)
        after = writer_of(await log.statistics())
        assert [envelope.event for envelope in got] == [1]
        assert stream.statistics().wake_ups == 1
        assert (after.parked, after.wake_ups) == (0, before.wake_ups + 1)


@needs("prompt retention")
async def test_a_stream_counts_what_retention_took_from_it(logs: Logs) -> None:
    async with logs.open(retention=Retention(max_bytes=512 * KIB, keep_unacked=False)) as log:
        await log.append(b"x")
        async with log.subscribe("c", SeekPosition.BEGINNING, on_truncated="skip") as stream:
            await fill(log)
            await take(stream, 1)
            counted = stream.statistics()
            assert counted.skipped > 0
            assert counted.events > 0
            last = await log.last_seq_no()
            assert counted.skipped + counted.events + counted.lag == last


@needs("writer process")
async def test_a_writer_counts_its_syncs(logs: Logs) -> None:
    async with logs.open(durability="sync") as log:
        for number in range(3):
            await log.append(number)
        writer = writer_of(await log.statistics())
    assert writer.syncs >= 1
    assert 0 < writer.longest_sync_s <= writer.sync_s


@needs("writer process")
async def test_the_next_writer_begins_anew_and_a_handle_goes_on(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(1)
        await logs.end_writer(log)
        await log.append(2)
        counted = await log.statistics()
    assert counted.appended == 2
    assert writer_of(counted).appended == 1


async def test_statistics_are_frozen(logs: Logs) -> None:
    async with logs.open() as log:
        counted = await log.statistics()
    with pytest.raises(dataclasses.FrozenInstanceError):
        counted.appended = 7  # type: ignore[misc]


@needs("counts of the writer")
async def test_a_writer_counts_what_it_hands_out_to_groups(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many([1, 2, 3])
        async with await group.open_member() as member:
            lease = await member.lease(2, 2)
            assert lease is not None
            handed_out = [envelope for _, envelope in lease if lease.begin(envelope)]
            writer = writer_of(await log.statistics())
            assert (writer.leased, writer.redelivered, writer.in_flight) == (2, 0, 2)
            lease.done(handed_out[0])
            lease.failed(handed_out[1], Failure(error="ValueError: boom"))
            await member.flush()
            writer = writer_of(await log.statistics())
            assert (writer.leased, writer.redelivered, writer.in_flight) == (2, 0, 0)
            lease = await member.lease(2, 2)
            assert lease is not None
            writer = writer_of(await log.statistics())
            assert (writer.leased, writer.redelivered, writer.in_flight) == (4, 1, 2)
