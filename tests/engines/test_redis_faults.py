"""What becomes of a log when its Redis server dies, hangs, is cut off, is emptied, or is full."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

import eventlog
from eventlog import SeekPosition
from eventlog.errors import (
    CorruptLog,
    LogDeleted,
    LogFull,
    NotSupported,
    PermissionDenied,
    SequenceOutOfRange,
    WriterUnavailable,
)
from tests import servers
from tests.servers import HOST, Server

pytestmark = pytest.mark.anyio

HANG_S = 30.0


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    servers.require("valkey")
    with servers.own("valkey", tmp_path, *servers.KINDS["valkey"].no_loss) as server:
        yield server


async def stored(log: eventlog.EventLog) -> list[Any]:
    envelopes = await log.read(0)
    assert [one.seq_no for one in envelopes] == list(range(1, len(envelopes) + 1))
    return [one.event for one in envelopes]


async def test_a_publisher_outlives_deaths_of_the_server_and_nothing_is_lost_or_doubled(
    server: Server,
) -> None:
    async with eventlog.open(server.address + "log") as log:
        async with log.publisher(linger=0) as publisher:
            for number in range(600):
                await publisher.send(number)
                if number in {200, 400}:
                    server.kill()
                    server.start()
        assert await stored(log) == list(range(600))


async def test_calls_that_the_server_died_under_are_made_again(server: Server) -> None:
    async with eventlog.open(server.address + "log") as log:
        for number in range(5):
            server.kill()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.append, number)
                await anyio.sleep(0.05)  # so that calls fail before the server is there
                server.start()
            server.kill()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.ack, "billing", number + 1)
                server.start()
        assert await stored(log) == list(range(5))
        [consumer] = await log.consumers()
        assert consumer.last_acked == 5


async def test_a_stream_goes_on_after_the_server_died(server: Server) -> None:
    address = server.address + "log"
    async with (
        eventlog.open(address) as log,
        eventlog.open(address) as other,
        log.subscribe("billing", SeekPosition.BEGINNING) as stream,
    ):
        seen = []
        for number in range(4):
            await other.append(number)
            with anyio.fail_after(20):
                seen.append((await anext(aiter(stream))).event)
            server.kill()
            server.start()
        assert seen == [0, 1, 2, 3]


async def test_a_member_s_work_outlives_the_server(server: Server) -> None:
    async with eventlog.open(server.address + "log") as log:
        await log.append_many(list(range(6)))
        handled = []
        async with log.group("work") as group, await group.open_member() as member:
            for place in range(6):
                lease = await member.lease()
                assert lease is not None
                for attempt, envelope in lease:
                    assert attempt == 1
                    assert lease.begin(envelope)
                    if place % 2:
                        server.kill()
                        server.start()
                    handled.append(envelope.event)
                    lease.done(envelope)
                await member.flush()
            with anyio.fail_after(20):
                await group.wait_drained()
        assert handled == list(range(6))


async def test_a_paused_server_is_waited_for(server: Server) -> None:
    async with eventlog.open(server.address + "log") as log:
        await log.append("before")
        server.pause()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.append, "meanwhile")
            await anyio.sleep(0.2)  # nothing can tell that a stopped server does nothing
            server.resume()
        assert await stored(log) == ["before", "meanwhile"]


@pytest.mark.slow
async def test_a_server_that_is_paused_longer_than_every_limit_stores_once(
    server: Server,
) -> None:
    async with eventlog.open(server.address + "log") as log:
        await log.append("before")
        server.pause()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.append, "meanwhile")
            await anyio.sleep(15)  # longer than a call waits (link.CALL_S)
            server.resume()
        assert await stored(log) == ["before", "meanwhile"]


async def test_a_server_that_stays_away_is_told_after_retry_s(server: Server) -> None:
    async with eventlog.open(server.address + "log", retry_s=0.3) as log:
        server.kill()
        with pytest.raises(WriterUnavailable, match="did not answer"):
            await log.append("never")
        server.start()
        assert await log.append("again") == 1


@asynccontextmanager
async def proxied(server: Server, after_bytes: float) -> AsyncIterator[int]:
    """The port of a proxy, which cuts each connection after so many bytes of the client's."""

    async def pump(source: ByteStream, sink: ByteStream, limit: float) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while limit > 0:
                data = await source.receive()
                part = data[: int(min(limit, len(data)))]
                await sink.send(part)
                limit -= len(part)
        for stream in (source, sink):
            with suppress(OSError):
                stream.extra(SocketAttribute.raw_socket).shutdown(socket.SHUT_RDWR)

    async def serve(client: ByteStream) -> None:
        async with client:
            upstream = await anyio.connect_tcp(HOST, server.port)
            async with upstream, anyio.create_task_group() as tasks:
                tasks.start_soon(pump, client, upstream, after_bytes)
                tasks.start_soon(pump, upstream, client, float("inf"))

    listener = await anyio.create_tcp_listener(local_host=HOST)
    port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield int(port)
        tasks.cancel_scope.cancel()


async def test_connections_cut_in_the_middle_of_a_frame_store_each_event_once(
    server: Server,
) -> None:
    async with (
        proxied(server, after_bytes=9_001) as port,
        eventlog.open(f"redis://{HOST}:{port}/0/log") as log,
    ):
        for number in range(40):
            await log.append({"number": number, "filling": "x" * 700})
    async with eventlog.open(server.address + "log") as log:
        assert [event["number"] for event in await stored(log)] == list(range(40))


