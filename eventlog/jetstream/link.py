"""The connection to the server: calls that end, and errors that name what to do.

One connection of the client library lives until it breaks. Then every call on it is `Unreachable`
at once, and the next call makes another one: nothing waits for an answer that was lost with its
connection, and nothing is sent by somebody who has given up.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Final, Self

import anyio

from eventlog.errors import EventTooLarge, InvalidConfig, NotSupported
from eventlog.errors import PermissionDenied as Denied
from eventlog.jetstream.address import Address
from eventlog.remote.driver import Unreachable

try:
    import nats.errors

    from eventlog.jetstream.client import Client, is_distrust
except ImportError as error:
    raise NotSupported(
        "the client library for nats:// is not installed; install eventlog[jetstream]",
        engine="jetstream",
    ) from error

CONNECT_S: Final = 5.0
CLOSE_S: Final = 1.0
ANSWER_S: Final = 5.0
"""How long a call waits for its answer."""
PING_S: Final = 5
"""A server that has not answered two of these is gone, also if its connection is not."""
NO_RESPONDERS: Final = "503"
IS_FULL: Final = {10023, 10028, 10047, 10077}
"""Codes: no resources, memory or storage of the account or server, or the store failed."""
TOO_LARGE: Final = 10054
NO_STREAM: Final = 10059
VERSION_MIN: Final = (2, 12)

Headers = Mapping[str, str]
_numbers = count(1)


class Lost(Unreachable):
    """The connection broke, or there is none."""


class Refused(Exception):
    """The server's answer is an error; `code` is JetStream's own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class NoAnswerer(Exception):
    """Nobody listens on the subject: the stream is gone, or the server has no JetStream."""


class _Connection:
    """One connection, from its greeting to its end."""

    def __init__(self, client: Any, path: str) -> None:
        self.client = client
        self.path = path
        self.is_ended = False
        self.prefix = client.new_inbox()
        self.inboxes: dict[str, Inbox] = {}

    async def deliver(self, message: Any) -> None:
        """Hand an answer to whoever waits for it; of one who has gone, it is dropped."""
        inbox = self.inboxes.get(message.subject)
        if inbox is not None:
            inbox.add(message)

    def end(self) -> None:
        """Nobody will be answered any more."""
        self.is_ended = True
        for inbox in self.inboxes.values():
            inbox.fail(Lost(f"the connection to {self.path} broke"))

    def refuse(self, text: str) -> None:
        """The server has refused a subject: whoever waits for an answer on it gets none."""
        for inbox in self.inboxes.values():
            if f'"{inbox.subject}"'.lower() in text.lower():
                inbox.fail(
                    Denied(
                        f"the server of {self.path} does not let this user use {inbox.subject};"
                        " give the user the permissions that docs/jetstream.md lists",
                        path=self.path,
                    )
                )


