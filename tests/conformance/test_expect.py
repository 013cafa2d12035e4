"""`append(expect=)`, `append_many(expect=)`: stored only if the log is as the caller knows it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from eventlog import (
    EventEnvelope,
    EventLog,
    EventLogError,
    EventTooLarge,
    InvalidArgument,
    InvalidArgumentType,
    NotSupported,
    Retention,
    WrongExpectation,
)

from .backends import Ability, needs
from .logs import BATCH_BYTES, SEGMENT_BYTES, Logs, stored

pytestmark = pytest.mark.anyio

COLLIDING = ("plumless", "buckeroo")
"""Two words of one CRC-32."""


async def refusal(log: EventLog, **expected: Any) -> tuple[str | None, int | None]:
    """Key and number of the error that an append with these arguments meets."""
    before = await log.last_seq_no()
    with pytest.raises(WrongExpectation) as caught:
        await log.append("refused", **expected)
    assert caught.value.path == log.path
    assert await log.last_seq_no() == before
    return caught.value.key, caught.value.last_seq_no


@needs("conditional appends")
async def test_an_event_is_stored_only_if_its_key_has_the_expected_last_event(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.append("a", key="a", expect=0) == 1
        assert await log.append("b", key="b", expect=0) == 2
        assert await log.append("a", key="a", expect=1) == 3
        assert await refusal(log, key="a", expect=1) == ("a", 3)
        assert await refusal(log, key="a", expect=0) == ("a", 3)
        assert await refusal(log, key="a", expect=4) == ("a", 3)
        assert await refusal(log, key="b", expect=3) == ("b", 2)
        assert await refusal(log, key="c", expect=1) == ("c", 0)
        assert await log.append("b", key="b", expect=2) == 4


@needs("conditional appends")
async def test_events_that_were_appended_without_a_condition_count(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abc", keys=["x", "y", "x"])
        await log.append("no key")
        assert await refusal(log, key="x", expect=1) == ("x", 3)
        assert await log.append("d", key="x", expect=3) == 5
        await log.append_many("ef", keys=["x", None])
        async with log.publisher() as publisher:
            await publisher.send("g", key="y")
        assert await refusal(log, key="y", expect=2) == ("y", 8)
        assert await log.append("h", key="x", expect=6) == 9
        await log.delete("y")
        assert await refusal(log, key="y", expect=8) == ("y", 10)


@needs("conditional appends")
async def test_the_key_of_an_envelope_is_the_one_that_is_expected(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.append(EventEnvelope(1, key="a"), expect=0) == 1
        assert await refusal(log, key="a", expect=0) == ("a", 1)
        assert await log.append(EventEnvelope(1, key="a"), key="b", expect=0) == 2


@needs("conditional on the last event")
async def test_an_event_is_stored_only_if_the_log_has_the_expected_last_event(logs: Logs) -> None:
    async with logs.open() as log:
        assert await refusal(log, expect_last=1) == (None, 0)
        assert await log.append("a", expect_last=0) == 1
        assert await refusal(log, expect_last=0) == (None, 1)
        assert await log.append_many("bc", expect_last=1) == (2, 3)
        assert await refusal(log, expect_last=2) == (None, 3)
        assert await log.append("d", key="k", expect_last=3) == 4
        with pytest.raises(WrongExpectation) as caught:
            await log.append_many("xy", expect_last=3)
        assert (caught.value.last_seq_no, caught.value.stored) == (4, 0)
        assert await stored(log) == list("abcd")


@needs("conditional appends", "conditional on the last event")
async def test_all_that_is_expected_must_hold(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("a", key="a")
        assert await refusal(log, key="a", expect=1, expect_last=0) == (None, 1)
        assert await refusal(log, key="a", expect=0, expect_last=1) == ("a", 1)
        assert await log.append("b", key="a", expect=1, expect_last=1) == 2


@needs("conditional appends")
async def test_many_events_are_stored_if_all_keys_are_as_expected_and_none_else(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("ab", keys=list("ab"))
        keys = ["a", "b", "c", "a"]
        assert await log.append_many("1234", keys=keys, expect={"a": 1, "b": 2, "c": 0}) == (3, 6)
        for expect, key, last in [
            ({"a": 6, "b": 2}, "b", 4),
            ({"a": 3, "b": 4}, "a", 6),
            ({"a": 6, "d": 5}, "d", 0),
        ]:
            with pytest.raises(WrongExpectation) as caught:
                await log.append_many("xy", keys=list("ab"), expect=expect)
            assert (caught.value.key, caught.value.last_seq_no) == (key, last)
            assert caught.value.stored == 0
        # A key that is expected need be no event's, and an event's need not be expected.
        assert await log.append_many("xy", keys=["d", None], expect={"a": 6}) == (7, 8)
        assert await log.append("z", key="d", expect=7) == 9


@needs("conditional appends")
async def test_two_keys_of_one_hash_are_told_apart(logs: Logs) -> None:
    one, other = COLLIDING
    async with logs.open() as log:
        assert await log.append(1, key=one, expect=0) == 1
        assert await refusal(log, key=other, expect=1) == (other, 0)
        assert await log.append(2, key=other, expect=0) == 2
        assert await log.append(3, key=one, expect=1) == 3
        assert await log.append_many("ab", keys=COLLIDING, expect={one: 3, other: 2}) == (4, 5)
        await log.append("c", key=other)
        assert await refusal(log, key=other, expect=5) == (other, 6)
        assert await log.append("d", key=one, expect=4) == 7


@needs("conditional appends")
async def test_the_empty_key_is_a_key_and_no_key_is_none(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("ab", keys=["k", None])
        assert await log.append("c", key="", expect=0) == 3
        await log.append_many("de", keys=["k", None])
        assert await refusal(log, key="", expect=0) == ("", 3)


@needs("conditional appends")
async def test_of_concurrent_appends_to_one_key_one_wins_for_each_number(logs: Logs) -> None:
    async with logs.open() as log:
        won: list[int] = []
        told: list[tuple[int, int]] = []

        async def append(name: str) -> None:
            last = mine = 0
            while mine < 5:
                try:
                    last = await log.append(name, key="k", expect=last)
                    won.append(last)
                    mine += 1
                except WrongExpectation as error:
                    told.append((last, error.last_seq_no or 0))
                    last = error.last_seq_no or 0

        async with anyio.create_task_group() as tasks:
            for name in "abcd":
                tasks.start_soon(append, name)
        assert sorted(won) == list(range(1, 21))
        assert all(expected < last for expected, last in told)
        assert sorted(await stored(log)) == sorted("abcd" * 5)


@needs("conditional appends")
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(logs: Logs) -> None:
    one: list[tuple[dict[str, Any], type[EventLogError]]] = [
        ({"expect": 0}, InvalidArgument),
        ({"key": "a", "expect": -1}, InvalidArgument),
        ({"key": "a", "expect": "1"}, InvalidArgumentType),
        ({"key": "a", "expect": True}, InvalidArgumentType),
        ({"expect_last": -1}, InvalidArgument),
        ({"expect_last": 1.5}, InvalidArgumentType),
        ({"key": 1, "expect": 0}, InvalidArgumentType),
    ]
    many: list[tuple[dict[str, Any], type[EventLogError]]] = [
        ({"expect": {}}, InvalidArgument),
        ({"expect": 1}, InvalidArgumentType),
        ({"expect": {"a": -1}}, InvalidArgument),
        ({"expect": {1: 1}}, InvalidArgumentType),
        ({"expect": {str(n): 0 for n in range(20_000)}}, EventTooLarge),
    ]
    async with logs.open() as log:
        for arguments, kind in one:
            with pytest.raises(kind):
                await log.append("x", **arguments)
        for arguments, kind in many:
            with pytest.raises(kind) as caught:
                await log.append_many("xy", **arguments)
            assert caught.value.stored == 0
        # The number 0 is right, and was not offered; nor was the key named.
        with pytest.raises(InvalidArgument, match=r"expect\['a'\] is -1; .* or 0 for none"):
            await log.append_many("xy", expect={"b": 0, "a": -1})
        with pytest.raises(EventTooLarge, match="one"):
            await log.append_many([bytes(BATCH_BYTES // 2)] * 3, expect={"a": 0})
        assert await log.last_seq_no() is None
        assert await log.append("x", key="a", expect=0) == 1


@needs("conditional appends", "prompt retention")
async def test_only_events_that_are_stored_count(logs: Logs) -> None:
    retention = Retention(max_bytes=3 * SEGMENT_BYTES, keep_unacked=False)
    async with logs.open(retention=retention) as log:
        assert await log.append("first", key="k", expect=0) == 1
        number = 1
        while (await log.status()).first_seq_no == 1:
            number = await log.append(
                bytes(20_000), key="other", expect=0 if number == 1 else number
            )
        assert await refusal(log, key="k", expect=1) == ("k", 0)
        assert await log.append("again", key="k", expect=0) == number + 1


@needs("conditional appends", "segments")
async def test_an_event_that_was_trimmed_counts_no_more(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("a", key="a", expect=0)
        for _ in range(20):
            await log.append_many([bytes(20_000)] * 3, keys=["b"] * 3)
        await log.trim(61)
        first = (await log.status()).first_seq_no
        assert first is not None
        assert first > 1
        assert await refusal(log, key="a", expect=1) == ("a", 0)
        assert await log.append("b", key="b", expect=61) == 62


@needs("conditional appends", "restart")
async def test_numbers_are_the_same_after_a_restart(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("a", key="a", expect=0)
        await log.append_many([bytes(1000)] * 600, keys=["b"] * 600)  # over two segments
    assert not logs.end_writers()
    async with logs.open() as log:
        assert await refusal(log, key="a", expect=0) == ("a", 1)
        assert await log.append("a", key="a", expect=1) == 602
        assert await log.append("b", key="b", expect=601) == 603


async def test_an_engine_without_conditional_appends_says_so(logs: Logs) -> None:
    cases: list[tuple[dict[str, Any], Ability]] = [
        ({"key": "a", "expect": 0}, "conditional appends"),
        ({"expect_last": 0}, "conditional on the last event"),
    ]
    async with logs.open() as log:
        for arguments, ability in cases:
            if ability not in logs.backend.lacks:
                continue
            with pytest.raises(NotSupported) as caught:
                await log.append("a", **arguments)
            assert caught.value.option in arguments
            assert caught.value.engine
            assert await log.last_seq_no() is None


@needs("conditional appends", "cancellation")
async def test_a_cancelled_conditional_append_leaves_the_log_usable(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append("a", key="a", expect=0)
        with anyio.move_on_after(0):
            await log.append("b", key="a", expect=1)
        after = await log.append("c")  # behind it, if it is on its way
        latest = await log.latest("a")
        assert latest is not None
        assert latest.seq_no in (1, 2)
        assert await log.append("d", key="a", expect=latest.seq_no) == after + 1