@dataclass
class Forgetful:
    """A server that loses what came after `remember`, as one without syncs at a loss of power."""

    server: Server

    @property
    def _file(self) -> Path:
        [file] = (self.server.folder / "appendonlydir").glob("*.incr.aof")
        return file

    def remember(self) -> None:
        self._size = self._file.stat().st_size

    def lose_the_rest(self) -> None:
        self.server.kill()
        os.truncate(self._file, self._size)
        self.server.start()


@pytest.mark.parametrize("is_written_anew", [False, True], ids=["shorter", "written anew"])
async def test_events_that_the_server_lost_end_a_stream_and_none_takes_their_place(
    server: Server, *, is_written_anew: bool
) -> None:
    forgetful = Forgetful(server)
    async with eventlog.open(server.address + "log") as log:
        await log.append_many(["a", "b"])
        forgetful.remember()
        await log.append_many(["lost", "lost"])
        async with log.subscribe("billing", SeekPosition.BEGINNING) as stream:
            assert [(await anext(stream)).event for _ in range(4)] == ["a", "b", "lost", "lost"]
            forgetful.lose_the_rest()
            if is_written_anew:
                assert await log.append_many(["c", "d", "e"]) == (3, 5)
            with anyio.fail_after(HANG_S), pytest.raises(CorruptLog, match="lost its") as told:
                await anext(stream)
            assert told.value.seq_no == 4
            with pytest.raises(CorruptLog):
                await anext(stream)
        if not is_written_anew:
            with pytest.raises(SequenceOutOfRange):
                await log.ack("billing", 4)
            await log.append_many(["c", "d", "e"])
        async with log.subscribe("billing", SeekPosition.BEGINNING) as stream:
            assert [(await anext(stream)).event for _ in range(5)] == ["a", "b", "c", "d", "e"]


async def test_a_stream_goes_on_where_the_server_has_what_it_read(server: Server) -> None:
    async with (
        eventlog.open(server.address + "log") as log,
        log.subscribe("billing", SeekPosition.BEGINNING) as stream,
    ):
        for number in range(1, 4):
            await log.append(number)
            with anyio.fail_after(HANG_S):
                assert (await anext(stream)).event == number
            server.kill()
            server.start()


async def test_of_several_hosts_the_first_that_answers_and_is_no_replica_is_used(
    server: Server, tmp_path: Path
) -> None:
    with servers.own("valkey", tmp_path / "replica", "--replicaof", HOST, str(server.port)) as two:
        hosts = f"{HOST}:1,{HOST}:{two.port},{HOST}:{server.port}"
        async with eventlog.open(f"redis://{hosts}/0/log") as log:
            assert await log.append("a") == 1
            server.kill()
            server.start()
            assert await log.append("b") == 2
        async with eventlog.open(server.address + "log") as log:
            assert await stored(log) == ["a", "b"]


async def test_flushall_under_a_handle_is_told_and_never_another_log(server: Server) -> None:
    address = server.address + "log"
    async with eventlog.open(address) as log:
        await log.append("a")
        async with log.subscribe("billing", SeekPosition.LATEST) as stream:
            with socket.create_connection((HOST, server.port)) as stranger:
                stranger.sendall(b"FLUSHALL\r\n")
                assert stranger.recv(10) == b"+OK\r\n"
            async with eventlog.open(address) as other:
                await other.append("another")
                with pytest.raises(LogDeleted):
                    await anext(aiter(stream))
        with pytest.raises(LogDeleted):
            await log.append("b")
        with pytest.raises(LogDeleted):
            await log.read(0)
        with pytest.raises(LogDeleted):
            await log.ack("billing", 1)
        with pytest.raises(LogDeleted):
            await log.consumers()


async def test_a_server_without_memory_is_a_full_log_and_reads_go_on(tmp_path: Path) -> None:
    servers.require("valkey")
    with servers.own("valkey", tmp_path, "--maxmemory", "4mb") as server:
        async with eventlog.open(server.address + "log") as log:
            with pytest.raises(LogFull, match="maxmemory") as told:
                await log.append_many([b"x" * 100_000] * 100)
            assert not told.value.is_by_retention
            assert len(await stored(log)) > 5


async def test_a_user_without_rights_is_told_what_it_lacks(tmp_path: Path) -> None:
    servers.require("valkey")
    rule = "reader on >secret-word ~* &* +@read +hello +info +role +subscribe"
    settings = tmp_path / "users.conf"
    settings.write_text(f"user {rule}\n")
    with servers.own("valkey", tmp_path / "data", "--aclfile", str(settings)) as server:
        place = server.address.removeprefix("redis://")
        with pytest.raises(PermissionDenied, match="may not do") as told:
            async with eventlog.open(f"redis://reader:secret-word@{place}log"):
                pass
        assert "secret-word" not in f"{told.value!r} {told.value.__cause__!r}"


async def test_an_option_that_the_engine_has_not_is_named(server: Server) -> None:
    with pytest.raises(NotSupported, match="segment_bytes"):
        eventlog.open(server.address + "log", segment_bytes=1 << 20)
