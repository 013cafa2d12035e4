"""`subscribe`: positions, live delivery, and the two ways to use a stream."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from eventlog import EventEnvelope, EventLogError, LogClosed, SeekPosition

from .backends import needs
from .logs import BATCH_BYTES, SEGMENT_BYTES, Logs, delivered, take

pytestmark = pytest.mark.anyio

ALL_POSITIONS = [
    SeekPosition.BEGINNING,
    SeekPosition.LAST_ACKNOWLEDGED,
    SeekPosition.LATEST,
    SeekPosition.sequence(0),
    SeekPosition.sequence(1),
    SeekPosition.timestamp(datetime(2020, 1, 1, tzinfo=UTC)),
]


# --- where a stream starts -------------------------------------------------------------------


async def test_a_stream_starts_after_what_was_acknowledged_if_no_position_is_given(
    logs: Logs,
) -> None:
    """It was LATEST: a consumer that was started again missed what came while it was away."""
    async with logs.open() as log:
        await log.append_many("abc")
        async with log.subscribe("c") as stream:
            assert await delivered(stream, 2) == ["a", "b"]
        await log.ack("c", 2)
        async with log.subscribe("c") as stream:
            assert await delivered(stream, 1) == ["c"]
            await log.append("new")
            assert await delivered(stream, 1) == ["new"]


async def test_latest_sees_all_that_comes_after_the_block_was_entered(logs: Logs) -> None:
    async with logs.open() as log:
        for number in range(50):
            async with log.subscribe("c", SeekPosition.LATEST) as stream:
                await log.append_many([number, "second"])
                assert await delivered(stream, 2) == [number, "second"]


async def test_the_position_is_resolved_when_the_block_is_entered(logs: Logs) -> None:
    async with logs.open() as log:
        subscription = log.subscribe("c", SeekPosition.LATEST)
        await log.append("between the call and the block")
        async with subscription as stream:
            await log.append("in the block")
            assert await delivered(stream, 1) == ["in the block"]


async def test_beginning_gives_all_that_is_stored_then_waits_for_more(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(["a", "b"])
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            envelopes = await take(stream, 2)
            assert [(e.seq_no, e.event) for e in envelopes] == [(1, "a"), (2, "b")]
            await log.append("c")
            assert await delivered(stream, 1) == ["c"]


@pytest.mark.parametrize("position", ALL_POSITIONS, ids=str)
async def test_every_position_of_an_empty_log_waits_for_the_first_event(
    logs: Logs, position: SeekPosition
) -> None:
    received: list[Any] = []

    async with logs.open() as log, log.subscribe("c", position) as stream:

        async def consume() -> None:
            received.extend(await take(stream, 2))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            await log.append("a")
            await log.append("b")
    assert [(e.seq_no, e.event) for e in received] == [(1, "a"), (2, "b")]


async def test_sequence_n_is_the_next_event_delivered(logs: Logs) -> None:
    async with logs.open() as log:
        for size in (1, 2, 30, 1, 66):
            await log.append_many(range(size))
        for start in range(1, 101):
            async with log.subscribe("c", SeekPosition.sequence(start), follow=False) as stream:
                numbers = [envelope.seq_no async for envelope in stream]
            assert numbers == list(range(start, 101))


async def test_sequence_0_is_the_beginning(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abc")
        async with log.subscribe("c", SeekPosition.sequence(0)) as stream:
            assert await delivered(stream, 3) == ["a", "b", "c"]


async def test_a_sequence_past_the_end_waits_for_its_event(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        async with log.subscribe("c", SeekPosition.sequence(7)) as stream:
            received: list[Any] = []

            async def consume() -> None:
                received.extend(await delivered(stream, 3))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(consume)
                await log.append(4)
                await log.append_many([5, 6, 7, 8])
                await log.append(9)
            assert received == [7, 8, 9]


async def test_the_event_after_the_last_one_can_be_waited_for(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        async with log.subscribe("c", SeekPosition.sequence(4)) as stream:
            await log.append(4)
            assert await delivered(stream, 1) == [4]


async def test_last_acknowledged_is_the_event_after_the_position_of_the_consumer(
    logs: Logs,
) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3, 4, 5])
        await log.ack("billing", 3)
        async with log.subscribe("billing", SeekPosition.LAST_ACKNOWLEDGED) as stream:
            assert await delivered(stream, 2) == [4, 5]
        await log.ack("billing", 5)
        async with log.subscribe("billing", SeekPosition.LAST_ACKNOWLEDGED) as stream:
            await log.append(6)
            assert await delivered(stream, 1) == [6]


async def test_last_acknowledged_of_a_new_consumer_is_the_first_event(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        await log.ack("somebody else", 2)
        async with log.subscribe("new", SeekPosition.LAST_ACKNOWLEDGED) as stream:
            assert await delivered(stream, 3) == [1, 2, 3]


async def a_later_moment() -> datetime:
    """A time that is neither that of anything before the call nor of anything after it."""
    start = datetime.now(UTC)
    while datetime.now(UTC) - start < timedelta(milliseconds=4):
        await anyio.lowlevel.checkpoint()
    return start + timedelta(milliseconds=2)


async def first_from(log: Any, moment: datetime) -> Any:
    """The first event delivered from that time on; `None` if there is none yet."""
    async with log.subscribe("c", SeekPosition.timestamp(moment), follow=False) as stream:
        events = await delivered(stream, 1)
    return events[0] if events else None


async def test_a_time_means_the_first_event_appended_at_or_after_it(logs: Logs) -> None:
    async with logs.open() as log:
        moments = []
        for number in range(5):
            moments.append(await a_later_moment())
            await log.append_many([f"{number}a", f"{number}b"])
            await log.append(f"{number}c")
        after_all = await a_later_moment()
        for number, moment in enumerate(moments):
            assert await first_from(log, moment) == f"{number}a"
        assert await first_from(log, after_all) is None
        assert await first_from(log, moments[0] - timedelta(days=10_000)) == "0a"
        async with log.subscribe("c", SeekPosition.timestamp(after_all)) as stream:
            await log.append("new")
            assert await delivered(stream, 1) == ["new"]


@needs("segments")
async def test_a_time_is_found_in_any_segment(logs: Logs) -> None:
    moments = []
    count = SEGMENT_BYTES // BATCH_BYTES * 3
    async with logs.open() as log:
        for number in range(count):
            moments.append(await a_later_moment())
            await log.append_many([[number, b"x" * 1_000] for _ in range(BATCH_BYTES // 1_000)])
        assert (await log.status()).segments >= 3
        for number, moment in enumerate(moments):
            assert (await first_from(log, moment))[0] == number


async def test_a_time_in_another_zone_is_the_same_moment(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("before")
        moment = await a_later_moment()
        await log.append("after")
        for hours in (-11, 0, 5):
            zone = timezone(timedelta(hours=hours))
            assert await first_from(log, moment.astimezone(zone)) == "after"


async def test_any_aware_time_can_be_looked_for(logs: Logs) -> None:
    # Times before 1970 and after 2262, which no event can have, were refused: `datetime.min` and
    # `datetime.max`, with which programs leave a bound open.
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    async with logs.open() as log:
        await log.append_many(["a", "b"])
        assert await first_from(log, first) == "a"
        assert await first_from(log, last) is None
        between = await log.read(since=first, until=last)
        assert [envelope.event for envelope in between] == ["a", "b"]
        await log.seek("c", SeekPosition.timestamp(last))
        await log.seek("d", SeekPosition.timestamp(first))
        assert [one.last_acked for one in await log.consumers()] == [2, None]


async def test_the_time_of_the_append_counts_not_that_of_the_envelope(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(EventEnvelope("a", timestamp=datetime(2100, 1, 1, tzinfo=UTC)))
        moment = await a_later_moment()
        await log.append(EventEnvelope("b", timestamp=datetime(1999, 1, 1, tzinfo=UTC)))
        assert await first_from(log, moment) == "b"


# --- the end ---------------------------------------------------------------------------------


async def test_without_follow_the_stream_ends_at_what_was_last_when_it_was_opened(
    logs: Logs,
) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        async with log.subscribe("c", SeekPosition.BEGINNING, follow=False) as stream:
            await log.append_many([4, 5])
            received = []
            async for envelope in stream:
                received.append(envelope.event)
                await log.append("more")
        assert received == [1, 2, 3]


@pytest.mark.parametrize("position", [*ALL_POSITIONS, SeekPosition.sequence(9)], ids=str)
async def test_without_follow_the_stream_of_an_empty_log_ends_at_once(
    logs: Logs, position: SeekPosition
) -> None:
    async with logs.open() as log:
        async with log.subscribe("c", position, follow=False) as stream:
            await log.append("later")
            assert await take(stream, 1) == []
        async with log.subscribe("c", position, follow=False) as stream:
            await log.append("later")
            assert [len(batch) async for batch in stream.batches()] in ([], [1])


@pytest.mark.parametrize("position", [SeekPosition.LATEST, SeekPosition.sequence(4)], ids=str)
async def test_without_follow_a_stream_that_starts_at_the_end_is_empty(
    logs: Logs, position: SeekPosition
) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        async with log.subscribe("c", position, follow=False) as stream:
            await log.append(4)
            assert await take(stream, 1) == []


async def test_without_follow_a_batch_is_cut_at_the_end(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        async with log.subscribe("c", SeekPosition.sequence(2), follow=False) as stream:
            await log.append_many([4, 5])
            assert [[e.event for e in batch] async for batch in stream.batches()] == [[2, 3]]


async def test_a_stream_that_has_ended_stays_ended(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append(1)
        async with log.subscribe("c", SeekPosition.BEGINNING, follow=False) as stream:
            assert await delivered(stream, 5) == [1]
            await log.append(2)
            assert await delivered(stream, 5) == []


# --- live ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [400, pytest.param(2_000, marks=pytest.mark.slow)])
async def test_two_streams_play_ping_pong_for_many_rounds(logs: Logs, rounds: int) -> None:
    async def play(mine: str, wakes: Callable[[Any], bool]) -> None:
        async with logs.open() as log, log.subscribe(mine, SeekPosition.BEGINNING) as stream:
            async for envelope in stream:
                if wakes(envelope.event):
                    await log.append(envelope.event + 1)
                if envelope.event >= rounds - 1:
                    return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(play, "even", lambda number: number % 2 == 1)
        tasks.start_soon(play, "odd", lambda number: number % 2 == 0)
        async with logs.open() as log:
            await log.append(0)
    async with logs.open() as log:
        assert [e.event for e in await log.read(1)][:rounds] == list(range(rounds))


async def test_every_waiting_stream_gets_every_event(logs: Logs) -> None:
    received: dict[int, list[Any]] = {}

    async with logs.open() as log:

        async def consume(place: int, stream: Any) -> None:
            received[place] = await delivered(stream, 100)

        async with anyio.create_task_group() as tasks:
            for place in range(20):
                tasks.start_soon(subscribe_and, log, place, consume)
            for number in range(100):
                await log.append(number)
    assert received == {place: list(range(100)) for place in range(20)}


async def subscribe_and(log: Any, place: int, consume: Any) -> None:
    async with log.subscribe(f"c{place % 3}", SeekPosition.BEGINNING) as stream:
        await consume(place, stream)


@needs("segments")
async def test_events_larger_and_smaller_cross_many_segments_to_a_live_stream(logs: Logs) -> None:
    sizes = [(number * 7919) % 20_000 for number in range(300)]
    received: list[Any] = []

    async with logs.open() as log, log.subscribe("c") as stream:

        async def consume() -> None:
            received.extend(await delivered(stream, len(sizes)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            for size in sizes:
                await log.append(b"x" * size)
        assert (await log.status()).segments > 5
    assert list(map(len, received)) == sizes


# --- two ways --------------------------------------------------------------------------------


@needs("segments")
async def test_batches_give_the_same_events_as_they_were_batched(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        await log.append(4)
        await log.append_many([5, 6])
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            batches = await take(stream.batches(), 3)
        assert [[e.event for e in batch] for batch in batches] == [[1, 2, 3], [4], [5, 6]]
        assert [[e.seq_no for e in batch] for batch in batches] == [[1, 2, 3], [4], [5, 6]]


async def test_batches_from_the_middle_of_one_start_there(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3, 4])
        async with log.subscribe("c", SeekPosition.sequence(3)) as stream:
            [batch] = await take(stream.batches(), 1)
        assert [envelope.event for envelope in batch] == [3, 4]


async def test_batches_wait_for_new_ones(logs: Logs) -> None:
    received: list[Any] = []

    async with logs.open() as log, log.subscribe("c") as stream:

        async def consume() -> None:
            async for batch in stream.batches():
                assert batch
                received.extend(envelope.event for envelope in batch)
                if len(received) >= 200:
                    return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            for number in range(0, 200, 4):
                await log.append_many(range(number, number + 4))
    assert received == list(range(200))


async def test_a_stream_is_used_one_way_or_the_other(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            assert await delivered(stream, 1) == [1]
            with pytest.raises(ValueError, match="one way") as caught:
                await take(stream.batches(), 1)
            assert isinstance(caught.value, EventLogError)
            assert await delivered(stream, 1) == [2]
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            await take(stream.batches(), 1)
            with pytest.raises(ValueError, match="one way"):
                await take(stream, 1)
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            assert (await anext(stream)).event == 1
            with pytest.raises(ValueError, match="one way"):
                await take(stream.batches(), 1)
            assert (await anext(stream)).event == 2


async def test_a_loop_that_was_left_goes_on_where_it_was(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(10))
        await log.append_many(range(10, 20))
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            received = []
            for count in (1, 2, 7, 3, 7):
                received += await delivered(stream, count)
        assert received == list(range(20))


async def test_loops_and_single_steps_of_one_stream_share_its_place(logs: Logs) -> None:
    async with logs.open() as log:
        for start in range(0, 3_000, 600):
            await log.append_many(range(start, start + 600))
        received: list[int] = []
        async with log.subscribe("c", SeekPosition.BEGINNING, follow=False) as stream:
            async for envelope in stream:
                received.append(envelope.event)
                if envelope.event % 600 == 599 and envelope.event < 2_999:
                    received.append((await anext(stream)).event)
                    async for inner in stream:
                        received.append(inner.event)
                        break
        assert received == list(range(3_000))


async def test_a_stream_is_closed_after_its_block(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2])
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            pass
        with pytest.raises(LogClosed):
            await take(stream, 1)
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            pass
        with pytest.raises(LogClosed):
            await take(stream.batches(), 1)
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            await anext(stream)
        with pytest.raises(LogClosed):  # although event 2 was decoded with event 1
            await anext(stream)


# --- what a stream does not do ---------------------------------------------------------------


async def test_subscribing_neither_makes_a_consumer_nor_moves_it(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            await take(stream, 3)
            assert await log.consumers() == []
        await log.ack("c", 1)
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            await take(stream, 3)
            [state] = await log.consumers()
            assert state.last_acked == 1


async def test_open_streams_are_not_moved_by_ack_seek_or_forget(logs: Logs) -> None:
    async with logs.open() as log:
        for number in range(1, 11):
            await log.append_many([number, -number])
        async with log.subscribe("c", SeekPosition.LAST_ACKNOWLEDGED) as stream:
            assert await delivered(stream, 2) == [1, -1]
            await log.ack("c", 10)
            assert await delivered(stream, 2) == [2, -2]
            await log.seek("c", SeekPosition.BEGINNING)
            assert await delivered(stream, 2) == [3, -3]
            await log.seek("c", SeekPosition.LATEST)
            assert await delivered(stream, 2) == [4, -4]
            await log.forget("c")
            assert await delivered(stream, 2) == [5, -5]


async def test_streams_of_one_consumer_are_independent(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        async with (
            log.subscribe("c", SeekPosition.BEGINNING) as first,
            log.subscribe("c", SeekPosition.BEGINNING) as second,
        ):
            assert await delivered(first, 2) == [1, 2]
            assert await delivered(second, 3) == [1, 2, 3]
            assert await delivered(first, 1) == [3]


async def test_acknowledging_while_reading_is_what_a_restart_goes_on_from(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 101))
        async with log.subscribe("billing", SeekPosition.LAST_ACKNOWLEDGED) as stream:
            async for envelope in stream:
                assert envelope.seq_no is not None
                await log.ack("billing", envelope.seq_no)
                if envelope.seq_no == 40:
                    break
    async with (
        logs.open() as log,
        log.subscribe("billing", SeekPosition.LAST_ACKNOWLEDGED) as stream,
    ):
        assert await delivered(stream, 60) == list(range(41, 101))


async def test_options_of_a_subscription_that_mean_nothing_are_refused(logs: Logs) -> None:
    cases: list[tuple[Any, Any]] = [
        ({"position": None}, TypeError),
        ({"position": 1}, TypeError),
        ({"position": "latest"}, TypeError),
        ({"on_truncated": "ignore"}, ValueError),
        ({"on_truncated": None}, ValueError),
        ({"follow": "yes"}, (ValueError, TypeError)),
    ]
    async with logs.open() as log:
        for options, kind in cases:
            with pytest.raises(kind) as caught:
                async with log.subscribe("c", **options):
                    pass
            assert isinstance(caught.value, EventLogError)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: SeekPosition.sequence(-1), ValueError),
        (lambda: SeekPosition.sequence(2**63), ValueError),
        (lambda: SeekPosition.sequence(1.0), TypeError),  # type: ignore[arg-type]
        (lambda: SeekPosition.sequence(True), TypeError),
        (lambda: SeekPosition.sequence("1"), TypeError),  # type: ignore[arg-type]
        (lambda: SeekPosition.sequence(None), TypeError),  # type: ignore[arg-type]
        (lambda: SeekPosition.timestamp(datetime(2020, 1, 1)), ValueError),  # noqa: DTZ001
        (lambda: SeekPosition.timestamp(0), TypeError),  # type: ignore[arg-type]
        (lambda: SeekPosition.timestamp("2020-01-01"), TypeError),  # type: ignore[arg-type]
    ],
)
def test_a_position_that_means_nothing_is_refused(
    make: Callable[[], SeekPosition], kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert isinstance(caught.value, EventLogError)


@needs("event loop")
async def test_tasks_that_share_a_stream_get_each_event_once(logs: Logs) -> None:
    # Who found a new batch put it in the place of one that others were not through with.
    seen: list[int] = []

    async def work(stream: Any) -> None:
        async for envelope in stream:
            seen.append(envelope.event)
            await anyio.sleep(0.001)
            if len(seen) == 200:
                tasks.cancel_scope.cancel()

    async with (
        logs.open() as log,
        log.subscribe("c") as stream,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(4):
            tasks.start_soon(work, stream)
        for start in range(0, 200, 8):
            await log.append_many(range(start, start + 8))
            await anyio.sleep(0.002)
    assert sorted(seen) == list(range(200))
