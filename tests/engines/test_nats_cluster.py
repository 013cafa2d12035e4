"""A NATS cluster of three: what becomes of a log whose leader is killed under load."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

import eventlog
from eventlog import SeekPosition
from tests import servers
from tests.servers import HOST, KINDS, Server

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HANG_S: Final = 120.0
COUNT: Final = 400


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, Server]]:
    """Three servers that know each other, by name; each may be killed."""
    servers.require("nats")
    with ExitStack() as stack:
        places = {f"s{n}": servers.free_port() for n in range(3)}
        routes = ",".join(f"nats://{HOST}:{port}" for port in places.values())
        found: dict[str, Server] = {}
        for name, port in places.items():
            settings = ("--server_name", name, "--cluster_name", "c", "--routes", routes)
            place = ("--cluster", f"nats://{HOST}:{port}")
            server = Server(KINDS["nats"], tmp_path / name, (*settings, *place))
            stack.callback(server.kill)
            server.start()
            found[name] = server
        yield found


def address_of(cluster: dict[str, Server]) -> str:
    hosts = ",".join(f"{HOST}:{server.port}" for server in cluster.values())
    return f"nats://{hosts}/orders"


async def ask(cluster: dict[str, Server], subject: str, body: Any = None) -> dict[str, Any]:
    """A call of JetStream's own, once a leader answers it."""
    import nats

    hosts = [f"nats://{HOST}:{server.port}" for server in cluster.values() if server.is_running]
    client = await nats.connect(hosts)
    try:
        payload = json.dumps(body or {}).encode()
        while True:
            answer: dict[str, Any] = json.loads(
                (await client.request(f"$JS.API.{subject}", payload, timeout=10)).data
            )
            if "error" not in answer:
                return answer
            await asyncio.sleep(0.1)  # there is no leader yet
    finally:
        await client.close()


async def three_copies(cluster: dict[str, Server], stream: str) -> None:
    config = (await ask(cluster, f"STREAM.INFO.{stream}"))["config"]
    await ask(cluster, f"STREAM.UPDATE.{stream}", config | {"num_replicas": 3})
    while True:
        at = (await ask(cluster, f"STREAM.INFO.{stream}"))["cluster"]
        copies = at.get("replicas") or []
        if at.get("leader") and len(copies) == 2 and all(one["current"] for one in copies):
            return
        await asyncio.sleep(0.1)


async def test_a_log_loses_and_doubles_nothing_though_its_leaders_are_killed(
    cluster: dict[str, Server],
) -> None:
    with anyio.fail_after(HANG_S):
        async with eventlog.open(address_of(cluster)) as log:
            bucket = f"KV_eventlog_{(await log.status()).log_id.hex}"
            for stream in ("orders", bucket):
                await three_copies(cluster, stream)
            acknowledged: list[int] = []
            seen: list[tuple[int, Any]] = []

            async def produce() -> None:
                for number in range(COUNT):
                    acknowledged.append(await log.append(number))
                    await log.ack("billing", acknowledged[-1])

            async def read() -> None:
                async with log.subscribe("reader", SeekPosition.BEGINNING) as stream:
                    async for one in stream:
                        seen.append((one.seq_no or 0, one.event))
                        if len(seen) == COUNT:
                            return

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(produce)
                tasks.start_soon(read)
                for part in (1, 2):
                    while len(acknowledged) < part * COUNT // 4:  # noqa: ASYNC110 - see the limit
                        await anyio.sleep(0.01)
                    leader = cluster[
                        (await ask(cluster, "STREAM.INFO.orders"))["cluster"]["leader"]
                    ]
                    leader.kill()
                    reached = len(acknowledged) + 20
                    while len(acknowledged) < reached:  # noqa: ASYNC110 - goes on with two of three
                        await anyio.sleep(0.01)
                    leader.start()
        assert acknowledged == list(range(1, COUNT + 1))
        assert seen == [(number + 1, number) for number in range(COUNT)]
        async with eventlog.open(address_of(cluster)) as log:
            [consumer] = await log.consumers()
            assert (consumer.name, consumer.last_acked) == ("billing", COUNT)
