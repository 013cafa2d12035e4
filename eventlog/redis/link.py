"""The connection to the server: it is made anew when it is lost, and many calls share it.

Replies come in the order of the calls, so calls of several tasks are on their way at once. The
server also pushes word of every change of the log over it (pub/sub): whoever waits for one calls
`listen` first, then looks at the log, and looks again when the event is set. It is also set when
the connection is lost, for what was said meanwhile is not known.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

import anyio
from anyio.abc import ByteStream, TaskStatus
from coredis.connection import BaseConnection, TCPLocation
from coredis.exceptions import NoScriptError, RedisError

from eventlog.errors import InvalidConfig
from eventlog.redis.address import Address
from eventlog.redis.parser import HiredisParser
from eventlog.redis.refusals import refusal_of
from eventlog.redis.scripts import Script
from eventlog.remote.driver import Unreachable

CONNECT_S: Final = 4.0
"""To connect and greet a host; two of them are tried before the limit of `open`."""
CALL_S: Final = 10.0
"""A call that was not answered by then is given up, and the connection with it."""
RECEIVE_BYTES: Final = 1 << 20
LIVENESS_S: Final = 10.0
"""A connection over which nothing came for so long is asked whether it is still one."""

_FAILURES: Final = (
    RedisError,
    TimeoutError,
    OSError,
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
    anyio.EndOfStream,
)
"""What calls of the client library raise, and its connections."""


class Asked(NamedTuple):
    """Commands on their way."""

    connection: BaseConnection
    requests: list[Any]


class Link:
    """The connection of one event loop."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._channel = address.name_of("changed").encode()
        self._connection: BaseConnection | None = None
        self._connecting = anyio.Lock()
        self._ends: Callable[[], object] | None = None
        self._is_closed = False
        self._changed = anyio.Event()
        self.made = 0
        """How many connections there were: over another one the server may have lost events."""

    # --- calls -------------------------------------------------------------------------------

    async def call(self, command: bytes, *arguments: Any) -> Any:
        """Send a command, and wait for its reply.

        Raises:
            Unreachable: nobody answered.
            EventLogError: the server refuses it.
        """
        return (await self.call_all((command, *arguments)))[0]

    async def call_all(self, *commands: tuple[Any, ...], are_entries: bool = False) -> list[Any]:
        """Send commands behind each other, and wait for their replies.

        `are_entries`: those are entries of a stream, or no lists (see `parser`).

        Raises:
            Unreachable, EventLogError: as `call`.
        """
        return await self.answers(await self.ask(*commands, are_entries=are_entries))

    async def ask(self, *commands: tuple[Any, ...], are_entries: bool = False) -> Asked:
        """Send commands behind each other; `answers` waits for their replies.

        Raises:
            Unreachable: there is no connection.
        """
        connection = await self._connect()
        try:
            requests = [
                connection.create_request(*one, timeout=CALL_S, decode=are_entries)
                for one in commands
            ]
        except _FAILURES as error:
            raise self._explain(error, connection) from None
        return Asked(connection, requests)

    async def answers(self, asked: Asked) -> list[Any]:
        """Wait for the replies to what was sent.

        Raises:
            Unreachable, EventLogError: as `call`.
        """
        try:
            return [await one for one in asked.requests]
        except NoScriptError:
            raise
        except _FAILURES as error:
            raise self._explain(error, asked.connection) from None

    async def run(self, script: Script, keys: list[str], *arguments: Any) -> list[Any]:
        """Run a script in one step; its answer, whose first item is a word.

        Raises:
            Unreachable, EventLogError: as `call`.
        """
        rest = (len(keys), *keys, *arguments)
        try:
            answer = await self.call(b"EVALSHA", script.sha, *rest)
        except NoScriptError:  # the server was started anew
            answer = await self.call(b"EVAL", script.text, *rest)
        return [answer[0].decode(), *answer[1:]]

    def _explain(self, error: Exception, connection: BaseConnection) -> Exception:
        found = refusal_of(error, self._address.path)
        if isinstance(found, Unreachable):
            connection.invalidate("given up")
            if self._connection is connection:
                self._connection = None
        return found

    # --- changes -----------------------------------------------------------------------------

    async def listen(self) -> anyio.Event:
        """An event that is set when the log changes after this call, or the connection.

        Raises:
            Unreachable: there is no connection.
        """
        await self._connect()
        return self._changed

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # --- the connection ----------------------------------------------------------------------

    async def _connect(self) -> BaseConnection:
        if self._connection is not None and self._connection.usable:
            return self._connection
        async with self._connecting:
            if self._connection is not None and self._connection.usable:
                return self._connection
            if self._is_closed:
                raise Unreachable(f"the connection to {self._address.path} is closed")
            self._connection = await self._connect_anew()
            self.made += 1
            return self._connection

    async def _connect_anew(self) -> BaseConnection:
        failure: Exception = Unreachable("no host is named")
        for place in self._address.hosts:
            run = _Run(self._address, place, self._note_change)
            end = spawn(run)
            try:
                with anyio.fail_after(CONNECT_S):
                    connection = await run.started()
                    role = await connection.create_request(b"ROLE")
                if isinstance(role, list) and role[0] == b"master":
                    connection.send_command(b"SUBSCRIBE", self._channel)
                    self._end_last()
                    self._ends, end = end, _nothing
                    return connection
                failure = Unreachable(f"{place[0]}:{place[1]} is a replica")
            except _FAILURES as error:
                failure = refusal_of(error, self._address.path)
            finally:
                end()
        raise failure

    def _end_last(self) -> None:
        if self._ends is not None:
            self._ends()
            self._ends = None

    async def aclose(self) -> None:
        """Close the connection; whoever waits wakes. May be called twice."""
        self._is_closed = True
        self._connection = None
        self._end_last()
        self._note_change()


