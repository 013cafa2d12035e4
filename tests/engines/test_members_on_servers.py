"""Members and pools on real servers, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

import eventlog
import workers
from eventlog import EventEnvelope
from eventlog.errors import InvalidConfig
from tests import servers
from tests.shares import turns
from workers.child import private_bytes

pytestmark = pytest.mark.anyio
HANG_S = 60.0
MIB = 1 << 20

TAKES_ONE: str = """
import sys, time
import eventlog.blocking
log = eventlog.blocking.open(sys.argv[1], lease_s=float(sys.argv[2]))
with log, log.group("g") as group:
    before = time.monotonic()
    with group.open_member() as member:
        for _, envelope in member.lease():
            assert envelope.seq_no == 1
        print(before, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def anyio_backend() -> str:
    """As the main program's; the conformance suite has the others."""
    return "trio"


SERVERS = ("valkey", "nats")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test on both servers; in the plain form, on one in turns."""
    if "address" in metafunc.fixturenames:
        ways = turns(metafunc.definition.nodeid, SERVERS, SERVERS)
        metafunc.parametrize("address", ways, indirect=True)


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    servers.require(request.param)
    return f"{servers.shared(request.param).address}on-{tmp_path.name[-40:].replace('.', '-')}"


async def test_a_killed_host_s_work_goes_on_after_its_lease_and_not_before(address: str) -> None:
    lease_s = 0.5
    async with eventlog.open(address) as log:
        await log.append("event")
        command = [sys.executable, "-c", TAKES_ONE, address, str(lease_s)]
        async with await anyio.open_process(command, stderr=None) as host:
            assert host.stdout is not None
            joined = float(await host.stdout.receive())
            host.kill()
        with anyio.fail_after(HANG_S):
            async with log.member("g") as member:
                lease = await member.lease()
                assert lease is not None
                assert time.monotonic() - joined >= lease_s
                [(attempt, envelope)] = lease
                assert (envelope.event, attempt) == ("event", 2)
                assert lease.begin(envelope)
                lease.done(envelope)


@pytest.mark.slow
async def test_no_timer_takes_work_from_a_live_member(address: str) -> None:
    lease_s = 4.0
    async with (
        eventlog.open(address, lease_s=lease_s) as log,
        log.member("g") as slow,
        log.member("g") as idle,
    ):
        await log.append("event")
        lease = await slow.lease()
        assert lease is not None
        [(_, envelope)] = lease
        assert lease.begin(envelope)
        with anyio.move_on_after(2 * lease_s):
            await idle.lease()
            pytest.fail("the work of a live member was given to another")
        lease.done(envelope)
        await slow.flush()
        assert not lease.is_lost
        assert [one.lag for one in await log.groups()] == [0]


async def test_a_member_that_is_given_up_while_it_waits_joins_again(address: str) -> None:
    """It was told that it had left, and its worker died of that."""
    found: list[Any] = []

    async def take() -> None:
        lease = await member.lease()
        assert lease is not None
        found.extend((attempt, envelope.event) for attempt, envelope in lease)

    async with (
        eventlog.open(address) as log,
        log.member("g") as member,
        eventlog.open(address) as other,
        other.group("g") as group,
    ):
        with anyio.fail_after(HANG_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take)
                await group.dismiss(member.member_id)  # as its lease had ended
                await log.append("event")
    assert found == [(1, "event")]


async def test_a_worker_whose_events_others_have_is_ended(address: str) -> None:
    def hang(envelope: EventEnvelope) -> None:
        if envelope.attempt == 1:
            time.sleep(10 * HANG_S)

    async with (
        eventlog.open(address, lease_s=2.0) as log,
        eventlog.open(address) as other,
        other.group("g") as group,
    ):
        await log.append("event")
        with anyio.fail_after(HANG_S):
            async with workers.Pool(log, group="g", handler=hang, processes=1) as pool:
                while not pool.stats().workers[0].busy:  # noqa: ASYNC110 - the pool looks by itself
                    await anyio.sleep(0.01)
                await group.refresh()
                [worker] = group.members()
                await group.dismiss(worker.member_id)  # as its lease had ended
                await pool.drained()
                assert pool.stats().workers[0].restarts == 1
        assert await log.dead_letters("g") == []


async def test_a_lease_without_an_end_is_refused(address: str) -> None:
    for lease_s in (0, -1, float("inf"), float("nan")):
        with pytest.raises(InvalidConfig, match="lease_s"):
            eventlog.open(address, lease_s=lease_s)


def note(record: str, envelope: EventEnvelope) -> str:
    """The handler of the pools below: appends a line, and dies of the event `killer`."""
    place = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(place, json.dumps([envelope.seq_no, envelope.attempt]).encode() + b"\n")
    os.close(place)
    if envelope.event == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    if envelope.event == "failing":
        raise ValueError("no such order")
    return f"done {envelope.event}"


async def test_a_pool_of_processes_handles_everything_and_buries_what_kills_it(
    address: str, tmp_path: Path
) -> None:
    record = tmp_path / "record"

    def handle(envelope: EventEnvelope) -> str:
        return note(str(record), envelope)

    async with eventlog.open(address) as log:
        await log.append_many([*range(20), "failing", "killer"])
        with anyio.fail_after(HANG_S):
            async with workers.Pool(
                log,
                group="g",
                handler=handle,
                processes=2,
                output=log,
                max_deliveries=2,
                backoff=workers.Backoff(0.01),
            ) as pool:
                await pool.drained()
        letters = {one.event: one for one in await log.dead_letters("g")}
        assert letters.keys() == {"failing", "killer"}
        assert (letters["failing"].error, letters["failing"].deliveries) == (
            "ValueError: no such order",
            2,
        )
        assert letters["killer"].exit_code == -signal.SIGKILL
        events: list[Any] = [one.event for one in await log.read(23)]
        assert sorted(events) == sorted(f"done {number}" for number in range(20))
        handled = [json.loads(line) for line in record.read_text().splitlines()]
        assert {seq_no for seq_no, _ in handled} == set(range(1, 23))
        [group] = await log.groups()
        assert (group.lag, group.members, group.dead_letters) == (0, 0, 2)


async def test_a_pool_counts_all_that_workers_did_which_have_left(address: str) -> None:
    async with eventlog.open(address) as log:
        await log.append_many(range(12))
        with anyio.fail_after(HANG_S):
            async with workers.Pool(
                log, group="g", handler=nothing, processes=1, max_events_per_worker=4
            ) as pool:
                await pool.drained()
        assert pool.stats().handled == 12


@pytest.mark.parametrize("concurrency", [1, pytest.param(3, marks=pytest.mark.slow)])
async def test_a_worker_that_overruns_its_timeout_is_killed(address: str, concurrency: int) -> None:
    """No pool over a server ever killed one: it asked the server since when its workers work."""

    def handle(event: object) -> None:
        if event == "hangs":
            time.sleep(10 * HANG_S)

    async with eventlog.open(address) as log:
        await log.append_many([1, "hangs", 2])
        with anyio.fail_after(HANG_S):
            async with workers.Pool(
                log,
                group="g",
                handler=handle,
                processes=1,
                concurrency=concurrency,
                timeout=0.4,
                max_deliveries=1,
            ) as pool:
                await pool.drained()
                assert pool.stats().handled == 2
        [letter] = await log.dead_letters("g")
        assert (letter.event, letter.deliveries, letter.traceback) == ("hangs", 1, None)
        assert letter.error == "the worker was killed: over its timeout of 0.4 s"
        assert letter.exit_code == -signal.SIGKILL


async def test_an_event_whose_coroutine_overran_its_timeout_is_handed_out_again(
    address: str,
) -> None:
    async def handle(envelope: EventEnvelope) -> None:
        if envelope.attempt == 1:
            await anyio.sleep(10 * HANG_S)

    async with eventlog.open(address) as log:
        await log.append("event")
        with anyio.fail_after(HANG_S):
            async with workers.Pool(
                log, group="g", handler=handle, processes=1, timeout=0.4
            ) as pool:
                await pool.drained()
                assert pool.stats().workers[0].restarts >= 1
        assert await log.dead_letters("g") == []


async def test_workers_with_too_much_memory_are_replaced(address: str) -> None:
    kept: list[bytes] = []

    def leak(_: object) -> None:
        kept.append(b"x" * (40 * MIB))

    async with eventlog.open(address) as log:
        await log.append_many(range(6))
        with anyio.fail_after(HANG_S):
            async with workers.Pool(
                log, group="g", handler=leak, processes=1, max_rss_bytes=128 * MIB
            ) as pool:
                await pool.drained()
                stats = pool.stats()
        assert (stats.handled, stats.failed) == (6, 0)
        assert stats.workers[0].restarts > 0


async def test_a_memory_limit_below_what_the_client_takes_is_refused(
    address: str, tmp_path: Path
) -> None:
    """Each worker was replaced after its first event, for ever: the client came after the look."""
    noted = tmp_path / "noted"

    def note_memory() -> None:
        noted.write_text(str(private_bytes()))  # the client is not there yet

    async def refused(limit: int) -> None:
        async with eventlog.open(address) as log:
            pool = workers.Pool(
                log,
                group="g",
                handler=nothing,
                processes=1,
                initializer=note_memory,
                max_rss_bytes=limit,
            )
            with pytest.raises(workers.PoolFailed, match=f"max_rss_bytes={limit} is too small"):
                async with pool:
                    pass

    with anyio.fail_after(HANG_S):
        await refused(1 * MIB)
        await refused(int(noted.read_text()) * 10 // 9 + 3 * MIB)


def nothing(_: object) -> None:
    """A handler."""
