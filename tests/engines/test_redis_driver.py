"""The driver for Redis and Valkey, on real servers: what it promises to the shell over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventlog.config import AskedOptions, Retention
from eventlog.errors import (
    CorruptLog,
    EventsTruncated,
    LogDeleted,
    LogFull,
    NotALog,
    NotSupported,
    PermissionDenied,
    WrongExpectation,
)
from eventlog.redis.driver import RedisDriver
from eventlog.remote.driver import Opened, OutOfTurn, Unreachable
from tests import servers
from tests.servers import Server

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Server:
    servers.require(request.param)
    return servers.shared(request.param)


@pytest.fixture
def address(server: Server, tmp_path: Path) -> str:
    return server.address + str(tmp_path).strip("/")


@asynccontextmanager
async def opened(address: str, **options: Any) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(address, AskedOptions(**options))
    try:
        await driver.open()
        yield driver
    finally:
        await driver.aclose()


async def call(driver: RedisDriver, *command: Any) -> Any:
    """A command of a stranger, given through the same connection."""
    return await driver.link.call(*command)


def stream_of(driver: RedisDriver) -> str:
    return driver.keys()[0]


async def records(driver: RedisDriver) -> list[bytes]:
    return [bytes(one.record) for one in await driver.read(1, 10_000)]


async def test_numbers_are_gapless_and_a_repeated_batch_is_stored_once(address: str) -> None:
    async with opened(address) as driver:
        assert await driver.append(7, 1, [b"a", b"b"]) == 1
        assert await driver.append(7, 2, [b"c"]) == 3
        assert await driver.append(7, 1, [b"a", b"b"]) == 1
        assert await driver.append(8, 1, [b"d"]) == 4
        assert await records(driver) == [b"a", b"b", b"c", b"d"]
        state = await driver.state()
        assert (state.first, state.last, state.bytes) == (1, 4, 4)


async def test_a_batch_is_refused_while_the_one_before_it_is_not_stored(address: str) -> None:
    async with opened(address) as driver:
        with pytest.raises(OutOfTurn):
            await driver.append(7, 2, [b"second"])
        await driver.append(7, 1, [b"first"])
        await driver.append(7, 2, [b"second"])
        assert await records(driver) == [b"first", b"second"]


async def test_a_repeated_conditional_batch_gets_its_first_answer(address: str) -> None:
    async with opened(address) as driver:
        assert await driver.append(7, 1, [b"a", b"b"], 0) == 1
        assert await driver.append(8, 1, [b"c"]) == 3
        assert await driver.append(7, 1, [b"a", b"b"], 0) == 1
        with pytest.raises(WrongExpectation) as caught:
            await driver.append(9, 1, [b"d"], 2)
        assert (caught.value.key, caught.value.last_seq_no) == (None, 3)
        assert await records(driver) == [b"a", b"b", b"c"]


async def test_a_reader_gets_what_is_stored_and_waits_for_what_is_not(address: str) -> None:
    async with opened(address) as driver, opened(address) as other:
        await driver.append(1, 1, [b"a", b"b"])
        reader = driver.reader(1)
        assert [one.seq_no for one in await reader.next()] == [1, 2]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.append, 2, 1, [b"c"])
            with anyio.fail_after(10):
                assert [bytes(one.record) for one in await reader.next()] == [b"c"]


async def test_an_ack_goes_forward_only_and_a_seek_sets(address: str) -> None:
    async with opened(address) as driver:
        await driver.append(1, 1, [b"event"] * 5)
        await driver.move("billing", 5, is_ack=True)
        await driver.move("billing", 3, is_ack=True)
        assert (await driver.positions())["billing"].position == 5
        await driver.move("billing", 2, is_ack=False)
        assert (await driver.positions())["billing"].position == 2
        await driver.forget("billing")
        assert await driver.positions() == {}


async def test_a_time_is_found_among_the_events(address: str) -> None:
    async with opened(address) as driver:
        for number in range(1, 6):
            await driver.append(1, number, [b"x"])
        events = await driver.read(1, 10)
        assert await driver.find_time(0) == 1
        assert await driver.find_time(events[3].stored_ns) == 4
        assert await driver.find_time(events[3].stored_ns + 1) == 5
        assert await driver.find_time(events[4].stored_ns + 1) == 6


async def test_retention_deletes_the_oldest_and_a_reader_is_told(address: str) -> None:
    retention = Retention(max_bytes=300, keep_unacked=False)
    async with opened(address, retention=retention) as driver:
        for number in range(1, 11):
            await driver.append(1, number, [b"x" * 100])
        state = await driver.state()
        assert (state.first, state.last, state.bytes) == (8, 10, 300)
        with pytest.raises(EventsTruncated) as told:
            await driver.read(2, 10)
        assert told.value.first_available == 8


async def test_unacknowledged_events_are_kept_and_the_log_is_full(address: str) -> None:
    async with opened(address, retention=Retention(max_bytes=300)) as driver:
        await driver.move("billing", 0, is_ack=False)
        for number in range(1, 4):
            await driver.append(1, number, [b"x" * 100])
        with pytest.raises(LogFull) as told:
            await driver.append(1, 4, [b"x" * 100])
        assert told.value.is_by_retention
        await driver.move("billing", 1, is_ack=True)
        assert await driver.append(1, 4, [b"x" * 100]) == 4


async def test_an_event_that_strangers_delete_is_never_a_silent_gap(address: str) -> None:
    async with opened(address) as driver:
        await driver.append(1, 1, [b"a", b"b", b"c"])
        name = (await call(driver, b"XRANGE", stream_of(driver), 2, 2))[0][0]
        await call(driver, b"XDEL", stream_of(driver), name)
        assert [one.seq_no for one in await driver.read(1, 10)] == [1]
        with pytest.raises(CorruptLog, match=r"event 2 of the log .* is missing"):
            await driver.read(2, 10)
        assert [one.seq_no for one in await driver.read(3, 10)] == [3]


async def test_an_event_that_strangers_add_is_told_by_readers_and_appends(address: str) -> None:
    async with opened(address) as driver:
        await driver.append(1, 1, [b"a"])
        await call(driver, b"XADD", stream_of(driver), b"*", b"name", b"value")
        with pytest.raises(CorruptLog, match="was not written by eventlog"):
            await driver.read(2, 10)
        with pytest.raises(CorruptLog, match="was not written by eventlog"):
            await driver.append(1, 2, [b"b"])


async def test_trimming_by_strangers_is_truncation(address: str) -> None:
    async with opened(address) as driver:
        await driver.append(1, 1, [b"a", b"b", b"c"])
        await call(driver, b"XTRIM", stream_of(driver), b"MAXLEN", 1)
        with pytest.raises(EventsTruncated) as told:
            await driver.read(1, 10)
        assert told.value.first_available == 3
        await call(driver, b"XTRIM", stream_of(driver), b"MAXLEN", 0)
        assert await driver.append(1, 2, [b"d"]) == 4


@pytest.mark.parametrize("is_made_anew", [False, True])
async def test_a_log_that_is_deleted_or_replaced_is_told(address: str, is_made_anew: bool) -> None:
    async with opened(address) as driver:
        await driver.append(1, 1, [b"a"])
        await call(driver, b"DEL", *driver.keys())
        if is_made_anew:
            async with opened(address) as other:
                await other.append(1, 1, [b"another"])
        with pytest.raises(LogDeleted):
            await driver.append(1, 2, [b"b"])
        with pytest.raises(LogDeleted):
            await driver.read(1, 10)
        with pytest.raises(LogDeleted):
            await driver.state()


async def test_what_is_no_log_is_left_alone(address: str) -> None:
    async with opened(address + "x") as driver:
        name = stream_of(driver)[:-1]
        await call(driver, b"SET", name, b"value")
        with pytest.raises(NotALog, match="holds a string"):
            async with opened(address):
                pass
        assert await call(driver, b"GET", name) == b"value"


async def test_concurrent_opens_make_one_log(address: str) -> None:
    ids = []

    async def open_one() -> None:
        driver = RedisDriver(address, AskedOptions())
        found: Opened = await driver.open()
        ids.append(found.log_id)
        await driver.aclose()

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(open_one)
    assert len(ids) == 8
    assert len(set(ids)) == 1


@pytest.mark.parametrize(
    ("settings", "durability"),
    [
        (("--appendonly", "no"), "memory"),
        (("--appendfsync", "always"), "sync"),
        (("--appendfsync", "everysec"), "disk"),
    ],
)
async def test_durability_is_what_the_server_is_set_to(
    tmp_path: Path, settings: tuple[str, ...], durability: str
) -> None:
    servers.require("valkey")
    with servers.own("valkey", tmp_path, *settings) as server:
        driver = RedisDriver(server.address + "log", AskedOptions())
        assert (await driver.open()).options.durability == durability
        await driver.aclose()
        if durability != "sync":
            with pytest.raises(NotSupported, match="durability='sync'"):
                async with opened(server.address + "log", durability="sync"):
                    pass


async def test_a_server_that_evicts_is_refused_with_the_setting(tmp_path: Path) -> None:
    servers.require("valkey")
    settings = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with servers.own("valkey", tmp_path, *settings) as server:
        driver = RedisDriver(server.address + "log", AskedOptions())
        with pytest.raises(NotSupported, match="set maxmemory-policy noeviction"):
            await driver.open()
        await driver.aclose()


async def test_a_wrong_password_is_told_and_shown_nowhere(tmp_path: Path) -> None:
    servers.require("valkey")
    with servers.own("valkey", tmp_path, "--requirepass", "right") as server:
        place = server.address.removeprefix("redis://")
        async with opened(f"redis://default:right@{place}log") as driver:
            assert await driver.append(1, 1, [b"a"]) == 1
            assert "right" not in repr(driver.link._address) + driver.path
        for wrong in ("secret-word", ""):
            with pytest.raises(PermissionDenied) as told:
                async with opened(f"redis://default:{wrong}@{place}log"):
                    pass
            assert "secret-word" not in f"{told.value!r} {told.value.fields}"


async def test_nobody_at_the_address_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        async with opened("redis://127.0.0.1:9/0/log"):
            pass
