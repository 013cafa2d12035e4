"""Which events a member gets: one change of its group's document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from eventlog.jetstream.document import Draft
from eventlog.jetstream.letters import Letters
from eventlog.jetstream.reading import Events
from eventlog.jetstream.records import Records
from eventlog.jetstream.state import Consumer, Storing
from eventlog.jetstream.watch import Watch
from eventlog.remote.driver import Delivery, Stored

LEASE_EVENTS_MAX: Final = 256
LEASE_BYTES_MAX: Final = 1 << 20
LOOK_AT: Final = 64
"""So many events are read at once at least, where some may have to wait for others of their key."""
CROWDED_PART: Final = 2
"""A document that takes one part in so many of what the server takes grows no more: members get
only what was tried before, or is before what is done."""


@dataclass
class HandedOut:
    """What a member got; or, if that is nothing, what to wait for."""

    deliveries: list[Delivery] = field(default_factory=list)
    revision: int = 0
    last: int = 0
    due_ns: int | None = None
    orphans: dict[int, Storing] = field(default_factory=dict)


class HandingOut:
    """The handing out of one group's events."""

    def __init__(
        self, events: Events, records: Records, letters: Letters, watch: Watch, bytes_max: int
    ) -> None:
        self._events = events
        self._records = records
        self._letters = letters
        self._watch = watch
        self._size_max = bytes_max // CROWDED_PART

    async def hand_out(
        self, draft: Draft, consumer: Consumer, member: int, known: set[int], count: int, least: int
    ) -> HandedOut:
        """Give the member events; again those that it has, and does not know of."""
        seat = consumer.members[member]
        known &= set(seat.has)
        if unknown := [n for n in seat.has if n not in known]:
            return HandedOut(await self._again(consumer, unknown))
        last = self._watch.last
        if next(consumer.free(last), None) is None:
            last = await self.look(consumer)
        wanted = consumer.share(min(count, LEASE_EVENTS_MAX), least, last)
        is_crowded = draft.size > self._size_max
        taken = await self._taken(consumer, member, wanted, last, is_crowded=is_crowded)
        return HandedOut(
            [Delivery(stored, consumer.attempt_of(stored.seq_no)) for stored in taken],
            draft.revision,
            last,
            consumer.next_due_ns(),
            consumer.orphans(),
        )

    async def look(self, consumer: Consumer) -> int:
        """Pass over what retention has deleted; the log's last event."""
        state = await self._events.state()
        self._watch.note_last(state.last)
        consumer.pass_deleted(state.first)
        return state.last

    async def _again(self, consumer: Consumer, seq_nos: list[int]) -> list[Delivery]:
        found, _ = await self._found(consumer, seq_nos)
        for seq_no in seq_nos:
            if seq_no not in found:
                consumer.finish(seq_no)  # retention has deleted it, so nobody can be given it
        return [Delivery(stored, consumer.attempt_of(n)) for n, stored in found.items()]

    async def _found(self, consumer: Consumer, seq_nos: list[int]) -> tuple[dict[int, Stored], int]:
        """The events as the log has them, or as their dead letters do, in order."""
        found, first = await self._records.get(seq_nos)
        for seq_no in seq_nos:
            if seq_no not in found and seq_no in consumer.retried:
                copy = await self._letters.copy_of(seq_no)
                if copy is not None:
                    found[seq_no] = copy
        return {n: found[n] for n in seq_nos if n in found}, first

    async def _taken(
        self, consumer: Consumer, member: int, wanted: int, last: int, *, is_crowded: bool
    ) -> list[Stored]:
        pick = _Pick(self._records, consumer, wanted)
        candidates = consumer.free(last)
        if is_crowded:
            candidates = _known(consumer, candidates)
        if pick.has_order:
            candidates = (n for n in candidates if not pick.is_blocked(n))
        first = 1
        while not pick.is_over and (chunk := list(islice(candidates, pick.look_at_count))):
            found, deleted_before = await self._found(consumer, chunk)
            first = max(first, deleted_before)
            for seq_no in chunk:
                pick.look_at(seq_no, found.get(seq_no))
        if first > 1:
            consumer.pass_deleted(first)
        for seq_no in pick.done:
            consumer.finish(seq_no)
        for stored in pick.taken:
            consumer.hold(member, stored.seq_no, pick.key_of(stored))
        return pick.taken


class _Pick:
    """Chooses among candidates, in their order."""

    def __init__(self, records: Records, consumer: Consumer, wanted: int) -> None:
        self._records = records
        self.has_order = consumer.options is not None and consumer.options.ordering == "key"
        self._suspects = set(consumer.suspects)
        self._busy = set(consumer.keys.values())
        self._wanted = wanted
        self._mine: set[str] = set()
        self._bytes = 0
        self.is_over = False
        self.taken: list[Stored] = []
        self.done: list[int] = []
        """The group's own results, and what is deleted."""

    @property
    def left(self) -> int:
        """How many more there may be."""
        return self._wanted - len(self.taken)

    @property
    def look_at_count(self) -> int:
        """How many candidates to look at next."""
        return max(self.left, LOOK_AT) if self.has_order else self.left

    def key_of(self, stored: Stored) -> str | None:
        """The digest of its key, where order counts."""
        return self._records.key_of(stored) if self.has_order else None

    def is_blocked(self, seq_no: int) -> bool:
        """Whether the event is known to wait for another of its key: then it is not read again."""
        key = self._records.known_key_of(seq_no)
        return key is not None and key in self._busy and key not in self._mine

    def look_at(self, seq_no: int, stored: Stored | None) -> None:
        """Take the event, or leave it."""
        if self.is_over:
            return
        if stored is None or self._records.is_own_result(stored):
            self.done.append(seq_no)
            return
        is_suspect = seq_no in self._suspects
        if is_suspect and self.taken:
            self.is_over = True
            return
        key = self.key_of(stored)
        if key is not None and key in self._busy and key not in self._mine:
            return
        if key is not None:
            self._mine.add(key)
        self.taken.append(stored)
        self._bytes += len(stored.record)
        self.is_over = is_suspect or self.left <= 0 or self._bytes >= LEASE_BYTES_MAX


def _known(consumer: Consumer, candidates: Iterator[int]) -> Iterator[int]:
    """Those that make the document no larger."""
    end = consumer.done[-1][1] if consumer.done else consumer.position
    return (n for n in candidates if n < end or n in consumer.failures)
