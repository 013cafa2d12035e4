"""Groups: each event to one member, at least once, and what becomes of those that fail."""

from __future__ import annotations

import os
import pickle
import threading
from array import array
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

import eventlog.blocking
import workers
from eventlog import Cause, EventEnvelope, EventLog, Retention, SeekPosition
from eventlog.api.group import ExitReport, Failure, Group, Lease, Member
from eventlog.errors import (
    EventLogError,
    GroupMismatch,
    InvalidArgument,
    InvalidArgumentType,
    LogClosed,
    LogFull,
)
from workers import blocking as blocking_workers

from .backends import needs
from .facade import ThreadedEventLog
from .logs import KIB, Logs, stored

pytestmark = [pytest.mark.anyio, needs("members")]

BOOM = Failure(error="ValueError: boom", traceback="Traceback: boom")
SHORT_S = 0.05


async def take_one(member: Member) -> tuple[Lease, int, EventEnvelope]:
    """The next event, begun, alone in its lease."""
    lease = await member.lease()
    assert lease is not None
    for attempt, envelope in lease:
        assert lease.begin(envelope)
        return lease, attempt, envelope
    raise AssertionError("a lease without an event")


async def take_all(member: Member, count: int) -> list[tuple[int, int]]:
    """Number and attempt of that many events, each done."""
    taken: list[tuple[int, int]] = []
    while len(taken) < count:
        lease = await member.lease(count - len(taken), count)
        assert lease is not None
        for attempt, envelope in lease:
            assert lease.begin(envelope)
            taken.append((envelope.seq_no or 0, attempt))
            lease.done(envelope)
    await member.flush()
    return taken


async def is_idle(call: Callable[[], Awaitable[object]]) -> bool:
    """Whether the call still waits after a while; only for what can be cancelled."""
    with anyio.move_on_after(SHORT_S):
        await call()
        return False
    return True


# --- handing out ---------------------------------------------------------------------------------


