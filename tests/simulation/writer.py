"""The simulated writer: the real service over a real log, behind pipes that are queues of bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from eventlog.errors import LogDeleted, ProtocolError
from eventlog.local.groups.acks import Acks
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.wire.connection import Connection, frame
from eventlog.local.wire.messages import FromWriter
from eventlog.local.writer.actor import Actor
from eventlog.local.writer.service import Blocking, Service
from eventlog.testing import Killed, KillingFiles, open_storage

Action = Callable[[], None]
CALLS_UNTIL_DEATH = 120
"""Calls to the operating system, at most: a writer's start takes about thirty."""


@dataclass(eq=False)
class Link:
    """A pipe, with the bytes on their way; as a peer, it is what the actor knows of a client."""

    owner: str
    to_writer: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)
    is_closed_by_client: bool = False
    is_gone: bool = False
    """Closed by the writer."""

    def say(self, message: FromWriter) -> None:
        """See `wire.connection.Peer`."""
        if not self.is_gone:
            self.to_client += frame(message)

    def hang_up(self, rng: random.Random) -> None:
        """The client's process ends; what it was sending may be cut anywhere."""
        self.is_closed_by_client = True
        cut(self.to_writer, rng)

    def end(self, rng: random.Random) -> None:
        """The writer's end is closed, by it or by its death: no byte is heard any more."""
        self.is_gone = True
        self.to_writer.clear()
        cut(self.to_client, rng)


def cut(queue: bytearray, rng: random.Random) -> None:
    """Lose some of the bytes on their way."""
    del queue[rng.choice([0, len(queue), rng.randint(0, len(queue))]) :]


def piece_of(queue: bytearray, rng: random.Random) -> bytes:
    """The next bytes to arrive: mostly all that there are."""
    count = len(queue) if rng.random() < 0.7 else rng.randint(1, len(queue))
    piece = bytes(queue[:count])
    del queue[:count]
    return piece


