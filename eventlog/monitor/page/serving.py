"""The server of the page: on loopback, with a token in its address, until it is told to end."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Callable

import anyio
import trio
from anycorn import Config, serve
from starlette.applications import Starlette

from eventlog.errors import InvalidArgument
from eventlog.monitor.page.board import board_of
from eventlog.monitor.page.guard import Guard
from eventlog.monitor.page.routes import routes_of


def listen(port: int) -> socket.socket:
    """A socket of this machine alone; port 0 is any that is free.

    Raises:
        InvalidArgument: something else is served there.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise InvalidArgument(f"no page can be served at port {port}: {error.strerror}") from error


def show(
    logs: list[str], listener: socket.socket, interval_s: float, on_ready: Callable[[str], None]
) -> None:
    """Serve the page of these logs until Ctrl-C or SIGTERM; `on_ready` is told its address.

    Raises:
        EventLogError: a log cannot be opened.
    """
    trio.run(_serve, logs, listener, interval_s, on_ready)


async def _serve(
    logs: list[str], listener: socket.socket, interval_s: float, on_ready: Callable[[str], None]
) -> None:
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(24)
    hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
    config = Config()
    config.bind = [f"fd://{os.dup(listener.fileno())}"]  # the server closes it
    config.graceful_timeout = 0.5
    config.loglevel = "WARNING"
    ended = anyio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with board_of(logs, interval_s) as board, anyio.create_task_group() as tasks:

            async def end_at_signal() -> None:
                async for _ in signals:
                    ended.set()
                    return

            tasks.start_soon(end_at_signal)
            app = Guard(Starlette(routes=routes_of(board)), token, hosts)
            on_ready(f"http://127.0.0.1:{port}/?token={token}")
            await serve(app, config, shutdown_trigger=ended.wait)  # type: ignore[arg-type]  # an ASGI application
            tasks.cancel_scope.cancel()
