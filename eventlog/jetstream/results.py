"""Results for the group's own log: each stored once, with the end of its delivery.

No step of the server changes two streams, so it is three:

1. The results go to the bucket, and the document says that the event is done once they are in the
   log: nobody else gets it from then on.
2. They are appended to the log, by a name that the document has. The server stores a name once, as
   long as it remembers it; after that it is looked for first.
3. The document says that the event and its results are done.

A member that dies in between has left everything that somebody else needs for the rest.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from eventlog.errors import EventTooLarge, LogFull
from eventlog.jetstream.appends import BATCH_EVENTS_MAX
from eventlog.jetstream.bucket import word_of
from eventlog.jetstream.connection import NoAnswerer
from eventlog.jetstream.document import Document, Draft
from eventlog.jetstream.letters import Letters
from eventlog.jetstream.parts import LogParts
from eventlog.jetstream.state import Consumer, Storing
from eventlog.remote.driver import Done, Unreachable


class Results:
    """The results of one group."""

    def __init__(self, parts: LogParts, document: Document, letters: Letters, name: str) -> None:
        self._link = parts.link
        self._bucket = parts.bucket
        self._events = parts.events
        self._appends = parts.appends
        self._window_ns = parts.window_ns
        self._document = document
        self._letters = letters
        self._prefix = f"result.{word_of(name)}"

    async def settle(self, member_id: int, outcome: Done, after: int) -> bool:
        """Store them, and end the delivery; false if the event was somebody else's.

        Raises:
            LogFull, EventTooLarge: nothing has changed.
        """
        if len(outcome.results) >= BATCH_EVENTS_MAX:
            raise EventTooLarge(
                f"event {outcome.seq_no} of the log {self._events.path} has"
                f" {len(outcome.results)} results, and the engine stores at most"
                f" {BATCH_EVENTS_MAX - 1} in one step: return fewer",
                path=self._events.path,
            )
        storing, is_ours = await self._intend(member_id, outcome, after)
        if storing is not None:
            await self._store(outcome.seq_no, storing, outcome.results)
        return is_ours

    async def complete(self, seq_no: int, storing: Storing) -> None:
        """Do the rest of what a member began that is gone."""
        name = storing.token.encode()
        keys = [self._key(storing.place, i) for i in range(storing.count)]
        values = [(await self._bucket.read(key)).data for key in keys]
        # Else somebody has done it meanwhile, and the keys hold results of another event.
        if all(value.startswith(name) for value in values):
            await self._store(seq_no, storing, [value[len(name) :] for value in values])

    def _key(self, place: int, number: int) -> str:
        return f"{self._prefix}.{place}.{number}"

    async def _intend(
        self, member_id: int, outcome: Done, after: int
    ) -> tuple[Storing | None, bool]:
        seq_no, token = outcome.seq_no, secrets.token_hex(8)

        async def make(draft: Draft) -> tuple[Storing | None, bool]:
            consumer = draft.consumer
            seat = consumer.members.get(member_id) if consumer else None
            if consumer is None or seat is None:
                return None, False
            begun = consumer.storing.get(seq_no)
            if begun is not None and begun.member == member_id:
                return begun, True
            if seq_no not in seat.has:
                return None, seq_no in seat.said
            used = {one.place for one in consumer.storing.values()}
            place = next(i for i in range(len(used) + 1) if i not in used)
            count = len(outcome.results)
            storing = Storing(member_id, place, count, token, after, self._link.now_ns())
            seat.has.remove(seq_no)
            consumer.storing[seq_no] = storing
            for number, record in enumerate(outcome.results):
                draft.others[self._key(place, number)] = token.encode() + record
            return storing, True

        return await self._document.change(make)

    async def _store(self, seq_no: int, storing: Storing, results: Sequence[bytes]) -> None:
        try:
            first = await self._append(storing, results)
        except (LogFull, EventTooLarge):
            await self._revoke(seq_no, storing)
            raise

        async def make(draft: Draft) -> None:
            consumer = draft.consumer
            if consumer is None or not _is_still(consumer, seq_no, storing):
                return
            if seq_no in consumer.retried:
                consumer.retried.remove(seq_no)
                draft.others.update(self._letters.removed(seq_no))
            consumer.finish(seq_no)
            consumer.note_done(first, first + storing.count - 1)
            seat = consumer.members.get(storing.member)
            if seat is not None:
                seat.handled += 1
                seat.said = [seq_no]

        await self._document.change(make)

    async def _append(self, storing: Storing, results: Sequence[bytes]) -> int:
        """The number of the first one."""
        if self._link.now_ns() - storing.since_ns > self._window_ns // 2:
            found = await self._events.find_id(f"{storing.token}-0", storing.after)
            if found is not None:
                return found
        try:
            return await self._appends.store(storing.token, results)
        except NoAnswerer:
            await self._events.state()
            raise Unreachable(f"the server of {self._events.path} stores nothing now") from None

    async def _revoke(self, seq_no: int, storing: Storing) -> None:
        """Give the event back to its member, which is told why."""

        async def make(draft: Draft) -> None:
            consumer = draft.consumer
            if consumer is None or not _is_still(consumer, seq_no, storing):
                return
            del consumer.storing[seq_no]
            if storing.member in consumer.members:
                consumer.members[storing.member].has.append(seq_no)
            else:
                consumer.keys.pop(seq_no, None)

        await self._document.change(make)


def _is_still(consumer: Consumer, seq_no: int, storing: Storing) -> bool:
    known = consumer.storing.get(seq_no)
    return known is not None and known.token == storing.token
