"""The shell of engines over servers, when a server answers late, wrongly or not at all.

The driver is the toy's, and `Faults` decides what becomes of its calls.
"""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import eventlog
from eventlog import (
    CorruptLog,
    EventEnvelope,
    EventLogError,
    LogClosed,
    NotSupported,
    Retention,
    SeekPosition,
    WriterUnavailable,
)
from eventlog.api.group import Failure
from eventlog.config import AskedOptions
from eventlog.memory.handle import _named
from eventlog.remote.driver import Reader, Stored, Unreachable
from eventlog.remote.log import RemoteEventLog
from eventlog.remote.modelled import store

if TYPE_CHECKING:
    from tests.conformance.engines.toy_engine import ToyDriver
else:
    sys.path.append(str(Path(__file__).parents[1] / "conformance" / "engines"))
    from toy_engine import ToyDriver

pytestmark = [pytest.mark.anyio]


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Faults:
    """What becomes of calls: `lost` have no answer, `unsent` are not even made."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.lost = 0.0
        self.unsent = 0.0
        self.is_dead = False
        self.hangs = False
        self.calls: list[str] = []

    async def before(self, name: str) -> None:
        self.calls.append(name)
        for _ in range(self.random.randrange(3) if self.lost or self.unsent else 1):
            await checkpoint()
        if self.hangs:
            await anyio.sleep_forever()
        if self.is_dead or self.random.random() < self.unsent:
            raise Unreachable("the call was not made")

    def after(self) -> None:
        if self.random.random() < self.lost:
            raise Unreachable("the answer is lost")


FAULTY = {"append", "state", "read", "positions", "move", "find_time", "forget"}


class FaultyDriver(ToyDriver):
    """Calls of the toy with faults."""

    def __init__(self, address: str, asked: AskedOptions, faults: Faults) -> None:
        super().__init__(address, asked)
        self._faults = faults

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in FAULTY:
            return found
        faults: Faults = super().__getattribute__("_faults")

        async def call(*args: Any, **kwargs: Any) -> Any:
            await faults.before(name)
            answer = await found(*args, **kwargs)
            faults.after()
            return answer

        return call

    async def open(self) -> Any:
        await self._faults.before("open")
        return await super().open()

    def reader(self, seq_no: int) -> Reader:
        return FaultyReader(super().reader(seq_no), self._faults)


class FaultyReader:
    def __init__(self, reader: Reader, faults: Faults) -> None:
        self._reader = reader
        self._faults = faults

    async def next(self) -> list[Stored]:
        await self._faults.before("next")
        found = await self._reader.next()
        self._faults.after()
        return found

    async def aclose(self) -> None:
        await self._reader.aclose()


Open = Callable[..., RemoteEventLog]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Handles of one log, each with its faults."""
    address = f"toy://{tmp_path}"

    def new(faults: Faults, **options: Any) -> RemoteEventLog:
        asked = AskedOptions(**options)
        return RemoteEventLog(address, asked, lambda: FaultyDriver(address, asked, faults))

    yield new
    _named.pop(address, None)


async def stored(log: RemoteEventLog) -> list[Any]:
    return [envelope.event for envelope in await log.read(0)]


@pytest.fixture(params=range(3))
def shaky(request: pytest.FixtureRequest) -> Faults:
    faults = Faults(seed=request.param)
    faults.lost = faults.unsent = 0.2
    return faults


# --- appending -----------------------------------------------------------------------------------


async def test_appends_whose_answers_are_lost_are_stored_once(opened: Open, shaky: Faults) -> None:
    numbers: dict[int, int] = {}

    async def append(event: int) -> None:
        numbers[event] = await log.append(event)

    async with opened(shaky) as log:
        for start in range(0, 30, 10):
            async with anyio.create_task_group() as tasks:
                for event in range(start, start + 10):
                    tasks.start_soon(append, event)
        shaky.lost = shaky.unsent = 0
        assert {e.event: e.seq_no for e in await log.read(0)} == numbers
        assert sorted(numbers.values()) == list(range(1, 31))
        assert (await log.statistics()).appended == 30


async def test_a_publisher_keeps_its_order_over_lost_answers(opened: Open, shaky: Faults) -> None:
    async with opened(shaky) as log:
        async with log.publisher(max_batch_bytes=100, max_in_flight=4) as publisher:
            handles = [await publisher.send(number) for number in range(60)]
            many = await publisher.send_many(range(60, 100))
        assert [handle.seq_no for handle in handles] == list(range(1, 61))
        assert many.seq_nos == (61, 100)
        shaky.lost = shaky.unsent = 0
        assert await stored(log) == list(range(100))
        assert publisher.statistics().repeated > 0


