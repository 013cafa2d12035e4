"""`latest(key)` and `delete(key)`."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

import eventlog
from eventlog import InvalidArgument, InvalidArgumentType, SeekPosition
from eventlog.api.group import Failure
from eventlog.api.latest import FIRST_EVENTS

from .backends import needs
from .logs import KIB, Logs

pytestmark = pytest.mark.anyio

BEGINNING = SeekPosition.BEGINNING


@dataclass
class Balance:
    """A typed event."""

    amount: int


async def test_the_latest_event_of_a_key_is_the_one_with_the_largest_number(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.latest("a") is None
        await log.append_many(range(5), keys=["a", "b", "a", None, "b"])
        whole = await log.read(0)
        assert await log.latest("a") == whole[2]
        assert await log.latest("b") == whole[4]
        assert await log.latest("c") is None
        await log.append(5, key="a")
        latest = await log.latest("a")
        assert latest is not None
        assert (latest.event, latest.seq_no, latest.key) == (5, 6, "a")


async def test_the_latest_event_may_be_far_from_the_end(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(["first", "second"], keys=["a", "a"])
        await log.append_many(range(4 * FIRST_EVENTS), keys=["b"] * (4 * FIRST_EVENTS))
        latest = await log.latest("a")
        assert latest is not None
        assert (latest.event, latest.seq_no) == ("second", 2)
        assert await log.latest("c") is None


@needs("prompt retention")
async def test_the_latest_event_of_a_log_that_has_lost_its_first_ones(logs: Logs) -> None:
    retention = eventlog.Retention(max_bytes=1024 * KIB, keep_unacked=False)
    async with logs.open(retention=retention) as log:
        await log.append("gone", key="a")
        await log.append("gone too", key="b")
        while (await log.status()).first_seq_no in (1, 2):
            await log.append_many([bytes(KIB)] * 60, keys=["c"] * 60)
        await log.append("new", key="b")
        assert await log.latest("a") is None
        latest = await log.latest("b")
        assert latest is not None
        assert latest.event == "new"


async def test_a_deleted_key_has_no_latest_event_until_it_gets_a_new_one(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2], keys=["a", "b"])
        assert await log.delete("a") == 3
        assert await log.latest("a") is None
        kept = await log.latest("b")
        assert kept is not None
        assert not kept.is_deletion
        await log.append(4, key="a")
        latest = await log.latest("a")
        assert latest is not None
        assert latest.event == 4


async def test_readers_see_that_a_key_was_deleted(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([None, "b"], keys=["a", "b"])
        await log.delete("a")
        await log.append_many([None, "c"], keys=["a", None])
        expected = [(None, False), ("b", False), (None, True), (None, False), ("c", False)]
        assert [(one.event, one.is_deletion) for one in await log.read(0)] == expected
        for wanted, numbers in (({"keys": {"a"}}, [1, 3, 4]), ({"key_prefix": ""}, [1, 2, 3, 4])):
            options: dict[str, Any] = wanted
            async with log.subscribe("c", BEGINNING, follow=False, **options) as stream:
                found = [(e.seq_no, e.event, e.is_deletion) async for e in stream]
            assert found == [(number, *expected[number - 1]) for number in numbers]


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "in a batch"])
async def test_typed_readers_get_none_for_it(logs: Logs, is_alone: bool) -> None:
    async with logs.open() as log:
        await log.append(Balance(1), key="a")
        await log.delete("a")
        if not is_alone:  # as an import or a mirror appends it
            await log.append_many([*await log.read(1, 3), Balance(2)])
        async with log.subscribe("c", BEGINNING, follow=False, type=Balance) as stream:
            found = [(one.event, one.is_deletion) async for one in stream]
        expected = [(Balance(1), False), (None, True)]
        assert found == (expected if is_alone else [*expected * 2, (Balance(2), False)])


async def test_a_type_that_does_not_fit_is_told_beside_a_deleted_key(logs: Logs) -> None:
    async with logs.open() as log:
        await log.delete("a")
        mark, *_ = await log.read(1)
        await log.append_many([mark, Balance(2), "text"])
        async with log.subscribe("c", BEGINNING, follow=False, type=Balance) as stream:
            with pytest.raises(eventlog.EventTypeMismatch) as caught:
                [one async for one in stream]
        assert caught.value.seq_no == 4


async def test_readers_of_packed_payloads_get_the_mark(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, None], keys=["a", "a"])
        await log.delete("a")
        async with log.follow(BEGINNING, type=msgspec.Raw) as stream:
            found = [await anext(stream) for _ in range(3)]
        assert [one.is_deletion for one in found] == [False, False, True]
        assert bytes(found[2].event) == b"\xc7\x00\x03"


async def test_an_envelope_that_marks_a_key_marks_it_in_another_log(logs: Logs) -> None:
    async with logs.open() as log, logs.open("other") as other:
        await log.append(1, key="a")
        await log.delete("a")
        await other.append_many(await log.read(0))
        copied = (await other.read(0))[1]
        assert (copied.is_deletion, copied.event, copied.key) == (True, None, "a")
        assert await other.latest("a") is None


@needs("members")
async def test_groups_hand_out_that_a_key_was_deleted_and_again_after_a_failure(
    logs: Logs,
) -> None:
    async with logs.open() as log, log.member("g") as member:
        await log.append_many([1, None], keys=["a", "a"])
        await log.delete("a")
        taken: list[tuple[int | None, int, Any, bool]] = []
        while len(taken) < 4:
            lease = await member.lease(3)
            assert lease is not None
            for attempt, envelope in lease:
                assert lease.begin(envelope)
                taken.append((envelope.seq_no, attempt, envelope.event, envelope.is_deletion))
                if envelope.is_deletion and attempt == 1:
                    lease.failed(envelope, Failure(error="ValueError: boom", traceback=None))
                else:
                    lease.done(envelope)
        assert sorted(taken) == [
            *((1, 1, 1, False), (2, 1, None, False), (3, 1, None, True), (3, 2, None, True))
        ]


@needs("members", "prompt retention")
async def test_a_dead_letter_keeps_the_mark_of_a_deleted_key(logs: Logs) -> None:
    # The copy that a retry runs when retention has deleted the event was an event of None.
    retention = eventlog.Retention(max_bytes=1024 * KIB, keep_unacked=False)
    async with logs.open(retention=retention) as log, log.member("g", max_deliveries=1) as member:
        await log.delete("a")
        lease = await member.lease(1)
        assert lease is not None
        for _, envelope in lease:
            assert lease.begin(envelope)
            lease.failed(envelope, Failure(error="ValueError: boom", traceback=None))
        await member.flush()
        (letter,) = await log.dead_letters("g")
        assert (letter.event, letter.key) == (None, "a")
        for _ in range(40):
            await log.append_many(["x" * 1000] * 50)
        await log.seek("g", SeekPosition.LATEST)
        assert await log.retry_dead("g", [1]) == 1
        lease = await member.lease(1)
        assert lease is not None
        for _, envelope in lease:
            assert (envelope.seq_no, envelope.key) == (1, "a")
            assert envelope.event is None
            assert envelope.is_deletion
            assert lease.begin(envelope)
            lease.done(envelope)
        await member.flush()


def test_a_pickled_envelope_still_marks_its_key() -> None:
    with eventlog.blocking.open("memory:") as log:
        log.append(None, key="a")
        log.delete("a")
        for envelope in log.read(0):
            again = pickle.loads(pickle.dumps(envelope))
            assert again == envelope
            assert again.is_deletion == envelope.is_deletion == (envelope.seq_no == 2)
            other = envelope.__replace__(key="b")
            assert (other.key, other.is_deletion) == ("b", envelope.is_deletion)
            assert not envelope.__replace__(event="new", key="b").is_deletion
            assert not envelope.__replace__(event="new").is_deletion


async def test_keys_that_are_none_are_refused(logs: Logs) -> None:
    async with logs.open() as log:
        for call in (log.latest, log.delete):
            for wrong in (None, 1, b"a"):
                with pytest.raises(InvalidArgumentType):
                    await call(wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgument):
                await call("\ud800")
        assert await log.last_seq_no() is None
