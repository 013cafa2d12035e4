"""A proxy before a server, which cuts connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc


@asynccontextmanager
async def cutting(address: str, *after_bytes: int) -> AsyncIterator[str]:
    """The address by way of a proxy.

    It cuts the first connections after so many bytes of the client's each, and fails at its end if
    there were not as many. Later ones live.
    """
    place = urlsplit(address)
    left = list(after_bytes)

    async def serve(client: Any) -> None:
        limit = left.pop(0) if left else None
        upstream = await anyio.connect_tcp(place.hostname or "", place.port or 0)
        async with client, upstream, anyio.create_task_group() as tasks:

            async def pump(source: Any, target: Any, limit: int | None) -> None:
                try:
                    async for data in source:
                        if limit is not None and limit < len(data):
                            await target.send(data[:limit])
                            break
                        limit = None if limit is None else limit - len(data)
                        await target.send(data)
                except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(pump, client, upstream, limit)
            tasks.start_soon(pump, upstream, client, None)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.start_soon(listener.serve, serve)
        yield address.replace(f":{place.port}/", f":{port}/")
        tasks.cancel_scope.cancel()
    assert not left, "connections that were never made, or not cut"
