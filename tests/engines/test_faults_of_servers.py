"""What becomes of a log on any server that hangs, is cut off for a while, or has a full disk."""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest
from chaos.soak import small_file_system

import eventlog
from eventlog import SeekPosition
from eventlog.api.group import Failure
from eventlog.errors import EventLogError, LogFull, WriterUnavailable
from tests import servers
from tests.engines.conftest import Engine
from tests.engines.faulty_proxy import Proxy
from tests.servers import Server

pytestmark = pytest.mark.anyio

HANG_S: Final = 60.0
MIB: Final = 1 << 20


async def stored(log: eventlog.EventLog) -> list[Any]:
    """The payloads; checks that their numbers have no gap."""
    envelopes = await log.read(0)
    assert [one.seq_no for one in envelopes] == list(range(1, len(envelopes) + 1))
    return [one.event for one in envelopes]


@pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "silent"])
@pytest.mark.parametrize("away_s", [1.0, pytest.param(13.0, marks=pytest.mark.slow)])
async def test_a_log_goes_on_after_seconds_without_its_server(
    server: Server, through: str, proxy: Proxy, is_silent: bool, away_s: float
) -> None:
    """13 s are longer than any call waits for its answer."""
    async with (
        eventlog.open(f"{server.address}log") as calm,
        eventlog.open(f"{through}log") as log,
        log.follow() as stream,
    ):
        seen: list[int] = []

        async def append() -> None:
            for number in range(1, 6):
                assert await log.append(number) == number + 1

        async def follow() -> None:
            while len(seen) < 6:
                seen.append((await anext(stream)).event)

        assert await log.append(0) == 1
        with anyio.fail_after(HANG_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                (proxy.pull_cable if is_silent else proxy.refuse)()
                tasks.start_soon(append)
                await anyio.sleep(away_s)
                assert len(seen) <= 1
                (proxy.plug_cable if is_silent else proxy.accept)()
        assert seen == await stored(calm) == list(range(6))


async def test_a_server_that_stays_silent_is_told_after_retry_s(
    engine: Engine, through: str, proxy: Proxy
) -> None:
    async with eventlog.open(f"{through}log", retry_s=0.3) as log:
        assert await log.append(0) == 1
        proxy.refuse()
        with anyio.fail_after(HANG_S), pytest.raises(WriterUnavailable, match="did not answer"):
            await log.append(1)
        proxy.accept()
        # What was given up goes on being sent to Kafka: nobody could know what became of it.
        assert await log.append(2) == (3 if engine.server == "kafka" else 2)


@pytest.mark.slow
async def test_a_full_disk_is_told_and_nothing_acknowledged_is_lost(
    engine: Engine, tmp_path: Path
) -> None:
    if engine.server == "kafka":
        pytest.skip("a broker whose disk is full halts")
    with small_file_system(tmp_path / "small") as small:
        if small is None:
            pytest.skip("this user may not mount a tmpfs")
        with servers.own(engine.server, small / "data") as server:
            filler = small / "filler"
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(small).free - 2 * MIB)
            async with eventlog.open(f"{server.address}log", retry_s=5) as log:
                appended, told = await append_until_refused(log)
                assert appended > 3
                filler.unlink()
                if isinstance(told, WriterUnavailable):
                    server.end()  # nats-server stores nothing more until it is started again
                    server.start()
                await append_once_there_is_room(log)
                numbers = [event[0] for event in await stored(log)]
    # It is not known of the last one whether it was stored.
    assert numbers in ([*range(appended), -1], [*range(appended + 1), -1])


async def append_until_refused(log: eventlog.EventLog) -> tuple[int, EventLogError]:
    """How many were stored, and what the next one was told."""
    appended = 0
    with anyio.fail_after(HANG_S):
        while True:
            try:
                await log.append([appended, b"x" * 100_000])
            except (LogFull, WriterUnavailable) as told:
                return appended, told
            appended += 1


async def append_once_there_is_room(log: eventlog.EventLog) -> None:
    with anyio.fail_after(HANG_S):
        while True:
            try:
                await log.append([-1, b""])
            except LogFull:
                await anyio.sleep(0.05)  # the server looks for room now and then
            else:
                return


async def test_a_log_that_sixteen_make_at_once_is_one(server: Server) -> None:
    numbers: list[int] = []

    async def open_and_append(number: int) -> None:
        async with eventlog.open(f"{server.address}log") as log:
            numbers.append(await log.append(number))

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(open_and_append, number)
    assert sorted(numbers) == list(range(1, 17))
    async with eventlog.open(f"{server.address}log") as log:
        assert sorted(await stored(log)) == list(range(16))


@pytest.mark.slow
async def test_all_that_a_hundred_publishers_send_arrives_though_the_server_is_killed_twice(
    server: Server,
) -> None:
    """At a third and at half of all events: Watermill's TestReconnect."""
    publishers, each = 100, 100
    seen: list[Any] = []

    async def publish(log: eventlog.EventLog, name: int) -> None:
        async with log.publisher(flush_s=4 * HANG_S) as publisher:
            for number in range(each):
                await publisher.send([name, number])
                await anyio.lowlevel.checkpoint()

    async with AsyncExitStack() as stack:
        logs = [
            await stack.enter_async_context(eventlog.open(f"{server.address}log"))
            for _ in range(10)
        ]
        stream = await stack.enter_async_context(logs[0].follow(SeekPosition.BEGINNING))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        with anyio.fail_after(4 * HANG_S):
            for name in range(publishers):
                tasks.start_soon(publish, logs[name % len(logs)], name)
            for until in (publishers * each // 3, publishers * each // 2, publishers * each):
                while len(seen) < until:
                    seen.append((await anext(stream)).event)
                if until < publishers * each:
                    await anyio.to_thread.run_sync(server.kill)
                    await anyio.to_thread.run_sync(server.start)
    for name in range(publishers):
        assert [number for who, number in seen if who == name] == [*range(each)]
    assert len(seen) == publishers * each


@pytest.mark.slow
async def test_failures_and_a_lost_server_together_lose_no_event(
    engine: Engine, server: Server
) -> None:
    """Every third delivery fails, and the server is killed twice: ParallelLossyThroughReconnect."""
    if engine.lacks("members"):
        pytest.skip("the engine has no groups")
    handled: set[int] = set()
    deliveries = 0
    async with eventlog.open(f"{server.address}log") as log:
        await log.append_many(range(300))
        async with log.member("g", position=SeekPosition.BEGINNING, max_deliveries=50) as member:
            with anyio.fail_after(4 * HANG_S):
                while len(handled) < 300:
                    lease = await member.lease(20)
                    assert lease is not None
                    for _, envelope in lease:
                        deliveries += 1
                        assert lease.begin(envelope)
                        if deliveries % 3 == 0:
                            lease.failed(envelope, Failure(error="lost"))
                        else:
                            lease.done(envelope)
                            handled.add(envelope.event)
                        if deliveries in (100, 200):
                            await anyio.to_thread.run_sync(server.kill)
                            await anyio.to_thread.run_sync(server.start)
                await member.flush()
    assert handled == {*range(300)}