class Link:
    """See the module; for one event loop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._is_closed = False

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

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._is_closed:
                raise Lost("the handle is closed")
            if self._connection is None or self._connection.is_ended:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> _Connection:
        client = Client(self.address)
        seen: list[Exception] = []
        connection: _Connection | None = None

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
                    **self._who(),
                )
                await _to_its_end(connecting)
                self._check_version(client)
                connection = _Connection(client, self.address.path)
                await client.subscribe(
                    f"{connection.prefix}.*", cb=connection.deliver, pending_bytes_limit=0
                )
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

    def _who(self) -> dict[str, Any]:
        who = self.address.credentials
        given: dict[str, Any] = {
            "user": who.user,
            "password": who.password,
            "token": who.token,
            "user_credentials": who.creds_file,
            "nkeys_seed": who.nkey_file,
        }
        if self.address.is_tls:
            given["tls"] = self._tls()
        return {name: value for name, value in given.items() if value is not None}

    def _tls(self) -> ssl.SSLContext:
        who = self.address.credentials
        try:
            context = ssl.create_default_context(cafile=who.ca_file)
            if who.cert_file:
                context.load_cert_chain(who.cert_file, who.key_file)
        except (OSError, ValueError) as error:
            raise InvalidConfig(
                f"the certificates for {self.address.path} cannot be loaded: {error}; check"
                " NATS_CA, NATS_CERT and NATS_KEY in the environment",
                path=self.address.path,
            ) from None
        return context

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

    async def call(self, subject: str, payload: bytes, headers: Headers | None = None) -> Any:
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
        return answer_of(await self.call(f"$JS.API.{verb}", payload))

    async def inbox(self, subject: str) -> Inbox:
        """For a call with several answers; a context manager."""
        return Inbox(await self._connected(), subject)

    async def subscribed(self, subject: str) -> Inbox:
        """An inbox for messages of a consumer, which come under their own subject; `end` it."""
        connection = await self._connected()
        inbox = Inbox(connection, subject)
        inbox.address = connection.client.new_inbox()
        connection.inboxes[inbox.address] = inbox

        async def add(message: Any) -> None:
            inbox.add(message)

        try:
            inbox.subscription = await connection.client.subscribe(
                inbox.address, cb=add, pending_bytes_limit=0
            )
        except (nats.errors.Error, OSError):
            inbox.__exit__()
            raise Lost(f"the connection to {connection.path} broke") from None
        return inbox


async def send(
    connection: _Connection, subject: str, payload: bytes, reply: str, headers: Headers | None
) -> None:
    """Hand a message to the client library."""
    client = connection.client
    try:
        await client.publish(subject, payload, reply, headers=headers)
    except nats.errors.MaxPayloadError:
        raise EventTooLarge(
            f"a message of {len(payload)} bytes is more than the server of {connection.path} takes"
            f" ({client.max_payload}); raise its max_payload",
            path=connection.path,
        ) from None
    except (nats.errors.Error, OSError):
        raise Lost(f"the connection to {connection.path} broke") from None


class Inbox:
    """Answers to one call, in order; `async with link.inbox(subject)` makes it."""

    def __init__(self, connection: _Connection, subject: str) -> None:
        self._connection = connection
        self.subject = subject
        self.address = f"{connection.prefix}.{next(_numbers)}"
        self.subscription: Any = None
        """The subscription of this inbox alone, if it has one; else it shares the connection's."""
        self._answers: deque[Any] = deque()
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        """Listen."""
        self._connection.inboxes[self.address] = self
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._connection.inboxes.pop(self.address, None)

    async def end(self) -> None:
        """Listen no more, of one that is `subscribed`."""
        self.__exit__()
        if not self._connection.is_ended:
            with suppress(nats.errors.Error, OSError):
                await self.subscription.unsubscribe()

    def add(self, message: Any) -> None:
        """An answer has come."""
        self._answers.append(message)
        self._wake()

    def fail(self, error: Exception) -> None:
        """None will come any more."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def send(self, payload: bytes, headers: Headers | None = None) -> None:
        """Ask; answers come here."""
        await send(self._connection, self.subject, payload, self.address, headers)

    async def tell(
        self, payload: bytes, headers: Headers | None = None, subject: str | None = None
    ) -> None:
        """Send over the same connection, and want no answer."""
        await send(self._connection, subject or self.subject, payload, "", headers)

    async def next(self, within_s: float) -> Any:
        """The next answer."""
        if not self._answers:
            await self._wait_for_arrival(within_s)
        message = self._answers.popleft()
        if message.headers and message.headers.get("Status") == NO_RESPONDERS:
            raise NoAnswerer(self.subject)
        return message

    def next_nowait(self) -> Any:
        """The next answer, if it is there already; else `None`."""
        return self._answers.popleft() if self._answers else None

    async def _wait_for_arrival(self, within_s: float) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        if self._error is None and not self._connection.is_ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._waiting
        if self._answers:
            return
        path = self._connection.path
        if self._error is None and self._connection.is_ended:
            raise Lost(f"the connection to {path} broke")
        raise self._error or Unreachable(
            f"the server of {path} did not answer within {within_s:g} s"
        )


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


def answer_of(message: Any) -> dict[str, Any]:
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
