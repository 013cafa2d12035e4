"""Appends: each stored once, in the order of their producer, also when they are repeated.

Every message carries an id made of its producer, the number of its batch there, and its place. The
server drops those whose id it remembers. A batch is one of the server's atomic ones. Of one
producer one batch is on its way at a time: what is sent behind a batch whose connection breaks
could be stored before it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from typing import Any, Final

from eventlog.api.refusals import wrong_last
from eventlog.errors import EventTooLarge, LogFull
from eventlog.jetstream.link import ANSWER_S, IS_FULL, TOO_LARGE, Link, Refused, answer_of
from eventlog.remote.driver import OutOfTurn, Unreachable

BATCH_EVENTS_MAX: Final = 1000
"""The server's own limit for an atomic batch."""
IN_BATCH_AGAIN: Final = 10201
"""A message of the batch is stored already."""
EXPECTED_LAST: Final = "Nats-Expected-Last-Sequence"
WRONG_LAST: Final = re.compile(r"wrong last sequence: (\d+)")
"""What the server says of a last event with another number."""
PRODUCERS_KEPT: Final = 65_536
"""The least recently used one is forgotten."""


class _Producer:
    """Where one producer is."""

    def __init__(self) -> None:
        self.stored = 0
        """All its batches up to this number are stored."""
        self.turn = asyncio.Lock()


class Appends:
    """The appends of one handle."""

    def __init__(self, link: Link, subject: str) -> None:
        self._link = link
        self._subject = subject
        self._producers: dict[int, _Producer] = {}

    async def append(
        self,
        producer_id: int,
        producer_seq: int,
        records: Sequence[bytes],
        expect_last: int | None = None,
    ) -> int:
        """Store the records, if the last event has the expected number; that of the first one.

        Raises:
            NoAnswerer: the stream is not there.
            WrongExpectation: the last event has another number.
            OutOfTurn, Unreachable, LogFull, EventTooLarge.
        """
        producer = self._producers.pop(producer_id, None) or _Producer()
        self._producers[producer_id] = producer  # the latest used is last
        if len(self._producers) > PRODUCERS_KEPT:
            del self._producers[next(iter(self._producers))]
        async with producer.turn:
            if producer_seq > producer.stored + 1:
                raise OutOfTurn
            first = await self.store(f"{producer_id:x}-{producer_seq}", records, expect_last)
            producer.stored = max(producer.stored, producer_seq)
            return first

    async def store(
        self, name: str, records: Sequence[bytes], expect_last: int | None = None
    ) -> int:
        """Store records whose ids begin with `name`; again, it is the number of the first time.

        Of a batch, also one of a single record, the server looks for the ids before it looks at
        what is expected; of a message alone, after it.
        """
        try:
            if len(records) == 1 and expect_last is None:
                return await self._send_one(f"{name}-0", records[0])
            return await self._send_batch(name, records, expect_last) - len(records) + 1
        except Refused as refused:
            found = WRONG_LAST.search(str(refused))
            if expect_last is not None and found is not None:
                raise wrong_last(self._link.address.path, expect_last, int(found[1])) from None
            raise self._meaning(refused) from None

    async def _send_one(self, message_id: str, record: bytes) -> int:
        answer = await self._link.call(self._subject, record, {"Nats-Msg-Id": message_id})
        return int(answer_of(answer)["seq"])

    async def _send_batch(
        self, name: str, records: Sequence[bytes], expect_last: int | None
    ) -> int:
        """The number of the last one."""
        batch, last = secrets.token_hex(8), len(records) - 1
        with await self._link.inbox(self._subject) as inbox:
            for place, record in enumerate(records):
                headers = {
                    "Nats-Msg-Id": f"{name}-{place}",
                    "Nats-Batch-Id": batch,
                    "Nats-Batch-Sequence": str(place + 1),
                }
                if place == 0 and expect_last is not None:
                    headers[EXPECTED_LAST] = str(expect_last)
                if place < last:
                    await inbox.tell(record, headers)
                else:
                    await inbox.send(record, headers | {"Nats-Batch-Commit": "1"})
            answer: Any = await inbox.next(ANSWER_S)
        try:
            return int(answer_of(answer)["seq"])
        except Refused as refused:
            if refused.code != IN_BATCH_AGAIN:
                raise
        # All of it was stored before, for a batch is whole or not there; the last one alone, sent
        # again, is answered with its number.
        return await self._send_one(f"{name}-{last}", records[last])

    def _meaning(self, refused: Refused) -> Exception:
        path = self._link.address.path
        if refused.code == TOO_LARGE:
            return EventTooLarge(
                f"an event is larger than the stream at {path} takes: {refused}; raise its"
                " max_msg_size",
                path=path,
            )
        if refused.code in IS_FULL:
            return LogFull(
                f"the server of {path} has no room: {refused}; nothing was stored; give the"
                " server, its account or the stream more room",
                path=path,
            )
        return Unreachable(f"the server of {path} did not store: {refused}")
