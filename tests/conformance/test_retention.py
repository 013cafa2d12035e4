"""Retention: what is deleted, what a reader is told, and what a full log does."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any, Final

import anyio
import pytest

from eventlog import (
    EventEnvelope,
    EventLog,
    EventLogError,
    EventStream,
    EventsTruncated,
    InvalidConfig,
    LogFull,
    Retention,
    SeekPosition,
)

from .backends import needs
from .logs import KIB, Logs, stored, take, until
from .test_consumers import acked

pytestmark = pytest.mark.anyio

SEGMENT: Final = 8 * KIB
LIMIT: Final = 4 * SEGMENT
EVENT: Final = b"x" * 2000
PLENTY: Final = 4 * LIMIT // len(EVENT)
"""Events that are several times what the log may keep."""
FORGETFUL: Final[dict[str, Any]] = {
    "segment_bytes": SEGMENT,
    "retention": Retention(max_bytes=LIMIT, keep_unacked=False),
}
KEEPING: Final[dict[str, Any]] = {
    "segment_bytes": SEGMENT,
    "retention": Retention(max_bytes=LIMIT, keep_unacked=True),
}


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ({"max_bytes": 2**63}, r"1 to 2\*\*63 - 1"),
        ({"max_bytes": 2**70}, r"1 to 2\*\*63 - 1"),
        ({"max_age": timedelta.max}, "at most 999999999 days"),
        ({"max_age": timedelta(days=999_999_999, microseconds=1)}, "at most 999999999 days"),
    ],
)
async def test_limits_that_cannot_be_stored_are_refused_and_nothing_is_made(
    logs: Logs, limits: dict[str, Any], allowed: str
) -> None:
    with pytest.raises(InvalidConfig, match=allowed):
        async with logs.open(retention=Retention(**limits)):
            pytest.fail("the log was opened")
    async with logs.open(retention=Retention()) as log:
        assert await stored(log) == []


@needs("waiting for room")
async def test_the_largest_limits_are_kept(logs: Logs) -> None:
    retention = Retention(max_bytes=2**63 - 1, max_age=timedelta(days=999_999_999))
    async with logs.open(retention=retention) as log:
        await log.append(1)
        async with logs.open(retention=retention) as again:
            assert await stored(again) == [1]


async def append_plenty(log: EventLog, count: int = PLENTY) -> int:
    """Events until the first ones are deleted; the first that is stored."""
    for _ in range(count):
        await log.append(EVENT)
    first = (await log.status()).first_seq_no
    assert first is not None
    assert first > 1, "retention has deleted nothing"
    return first


async def fill(log: EventLog) -> int:
    """Events until the log is full; how many there are."""
    count = 0
    try:
        while True:
            await log.append(EVENT)
            count += 1
    except LogFull:
        return count


# --- deleting --------------------------------------------------------------------------------


@needs("prompt retention")
async def test_the_oldest_events_go_and_the_newest_stay(logs: Logs) -> None:
    async with logs.open(**FORGETFUL) as log:
        first = await append_plenty(log)
        status = await log.status()
        assert status.last_seq_no == PLENTY
        assert status.bytes <= LIMIT + SEGMENT
        assert len(await stored(log)) == PLENTY - first + 1
        assert first < PLENTY


@needs("prompt retention")
async def test_numbers_are_never_used_again(logs: Logs) -> None:
    async with logs.open(**FORGETFUL) as log:
        await append_plenty(log)
        assert await log.append("next") == PLENTY + 1
        assert [envelope.event for envelope in await log.read(PLENTY + 1)] == ["next"]


async def test_a_log_without_a_limit_keeps_everything(logs: Logs) -> None:
    async with logs.open(segment_bytes=SEGMENT) as log:
        for _ in range(PLENTY):
            await log.append(EVENT)
        assert (await log.status()).first_seq_no == 1
        assert len(await stored(log)) == PLENTY


@needs("waiting for room")
async def test_a_log_without_consumers_keeps_nothing_back(logs: Logs) -> None:
    async with logs.open(**KEEPING) as log:
        assert await append_plenty(log) > 1


@needs("waiting for room")
async def test_old_events_go_by_their_age(logs: Logs) -> None:
    retention = Retention(max_age=timedelta(milliseconds=50))
    async with logs.open(segment_bytes=SEGMENT, retention=retention) as log:
        while (await log.status()).first_seq_no == 1 or await log.last_seq_no() is None:
            await log.append(EVENT)
            await anyio.sleep(0.001)
        found: list[EventEnvelope] = []
        while not found:
            await log.append(EVENT)
            first = (await log.status()).first_seq_no or 0
            with suppress(EventsTruncated):  # where each event goes by itself, it may be late
                found = list(await log.read(first, first + 1))
        assert [one.event for one in found] == [EVENT]


# --- a reader that it ran past ---------------------------------------------------------------


@needs("prompt retention")
@pytest.mark.parametrize("by_batches", [False, True])
async def test_a_stream_from_a_deleted_event_says_what_is_available(
    logs: Logs, by_batches: bool
) -> None:
    async with logs.open(**FORGETFUL) as log:
        first = await append_plenty(log)
        async with log.subscribe("c", SeekPosition.sequence(1)) as stream:
            with pytest.raises(EventsTruncated) as caught:
                await take(stream.batches() if by_batches else stream, 1)
        error = caught.value
        assert (error.consumer, error.seq_no, error.first_available) == ("c", 1, first)


@needs("prompt retention")
async def test_a_read_of_a_deleted_event_says_what_is_available(logs: Logs) -> None:
    async with logs.open(**FORGETFUL) as log:
        first = await append_plenty(log)
        for start in (1, first - 1):
            with pytest.raises(EventsTruncated) as caught:
                await log.read(start)
            assert caught.value.first_available == first
        assert [e.seq_no for e in await log.read(first)] == list(range(first, PLENTY + 1))


@needs("prompt retention")
async def test_a_consumer_whose_next_event_was_deleted_is_told_so(logs: Logs) -> None:
    async with logs.open(**FORGETFUL) as log:
        await log.append_many([EVENT, EVENT])
        await log.ack("c", 1)
        first = await append_plenty(log)
        async with log.subscribe("c", SeekPosition.LAST_ACKNOWLEDGED) as stream:
            with pytest.raises(EventsTruncated) as caught:
                await take(stream, 1)
        assert caught.value.first_available == first


@needs("prompt retention")
async def test_lag_counts_only_what_is_stored(logs: Logs) -> None:
    async with logs.open(**FORGETFUL) as log:
        await log.append(EVENT)
        await log.ack("c", 1)
        first = await append_plenty(log)
        [state] = await log.consumers()
        assert state.last_acked == 1
        assert state.lag == (await log.last_seq_no() or 0) - first + 1


@needs("prompt retention")
@pytest.mark.parametrize(
    "position",
    [SeekPosition.BEGINNING, SeekPosition.LAST_ACKNOWLEDGED, SeekPosition.sequence(0)],
    ids=str,
)
async def test_the_beginning_is_the_first_event_still_stored(
    logs: Logs, position: SeekPosition
) -> None:
    async with logs.open(**FORGETFUL) as log:
        first = await append_plenty(log)
        async with log.subscribe("new", position) as stream:
            [envelope] = await take(stream, 1)
        assert envelope.seq_no == first
        [envelope, *_] = await log.read(0)
        assert envelope.seq_no == first


@needs("prompt retention")
async def test_a_consumer_at_the_beginning_starts_with_the_first_event_still_stored(
    logs: Logs,
) -> None:
    async with logs.open(**FORGETFUL) as log:
        await log.seek("c", SeekPosition.BEGINNING)
        first = await append_plenty(log)
        async with log.subscribe("c", SeekPosition.LAST_ACKNOWLEDGED) as stream:
            [envelope] = await take(stream, 1)
        assert envelope.seq_no == first


async def consume(stream: EventStream, received: list[int | None]) -> None:
    while envelopes := await take(stream, 1):
        received.append(envelopes[0].seq_no)


@needs("prompt retention")
async def test_a_stream_that_is_overtaken_never_has_a_silent_gap(logs: Logs) -> None:
    async with logs.open(**FORGETFUL) as log:
        for _ in range(10):
            await log.append(EVENT)
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            received = [envelope.seq_no for envelope in await take(stream, 1)]
            first = await append_plenty(log)
            with pytest.raises(EventsTruncated) as caught:
                await consume(stream, received)
        assert received == list(range(1, len(received) + 1))
        assert len(received) < first
        assert caught.value.first_available == first


@needs("prompt retention")
async def test_on_truncated_skip_goes_on_from_the_first_event_still_stored(logs: Logs) -> None:
    async with logs.open(**FORGETFUL) as log:
        first = await append_plenty(log)
        async with log.subscribe("c", SeekPosition.sequence(1), on_truncated="skip") as stream:
            received = [envelope.seq_no for envelope in await take(stream, PLENTY - first + 1)]
            assert received == list(range(first, PLENTY + 1))
            await log.append("live")
            assert [envelope.event for envelope in await take(stream, 1)] == ["live"]


@needs("prompt retention")
async def test_on_truncated_skip_leaves_out_only_what_was_deleted(logs: Logs) -> None:
    async with logs.open(**FORGETFUL) as log:
        await log.append(EVENT)
        async with log.subscribe("c", SeekPosition.BEGINNING, on_truncated="skip") as stream:
            received = [envelope.seq_no for envelope in await take(stream, 1)]
            first = await append_plenty(log)
            last = await log.last_seq_no()
            while received[-1] != last:
                received += [envelope.seq_no for envelope in await take(stream, 1)]
        jumps = [after for before, after in pairwise(received) if after != (before or 0) + 1]
        assert jumps == [first]


@needs("prompt retention")
async def test_without_follow_on_truncated_skip_ends_where_it_should(logs: Logs) -> None:
    async with logs.open(**FORGETFUL) as log:
        await log.append(EVENT)
        async with log.subscribe(
            "c", SeekPosition.BEGINNING, follow=False, on_truncated="skip"
        ) as stream:
            await append_plenty(log)
            numbers = [envelope.seq_no async for envelope in stream]
        assert numbers in ([], [1])


# --- keeping what is not acknowledged --------------------------------------------------------


@needs("waiting for room")
async def test_what_a_consumer_has_not_acknowledged_is_kept(logs: Logs) -> None:
    async with logs.open(on_full="error", **KEEPING) as log:
        await log.ack("slow", 0)
        count = await fill(log)
        assert count * len(EVENT) <= LIMIT
        status = await log.status()
        assert (status.first_seq_no, status.last_seq_no) == (1, count)
        assert await stored(log) == [EVENT] * count


async def publish(log: EventLog) -> None:
    """Send an event and wait for it; `send` may already know that there is no room."""
    async with log.publisher() as publisher:
        await (await publisher.send(EVENT))


@needs("waiting for room")
async def test_a_full_log_says_that_retention_is_the_reason(logs: Logs) -> None:
    async with logs.open(on_full="error", **KEEPING) as log:
        await log.ack("slow", 0)
        await fill(log)
        with pytest.raises(LogFull, match="'slow' has not acknowledged event 1;") as caught:
            await log.append(EVENT)
        assert (caught.value.path, caught.value.consumer) == (log.path, "slow")
        assert (caught.value.seq_no, caught.value.is_by_retention) == (1, True)
        with pytest.raises(LogFull) as caught:
            await publish(log)
        assert caught.value.is_by_retention


@needs("waiting for room")
async def test_after_an_error_the_first_stored_events_of_append_many_are_stored(
    logs: Logs,
) -> None:
    # All batches were on their way at once: one that did not fit was refused, and a smaller one
    # behind it was stored, so that nobody could tell what was.
    events = [*[EVENT] * (PLENTY - 1), "small enough"]
    async with logs.open(on_full="error", **KEEPING) as log:
        await log.ack("slow", 0)
        with pytest.raises(LogFull) as caught:
            await log.append_many(events)
        count = caught.value.stored
        assert count is not None
        assert 0 < count < len(events)
        assert await stored(log) == events[:count]
        await log.ack("slow", count)
        first, _ = await log.append_many(events[-1:])
        assert first == count + 1


@needs("waiting for room")
async def test_a_full_log_takes_events_again_after_an_ack(logs: Logs) -> None:
    async with logs.open(on_full="error", **KEEPING) as log:
        await log.ack("slow", 0)
        count = await fill(log)
        await log.ack("slow", count)
        assert await log.append("next") == count + 1


@needs("waiting for room")
async def test_the_slowest_consumer_counts(logs: Logs) -> None:
    async with logs.open(on_full="error", **KEEPING) as log:
        await log.ack("slow", 0)
        await log.ack("fast", 0)
        count = await fill(log)
        await log.ack("fast", count)
        with pytest.raises(LogFull):
            await log.append(EVENT)
        await log.forget("slow")
        assert await log.append(EVENT) == count + 1


@needs("waiting for room")
async def test_append_many_into_a_full_log_stores_nothing(logs: Logs) -> None:
    async with logs.open(on_full="error", **KEEPING) as log:
        await log.ack("slow", 0)
        count = await fill(log)
        with pytest.raises(LogFull):
            await log.append_many([EVENT, EVENT, EVENT])
        assert await log.last_seq_no() == count
        await log.forget("slow")
        assert await log.append_many([EVENT, "last"]) == (count + 1, count + 2)


@needs("waiting for room")
async def test_a_full_log_can_be_read_and_acknowledged(logs: Logs) -> None:
    async with logs.open(on_full="error", **KEEPING) as log:
        await log.ack("slow", 0)
        count = await fill(log)
        async with log.subscribe("slow", SeekPosition.LAST_ACKNOWLEDGED) as stream:
            async for envelope in stream:
                await log.ack("slow", envelope.seq_no or 0)
                if envelope.seq_no == count:
                    break
        assert await acked(log, "slow") == count


@needs("waiting for room")
@pytest.mark.parametrize("way", ["ack", "seek", "forget"])
async def test_an_append_to_a_full_log_waits_until_there_is_room(logs: Logs, way: str) -> None:
    numbers: list[int] = []

    async def append_all(log: EventLog) -> None:
        for _ in range(PLENTY):
            numbers.append(await log.append(EVENT))  # noqa: PERF401 - others look meanwhile

    async with logs.open(on_full="wait", **KEEPING) as log:
        await log.ack("slow", 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append_all, log)
            waits_at = await standstill(numbers)
            assert 0 < waits_at < PLENTY
            if way == "forget":
                await log.forget("slow")
            while way == "ack" and len(numbers) < PLENTY:
                await log.ack("slow", len(numbers))
                await anyio.sleep(0.001)
            while way == "seek" and len(numbers) < PLENTY:
                await log.seek("slow", SeekPosition.LATEST)
                await anyio.sleep(0.001)
    assert numbers == list(range(1, PLENTY + 1))


async def standstill(numbers: list[int]) -> int:
    """How many there are once no more come."""
    seen = -1
    while seen != len(numbers) or not numbers:
        seen = len(numbers)
        await anyio.sleep(0.1)
    return seen


@needs("waiting for room")
async def test_many_batches_wait_for_room_together(logs: Logs) -> None:
    # More waited than a writer takes of one producer: it dropped the pipe, and all were repeated.
    numbers: list[int] = []

    async def append_all(log: EventLog) -> None:
        numbers.extend(await log.append_many([EVENT] * (8 * PLENTY)))

    async with logs.open(on_full="wait", **KEEPING) as log:
        await log.ack("slow", 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append_all, log)
            seen = None
            while seen is None or seen != await log.last_seq_no():
                seen = await log.last_seq_no()
                await anyio.sleep(0.1)
            assert numbers == []
            await log.forget("slow")
        assert numbers == [1, 8 * PLENTY]
        assert await log.last_seq_no() == 8 * PLENTY


@needs("waiting for room")
async def test_a_waiting_append_does_not_hold_up_anything_else(logs: Logs) -> None:
    numbers: list[int] = []

    async def append_all(log: EventLog) -> None:
        for _ in range(PLENTY):
            numbers.append(await log.append(EVENT))  # noqa: PERF401 - others look meanwhile

    async with logs.open(on_full="wait", **KEEPING) as log, logs.open(**KEEPING) as other:
        await log.ack("slow", 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append_all, log)
            tasks.start_soon(append_all, other)
            await standstill(numbers)
            for handle in (log, other):
                assert len(await handle.consumers()) == 1
                await until(partial(has_all_of, handle, numbers))
            assert len(numbers) < 2 * PLENTY
            await log.forget("slow")
    assert sorted(numbers) == list(range(1, 2 * PLENTY + 1))


async def has_all_of(log: EventLog, numbers: list[int]) -> bool:
    """Whether the log has what was appended, and no more since."""
    found = [(await log.status()).last_seq_no, len(await log.read(1))]
    return found == [len(numbers)] * 2


@needs("waiting for room")
@needs("cancellation")
async def test_a_cancelled_append_to_a_full_log_leaves_it_usable(logs: Logs) -> None:
    async with logs.open(on_full="wait", **KEEPING) as log:
        await log.ack("slow", 0)
        with anyio.move_on_after(0.5):
            while True:
                await log.append(EVENT)
        count = await log.last_seq_no() or 0
        await log.ack("slow", count)
        number = await log.append("next")
        assert number - count in (1, 2)
        last = (await log.read(number))[-1]
        assert last.event == "next"


# --- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"max_bytes": 0}, ValueError),
        ({"max_bytes": -1}, ValueError),
        ({"max_bytes": 1.5}, TypeError),
        ({"max_age": timedelta(0)}, ValueError),
        ({"max_age": timedelta(seconds=-1)}, ValueError),
        ({"max_age": 60}, TypeError),
        ({"keep_unacked": "yes"}, TypeError),
    ],
)
def test_a_retention_that_means_nothing_is_refused(
    options: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        Retention(**options)
    assert isinstance(caught.value, EventLogError)