class Writer:
    """One log's writers, one after the other."""

    def __init__(
        self,
        directory: str,
        rng: random.Random,
        options: dict[str, Any],
        note: Callable[..., None],
        clock: Callable[[], int],
        wall_clock: Callable[[], int],
    ) -> None:
        self._directory = directory
        self._rng = rng
        self._options = options
        self._note = note
        self._clock = clock
        self._wall_clock = wall_clock
        self.links: dict[Link, Connection] = {}
        self.is_up = False
        self.may_die = True
        self.log: WritableLog
        self.actor: Actor
        self.service: Service
        self.processes: set[int] = set()
        """The pids of members that live."""
        self.deaths: random.Random | None = None
        """By chance it dies when a batch of results is stored, and its record is not."""

    def start(self) -> bool:
        """Recover the log and serve it; false if it died doing so."""
        is_doomed = self.may_die and self._rng.random() < 0.3
        at = self._rng.randint(1, CALLS_UNTIL_DEATH) if is_doomed else None
        self._files = KillingFiles(at, torn=self._rng.random() < 0.5)
        self._under_way: dict[Blocking, Action] = {}
        """Work that a thread of the writer does, with its next call."""
        self._is_dirty = self._is_syncing = self._wants_spare = self._wants_index = False
        self._indexing: Iterator[None] | None = None
        try:
            self.log = open_storage(self._directory, self._files, self._wall_clock, **self._options)
            self.log.control.writer_pid = 1  # the same in every process that simulates
            self.log.on_spare_wanted = self._note_spare
            self.actor = Actor(
                self.log,
                lambda: len(self.links),
                self._note_dirty,
                clock=self._clock,
                on_index=self._note_index,
            )
            self.service = Service(self.actor, self._clock)
            if self.deaths is not None:
                self._die_before_records(self.deaths)
        except Killed as death:
            self._note("writer", "killed", at=str(death), starting=True)
            self._files.bury()
            return False
        self.is_up = True
        self._note("writer", "started", epoch=self.log.control.epoch, last=self.log.last_seq_no)
        return True

    def _die_before_records(self, chance: random.Random) -> None:
        """Leave batches of results to the next writer, whose group has no record of them."""
        take = self.actor.groups.take_acks

        def take_acks(acks: Acks, base_seq_no: int, last_seq_no: int) -> None:
            if self.may_die and chance.random() < 0.2:
                self._files._at = self._files.calls + 1
            take(acks, base_seq_no, last_seq_no)

        vars(self.actor.groups)["take_acks"] = take_acks

    def _note_dirty(self) -> None:
        self._is_dirty = True

    def _note_spare(self) -> None:
        self._wants_spare = True

    def _note_index(self) -> None:
        self._wants_index = True

    def kill(self, at: str = "between two messages") -> None:
        """Its memory is lost, its files stay."""
        self._note("writer", "killed", at=at)
        self._end_links()
        self.log.abandon()
        self.actor.groups.store.close()
        self._files.bury()

    def doom(self) -> None:
        """It will be killed soon, in the middle of what it does then."""
        self._files._at = self._files.calls + self._rng.randint(1, 6)

    def leave(self) -> None:
        """An orderly end, if it gets so far."""
        self._note("writer", "left")
        self._end_links()
        try:
            self.actor.end()
        except Killed:
            self.actor.groups.store.close()
            self._files.bury()

    def _end_links(self) -> None:
        self.is_up = False
        self._stop_indexing()
        for link in self.links:
            link.end(self._rng)
        self.links.clear()

    def _stop_indexing(self) -> None:
        """What it was making is left as it is."""
        indexing, self._indexing = self._indexing, None
        if isinstance(indexing, Generator):
            with suppress(Killed):
                indexing.close()

    def spare(self) -> None:
        """From now on it is not killed within a call."""
        self.may_die = False
        if self.is_up:
            self._files._at = None

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Killed as death:
            self.kill(str(death))

    def close(self) -> None:
        """Give everything back."""
        if self.is_up:
            self.is_up = False
            self._stop_indexing()
            self.log.abandon()
            self.actor.groups.store.close()
            self._files.bury()

    def leases_of(self, link: Link) -> list[int] | None:
        """What the member has that speaks through this pipe; `None` if it is no member's."""
        known = self.actor.groups.memberships._of.get(link)
        if known is None:
            return None
        leases = known.state.leases.values()
        return [one.lease_id for one in leases if one.member_id == known.member_id]

    # --- what it may do next -----------------------------------------------------------------

    def actions(self) -> list[Action]:
        """What the scheduler may choose."""
        if not self.is_up:
            return []
        found: list[Action] = [
            lambda link=link: self._guarded(lambda: self._hear(link))  # type: ignore[misc]
            for link in self.links
            if link.to_writer or link.is_closed_by_client
        ]
        works = [partial(self._go_on, work) for work in self._under_way]
        found += [partial(self._guarded, work) for work in works]
        if self._is_dirty and self.log.options.durability != "memory" and not self._is_syncing:
            found.append(lambda: self._guarded(self._sync))
        if self._wants_spare:
            found.append(lambda: self._guarded(self._make_spare))
        if self._wants_index or self._indexing is not None:
            found.append(lambda: self._guarded(self._index))
        if any(one.pid not in self.processes for one in self.actor.groups.absent()):
            found.append(lambda: self._guarded(self._end_absent))
        return found

    def _hear(self, link: Link) -> None:
        if not link.to_writer:
            del self.links[link]
            link.is_gone = True
            self.actor.forget_peer(link)
            return
        connection = self.links[link]
        try:
            for message in connection.receive(piece_of(link.to_writer, self._rng)):
                self.actor.handle(link, message)  # type: ignore[arg-type]
                if isinstance(self.log.failure, LogDeleted):
                    self.kill("the log was deleted")
                    return
        except ProtocolError as error:
            self._note("writer", "protocol_error", of=link.owner, error=str(error))
            self.drop(link)

    def drop(self, link: Link) -> None:
        """End a conversation, as with a peer that does not read its answers.

        It does not die of it: whether a member that lives had lost its leases would not be known.
        """
        del self.links[link]
        link.end(self._rng)
        at, self._files._at = self._files._at, None
        self.actor.forget_peer(link)
        if at is not None:
            self._files._at = self._files.calls + 1

    def _sync(self) -> None:
        self._is_dirty = False
        self._is_syncing = True
        self._begin(self._syncing())

    def _syncing(self) -> Blocking:
        yield from self.service.syncing(with_positions=self.log.options.durability == "disk")
        self._is_syncing = False

    def _make_spare(self) -> None:
        self._wants_spare = False
        self._begin(self.service.making_spare())

    def _index(self) -> None:
        """Another step of making indexes by key."""
        if self._indexing is None:
            self._wants_index = False
            self._indexing = self.actor.indexing()
        if next(self._indexing, self) is self:
            self._indexing = None

    def _begin(self, work: Blocking) -> None:
        call = next(work, None)
        if call is not None:
            self._under_way[work] = call

    def _go_on(self, work: Blocking) -> None:
        """What a thread does, and what the loop does when the thread is through."""
        self._under_way.pop(work)()
        self._begin(work)

    def _end_absent(self) -> None:
        """Members of before the start whose processes have ended."""
        for absent in self.actor.groups.absent():
            if absent.pid not in self.processes:
                self.service.end_absent(absent)

    # --- time --------------------------------------------------------------------------------

    def next_due(self) -> int | None:
        """When a backoff ends."""
        return self.actor.groups.next_due() if self.is_up else None

    def resume(self) -> None:
        """Time has passed."""
        if self.is_up:
            self._guarded(self.actor.groups.resume_due)
