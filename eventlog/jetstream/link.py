"""The connection to the server: calls that end, and errors that name what to do.

One connection of the client library lives until it breaks. Then every call on it is `Unreachable`
at once, and the next call makes another one: nothing waits for an answer that was lost with its
connection, and nothing is sent by somebody who has given up.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
import nats.errors

from eventlog.errors import NotSupported
from eventlog.errors import PermissionDenied as Denied
from eventlog.jetstream.address import Address
from eventlog.jetstream.answers import Answer
from eventlog.jetstream.client import Client, is_distrust
from eventlog.jetstream.connection import Connection, Headers, Inbox, Lost
from eventlog.jetstream.credentials import client_options
from eventlog.jetstream.times import ns_of
from eventlog.remote.driver import Unreachable

CONNECT_S: Final = 5.0
CLOSE_S: Final = 1.0
ANSWER_S: Final = 5.0
"""How long a call waits for its answer."""
PING_S: Final = 5
"""A server that has not answered two of these is gone, also if its connection is not."""
IS_FULL: Final = {10023, 10028, 10047, 10077}
"""Codes: no resources, memory or storage of the account or server, or the store failed."""
TOO_LARGE: Final = 10054
NO_STREAM: Final = 10059
VERSION_MIN: Final = (2, 12)


class Refused(Exception):
    """The server's answer is an error; `code` is JetStream's own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class Link:
    """The connection of one event loop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._is_closed = False
        self._ahead_ns = 0
        """The server's clock less this machine's monotonic one."""

    @property
    def payload_bytes_max(self) -> int:
        """The largest message that the server takes, headers and all."""
        return int(self._connection.client.max_payload) if self._connection else 0

    async def aclose(self) -> None:
        """Close the connection; calls that wait end."""
        self._is_closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end()
            await _close(connection.client)

    # --- connecting --------------------------------------------------------------------------

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._is_closed:
                raise Lost("the handle is closed")
            if self._connection is not None and self._connection.is_ended:
                ended, self._connection = self._connection, None
                ended.end()
                await _close(ended.client)
            if self._connection is None:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Connection:
        client = Client(self.address)
        seen: list[Exception] = []
        connection: Connection | None = None

        async def on_error(error: Exception) -> None:
            seen.append(error)
            if connection is not None:
                connection.refuse(str(error))

        async def on_closed() -> None:
            if connection is not None:
                connection.end()

        try:
            async with asyncio.timeout(CONNECT_S):
                connecting = client.connect(
                    self.address.servers,
                    error_cb=on_error,
                    closed_cb=on_closed,
                    disconnected_cb=on_closed,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.05,
                    connect_timeout=CONNECT_S,
                    ping_interval=PING_S,
                    pending_size=1 << 26,
                    **client_options(self.address),
                )
                await _to_its_end(connecting)
                self._check_version(client)
                connection = Connection(client, self.address.path)
                await client.take(f"{connection.prefix}.*", connection.deliver)
        except (OSError, nats.errors.Error, TimeoutError) as error:
            await _close(client)
            raise self._why([error, *seen]) from None
        except BaseException:
            await _close(client)
            raise
        return connection

    def _why(self, errors: list[Exception]) -> Exception:
        """What the failed attempt means; the errors themselves may hold what nobody shall see."""
        said = " ".join(map(str, errors)).lower()
        path = self.address.path
        if "authorization" in said or "authentication" in said:
            return Denied(
                f"the server of {path} refuses this user; check user, password or token, in the"
                " address or the environment (NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CREDS)",
                path=path,
            )
        if (distrust := next(filter(is_distrust, errors), None)) is not None:
            return Denied(
                f"no secure connection to the server of {path}: {distrust}; check"
                " NATS_CA, NATS_CERT and NATS_KEY in the environment",
                path=path,
            )
        return Lost(f"no server answers at {path}")

    def _check_version(self, client: Any) -> None:
        version = client.connected_server_version
        if (version.major, version.minor) < VERSION_MIN:
            raise NotSupported(
                f"the server of {self.address.path} is nats-server {version}; this engine needs"
                f" {'.'.join(map(str, VERSION_MIN))} or newer",
                path=self.address.path,
                engine="jetstream",
            )

    # --- calls -------------------------------------------------------------------------------

    async def call(self, subject: str, payload: bytes, headers: Headers | None = None) -> Answer:
        """Send a message and wait for its one answer.

        Raises:
            Unreachable: the connection broke, or nobody answered in time.
            NoAnswerer; PermissionDenied; EventTooLarge.
        """
        with await self.inbox(subject) as inbox:
            await inbox.send(payload, headers)
            return await inbox.next(ANSWER_S)

    async def api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A call of JetStream's own, as `STREAM.INFO.orders`.

        Raises:
            Refused; and what `call` says.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        answer = answer_of(await self.call(f"$JS.API.{verb}", payload))
        if "ts" in answer:
            self._ahead_ns = ns_of(answer["ts"]) - time.monotonic_ns()
        return answer

    def now_ns(self) -> int:
        """The time by the server's clock, as its latest answer said; every host has this one."""
        return time.monotonic_ns() + self._ahead_ns

    async def inbox(self, subject: str) -> Inbox:
        """For a call with several answers; a context manager."""
        return Inbox(await self._connected(), subject)

    async def subscribed(self, subject: str) -> Inbox:
        """An inbox for messages of a consumer, which come under their own subject; `end` it."""
        connection = await self._connected()
        inbox = Inbox(connection, subject)
        inbox.address = connection.client.new_inbox()
        inbox.__enter__()
        try:
            inbox.subscription = await connection.client.take(inbox.address, inbox.add)
        except (nats.errors.Error, OSError):
            inbox.__exit__()
            raise Lost(f"the connection to {connection.path} broke") from None
        return inbox


async def _to_its_end(connecting: Coroutine[Any, Any, None]) -> None:
    """Wait for it, also in a task that is cancelled.

    A connect that is cancelled when it has its socket leaves that open.
    """
    task = asyncio.create_task(connecting)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task], timeout=CLOSE_S)
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen by nobody else
        raise


async def _close(client: Any) -> None:
    """Close it, also in a task that is cancelled: else its own tasks stay."""
    with anyio.CancelScope(shield=True), suppress(nats.errors.Error, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await client.close()
    # A client that could not send the rest of what it had leaves its socket open.
    transport = client._transport
    if transport is not None:
        transport.close()


def answer_of(message: Answer) -> dict[str, Any]:
    """The fields of JetStream's answer.

    Raises:
        Refused: it is an error.
        Unreachable: it is none at all.
    """
    try:
        answer = json.loads(message.data)
        error = answer.get("error")
    except (ValueError, AttributeError):
        raise Unreachable("an answer that is none of JetStream's") from None
    if error:
        raise Refused(int(error.get("err_code", 0)), str(error.get("description", "")))
    return dict(answer)
