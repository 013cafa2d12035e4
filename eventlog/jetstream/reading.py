"""Events of the log: a range of them at once, or one after the other as they come."""

from __future__ import annotations

import json
from functools import partial
from operator import itemgetter
from typing import Any, Final, cast

from eventlog.errors import CorruptLog, EventsTruncated, LogDeleted
from eventlog.jetstream.connection import Headers, NoAnswerer
from eventlog.jetstream.feed import Feed
from eventlog.jetstream.link import ANSWER_S, NO_STREAM, Link, Refused
from eventlog.jetstream.times import ns_of, text_of
from eventlog.remote.driver import State, Stored, Unreachable

READ_MAX: Final = 1024
READ_BYTES: Final = 8 << 20
_seq_no: Final = itemgetter(0)
_three: Final = itemgetter(0, 1, 2)
_stored: Final = cast("Any", partial(tuple.__new__, Stored))
"""As `Stored._make`, in C."""


class Events:
    """The log's stream, as its readers see it."""

    def __init__(self, link: Link, stream: str, subject: str, log_id: str) -> None:
        self.link = link
        self.stream = stream
        self.subject = subject
        self._log_id = log_id
        self._direct = f"$JS.API.DIRECT.GET.{stream}"

    @property
    def path(self) -> str:
        """What errors call the log."""
        return self.link.address.path

    def deleted(self) -> LogDeleted:
        """The error of whoever uses a log that is gone."""
        return LogDeleted(
            f"the log {self.path} was deleted, or replaced by another one; open it again",
            path=self.path,
        )

    async def state(self) -> State:
        """First, last and size.

        Raises:
            LogDeleted, Unreachable.
        """
        try:
            info = await self.link.api(f"STREAM.INFO.{self.stream}")
        except Refused as refused:
            if refused.code == NO_STREAM:
                raise self.deleted() from None
            raise Unreachable(str(refused)) from None
        except NoAnswerer:
            raise Unreachable(f"the server of {self.path} has no JetStream now") from None
        if (info["config"].get("metadata") or {}).get("eventlog.id") != self._log_id:
            raise self.deleted()
        state = info["state"]
        last = int(state["last_seq"])
        # An empty stream says 0; one whose events have all gone says one past the last.
        first = int(state["first_seq"]) if state["messages"] else last + 1
        return State(first, last, int(state["bytes"]))

    async def read(self, seq_no: int, count: int) -> list[Stored]:
        """Up to `count` events from `seq_no` on.

        Raises:
            EventsTruncated, CorruptLog, LogDeleted, Unreachable.
        """
        request = {"seq": seq_no, "batch": min(count, READ_MAX), "max_bytes": READ_BYTES}
        found = await self._direct_get(request)
        if not found:
            state = await self.state()
            if seq_no < state.first <= state.last + 1 and seq_no <= state.last:
                raise self._truncated(seq_no, state.first)
            return []
        await self.check(seq_no, found)
        return found

    async def find_time(self, time_ns: int) -> int:
        """The first event stored at or after that time; one past the last if there is none."""
        found = await self._direct_get({"start_time": text_of(time_ns), "batch": 1})
        return found[0].seq_no if found else (await self.state()).last + 1

    async def find_id(self, message_id: str, after: int) -> int | None:
        """The event behind `after` that was appended with that id; `None` if there is none."""
        while messages := await self._direct_messages({"seq": after + 1, "batch": READ_MAX}):
            for headers, _ in messages:
                after = int(headers["Nats-Sequence"])
                if headers.get("Nats-Msg-Id") == message_id:
                    return after
        return None

    async def _direct_get(self, request: dict[str, Any]) -> list[Stored]:
        return [
            Stored(int(headers["Nats-Sequence"]), ns_of(headers["Nats-Time-Stamp"]), data)
            for headers, data in await self._direct_messages(request)
        ]

    async def _direct_messages(self, request: dict[str, Any]) -> list[tuple[Headers, bytes]]:
        found: list[tuple[Headers, bytes]] = []
        with await self.link.inbox(self._direct) as inbox:
            await inbox.send(json.dumps(request).encode())
            while True:
                try:
                    answers = await inbox.next_all(ANSWER_S)
                except NoAnswerer:
                    await self.state()
                    raise Unreachable(f"the server of {self.path} cannot read now") from None
                for answer in answers:
                    headers = answer.headers
                    status = headers.get("Status")
                    if status in ("204", "404"):
                        return found
                    if status is not None or headers.get("Nats-Subject") != self.subject:
                        await self.state()
                        raise Unreachable(f"the server of {self.path} answers {status}")
                    found.append((headers, answer.data))

    async def check(self, seq_no: int, found: list[Stored]) -> None:
        """Whether these are the events from `seq_no` on, without a gap.

        Raises:
            EventsTruncated, CorruptLog.
        """
        if list(map(_seq_no, found)) == list(range(seq_no, seq_no + len(found))):
            return
        expected = seq_no
        for stored in found:
            if stored.seq_no != expected:
                first = (await self.state()).first
                if expected < first:
                    raise self._truncated(expected, first)
                raise CorruptLog(
                    f"events {expected} to {stored.seq_no - 1} of the log {self.path} are missing:"
                    " somebody deleted them; read on after them",
                    path=self.path,
                    seq_no=expected,
                    last_seq_no=stored.seq_no - 1,
                )
            expected += 1

    def _truncated(self, seq_no: int, first: int) -> EventsTruncated:
        return EventsTruncated(
            f"event {seq_no} of the log {self.path} was deleted by retention; the oldest still"
            f" stored is {first}",
            path=self.path,
            seq_no=seq_no,
            first_available=first,
        )

    def feed(self, seq_no: int, *, headers_only: bool = False) -> Feed:
        """The messages from that number on."""
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(seq_no, 1),
            "filter_subject": self.subject,
            "headers_only": headers_only,
        }
        return Feed(self.link, self.stream, config)


class EventReader:
    """Reads on from one number, and waits for what comes."""

    def __init__(self, events: Events, seq_no: int) -> None:
        self._events = events
        self._seq_no = max(seq_no, 1)
        self._feed = events.feed(seq_no)

    async def next(self) -> list[Stored]:
        """See `Reader`."""
        while True:
            messages = await self._feed.next()
            # The server begins at its end if the number is past that.
            if messages[0].seq_no < self._seq_no:
                messages = [one for one in messages if one.seq_no >= self._seq_no]
            found: list[Stored] = list(map(_stored, map(_three, messages)))
            if found:
                await self._events.check(self._seq_no, found)
                self._seq_no = found[-1].seq_no + 1
                return found

    async def aclose(self) -> None:
        """See `Reader`."""
        await self._feed.aclose()
