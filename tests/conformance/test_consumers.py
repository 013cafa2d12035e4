"""`ack`, `seek`, `consumers`, `forget`: the positions of consumers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy
import pytest

from eventlog import (
    ConsumerState,
    EventLog,
    EventLogError,
    InvalidName,
    SeekPosition,
    SequenceOutOfRange,
)

from .logs import Logs, delivered
from .test_subscribe import a_later_moment

pytestmark = pytest.mark.anyio

NAMES = ["a", "x" * 128, "ä" * 128, "日本", "with space", " ", "a/b", "..", "\U0001f600", "c\u0301"]
BAD_NAMES = ["", "x" * 129, "a\n", "\0", "tab\t", "\x7f", "\u200b", "\ud800"]


async def state_of(log: EventLog, name: str) -> ConsumerState | None:
    return {state.name: state for state in await log.consumers()}.get(name)


async def acked(log: EventLog, name: str = "c") -> int | None:
    state = await state_of(log, name)
    assert state is not None
    return state.last_acked


async def next_event(log: EventLog, name: str = "c") -> Any:
    """What the consumer's next subscription starts with; `None` if it would wait."""
    async with log.subscribe(name, SeekPosition.LAST_ACKNOWLEDGED, follow=False) as stream:
        events = await delivered(stream, 1)
    return events[0] if events else None


# --- ack -------------------------------------------------------------------------------------


async def test_ack_moves_forward_only(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 11))
        for seq_no, expected in ((3, 3), (2, 3), (3, 3), (1, 3), (0, 3), (7, 7), (10, 10), (4, 10)):
            await log.ack("c", seq_no)
            assert await acked(log) == expected


async def test_ack_of_n_means_that_n_plus_1_is_next(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 11))
        for seq_no in range(1, 10):
            await log.ack("c", seq_no)
            assert await next_event(log) == seq_no + 1
        await log.ack("c", 10)
        assert await next_event(log) is None


async def test_ack_past_the_last_event_is_out_of_range(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        await log.ack("c", 2)
        for seq_no in (4, 5, 2**63 - 1):
            with pytest.raises(SequenceOutOfRange) as caught:
                await log.ack("c", seq_no)
            error = caught.value
            assert isinstance(error, ValueError)
            assert (error.consumer, error.seq_no, error.last_seq_no) == ("c", seq_no, 3)
        assert await acked(log) == 2


async def test_a_refused_ack_does_not_make_the_consumer(logs: Logs) -> None:
    async with logs.open() as log:
        with pytest.raises(SequenceOutOfRange):
            await log.ack("c", 1)
        assert await log.consumers() == []


async def test_ack_of_0_makes_the_consumer_and_moves_nothing(logs: Logs) -> None:
    async with logs.open() as log:
        await log.ack("c", 0)
        assert await acked(log) is None
        await log.append(1)
        await log.ack("c", 0)
        assert await acked(log) is None
        assert await next_event(log) == 1


@pytest.mark.parametrize(
    ("seq_no", "kind"),
    [(-1, ValueError), (2**63, ValueError), (1.0, TypeError), ("1", TypeError), (None, TypeError),
     (True, TypeError), (numpy.bool_(True), TypeError), (numpy.float64(1), TypeError),
     (numpy.array([1, 2]), TypeError)],
)  # fmt: skip
async def test_ack_of_what_is_no_number_is_refused(
    logs: Logs, seq_no: Any, kind: type[Exception]
) -> None:
    async with logs.open() as log:
        await log.append(1)
        with pytest.raises(kind) as caught:
            await log.ack("c", seq_no)
        assert isinstance(caught.value, EventLogError)
        assert await log.consumers() == []


async def test_a_number_of_numpy_is_a_number(logs: Logs) -> None:
    # Numbers out of a frame of `to_pandas` were refused.
    async with logs.open() as log:
        await log.append_many(list("abcd"))
        await log.ack("c", numpy.int64(2))  # type: ignore[arg-type]
        assert await acked(log) == 2
        position = SeekPosition.sequence(numpy.uint8(2))  # type: ignore[arg-type]
        assert position == SeekPosition.sequence(2)
        found = [
            *await log.read(numpy.int64(-2), numpy.int64(4)),  # type: ignore[arg-type]
            *await log.read(numpy.int32(4)),  # type: ignore[arg-type]
        ]
        assert [envelope.event for envelope in found] == ["c", "d"]


# --- seek ------------------------------------------------------------------------------------


async def test_seek_moves_backward_and_forward(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 11))
        await log.ack("c", 5)
        for seq_no in (2, 9, 1, 10, 5):
            await log.seek("c", SeekPosition.sequence(seq_no))
            assert await next_event(log) == seq_no
            assert await acked(log) == (seq_no - 1 or None)


