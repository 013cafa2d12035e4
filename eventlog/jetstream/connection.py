"""One connection to the server, from its greeting to its end, and the answers that come over it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Final, Self

import nats.errors

from eventlog.errors import EventTooLarge
from eventlog.errors import PermissionDenied as Denied
from eventlog.jetstream.answers import Answer
from eventlog.remote.driver import Unreachable

NO_RESPONDERS: Final = "503"
Headers = Mapping[str, str]
_numbers = count(1)


class Lost(Unreachable):
    """The connection broke, or there is none."""


class NoAnswerer(Exception):
    """Nobody listens on the subject: the stream is gone, or the server has no JetStream."""


class Connection:
    """One connection, from its greeting to its end."""

    def __init__(self, client: Any, path: str) -> None:
        self.client = client
        self.path = path
        self._is_ended = False
        self.prefix = client.new_inbox()
        self.inboxes: dict[bytes, Inbox] = {}
        """By the subject on which they are answered."""

    @property
    def is_ended(self) -> bool:
        """Whether nobody will be answered any more; not every broken client says so by itself."""
        return self._is_ended or self.client.is_closed

    def deliver(self, answer: Answer) -> None:
        """Hand an answer to whoever waits for it; of one who has gone, it is dropped."""
        inbox = self.inboxes.get(answer.subject)
        if inbox is not None:
            inbox.add(answer)

    def end(self) -> None:
        """Nobody will be answered any more."""
        self._is_ended = True
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


async def send(
    connection: Connection, subject: str, payload: bytes, reply: str, headers: Headers | None
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

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self.subject = subject
        self.address = f"{connection.prefix}.{next(_numbers)}"
        self.subscription: Any = None
        """The subscription of this inbox alone, if it has one; else it shares the connection's."""
        self._answers: deque[Answer] = deque()
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        """Listen."""
        self._connection.inboxes[self.address.encode()] = self
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._connection.inboxes.pop(self.address.encode(), None)

    async def end(self) -> None:
        """Listen no more, of one that is `subscribed`."""
        self.__exit__()
        if not self._connection.is_ended:
            with suppress(nats.errors.Error, OSError):
                await self._connection.client.leave(self.subscription)

    def add(self, answer: Answer) -> None:
        """An answer has come."""
        self._answers.append(answer)
        if self._waiting is not None:
            self._wake()

    def fail(self, error: Exception) -> None:
        """None will come any more."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def send(self, payload: bytes, headers: Headers | None = None) -> None:
        """Ask; answers come here."""
        await send(self._connection, self.subject, payload, self.address, headers)

    async def tell(
        self, payload: bytes, headers: Headers | None = None, subject: str | None = None
    ) -> None:
        """Send over the same connection, and want no answer."""
        await send(self._connection, subject or self.subject, payload, "", headers)

    async def next(self, within_s: float) -> Answer:
        """The next answer."""
        if not self._answers:
            await self._wait_for_arrival(within_s)
        answer = self._answers.popleft()
        if answer.is_status and answer.headers.get("Status") == NO_RESPONDERS:
            raise NoAnswerer(self.subject)
        return answer

    async def next_all(self, within_s: float) -> list[Answer]:
        """The next answer, and all others that are there already."""
        answers = [await self.next(within_s), *self._answers]
        self._answers.clear()
        return answers

    async def _wait_for_arrival(self, within_s: float) -> None:
        if self._error is None and not self._connection.is_ended:
            self._waiting = asyncio.get_running_loop().create_future()
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