def _nothing() -> None:
    pass


def _tls(address: Address) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=address.ca)
        if address.cert is not None:
            context.load_cert_chain(address.cert, address.key)
    except (OSError, ValueError) as error:
        files = ", ".join(filter(None, (address.ca, address.cert, address.key)))
        raise InvalidConfig(
            f"the certificates for {address.path} cannot be loaded from {files}: {error}; check ca,"
            " cert and key in the address",
            path=address.path,
        ) from None
    return context


class _Wide(ByteStream):
    """A stream that gives more at once than the client library asks for."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Connection(BaseConnection):
    """A connection over a stream that is connected."""

    def __init__(self, address: Address, location: TCPLocation, stream: ByteStream) -> None:
        super().__init__(
            location,
            stream_timeout=CONNECT_S,
            db=address.database,
            username=address.user,
            password=address.password,
            client_name="eventlog",
        )
        self._parser: Any = HiredisParser()
        self._made = _Wide(stream)

    async def _connect(self) -> ByteStream:
        return self._made

    def describe(self) -> str:
        return repr(self.location)


class _Run:
    """The task of one connection: it reads and writes, and hears what the server pushes."""

    def __init__(
        self, address: Address, place: tuple[str, int], note_change: Callable[[], None]
    ) -> None:
        self._address = address
        self._location = TCPLocation(*place)
        self._note_change = note_change
        self._connection: _Connection | None = None
        self._is_started = anyio.Event()
        self._failure: Exception | None = None

    async def started(self) -> BaseConnection:
        """The connection, once the server has greeted it."""
        await self._is_started.wait()
        if self._failure is not None:
            raise self._failure
        assert self._connection is not None
        return self._connection

    async def __call__(self) -> None:
        try:
            tls = _tls(self._address) if self._address.has_tls else None
            host, port = self._location.host, self._location.port
            stream: ByteStream = (
                await anyio.connect_tcp(host, port)
                if tls is None
                else await anyio.connect_tcp(host, port, ssl_context=tls)
            )
            self._connection = _Connection(self._address, self._location, stream)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, self._connection)
                await self._connection.run(task_status=_Started(self._is_started))
                tasks.cancel_scope.cancel()
        except* Exception as errors:  # noqa: BLE001 - whoever connects gets it
            self._failure = next(_leaves(errors))
        finally:
            self._is_started.set()
            self._note_change()

    async def _hear(self, connection: BaseConnection) -> None:
        await self._is_started.wait()
        while connection.usable:
            with anyio.move_on_after(LIVENESS_S):
                async for _ in connection.push_messages:
                    self._note_change()
            await connection.create_request(b"PING", timeout=CALL_S)
            self._note_change()  # nobody is told of a log that strangers delete


class _Started(TaskStatus[None]):
    def __init__(self, event: anyio.Event) -> None:
        self._event = event

    def started(self, value: object = None) -> None:
        """The connection is made."""
        self._event.set()


def _leaves(errors: BaseExceptionGroup[Exception]) -> Any:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def spawn(run: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], object]:
    """Start a task that belongs to the event loop and not to the caller; what ends it."""
    import sniffio

    if sniffio.current_async_library() == "trio":
        import trio

        scope = trio.CancelScope()

        async def run_in_scope() -> None:
            with scope:
                await run()

        trio.lowlevel.spawn_system_task(run_in_scope, name="eventlog.redis.link")
        return scope.cancel
    import asyncio

    task = asyncio.get_running_loop().create_task(run(), name="eventlog.redis.link")
    return task.cancel