async def test_after_a_seek_to_2_an_ack_of_1_changes_nothing_and_one_of_3_makes_4_next(
    logs: Logs,
) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3, 4, 5])
        await log.ack("c", 5)
        await log.seek("c", SeekPosition.sequence(2))
        await log.ack("c", 1)
        assert await next_event(log) == 2
        await log.ack("c", 3)
        assert await next_event(log) == 4


async def test_seek_to_the_beginning(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        for position in (SeekPosition.BEGINNING, SeekPosition.sequence(0)):
            await log.ack("c", 3)
            await log.seek("c", position)
            assert await acked(log) is None
            assert await next_event(log) == 1


async def test_seek_to_the_latest_skips_what_is_stored(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        await log.seek("c", SeekPosition.LATEST)
        assert await acked(log) == 3
        assert await next_event(log) is None
        await log.append(4)
        assert await next_event(log) == 4


async def test_seek_to_a_time(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2])
        moment = await a_later_moment()
        await log.append_many([3, 4])
        await log.seek("c", SeekPosition.timestamp(moment))
        assert await next_event(log) == 3
        await log.seek("c", SeekPosition.timestamp(await a_later_moment()))
        assert await next_event(log) is None
        assert await acked(log) == 4


async def test_seek_past_the_end_waits_for_that_event(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        await log.seek("c", SeekPosition.sequence(6))
        await log.ack("c", 3)
        state = await state_of(log, "c")
        assert state is not None
        assert (state.last_acked, state.lag) == (5, 0)
        async with log.subscribe("c", SeekPosition.LAST_ACKNOWLEDGED) as stream:
            await log.append_many([4, 5, 6, 7])
            assert await delivered(stream, 2) == [6, 7]


async def test_seek_to_the_last_acknowledged_is_a_no_op(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        await log.seek("new", SeekPosition.LAST_ACKNOWLEDGED)
        assert await log.consumers() == []
        await log.ack("c", 2)
        before = await log.consumers()
        await log.seek("c", SeekPosition.LAST_ACKNOWLEDGED)
        assert await log.consumers() == before


@pytest.mark.parametrize("position", [None, 3, "beginning"])
async def test_seek_to_what_is_no_position_is_refused(logs: Logs, position: Any) -> None:
    async with logs.open() as log:
        with pytest.raises(TypeError) as caught:
            await log.seek("c", position)
        assert isinstance(caught.value, EventLogError)
        assert await log.consumers() == []


# --- consumers and forget --------------------------------------------------------------------


async def test_consumers_are_independent_of_each_other(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, 11))
        await log.ack("a", 3)
        await log.ack("b", 7)
        await log.seek("c", SeekPosition.sequence(5))
        await log.forget("b")
        await log.ack("a", 4)
        assert [await next_event(log, name) for name in "abc"] == [5, 1, 5]


async def test_the_first_ack_or_seek_makes_a_consumer(logs: Logs) -> None:
    async with logs.open() as log:
        assert await log.consumers() == []
        await log.append(1)
        assert await log.consumers() == []
        await log.ack("by ack", 1)
        await log.seek("by seek", SeekPosition.BEGINNING)
        assert {state.name for state in await log.consumers()} == {"by ack", "by seek"}


async def test_lag_is_the_number_of_events_after_the_position(logs: Logs) -> None:
    async with logs.open() as log:
        await log.ack("c", 0)
        for acknowledged, appended in ((0, 0), (0, 5), (2, 0), (5, 0), (5, 3), (8, 0)):
            if appended:
                await log.append_many(range(appended))
            await log.ack("c", acknowledged)
            [state] = await log.consumers()
            assert state.lag == (await log.last_seq_no() or 0) - acknowledged
            assert state.last_acked == (acknowledged or None)


async def test_last_seen_is_when_the_position_was_last_set(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        before = await a_later_moment()
        await log.ack("c", 1)
        between = await a_later_moment()
        [state] = await log.consumers()
        assert state.last_seen.utcoffset() == timedelta(0)
        assert before <= state.last_seen <= between
        await log.seek("c", SeekPosition.BEGINNING)
        [state] = await log.consumers()
        assert between <= state.last_seen <= datetime.now(UTC)


async def test_forget_removes_one_consumer(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many([1, 2, 3])
        await log.ack("a", 3)
        await log.ack("b", 3)
        await log.forget("a")
        assert [state.name for state in await log.consumers()] == ["b"]
        assert await next_event(log, "a") == 1
        await log.ack("a", 1)
        assert await acked(log, "a") == 1


async def test_forgetting_an_unknown_consumer_is_a_no_op(logs: Logs) -> None:
    async with logs.open() as log:
        await log.ack("a", 0)
        await log.forget("b")
        await log.forget("b")
        assert [state.name for state in await log.consumers()] == ["a"]


async def test_a_position_is_seen_at_once_by_every_handle(logs: Logs) -> None:
    async with logs.open() as log, logs.open() as other:
        await log.append_many(range(1, 51))
        for number in range(1, 50):
            await log.ack("c", number)
            assert await acked(other) == number
            assert await next_event(other) == number + 1


async def test_there_may_be_many_consumers(logs: Logs) -> None:
    names = [f"consumer {number:04}" for number in range(600)]
    async with logs.open() as log, logs.open() as other:
        await log.append_many(range(600))
        for number, name in enumerate(names):
            await log.ack(name, number)
        states = await other.consumers()
        assert [(s.name, s.last_acked or 0) for s in states] == list(zip(names, range(600)))  # noqa: B905
        for name in names[::2]:
            await log.forget(name)
        assert [state.name for state in await other.consumers()] == names[1::2]


# --- names -----------------------------------------------------------------------------------


async def test_names_of_1_to_128_printable_characters_are_good(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many(range(1, len(NAMES) + 1))
        for number, name in enumerate(NAMES, start=1):
            await log.ack(name, number)
        assert {s.name: s.last_acked for s in await log.consumers()} == {
            name: number for number, name in enumerate(NAMES, start=1)
        }
        for name in NAMES:
            async with log.subscribe(name):
                pass
            await log.seek(name, SeekPosition.BEGINNING)
            await log.forget(name)
        assert await log.consumers() == []


async def test_names_that_differ_only_in_case_or_form_are_different(logs: Logs) -> None:
    names = ["c", "C", "é", "e\u0301", "c "]
    async with logs.open() as log:
        for name in names:
            await log.ack(name, 0)
        assert {state.name for state in await log.consumers()} == set(names)


async def assert_name_is_refused(log: EventLog, name: Any, kind: type[Exception]) -> None:
    async def subscribe() -> None:
        async with log.subscribe(name):
            pass

    calls: list[Callable[[], Awaitable[None]]] = [
        lambda: log.ack(name, 0),
        lambda: log.seek(name, SeekPosition.BEGINNING),
        lambda: log.seek(name, SeekPosition.LAST_ACKNOWLEDGED),
        lambda: log.forget(name),
        subscribe,
    ]
    for call in calls:
        with pytest.raises(kind) as caught:
            await call()
        assert isinstance(caught.value, EventLogError)


async def test_other_names_are_refused_by_every_call(logs: Logs) -> None:
    async with logs.open() as log:
        for name in BAD_NAMES:
            await assert_name_is_refused(log, name, InvalidName)
        assert issubclass(InvalidName, ValueError)
        assert await log.consumers() == []


async def test_a_name_that_is_no_string_is_a_type_error(logs: Logs) -> None:
    async with logs.open() as log:
        for name in (None, 7, b"bytes", ["a"]):
            await assert_name_is_refused(log, name, TypeError)
        assert await log.consumers() == []
