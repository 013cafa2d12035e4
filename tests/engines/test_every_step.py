"""A fault at every step of every call: nothing acknowledged is lost, nothing is stored twice.

A step is a piece of bytes, to the server or from it. A call is made again and again, each time with
the fault one step later, until it is over before the fault comes. The fault is either a connection
that breaks, before the piece or in the middle of it, or a server that is killed there and started
again. So every question is lost once, and every answer: also that of an append that was stored.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final, NamedTuple

import anyio
import pytest

import eventlog
from eventlog import EventLog, SeekPosition
from eventlog.api.group import Failure, Group, Lease
from tests.engines.conftest import Engine
from tests.engines.faulty_proxy import Proxy
from tests.servers import Server

pytestmark = pytest.mark.anyio

HANG_S: Final = 30.0
BEFORE_AND_AMID: Final = pytest.mark.parametrize(
    "is_halved",
    [pytest.param(False, id="before"), pytest.param(True, id="amid", marks=pytest.mark.slow)],
)
"""For what has the most steps: faults before pieces and those in the middle of them apart."""


def _nothing() -> None:
    """The connection breaks by itself."""


class Faults(NamedTuple):
    """What a test gets: the log through the proxy, the log itself, and the fault."""

    log: EventLog
    calm: EventLog
    proxy: Proxy
    strike: Callable[[], None]

    async def at_every_step(
        self, act: Callable[[], Awaitable[None]], halves: Sequence[bool] = (False, True)
    ) -> None:
        """Do it until the fault comes too late; before pieces, and in the middle of them."""
        for step in count():
            for is_halved in halves:
                self.proxy.strike_at(step, is_halved=is_halved, strike=self.strike)
                with anyio.fail_after(HANG_S):
                    await act()
                if not self.proxy.disarm():
                    assert step > 0, "no fault came"
                    return


@pytest.fixture(params=["cut", pytest.param("kill", marks=pytest.mark.slow)])
def strike(request: pytest.FixtureRequest, engine: Engine) -> Callable[[], None]:
    if request.param == "cut":
        return _nothing
    if engine.server == "kafka":
        pytest.skip("a broker takes seconds to start; test_kafka_faults kills one")
    server: Server = request.getfixturevalue("server")

    def kill_and_start() -> None:
        server.kill()
        server.start()

    return kill_and_start


@pytest.fixture
async def faults(
    strike: Callable[[], None], server: Server, through: str, proxy: Proxy
) -> AsyncIterator[Faults]:
    async with (
        eventlog.open(f"{server.address}log") as calm,
        eventlog.open(f"{through}log") as log,
    ):
        yield Faults(log, calm, proxy, strike)


async def stored(log: EventLog) -> list[Any]:
    """The payloads; checks that their numbers have no gap."""
    envelopes = await log.read(0)
    assert [one.seq_no for one in envelopes] == list(range(1, len(envelopes) + 1))
    return [one.event for one in envelopes]


# --- appending -------------------------------------------------------------------------------


async def test_an_append_is_stored_once_wherever_the_fault_is(faults: Faults) -> None:
    numbers: list[int] = []

    async def append() -> None:
        numbers.append(await faults.log.append(len(numbers)))

    await faults.at_every_step(append)
    assert numbers == list(range(1, len(numbers) + 1))
    assert await stored(faults.calm) == list(range(len(numbers)))


async def test_a_list_is_stored_once_and_whole_wherever_the_fault_is(faults: Faults) -> None:
    numbers: list[tuple[int, int]] = []

    async def append_many() -> None:
        place = 3 * len(numbers)
        events = [[place + row, b"x" * 40_000] for row in range(3)]
        numbers.append(await faults.log.append_many(events))

    await faults.at_every_step(append_many)
    assert numbers == [(3 * n + 1, 3 * n + 3) for n in range(len(numbers))]
    assert [event[0] for event in await stored(faults.calm)] == list(range(3 * len(numbers)))


async def test_a_publisher_keeps_its_order_wherever_the_fault_is(faults: Faults) -> None:
    numbers: list[int] = []

    async def publish() -> None:
        async with faults.log.publisher(max_batch_bytes=200, max_in_flight=4) as publisher:
            events = range(len(numbers), len(numbers) + 12)
            handles = [await publisher.send(event) for event in events]
            many = await publisher.send_many(range(len(numbers) + 12, len(numbers) + 15))
        numbers.extend(handle.seq_no or 0 for handle in handles)
        first, last = many.seq_nos or (0, 0)
        numbers.extend(range(first, last + 1))

    await faults.at_every_step(publish)
    assert numbers == list(range(1, len(numbers) + 1))
    assert await stored(faults.calm) == list(range(len(numbers)))


async def test_a_log_is_made_once_and_opened_wherever_the_fault_is(
    faults: Faults, server: Server, through: str
) -> None:
    opened = 0

    async def open_new() -> None:
        nonlocal opened
        opened += 1
        async with eventlog.open(f"{through}new-{opened}") as log:
            assert await log.append(opened) == 1
        async with eventlog.open(f"{server.address}new-{opened}") as again:
            assert await stored(again) == [opened]

    await faults.at_every_step(open_new, halves=[False])


# --- reading ---------------------------------------------------------------------------------


async def test_a_range_is_read_whole_wherever_the_fault_is(faults: Faults) -> None:
    await faults.calm.append_many(range(100))

    async def read() -> None:
        assert [one.seq_no for one in await faults.log.read(1)] == list(range(1, 101))

    await faults.at_every_step(read)


async def test_a_stream_has_no_gap_and_no_double_wherever_the_fault_is(faults: Faults) -> None:
    seen: list[int] = []
    async with faults.log.follow() as stream:

        async def follow() -> None:
            await faults.calm.append(len(seen))
            seen.append((await anext(stream)).event)
            await faults.calm.append_many([len(seen), len(seen) + 1])
            seen.extend([(await anext(stream)).event for _ in range(2)])

        await faults.at_every_step(follow)
    assert seen == list(range(len(seen)))


async def test_a_position_is_what_was_said_last_wherever_the_fault_is(faults: Faults) -> None:
    await faults.calm.append_many(range(10))

    async def move() -> None:
        await faults.log.seek("billing", SeekPosition.BEGINNING)
        await faults.log.ack("billing", 5)
        await faults.log.ack("billing", 3)
        [consumer] = await faults.log.consumers()
        assert (consumer.last_acked, consumer.lag) == (5, 5)

    await faults.at_every_step(move)


# --- groups ----------------------------------------------------------------------------------


@asynccontextmanager
async def a_group(faults: Faults, engine: Engine) -> AsyncIterator[Group]:
    if reason := engine.lacks("members"):
        pytest.skip(reason)
    async with faults.log.group("work", max_deliveries=100) as group:
        yield group


def begun(lease: Lease | None) -> Any:
    """The one event of a lease, which nobody had before."""
    assert lease is not None
    [(attempt, envelope)] = lease
    assert attempt == 1
    assert lease.begin(envelope)
    return envelope


@BEFORE_AND_AMID
async def test_an_event_is_handled_once_with_one_result_wherever_the_fault_is(
    faults: Faults, engine: Engine, is_halved: bool
) -> None:
    handled: list[int] = []
    async with (
        a_group(faults, engine) as group,
        await group.open_member(output=faults.log.path) as member,
    ):

        async def handle() -> None:
            await faults.calm.append(len(handled))
            lease = await member.lease()
            envelope = begun(lease)
            assert lease is not None
            handled.append(envelope.event)
            lease.done_with(envelope, [{"result of": envelope.event}])
            await member.flush()
            await group.wait_drained()

        await faults.at_every_step(handle, halves=[is_halved])
    assert handled == list(range(len(handled)))
    events = await stored(faults.calm)
    assert [one for one in events if type(one) is int] == handled
    results = [one["result of"] for one in events if type(one) is dict]
    assert results == handled


@BEFORE_AND_AMID
async def test_a_dead_letter_is_written_and_retried_once_wherever_the_fault_is(
    faults: Faults, engine: Engine, is_halved: bool
) -> None:
    tries = 0
    async with a_group(faults, engine) as group, await group.open_member() as member:

        async def bury_and_retry() -> None:
            nonlocal tries
            tries += 1
            number = await faults.calm.append(tries)
            lease = await member.lease()
            envelope = begun(lease)
            assert lease is not None
            lease.failed(envelope, Failure(error="ValueError: no", is_final=True))
            await member.flush()
            [letter] = await faults.log.dead_letters("work")
            assert (letter.seq_no, letter.event, letter.deliveries) == (number, tries, 1)
            await faults.log.retry_dead("work", [number])
            lease = await member.lease()
            assert lease is not None
            [(_, envelope)] = lease
            assert envelope.event == tries
            lease.done(envelope)
            await member.flush()
            assert await faults.log.dead_letters("work") == []

        await faults.at_every_step(bury_and_retry, halves=[is_halved])


async def test_members_come_and_go_wherever_the_fault_is(faults: Faults, engine: Engine) -> None:
    handled: list[int] = []
    async with a_group(faults, engine) as group:

        async def come_and_go() -> None:
            await faults.calm.append_many([len(handled), len(handled) + 1])
            for _ in range(2):
                async with await group.open_member() as member:
                    lease = await member.lease(2)  # of two one is given back
                    assert lease is not None
                    attempt, envelope = next(iter(lease))
                    assert attempt == 1
                    assert lease.begin(envelope)
                    handled.append(envelope.event)
                    lease.done(envelope)

        await faults.at_every_step(come_and_go)
        await group.wait_drained()
        assert [one for one in group.members() if one.in_flight] == []
    assert handled == list(range(len(handled)))