async def test_each_event_goes_to_one_member(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many(range(20))
        async with await group.open_member() as one, await group.open_member() as other:
            taken = await take_all(one, 8) + await take_all(other, 12)
            assert sorted(taken) == [(number, 1) for number in range(1, 21)]
            await group.wait_drained()


async def test_a_member_waits_for_events(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        async with await group.open_member() as member, anyio.create_task_group() as tasks:
            found: list[tuple[int, int]] = []

            async def take() -> None:
                found.extend(await take_all(member, 1))

            tasks.start_soon(take)
            await log.append("event")
        assert found == [(1, 1)]


async def test_a_member_leaves_some_for_others_that_have_none(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many(range(10))
        async with await group.open_member() as one, await group.open_member():
            lease = await one.lease(10)
            assert lease is not None
            assert lease.count == 5
            lease.give_back()
            lease = await one.lease(10, 8)
            assert lease is not None
            assert lease.count == 8


async def test_stop_ends_a_wait(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        async with await group.open_member() as member, anyio.create_task_group() as tasks:

            async def wait() -> None:
                assert await member.lease() is None

            tasks.start_soon(wait)
            await checkpoint()
            member.stop()
        assert await group.dead_letters() == []


async def test_what_was_not_begun_goes_to_others_uncounted(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many(range(3))
        async with await group.open_member() as one:
            lease = await one.lease(3)
            assert lease is not None
            lease.give_back()
        async with await group.open_member() as other:
            assert await take_all(other, 3) == [(1, 1), (2, 1), (3, 1)]


async def test_what_is_done_is_what_was_begun_though_others_came_out_meanwhile(logs: Logs) -> None:
    """The event that came out last counted as done, and was lost; the one that ran stayed begun."""
    async with logs.open() as log, log.group("g") as group:
        await log.append_many(range(3))
        async with await group.open_member() as one:
            lease = await one.lease(3, 3)
            assert lease is not None
            [first, *_] = [
                envelope for _, envelope in lease if envelope.seq_no != 1 or lease.begin(envelope)
            ]
            lease.done(first)
            lease.give_back()
            await one.flush()
        async with await group.open_member() as other:
            assert await take_all(other, 2) == [(2, 1), (3, 1)]
            await group.wait_drained()


async def test_a_member_that_leaves_without_a_word_counts_a_delivery(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append("event")
        async with await group.open_member() as one:
            _, attempt, _ = await take_one(one)
            assert attempt == 1
        async with await group.open_member() as other:
            assert await take_all(other, 1) == [(1, 2)]


async def test_a_late_word_of_a_member_that_has_left_does_not_count(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append("event")
        async with await group.open_member() as one:
            lease, _, envelope = await take_one(one)
        with suppress(LogClosed):
            lease.done(envelope)
        async with await group.open_member() as other:
            assert await take_all(other, 1) == [(1, 2)]


@pytest.mark.parametrize("bad", [0, -1, "x", True, 1.5])
async def test_a_lease_of_no_number_is_refused(logs: Logs, bad: Any) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append("event")
        async with await group.open_member() as member:
            with pytest.raises((InvalidArgument, InvalidArgumentType)):
                await member.lease(bad)
            with pytest.raises((InvalidArgument, InvalidArgumentType)):
                await member.lease(1, bad)


async def test_members_with_other_options_are_refused(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        async with await group.open_member():
            with pytest.raises(GroupMismatch):
                async with log.group("g", ordering="key"):
                    pass
        async with log.group("g", ordering="key"):  # the members have left
            pass


# --- failures ------------------------------------------------------------------------------------


async def test_a_failed_event_is_tried_again_after_its_backoff(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", max_deliveries=3) as group:
        await log.append_many(["fails", "other"])
        async with await group.open_member() as member:
            lease, _, envelope = await take_one(member)
            began_s = anyio.current_time()
            lease.failed(envelope, Failure(error="x", delay_s=SHORT_S))
            assert await take_all(member, 2) == [(2, 1), (1, 2)]
            assert anyio.current_time() - began_s >= SHORT_S
            await group.wait_drained()
            assert await group.dead_letters() == []


async def test_an_event_that_used_up_its_deliveries_is_a_dead_letter(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", max_deliveries=2) as group:
        await log.append({"order": 7}, key="k", headers={"a": "b"})
        async with await group.open_member() as member:
            for attempt in (1, 2):
                lease, found, envelope = await take_one(member)
                assert found == attempt
                lease.failed(envelope, BOOM)
            await member.flush()
            await group.wait_drained()
        (letter,) = await group.dead_letters()
        assert (letter.event, letter.key, letter.headers) == ({"order": 7}, "k", {"a": "b"})
        assert (letter.seq_no, letter.deliveries, letter.group) == (1, 2, "g")
        assert (letter.error, letter.traceback) == (BOOM.error, BOOM.traceback)
        assert letter.exit_code is None


async def test_a_final_failure_makes_a_dead_letter_at_once(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", max_deliveries=5) as group:
        await log.append("event")
        async with await group.open_member() as member:
            lease, _, envelope = await take_one(member)
            lease.failed(envelope, Failure(error="rejected", is_final=True))
            await member.flush()
            await group.wait_drained()
        assert [letter.deliveries for letter in await group.dead_letters()] == [1]


async def reject_next(group: Group) -> None:
    async with await group.open_member() as member:
        lease, _, envelope = await take_one(member)
        lease.failed(envelope, Failure(error="rejected", is_final=True))
        await member.flush()


async def test_a_dead_letter_has_the_arrays_of_its_event(logs: Logs) -> None:
    # In memory they were copied by `deepcopy`, which raised a bare TypeError.
    async with logs.open() as log, log.group("g") as group:
        await log.append({"id": 1, "parts": [array("d", [1.5])]})
        await reject_next(group)
        (letter,) = await group.dead_letters()
        assert letter.event["parts"][0].tolist() == [1.5]
        assert pickle.loads(pickle.dumps(letter)) == letter


@needs("corrected letters")
async def test_a_corrected_letter_has_the_arrays_of_its_new_event(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append("event")
        await reject_next(group)
        assert await log.retry_corrected("g", 1, {"parts": [array("d", [2.5])]}) == 1
        await reject_next(group)
        (letter,) = await group.dead_letters()
        assert letter.event["parts"][0].tolist() == [2.5]


async def dead(log: EventLog, group: Group, count: int) -> None:
    """Make dead letters of that many new events."""
    await log.append_many([f"event {number}" for number in range(1, count + 1)])
    async with await group.open_member() as member:
        for _ in range(count):
            lease, _, envelope = await take_one(member)
            lease.failed(envelope, Failure(error="rejected", is_final=True))
        await member.flush()


async def test_a_retried_dead_letter_is_handed_out_as_if_for_the_first_time(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await dead(log, group, 2)
        assert await log.retry_dead("g", [1, 9]) == 1
        assert [letter.seq_no for letter in await group.dead_letters()] == [2]
        async with await group.open_member() as member:
            assert await take_all(member, 1) == [(1, 1)]
        await group.wait_drained()
        assert [letter.seq_no for letter in await group.dead_letters()] == [2]


async def test_a_retry_that_fails_is_a_dead_letter_again(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await dead(log, group, 2)
        await log.retry_dead("g", [1])
        async with await group.open_member() as member:
            lease, _, envelope = await take_one(member)
            lease.failed(envelope, Failure(error="once more", is_final=True))
            await member.flush()
        letters = await group.dead_letters()
        assert [(one.seq_no, one.error) for one in letters] == [(2, "rejected"), (1, "once more")]


async def test_dropped_dead_letters_are_gone(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await dead(log, group, 3)
        assert await log.drop_dead("g", [1, 3, 4]) == 2
        assert [letter.seq_no for letter in await group.dead_letters()] == [2]
        assert await log.retry_dead("g", [1, 3]) == 0


async def test_nobody_retries_for_a_group_that_is_not_there(logs: Logs) -> None:
    async with logs.open() as log:
        with pytest.raises(InvalidArgument, match="nobody"):
            await log.retry_dead("nobody", [1])
        assert await log.drop_dead("nobody", [1]) == 0


async def test_dead_letters_outlive_their_group(logs: Logs) -> None:
    async with logs.open() as log:
        async with log.group("g") as group:
            await dead(log, group, 1)
        await log.forget("g")
        async with log.group("g") as group:
            assert [letter.seq_no for letter in await group.dead_letters()] == [1]


# --- members that die ----------------------------------------------------------------------------


async def test_an_event_that_kills_its_members_is_exhausted_and_rejected(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", max_deliveries=2) as group:
        await log.append("event")
        for _ in range(2):
            member = await group.open_member(owner=7)
            await take_one(member)
            await group.dismiss(member.member_id)
        (exhausted,) = await group.wait_exhausted(7)
        assert (exhausted.seq_no, exhausted.deliveries, exhausted.owner) == (1, 2, 7)
        report = ExitReport(error="killed", exit_code=-9, peak_rss_bytes=5, log_lines=("last",))
        await group.reject(exhausted, report)
        await group.wait_drained()
        (letter,) = await group.dead_letters()
        assert (letter.error, letter.exit_code, letter.event) == ("killed", -9, "event")
        assert (letter.peak_rss_bytes, letter.log_lines) == (5, ("last",))


async def test_neighbours_of_a_death_go_out_one_by_one_and_do_not_die_of_it(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", max_deliveries=1) as group:
        await log.append_many(["guilty", "innocent", "not begun"])
        member = await group.open_member()
        lease = await member.lease(3)
        assert lease is not None
        for _, envelope in lease:
            lease.begin(envelope)
            if envelope.seq_no == 2:
                break
        await group.dismiss(member.member_id)
        async with await group.open_member() as other:
            for number in (1, 2):
                lease = await other.lease(3)
                assert lease is not None
                assert lease.count == 1
                for _, envelope in lease:
                    assert envelope.seq_no == number
                    assert lease.begin(envelope)
                    lease.done(envelope)
            assert await take_all(other, 1) == [(3, 1)]
        await group.wait_drained()
        assert await group.dead_letters() == []


async def test_what_an_excused_owner_has_begun_has_not_failed(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append("event")
        member = await group.open_member(owner=7)
        await take_one(member)
        await group.excuse(7)
        await group.dismiss(member.member_id)
        async with await group.open_member() as other:
            assert await take_all(other, 1) == [(1, 1)]


async def test_a_wait_for_exhausted_events_ends_with_the_first_one(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", max_deliveries=1) as group:
        await log.append("event")
        found: list[int] = []

        async def wait() -> None:
            found.extend(one.seq_no for one in await group.wait_exhausted(7))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            member = await group.open_member(owner=7)
            await take_one(member)
            await group.dismiss(member.member_id)
        assert found == [1]


async def test_closing_the_log_ends_a_wait_for_exhausted_events(logs: Logs) -> None:
    ends: list[str] = []
    async with logs.open() as log, log.group("g") as group, anyio.create_task_group() as tasks:

        async def wait() -> None:
            try:
                await group.wait_exhausted(7)
            except LogClosed:
                ends.append("closed")

        tasks.start_soon(wait)
        await log.append("the wait has begun meanwhile, or meets a closed log")
        await log.aclose()
    assert ends == ["closed"]


# --- order ---------------------------------------------------------------------------------------


@needs("cancellation")
async def test_events_of_one_key_go_to_one_member_at_a_time(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", ordering="key") as group:
        for _ in range(2):
            await log.append("event", key="k")
        async with await group.open_member() as one, await group.open_member() as other:
            lease, _, envelope = await take_one(one)
            assert await is_idle(other.lease)
            lease.done(envelope)
            assert await take_all(other, 1) == [(2, 1)]


async def test_later_events_of_a_key_wait_for_one_that_failed(logs: Logs) -> None:
    async with logs.open() as log, log.group("g", ordering="key") as group:
        for key in ("a", "a", "b", "a"):
            await log.append("event", key=key)
        async with await group.open_member() as member:
            lease = await member.lease(4)
            assert lease is not None
            begun: list[int] = []
            for _, envelope in lease:
                assert lease.begin(envelope)
                begun.append(envelope.seq_no or 0)
                if envelope.seq_no == 1:
                    lease.failed(envelope, Failure(error="x", delay_s=SHORT_S))
                else:
                    lease.done(envelope)
            assert begun == [1, 3]
            assert await take_all(member, 3) == [(1, 2), (2, 1), (4, 1)]


# --- results -------------------------------------------------------------------------------------


async def test_results_on_the_same_log_come_with_their_acknowledgement(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append("event")
        async with await group.open_member(output=log.path) as member:
            lease, _, envelope = await take_one(member)
            lease.done_with(envelope, ["one", "two"])
            await member.flush()
            await group.wait_drained(3)  # a group is never handed its own results
        assert await stored(log) == ["event", "one", "two"]


FULL: Any = {"retention": Retention(max_bytes=512 * KIB, keep_unacked=True), "on_full": "error"}
RESULT: bytes = b"x" * 32 * KIB


async def fill(log: EventLog) -> int:
    """Append until the log has no room for another result; how many it has."""
    await log.seek("who acknowledges nothing", SeekPosition.BEGINNING)
    for count in range(100):
        try:
            await log.append(RESULT)
        except LogFull:
            return count
    raise AssertionError("the log takes all")


@needs("waiting for room")
async def test_results_that_their_output_refuses_are_a_failed_delivery(logs: Logs) -> None:
    async with logs.open() as log, logs.open("output", **FULL) as output:
        count = await fill(output)
        await log.append("event")
        async with (
            log.group("g", max_deliveries=2) as group,
            await group.open_member(output=output.path) as member,
        ):
            for attempt in (1, 2):
                lease, found, envelope = await take_one(member)
                assert found == attempt
                lease.done_with(envelope, [RESULT])
            await member.flush()
            await group.wait_drained()
            [letter] = await group.dead_letters()
        assert (letter.seq_no, letter.deliveries) == (1, 2)
        assert letter.error.startswith("eventlog.errors.LogFull: ")
        assert await output.last_seq_no() == count


@needs("waiting for room")
async def test_a_member_says_what_a_refusal_of_its_results_means(logs: Logs) -> None:
    asked: list[tuple[Any, int, type[Exception]]] = []

    def on_refused(envelope: EventEnvelope, attempt: int, error: EventLogError) -> Failure:
        asked.append((envelope.event, attempt, type(error)))
        return Failure(error="the output refuses it", is_final=True)

    async with logs.open() as log, logs.open("output", **FULL) as output:
        await fill(output)
        await log.append("event")
        async with (
            log.group("g") as group,
            await group.open_member(output=output.path, on_refused=on_refused) as member,
        ):
            lease, _, envelope = await take_one(member)
            lease.done_with(envelope, [RESULT])
            await member.flush()
            await group.wait_drained()
            [letter] = await group.dead_letters()
        assert asked == [("event", 1, LogFull)]
        assert (letter.error, letter.deliveries) == ("the output refuses it", 1)


async def test_results_of_a_lost_lease_are_not_stored(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append("event")
        async with await group.open_member(output=log.path) as member:
            lease, _, envelope = await take_one(member)
            await log.seek("g", SeekPosition.BEGINNING)
            lease.done_with(envelope, ["late"])
            await member.flush()
        assert await stored(log) == ["event"]


async def test_results_go_to_another_log(logs: Logs) -> None:
    async with logs.open() as log, logs.open("output") as output, log.group("g") as group:
        await log.append("event")
        async with await group.open_member(output=output.path) as member:
            lease, _, envelope = await take_one(member)
            lease.done_with(envelope, ["result"])
            await member.flush()
            await group.wait_drained()
        assert await stored(output) == ["result"]


async def test_results_know_their_cause_and_have_its_key(logs: Logs) -> None:
    async with logs.open() as log, logs.open("output") as output, log.group("g") as group:
        await log.append_many(["a", "b"], keys=["k", "k"])
        for target in (log, output):
            async with await group.open_member(output=target.path) as member:
                lease, _, envelope = await take_one(member)
                lease.done_with(envelope, ["result"])
                await member.flush()
        log_id = (await log.status()).log_id
        (result,) = await log.read(3)
        assert (result.key, result.cause) == ("k", Cause(log_id, 1, "g"))
        (result,) = await output.read(1)
        assert (result.key, result.cause) == ("k", Cause(log_id, 2, "g"))


# --- the group as a consumer ---------------------------------------------------------------------


async def test_a_group_is_a_consumer_of_its_name(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many(range(3))
        async with await group.open_member() as member:
            await take_all(member, 2)
            (state,) = await log.consumers()
            assert (state.name, state.last_acked, state.lag) == ("g", 2, 1)
            assert group.lag() == 1


async def test_an_acknowledgement_of_the_groups_name_passes_events(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many(range(3))
        await log.ack("g", 2)
        async with await group.open_member() as member:
            assert await take_all(member, 1) == [(3, 1)]


async def test_a_seek_of_the_groups_name_begins_anew(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many(range(2))
        async with await group.open_member() as member:
            await take_all(member, 2)
            await log.seek("g", SeekPosition.BEGINNING)
            assert await take_all(member, 2) == [(1, 1), (2, 1)]


async def test_a_new_group_begins_where_it_is_told(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("old")
        async with log.group("g", position=SeekPosition.LATEST) as group:
            await log.append("new")
            async with await group.open_member() as member:
                assert await take_all(member, 1) == [(2, 1)]


async def test_a_member_reports_what_it_did(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group:
        await log.append_many(range(2))
        async with await group.open_member(owner=3) as member:
            await take_all(member, 1)
            lease, _, envelope = await take_one(member)
            report = group.member(member.member_id)
            assert report is not None
            assert (report.owner, report.handled, report.in_flight) == (3, 1, 1)
            assert report.busy_since_ns is not None
            lease.failed(envelope, BOOM)
            await member.flush()
            report = group.member(member.member_id)
            assert report is not None
            assert (report.failed, report.retried, report.in_flight) == (1, 1, 0)


async def test_a_group_lists_its_living_members_of_all_handles(logs: Logs) -> None:
    async with logs.open() as log, log.group("g") as group, log.group("g") as other:
        await log.append("event")
        async with await group.open_member(owner=3) as one, await other.open_member() as two:
            await take_one(two)
            for handle in (group, other):
                await handle.refresh()
                listed = {report.member_id: report for report in handle.members()}
                assert listed.keys() == {one.member_id, two.member_id}
                assert listed[one.member_id].owner == 3
                assert listed[one.member_id].pid == listed[two.member_id].pid == os.getpid()
        for handle in (group, other):
            await handle.refresh()
            assert handle.members() == []


# --- pools without processes ---------------------------------------------------------------------


class InProcess:
    """A pool with `processes=0` of either kind, to be entered, drained and asked."""

    def __init__(self, log: EventLog, **options: Any) -> None:
        given: Any = {"group": "g", "processes": 0, "backoff": workers.Backoff(0.01)} | options
        self._is_blocking = isinstance(log, ThreadedEventLog)
        self.pool: Any = (
            blocking_workers.Pool(log.blocking, **given)
            if isinstance(log, ThreadedEventLog)
            else workers.Pool(log, **given)
        )

    async def drain(self) -> list[workers.DeadLetter]:
        """Handle everything, leave the pool; the dead letters then."""
        if self._is_blocking:
            return await anyio.to_thread.run_sync(self._drain)
        async with self.pool as pool:
            await pool.drained()
            return [letter async for letter in pool.dead_letters()]

    def _drain(self) -> list[workers.DeadLetter]:
        with self.pool as pool:
            pool.drained()
            return list(pool.dead_letters())


async def test_a_pool_without_processes_retries_the_event_as_it_was_appended(logs: Logs) -> None:
    seen: list[Any] = []

    def handle(event: dict[str, int]) -> None:
        seen.append(event["order"])
        event["order"] = -1
        if len(seen) < 3:
            raise ValueError("no such order")

    async with logs.open() as log:
        await log.append({"order": 7})
        assert await InProcess(log, handler=handle).drain() == []
    assert seen == [7, 7, 7]


async def test_a_pool_without_processes_makes_dead_letters(logs: Logs) -> None:
    def handle(event: dict[str, int]) -> None:
        event["order"] = -1
        raise ValueError("no such order")

    async with logs.open() as log:
        await log.append({"order": 7})
        (letter,) = await InProcess(log, handler=handle, max_deliveries=2).drain()
        assert (letter.event, letter.deliveries) == ({"order": 7}, 2)
        assert letter.error == "ValueError: no such order"
        assert "in handle" in (letter.traceback or "")


async def test_a_pool_without_processes_takes_what_cannot_be_pickled(logs: Logs) -> None:
    lock, seen = threading.Lock(), list[int]()

    def handle(event: int) -> None:
        with lock:
            seen.append(event)

    async with logs.open() as log:
        await log.append_many(range(50))
        await InProcess(log, handler=handle, concurrency=4).drain()
    assert sorted(seen) == list(range(50))


async def test_a_pool_without_processes_awaits_coroutines(logs: Logs) -> None:
    seen: list[int | None] = []

    async def handle(envelope: EventEnvelope) -> None:
        await checkpoint()
        seen.append(envelope.seq_no)

    async with logs.open() as log:
        await log.append_many(range(5))
        await InProcess(log, handler=handle, concurrency=2).drain()
    assert sorted(number or 0 for number in seen) == [1, 2, 3, 4, 5]


async def test_a_pool_without_processes_keeps_key_order(logs: Logs) -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}
    failed: set[int] = set()

    async def handle(envelope: EventEnvelope) -> None:
        await checkpoint()
        if envelope.event % 5 == 0 and envelope.event not in failed:
            failed.add(envelope.event)
            raise ValueError(envelope.event)
        seen[envelope.key or ""].append(envelope.event)

    async with logs.open() as log:
        for number in range(20):
            await log.append(number, key="ab"[number % 2])
        await InProcess(log, handler=handle, ordering="key", concurrency=4).drain()
    assert seen == {"a": list(range(0, 20, 2)), "b": list(range(1, 20, 2))}


async def test_a_pool_without_processes_stores_results(logs: Logs) -> None:
    async with logs.open() as log, logs.open("output") as output:
        await log.append_many(range(3))
        await InProcess(log, handler=lambda event: event * 10, output=log.path).drain()
        assert sorted(await stored(log)) == [0, 0, 1, 2, 10, 20]
        other = partial(pow, 2)
        await InProcess(log, group="h", handler=other, output=output.path).drain()
        assert sorted(await stored(output)) == sorted(2**n for n in [0, 0, 1, 2, 10, 20])


async def test_several_pools_without_processes_share_a_group(logs: Logs) -> None:
    seen: list[int] = []
    async with logs.open() as log:
        await log.append_many(range(30))
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(InProcess(log, handler=seen.append).drain)
    assert sorted(seen) == list(range(30))


@needs("cancellation")
async def test_leaving_a_pool_without_processes_is_no_failed_delivery(logs: Logs) -> None:
    has_begun = anyio.Event()

    async def handle(_event: object) -> None:
        has_begun.set()
        await anyio.sleep_forever()

    async with logs.open() as log, log.group("g") as group:
        await log.append("event")
        async with InProcess(log, handler=handle, stop_s=0).pool:
            await has_begun.wait()
        async with await group.open_member() as member:
            assert await take_all(member, 1) == [(1, 1)]


async def test_a_pool_without_processes_is_counted(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(3))
        pool = InProcess(log, handler=lambda event: 1 // event, max_deliveries=2)
        await pool.drain()
        counts = pool.pool.stats()
        assert (counts.handled, counts.failed, counts.retried, counts.lag) == (2, 2, 1, 0)


@needs("event loop")
async def test_a_pool_tells_what_its_workers_do_now(logs: Logs) -> None:
    has_begun, may_end = anyio.Event(), anyio.Event()

    async def handle(_event: object) -> None:
        has_begun.set()
        await may_end.wait()

    async with logs.open() as log:
        await log.append("event")
        async with InProcess(log, handler=handle).pool as pool:
            await has_begun.wait()
            now = pool.statistics()
            assert (now.handled, now.failed, now.retried, now.in_flight) == (0, 0, 0, 1)
            [worker] = now.workers
            assert (worker.pid, worker.handled, worker.busy) == (os.getpid(), 0, True)
            assert worker.restarts == 0
            may_end.set()
            await pool.drained()
        now = pool.statistics()
        assert (now.handled, now.in_flight, now.lag) == (1, 0, 0)
        assert [(one.handled, one.busy) for one in now.workers] == [(1, False)]


async def test_an_envelope_says_which_attempt_it_is(logs: Logs) -> None:
    # Every delivery was the first one to its handler, but for logs that are directories.
    seen: list[int] = []

    def handle(envelope: EventEnvelope) -> None:
        seen.append(envelope.attempt)
        times.add(envelope.stored_at)
        if envelope.attempt < 3:
            raise ValueError(envelope.event)

    times: set[datetime | None] = set()
    async with logs.open() as log:
        await log.append("event")
        await InProcess(log, handler=handle, max_deliveries=5).drain()
        assert await log.dead_letters("g") == []
        (event,) = [one async for one in log.read(1)]
    assert seen == [1, 2, 3]
    # In a directory, a delivery to the same member again had no time of storing.
    assert times == {event.stored_at}


async def test_what_needs_a_process_is_refused_without_one(logs: Logs) -> None:
    async with logs.open() as log:
        for option in ("timeout", "max_rss_bytes", "max_events_per_worker", "max_age_s"):
            with pytest.raises(InvalidArgument, match=f"{option}=1 needs a worker process"):
                InProcess(log, handler=print, **{option: 1})


async def test_an_initializer_that_raises_fails_a_pool_without_processes(logs: Logs) -> None:
    def initialize() -> None:
        raise ValueError("no such model")

    async with logs.open() as log:
        with pytest.raises(workers.PoolFailed, match="ValueError: no such model"):
            await InProcess(log, handler=print, initializer=initialize).drain()


async def test_retention_passes_a_group(logs: Logs) -> None:
    retention = Retention(max_bytes=64 * 1024, keep_unacked=False)
    options: Any = {"retention": retention, "segment_bytes": 64 * 1024}
    async with logs.open(**options) as log, log.group("g") as group:

        async def first_seq_no() -> int:
            await log.append(b"x" * 8 * 1024)
            return (await log.status()).first_seq_no or 0

        while await first_seq_no() <= 3:
            pass
        async with await group.open_member() as member:
            _, attempt, envelope = await take_one(member)
            assert attempt == 1
            assert envelope.seq_no == (await log.status()).first_seq_no


async def test_a_program_works_through_a_group_as_a_member_without_a_pool(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(["a", "b", "c"])
        handled: list[tuple[int, str]] = []
        async with log.member("g") as member:
            while len(handled) < 3:
                lease = await member.lease(2)
                assert lease is not None
                for attempt, envelope in lease:
                    assert lease.begin(envelope)
                    handled.append((attempt, envelope.event))
                    lease.done(envelope)
            await member.flush()
        assert handled == [(1, "a"), (1, "b"), (1, "c")]
        [group] = await log.groups()
        assert (group.name, group.position, group.lag, group.members) == ("g", 3, 0, 0)
        assert await log.dead_letters("g") == []


def test_a_thread_works_through_a_group_as_a_member_without_a_pool() -> None:
    with eventlog.blocking.open("memory:") as log:
        log.append_many(["a", "b"])
        with log.member("g", max_deliveries=1) as member:
            lease = member.lease(2)
            assert lease is not None
            for _, envelope in lease:
                assert lease.begin(envelope)
                if envelope.event == "a":
                    lease.failed(envelope, Failure(error="no"))
                else:
                    lease.done(envelope)
            member.flush()
        assert [letter.error for letter in log.dead_letters("g")] == ["no"]
        assert [group.dead_letters for group in log.groups()] == [1]