class Gated(Faults):
    """Appends wait for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Event()

    async def before(self, name: str) -> None:
        await super().before(name)
        if name == "append":
            await self.gate.wait()


async def test_what_is_sent_while_the_window_is_full_goes_in_one_batch(opened: Open) -> None:
    """Each event that was sent by itself was a batch: thousands of them waited for their turn."""
    slow = Gated()
    async with opened(slow) as log, log.publisher(max_in_flight=2) as publisher:
        handles = []
        for number in range(100):
            handles.append(await publisher.send(number))
            await anyio.wait_all_tasks_blocked()
        on_their_way = publisher.statistics().in_flight
        slow.gate.set()
        await publisher.flush()
        assert on_their_way == 2
        assert publisher.statistics().batches == 3
        assert [handle.seq_no for handle in handles] == list(range(1, 101))


async def test_a_list_of_many_batches_is_stored_once_and_in_order(
    opened: Open, shaky: Faults
) -> None:
    async with opened(shaky) as log:
        events = [[number, b"x" * 30_000] for number in range(20)]
        first, last = await log.append_many(events)
        shaky.lost = shaky.unsent = 0
        assert (first, last) == (1, 20)
        assert [event[0] for event in await stored(log)] == list(range(20))


async def test_a_list_that_finds_no_room_over_lost_answers_is_stored_to_where_it_says(
    opened: Open, shaky: Faults
) -> None:
    keeping = Retention(max_bytes=64_000, keep_unacked=True)
    async with opened(shaky, retention=keeping, on_full="error") as log:
        await log.seek("slow", SeekPosition.BEGINNING)
        with pytest.raises(EventLogError) as caught:
            await log.append_many([[number, b"x" * 3_000] for number in range(40)])
        shaky.lost = shaky.unsent = 0
        found = [event[0] for event in await stored(log)]
        assert found == list(range(caught.value.stored or 0))
        assert 0 < len(found) < 40


async def test_an_append_that_nobody_answers_says_so_after_retry_s(opened: Open) -> None:
    faults = Faults()
    async with opened(faults, retry_s=0.1) as log:
        faults.is_dead = True
        with pytest.raises(WriterUnavailable, match=r"did not answer for 0\.1 s"):
            await log.append("a")
        with pytest.raises(WriterUnavailable):
            await log.append_many("ab")
        with pytest.raises(WriterUnavailable):
            await log.last_seq_no()
        faults.is_dead = False
        assert await log.append("b") == 1


async def test_a_publisher_that_nobody_answers_answers_all_its_handles(opened: Open) -> None:
    faults = Faults()
    async with opened(faults, retry_s=0.1) as log:

        async def publish() -> None:
            async with log.publisher() as publisher:
                await publisher.send("a")
                await publisher.flush()
                faults.is_dead = True
                handles.append(await publisher.send("b"))
                await publisher.flush()

        handles: list[Any] = []
        with pytest.raises(WriterUnavailable):
            await publish()
        with pytest.raises(WriterUnavailable):
            await handles[0]
        faults.is_dead = False
        assert await stored(log) == ["a"]


async def test_a_cancelled_append_leaves_the_next_ones_alone(opened: Open) -> None:
    faults = Faults()
    async with opened(faults) as log:
        await log.append("a")
        faults.hangs = True
        with anyio.move_on_after(0.02):
            await log.append("b")
        faults.hangs = False
        assert await log.append("c") == 2
        assert await stored(log) == ["a", "c"]


# --- opening and closing -------------------------------------------------------------------------


async def test_opening_a_log_that_nobody_serves_fails(opened: Open) -> None:
    faults = Faults()
    faults.is_dead = True
    with pytest.raises(WriterUnavailable, match="see whether it runs"):
        async with opened(faults, retry_s=0.05):
            pass
    assert faults.calls.count("open") > 1


@pytest.mark.parametrize("call", ["append", "send", "last_seq_no", "stream"])
async def test_closing_the_handle_ends_a_call_that_nobody_answers(opened: Open, call: str) -> None:
    faults = Faults()
    log = opened(faults)
    await log.open()
    await log.append("a")

    async def make() -> None:
        if call == "append":
            await log.append("b")
        elif call == "last_seq_no":
            await log.last_seq_no()
        elif call == "stream":
            async with log.subscribe("c", SeekPosition.sequence(2)) as stream:
                started.set()
                await anext(aiter(stream))
        else:
            async with log.publisher() as publisher:
                await publisher.send("b")
                await publisher.flush()

    async def wait() -> None:
        with pytest.raises(LogClosed):
            await make()

    started = anyio.Event()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            if call != "stream":
                faults.hangs = True
                started.set()
            tasks.start_soon(wait)
            await started.wait()
            for _ in range(20):
                await checkpoint()
            await log.aclose()


# --- reading -------------------------------------------------------------------------------------


async def test_a_stream_goes_on_over_lost_answers_without_a_gap(
    opened: Open, shaky: Faults
) -> None:
    async with opened(Faults()) as calm, opened(shaky) as log:
        await calm.append_many(range(40))
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            with anyio.fail_after(20):
                for number in range(40):
                    assert (await anext(aiter(stream))).event == number
                await calm.append_many(range(40, 45))
                for number in range(40, 45):
                    assert (await anext(aiter(stream))).event == number


async def test_a_record_of_a_stranger_is_told_and_what_is_before_it_is_read(opened: Open) -> None:
    async with opened(Faults()) as log:
        await log.append_many("ab")
        store(_named[log.path], [b"hello"])
        await log.append("d")
        async with log.follow(SeekPosition.BEGINNING) as stream:
            assert [(await anext(aiter(stream))).event for _ in range(2)] == ["a", "b"]
            for _ in range(2):
                with pytest.raises(CorruptLog, match=r"event 3 .* was not written by eventlog"):
                    await anext(aiter(stream))
        with pytest.raises(CorruptLog) as caught:
            await log.read(0)
        assert caught.value.seq_no == 3
        assert [e.event for e in await log.read(4)] == ["d"]


# --- groups --------------------------------------------------------------------------------------


async def test_for_over_a_range_without_await_says_what_to_write() -> None:
    """It was a TypeError about a class that no page names."""
    async with eventlog.open("memory:") as log:
        with pytest.raises(eventlog.InvalidArgumentType, match=r"in await log\.read"):
            list(log.read(1))


async def test_an_engine_without_groups_says_so(opened: Open, tmp_path: Path) -> None:
    class Without(FaultyDriver):
        def __getattribute__(self, name: str) -> Any:
            if name == "group":
                raise AttributeError(name)
            return super().__getattribute__(name)

    asked = AskedOptions()
    log = RemoteEventLog("toy://x", asked, lambda: Without(f"toy://{tmp_path}", asked, Faults()))
    async with log:
        with pytest.raises(NotSupported, match="has no groups"):
            async with log.group("g"):
                pass
        with pytest.raises(NotSupported):
            await log.groups()


async def test_a_stranger_in_a_lease_is_a_dead_letter(opened: Open) -> None:
    async with opened(Faults()) as log:
        store(_named[log.path], [b"\x92\x01\x02"])
        await log.append("good")
        async with log.member("g") as member:
            handled: list[Any] = []
            while not handled:
                lease = await member.lease(5)
                assert lease is not None
                for _, envelope in lease:
                    assert lease.begin(envelope)
                    handled.append(envelope.event)
                    lease.done(envelope)
            await member.flush()
        assert handled == ["good"]
        assert [one.position for one in await log.groups()] == [2]
        [letter] = await log.dead_letters("g")
        assert "event 1 of the log" in letter.error
        assert (letter.seq_no, letter.event, letter.deliveries) == (1, None, 1)


async def test_a_member_is_said_to_live_and_joins_again_when_it_was_given_up(
    opened: Open,
) -> None:
    async with opened(Faults(), lease_s=0.1) as log:
        await log.append_many("ab")
        async with log.member("g") as member:
            lease = await member.lease()
            assert lease is not None
            # What a server does that heard nothing of it for long.
            _named[log.path].groups.end("g", member.member_id)
            with anyio.fail_after(10):
                while not lease.is_lost:  # noqa: ASYNC110 - the keeper tells nobody else
                    await anyio.sleep(0.005)
            seen: list[EventEnvelope] = []
            while len(seen) < 2:
                lease = await member.lease()
                assert lease is not None
                for _, envelope in lease:
                    assert lease.begin(envelope)
                    seen.append(envelope)
                    lease.done(envelope)
            await member.flush()
        assert [envelope.event for envelope in seen] == ["a", "b"]


@asynccontextmanager
async def one_begun(log: RemoteEventLog, output: str | None) -> AsyncIterator[tuple[Any, Any, Any]]:
    async with log.member("g", output=output, max_deliveries=2) as member:
        lease = await member.lease()
        assert lease is not None
        for _, envelope in lease:
            assert lease.begin(envelope)
            yield member, lease, envelope
            return


async def test_what_is_said_is_sent_without_a_flush(opened: Open) -> None:
    async with opened(Faults()) as log, log.group("g", max_deliveries=2) as group:
        await log.append("a")
        async with one_begun(log, None) as (_, lease, envelope):
            lease.failed(envelope, Failure(error="no", is_final=True))
            with anyio.fail_after(10):
                await group.wait_drained()
        assert [letter.error for letter in await log.dead_letters("g")] == ["no"]


async def test_results_that_find_no_room_are_a_failed_delivery(opened: Open) -> None:
    keeping = Retention(max_bytes=2_000, keep_unacked=True)
    async with opened(Faults(), retention=keeping, on_full="error") as log:
        await log.seek("slow", SeekPosition.BEGINNING)
        await log.append("a")
        async with one_begun(log, log.path) as (member, lease, envelope):
            lease.done_with(envelope, [b"x" * 3_000])
            await member.flush()
        [group] = await log.groups()
        assert (group.redeliveries, group.position) == (1, 0)
