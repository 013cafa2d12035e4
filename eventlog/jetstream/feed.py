"""Messages of a stream, one after the other: what is there, and then what comes.

A feed is an ephemeral pull consumer that acknowledges nothing. It asks for some thousand messages
ahead, and hears a heartbeat of the server while there are none, so that a consumer, a server or a
connection that is gone is `Unreachable` within seconds. Whoever reads makes another feed then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple, cast

from eventlog.errors import LogDeleted
from eventlog.jetstream.answers import Answer
from eventlog.jetstream.connection import Inbox, NoAnswerer
from eventlog.jetstream.link import NO_STREAM, Link, Refused
from eventlog.remote.driver import Unreachable

AHEAD_MAX: Final = 2048
AHEAD_FIRST: Final = 64
AHEAD_BYTES: Final = 8 << 20
"""So much may be on its way, unless one message is larger."""
HEARTBEAT_S: Final = 2.0
SILENCE_S: Final = 5.0
"""Two heartbeats did not come."""
EXPIRES_S: Final = 30.0
INACTIVE_S: Final = 60.0
"""The server forgets a consumer that nobody has asked for so long."""
SECOND_NS: Final = 1_000_000_000
_BAD_FILTER: Final = 10093
"""The stream has other subjects: it was made again, for another log."""


class Message(NamedTuple):
    """One message."""

    seq_no: int
    stored_ns: int
    data: bytes
    subject: bytes


_message: Final = cast("Any", partial(tuple.__new__, Message))
"""As `Message._make`, in C."""


class Feed:
    """One reader's messages; `config` says where it begins, in the words of the server."""

    def __init__(self, link: Link, stream: str, config: Mapping[str, Any]) -> None:
        self._link = link
        self._stream = stream
        self._config = config
        self._inbox: Inbox | None = None
        self._consumer = ""
        self._received = 0
        self._asked = 0
        """Messages that were asked for and have not come."""
        self._ahead = AHEAD_FIRST
        self.pending = 0
        """How many more there were when the last one was sent."""

    async def open(self) -> None:
        """Make the consumer.

        Raises:
            LogDeleted: the stream is gone, or another one.
            Unreachable.
        """
        config = {
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(INACTIVE_S * SECOND_NS),
            **self._config,
        }
        request = {"stream_name": self._stream, "config": config}
        path = self._link.address.path
        try:
            answer = await self._link.api(f"CONSUMER.CREATE.{self._stream}", request)
        except NoAnswerer:
            raise Unreachable(f"the server of {path} has no JetStream now") from None
        except Refused as refused:
            if refused.code in (NO_STREAM, _BAD_FILTER):
                raise LogDeleted(
                    f"the log {path} was deleted, or replaced by another one; open it again",
                    path=path,
                ) from None
            raise Unreachable(str(refused)) from None
        self._consumer = answer["name"]
        self.pending = int(answer["num_pending"])
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        self._inbox = await self._link.subscribed(subject)

    async def aclose(self) -> None:
        """Remove the consumer, without waiting for it; may be called twice."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await inbox.end()
            with suppress(Unreachable):  # it goes by itself
                await inbox.tell(
                    b"", None, f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}"
                )

    async def next(self) -> list[Message]:
        """Wait for the next messages, at least one.

        Raises:
            Unreachable: there may be more, but this feed does not get them.
        """
        if self._inbox is None:
            await self.open()
        assert self._inbox is not None
        while True:
            await self._ask(self._inbox)
            messages = self._messages_of(await self._next_of(self._inbox))
            if messages:
                mean = sum(len(one.data) for one in messages) // len(messages)
                self._ahead = max(min(AHEAD_BYTES // (mean + 1), AHEAD_MAX), 1)
                return messages

    async def _ask(self, inbox: Inbox) -> None:
        if self._asked > self._ahead // 2:
            return
        count = max(self._ahead - self._asked, 1)
        request = {
            "batch": count,
            "expires": int(EXPIRES_S * SECOND_NS),
            "idle_heartbeat": int(HEARTBEAT_S * SECOND_NS),
        }
        await inbox.send(json.dumps(request).encode())
        self._asked += count

    async def _next_of(self, inbox: Inbox) -> list[Answer]:
        try:
            return await inbox.next_all(SILENCE_S)
        except NoAnswerer:
            raise Unreachable("the consumer is gone") from None

    def _messages_of(self, answers: list[Answer]) -> list[Message]:
        sent = [one for one in answers if not one.is_status]
        if len(sent) < len(answers):
            for one in answers:
                if one.is_status:
                    self._hear(one.headers)
        if not sent:
            return []
        # $JS.ACK.stream.consumer.deliveries.number.place.time.pending; a domain is two more.
        tokens = [one.reply.split(b".") for one in sent]
        first = 5 if len(tokens[0]) == 9 else 7
        seq_nos, places, times_ns = (map(int, map(itemgetter(first + i), tokens)) for i in range(3))
        if list(places) != list(range(self._received + 1, self._received + len(sent) + 1)):
            raise Unreachable("messages were lost on their way")
        self._received += len(sent)
        self._asked -= len(sent)
        self.pending = int(tokens[-1][first + 3])
        contents = [one.data for one in sent], [one.subject for one in sent]
        return list(map(_message, zip(seq_nos, times_ns, *contents, strict=True)))

    def _hear(self, headers: Mapping[str, str]) -> None:
        status = headers.get("Status")
        if status == "408":
            self._asked -= int(headers.get("Nats-Pending-Messages", "0"))
        elif status != "100":
            raise Unreachable(f"the server answers {status}")
