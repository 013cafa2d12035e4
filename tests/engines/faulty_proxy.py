"""A TCP proxy between a log and its server, which fails when a test says so.

::

    with Proxy(server.port) as proxy:          (or `proxy_of(server)`, which Kafka needs)
        proxy.strike_at(3)      the third piece of bytes from now on, of either side, gets nowhere:
                                its connection is cut, or the server is killed
        proxy.pull_cable()      nothing comes through, and nobody is told so
        proxy.refuse()          all connections are cut, and new ones are cut at once

It runs in a thread of its own, so that whatever the test's event loop does, bytes come through.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final, Self

from tests.servers import HOST, Server

PIECE_BYTES: Final = 1 << 16


def _nothing() -> None:
    """Only cut."""


def proxy_of(server: Server) -> Proxy:
    """The proxy where the server's clients look for one, as `address_by_proxy` says."""
    host, port = server.kind.behind_proxy(server.port)
    return Proxy(port, server_host=host, host=server.proxy_host, port=server.port)


class Proxy:
    """See the module."""

    def __init__(
        self,
        server_port: int,
        tls: ssl.SSLContext | None = None,
        *,
        server_host: str = HOST,
        host: str = HOST,
        port: int = 0,
    ) -> None:
        self._server = (server_host, server_port)
        self._place = (host, port)
        self._tls = tls
        """What a server would have that speaks TLS itself."""
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._left: int | None = None
        """Pieces that come through before the strike; `None`: there will be none."""
        self._is_halved = False
        self._strike: Callable[[], None] = _nothing
        self._is_refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self.port = self._started.result()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut all connections."""
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()

    # --- what a test says --------------------------------------------------------------------

    def strike_at(
        self, piece: int, *, is_halved: bool = False, strike: Callable[[], None] = _nothing
    ) -> None:
        """Fail at that piece, from 0 on: none of it comes through, or half of it.

        `strike` is called then, in the proxy's thread, while nothing else comes through.
        """

        def arm() -> None:
            self._left, self._is_halved, self._strike = piece, is_halved, strike

        self._call(arm)

    def disarm(self) -> bool:
        """Fail no more; whether it had failed."""
        has_struck = False

        def disarm() -> None:
            nonlocal has_struck
            has_struck = self._left is None
            self._left = None

        self._call(disarm)
        return has_struck

    def pull_cable(self) -> None:
        """Let nothing through, and tell nobody, until `plug_cable`."""
        self._call(self._can_pass.clear)

    def plug_cable(self) -> None:
        """Let everything through, also what came meanwhile."""
        self._call(self._can_pass.set)

    def refuse(self) -> None:
        """Cut all connections, and new ones at once, until `accept`."""

        def refuse() -> None:
            self._is_refusing = True
            self._cut_all()

        self._call(refuse)

    def accept(self) -> None:
        """Serve new connections."""

        def accept() -> None:
            self._is_refusing = False

        self._call(accept)

    def _call(self, call: Callable[[], None]) -> None:
        """Have it done in the proxy's thread, before the next piece."""
        done: Future[None] = Future()

        def make() -> None:
            call()
            done.set_result(None)

        self._loop.call_soon_threadsafe(make)
        done.result()

    # --- the proxy's thread ------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_over, self._can_pass = asyncio.Event(), asyncio.Event()
        self._can_pass.set()
        listener = await asyncio.start_server(self._serve, *self._place, ssl=self._tls)
        self._started.set_result(listener.sockets[0].getsockname()[1])
        await self._is_over.wait()
        listener.close()
        self._can_pass.set()
        self._cut_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self._is_refusing:
                await self._join(reader, writer)
        except OSError:
            pass  # there is no server at the moment
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._server)
        self._writers.add(to_server)
        pumps = (
            asyncio.create_task(self._pump(reader, to_server)),
            asyncio.create_task(self._pump(from_server, writer)),
        )
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers.discard(to_server)
            to_server.transport.abort()
            writer.transport.abort()
            for pump in pumps:
                pump.cancel()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(PIECE_BYTES):
                await self._can_pass.wait()
                if self._left == 0:
                    self._left = None
                    if self._is_halved:
                        sink.write(data[: len(data) // 2])
                    self._strike()
                    return
                if self._left is not None:
                    self._left -= 1
                sink.write(data)
                await sink.drain()

    def _cut_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
