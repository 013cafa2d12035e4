"""Changing what a log keeps, and deleting its oldest events."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from eventlog import (
    EventLog,
    EventsTruncated,
    EventTooLarge,
    Failure,
    Group,
    InvalidArgument,
    InvalidArgumentType,
    InvalidConfig,
    InvalidEvent,
    LogFull,
    NotAcknowledged,
    NotSupported,
    Retention,
    SeekPosition,
)

from .backends import has, needs
from .logs import KIB, Logs, stored, take
from .test_retention import EVENT, FORGETFUL, KEEPING, LIMIT, PLENTY, SEGMENT, fill

pytestmark = pytest.mark.anyio


async def filled(log: EventLog) -> int:
    """Events of several segments; the last number."""
    _, last = await log.append_many([EVENT] * PLENTY)
    await log.append_many([EVENT] * PLENTY)
    return last + PLENTY


@needs("counts of the writer")
async def test_the_rate_of_now_is_that_of_the_last_five_seconds(logs: Logs) -> None:
    async with logs.open() as log:
        assert (await log.status()).events_per_s == 0.0
        await log.append_many([1] * 100)
        assert (await log.status()).events_per_s == 20.0


# --- options ---------------------------------------------------------------------------------


async def test_without_a_change_configure_shows_the_options(logs: Logs) -> None:
    async with logs.open() as log:
        options, status = await log.configure(), await log.status()
        assert options.max_event_bytes == status.max_event_bytes
        assert options.durability == status.durability


@needs("changed options")
async def test_a_lower_limit_deletes_at_once_and_for_every_handle(logs: Logs) -> None:
    kept = Retention(max_bytes=LIMIT, keep_unacked=False)
    async with logs.open(segment_bytes=SEGMENT) as log, logs.open(segment_bytes=SEGMENT) as other:
        await filled(log)
        assert (await log.configure(retention=kept)).retention == kept
        assert (await log.status()).bytes <= LIMIT + SEGMENT
        assert ((await other.status()).first_seq_no or 0) > 1
        assert (await other.configure()).retention == kept
        await other.append(EVENT)
        assert (await other.status()).bytes <= LIMIT + SEGMENT


@needs("changed options")
async def test_what_is_not_given_stays(logs: Logs) -> None:
    async with logs.open(**KEEPING) as log:
        await log.configure(on_full="error")
        options = await log.configure(retention=Retention(max_age=timedelta(days=1)))
        assert (options.on_full, options.retention.max_bytes) == ("error", None)
        assert options.retention.max_age == timedelta(days=1)
        assert await log.configure() == options


@needs("changed options")
async def test_an_append_that_waits_for_room_goes_on_when_the_limit_is_raised(logs: Logs) -> None:
    async with logs.open(**KEEPING, on_full="error") as log:
        await log.seek("slow", SeekPosition.BEGINNING)
        full = await fill(log)
        await log.configure(on_full="wait")
        numbers: list[int] = []

        async def append() -> None:
            numbers.append(await log.append(EVENT))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append)
            await anyio.wait_all_tasks_blocked()
            assert numbers == []
            await log.configure(retention=Retention(max_bytes=4 * LIMIT))
        assert numbers == [full + 1]


@needs("changed options")
async def test_a_full_log_refuses_at_once_when_it_is_told_to(logs: Logs) -> None:
    async with logs.open(**KEEPING) as log:
        await log.configure(on_full="error")
        await log.seek("slow", SeekPosition.BEGINNING)
        await fill(log)
        with pytest.raises(LogFull):
            await log.append(EVENT)


@needs("changed options")
async def test_opening_with_an_option_that_was_changed_is_a_warning(
    logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    async with logs.open(**FORGETFUL, on_full="wait") as log:
        await log.configure(retention=Retention(max_bytes=8 * LIMIT))
        with caplog.at_level(logging.WARNING, "eventlog"):
            async with logs.open(**FORGETFUL) as again:
                assert (await again.configure()).retention == Retention(max_bytes=8 * LIMIT)
        (record,) = caplog.records
        assert "was configured with retention=" in record.getMessage()
        with pytest.raises(InvalidConfig, match="was made with on_full='wait'"):
            async with logs.open(on_full="error"):
                pytest.fail("the log was opened")


@needs("changed options", "restart")
async def test_changed_options_survive_the_end_of_whatever_serves_the_log(logs: Logs) -> None:
    kept = Retention(max_bytes=LIMIT, keep_unacked=False)
    async with logs.open(segment_bytes=SEGMENT) as log:
        await log.configure(retention=kept, on_full="error")
        await logs.end_writer(log)
        options = await log.configure()
        assert (options.retention, options.on_full) == (kept, "error")
        await filled(log)
        assert (await log.status()).bytes <= LIMIT + SEGMENT


@needs("changed options")
async def test_options_that_make_no_sense_change_nothing(logs: Logs) -> None:
    async with logs.open(**KEEPING) as log:
        before = await log.configure()
        with pytest.raises(InvalidConfig, match="on_full"):
            await log.configure(on_full="perhaps")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentType, match="Retention"):
            await log.configure(retention=10)  # type: ignore[arg-type]
        assert await log.configure() == before


async def test_an_engine_that_changes_no_options_says_so(logs: Logs) -> None:
    if has(logs.backend, logs.flavour, ("changed options",)):
        pytest.skip("this one does")
    async with logs.open() as log:
        with pytest.raises(NotSupported, match="the tools of its server"):
            await log.configure(on_full="error")


# --- trimming --------------------------------------------------------------------------------


@needs("trimming")
async def test_trim_deletes_what_is_before_a_number_and_tells_how_much(logs: Logs) -> None:
    async with logs.open(segment_bytes=SEGMENT) as log:
        last = await filled(log)
        trimmed = await log.trim(last // 2)
        assert 1 < trimmed.first_available <= last // 2
        assert trimmed.deleted == trimmed.first_available - 1
        assert (await log.status()).first_seq_no == trimmed.first_available
        assert len(await stored(log)) == last - trimmed.deleted
        assert await log.append("next") == last + 1


@needs("trimming")
async def test_nothing_to_trim_is_no_error(logs: Logs) -> None:
    async with logs.open() as log:
        assert (await log.trim(100)).deleted == 0
        await log.append(1)
        assert (await log.trim(1)).deleted == 0
        assert await stored(log) == [1]


@needs("trimming")
async def test_a_trim_leaves_what_a_consumer_has_not_acknowledged(logs: Logs) -> None:
    async with logs.open(segment_bytes=SEGMENT) as log:
        last = await filled(log)
        await log.ack("fast", last)
        await log.ack("slow", 3)
        with pytest.raises(NotAcknowledged, match="'slow' has not acknowledged event 4") as refused:
            await log.trim(last)
        assert (refused.value.consumer, refused.value.seq_no) == ("slow", 4)
        assert (await log.status()).first_seq_no == 1
        first = (await log.trim(last, force=True)).first_available
        assert first > 4
        async with log.subscribe("slow") as stream:
            with pytest.raises(EventsTruncated):
                await take(stream, 1)
        async with log.subscribe("slow", on_truncated="skip") as stream:
            assert [envelope.seq_no for envelope in await take(stream, 1)] == [first]


@needs("trimming")
async def test_a_trim_up_to_a_time_deletes_what_was_stored_before_it(logs: Logs) -> None:
    async with logs.open(segment_bytes=SEGMENT) as log:
        last = await filled(log)
        before = datetime.now(UTC) - timedelta(hours=1)
        assert (await log.trim(before)).deleted == 0
        after = datetime.now(UTC) + timedelta(hours=1)
        assert (await log.trim(after)).deleted > last // 2


@needs("trimming", "members")
async def test_a_group_goes_on_after_a_trim_and_its_dead_letters_are_retried(logs: Logs) -> None:
    async with logs.open(segment_bytes=SEGMENT) as log:
        await log.append("first")
        async with log.group("g", max_deliveries=1) as group:
            async with await group.open_member() as member:
                lease = await member.lease(1)
                assert lease is not None
                for _, envelope in lease:
                    lease.begin(envelope)
                    lease.failed(envelope, Failure(error="no", traceback=""))
                await member.flush()
            last = await filled(log)
            assert (await log.trim(last, force=True)).first_available > 2
            assert [letter.event for letter in await log.dead_letters("g")] == ["first"]
            assert await log.retry_dead("g", [1]) == 1
            async with await group.open_member() as member:
                lease = await member.lease(1)
                assert lease is not None
                ((_, envelope),) = lease
                assert (envelope.seq_no, envelope.event) == (1, "first")


# --- dead letters ----------------------------------------------------------------------------


async def fail_first(group: Group) -> list[Any]:
    """Fail the next event; what its handler was given."""
    async with await group.open_member() as member:
        lease = await member.lease(1)
        assert lease is not None
        ((_, envelope),) = lease
        lease.begin(envelope)
        lease.failed(envelope, Failure(error="ValueError: no", traceback=""))
        await member.flush()
        return [envelope.seq_no, envelope.event, envelope.key, envelope.headers]


@needs("corrected letters", "members")
async def test_a_dead_letter_is_retried_with_a_corrected_event(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append({"size": -1}, key="k", headers={"h": "v"})
        await log.append({"size": 2})
        async with log.group("g", max_deliveries=1) as group:
            assert await fail_first(group) == [1, {"size": -1}, "k", {"h": "v"}]
            assert await log.retry_corrected("g", 1, {"size": 1}) == 1
            assert await log.dead_letters("g") == []
            assert await fail_first(group) == [1, {"size": 1}, "k", {"h": "v"}]
            (letter,) = await log.dead_letters("g")
            assert (letter.event, letter.key, letter.error) == ({"size": 1}, "k", "ValueError: no")
            assert await log.retry_corrected("g", 1, [3]) == 1
            async with await group.open_member() as member:
                lease = await member.lease(2, least=2)
                assert lease is not None
                handled = []
                for _, envelope in lease:
                    lease.begin(envelope)
                    handled.append((envelope.seq_no, envelope.event))
                    lease.done(envelope)
                await member.flush()
            assert handled == [(1, [3]), (2, {"size": 2})]
            assert await log.dead_letters("g") == []
        assert await stored(log) == [{"size": -1}, {"size": 2}]


@needs("corrected letters", "members")
async def test_what_is_no_dead_letter_is_not_corrected(logs: Logs) -> None:
    async with logs.open(max_event_bytes=1000, segment_bytes=64 * KIB) as log:
        await log.append(1)
        with pytest.raises(InvalidArgument):
            await log.retry_dead("nobody", [1])
        async with log.group("g", max_deliveries=1) as group:
            assert await log.retry_corrected("g", 1, 2) == 0
            await fail_first(group)
            with pytest.raises(EventTooLarge):
                await log.retry_corrected("g", 1, b"x" * 1001)
            with pytest.raises(InvalidEvent):
                await log.retry_corrected("g", 1, object())
            assert [letter.event for letter in await log.dead_letters("g")] == [1]


@needs("corrected letters", "members", "restart")
async def test_a_correction_survives_the_end_of_whatever_serves_the_log(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("wrong")
        async with log.group("g", max_deliveries=1) as group:
            await fail_first(group)
            await log.retry_corrected("g", 1, "right")
            await logs.end_writer(log)
            assert await fail_first(group) == [1, "right", None, None]
            await logs.end_writer(log)
            await log.retry_dead("g", [1])
            assert await fail_first(group) == [1, "right", None, None]
            await log.drop_dead("g", [1])
            assert await log.dead_letters("g") == []


async def test_an_engine_that_corrects_no_letters_says_so(logs: Logs) -> None:
    if has(logs.backend, logs.flavour, ("corrected letters",)):
        pytest.skip("this one does")
    async with logs.open() as log:
        with pytest.raises(NotSupported, match="has no `retry_corrected`"):
            await log.retry_corrected("g", 1, 2)


@pytest.mark.parametrize("before", [-1, True, "7", 1.5, None, datetime(2026, 1, 1)])  # noqa: DTZ001
async def test_what_is_no_place_to_trim_to_is_refused(logs: Logs, before: object) -> None:
    async with logs.open() as log:
        with pytest.raises((InvalidArgument, InvalidArgumentType)):
            await log.trim(before)  # type: ignore[arg-type]


async def test_an_engine_that_deletes_nothing_says_so(logs: Logs) -> None:
    if has(logs.backend, logs.flavour, ("trimming",)):
        pytest.skip("this one does")
    async with logs.open() as log:
        await log.append(1)
        with pytest.raises(NotSupported, match="has no `trim`"):
            await log.trim(1)
