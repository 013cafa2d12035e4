"""What the tests of groups share: a log with its actor, members with their pages, and peers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from eventlog.config import Retention
from eventlog.errors import (
    EventLogError,
)
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.payload import new_packer
from eventlog.event.record_batch import PackedBatch
from eventlog.local.groups.acks import Acks, pack_acks
from eventlog.local.groups.ranges import RangeSet, ranges_of
from eventlog.local.groups.state import GroupState
from eventlog.local.storage.files import FILES, Files
from eventlog.local.storage.members import MemberPage
from eventlog.local.wire.group_messages import (
    Bury,
    Join,
    Joined,
    Lease,
    Leased,
    Nack,
    OpenGroup,
    Release,
    Settle,
)
from eventlog.local.wire.messages import (
    Append,
    Appended,
    Done,
    Failed,
    Message,
    error_of,
)
from eventlog.local.writer.actor import Actor
from eventlog.testing import (
    batch_of,
    open_storage,
)

TEMPORARY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
SECOND = 10**9
POOL_A, POOL_B, POOL_C = 5, 6, 7
M1, M2, M3 = POOL_A << 32 | 1, POOL_A << 32 | 2, POOL_B << 32 | 3


def pack_letter(
    *,
    event: Any,
    key: str | None,
    headers: dict[str, str] | None,
    error: str,
    traceback: str | None = None,
    exit_code: int | None = None,
    peak_rss_bytes: int | None = None,
    log_lines: tuple[str, ...] = (),
) -> bytes:
    """What a member or pool tells the writer of a dead letter; the writer never looks into it."""
    letter = {
        "event": event,
        "key": key,
        "headers": headers,
        "error": error,
        "traceback": traceback,
        "exit_code": exit_code,
        "peak_rss_bytes": peak_rss_bytes,
        "log_lines": list(log_lines),
    }
    return new_packer()(letter)


LETTER = pack_letter(event="dead", key=None, headers=None, error="ValueError: no")


class Peer:
    """A client's end: what was said to it, and what it says next."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_gone = False
        self.said: list[Any] = []
        self.requests = 0

    def say(self, message: Message) -> None:
        self.said.append(message)

    def heard(self) -> list[Any]:
        """What was said since the last look."""
        said, self.said = self.said, []
        return said

    def ask(self, kind: Any, *fields: Any) -> Any:
        """Say something that is answered at once, and by one message; the answer."""
        self.tell(kind, *fields)
        assert self.said, f"{kind.__name__} was not answered"
        answer = self.said.pop()
        assert answer.request_id == self.requests
        return answer

    def tell(self, kind: Any, *fields: Any) -> None:
        self.requests += 1
        self.world.actor.handle(self, kind(self.requests, *fields))

    def refused(self, kind: Any, *fields: Any) -> EventLogError:
        """The error that the answer carries."""
        answer = self.ask(kind, *fields)
        assert isinstance(answer, Failed), answer
        return error_of(answer)

    def hang_up(self) -> None:
        self.is_gone = True
        self.world.actor.forget_peer(self)


class Member(Peer):
    """One that has joined a group, with its page."""

    def __init__(self, world: World, member_id: int, group: str = "g") -> None:
        super().__init__(world)
        self.member_id = member_id
        self.group = group
        self.producer_seq = 0
        self.joined: Joined = accepted(self.ask(Join, group, member_id, os.getpid(), 1))
        assert type(self.joined) is Joined
        self.page = MemberPage(world.log.directory, self.joined.slot, member_id)
        world.pages.append(self.page)
        self.lease_id = 0

    def lease(self, count: int = 100) -> list[int]:
        """Ask, and take what is there at once; nothing if the answer has to wait."""
        self.tell(Lease, count)
        return self.leased()

    def leased(self) -> list[int]:
        """The events of the lease that has come."""
        found = [one for one in self.said if isinstance(one, Leased)]
        if not found:
            return []
        (leased,) = found
        self.said.remove(leased)
        self.lease_id, self.failures = leased.lease_id, dict(leased.failures)
        numbers = numbers_in(leased.ranges)
        self.page.begin(self.lease_id, len(numbers))
        return numbers

    def settle(self, *numbers: int) -> Any:
        return self.ask(Settle, self.lease_id, tuple(ranges_of(numbers)))

    def release(self, *numbers: int) -> Any:
        return self.ask(Release, self.lease_id, tuple(ranges_of(numbers)))

    def nack(self, seq_no: int, delay_s: float = 0) -> Any:
        return self.ask(Nack, self.lease_id, seq_no, int(delay_s * SECOND))

    def reject(self, seq_no: int) -> Any:
        return self.ask(Bury, self.group, self.lease_id, seq_no, LETTER)

    def results_message(self, *numbers: int) -> Callable[[int], Append]:
        """A batch of one result for each event, which also says that they are done."""
        acks = Acks(self.group, self.member_id, self.lease_id, ranges_of(numbers))
        area = pack_acks(acks)
        batch = batch_of(*(["result", number] for number in numbers))
        self.producer_seq += 1
        fields = (self.member_id, self.producer_seq, batch.count, 0, len(area))
        return lambda request_id: Append(request_id, *fields, area + batch.payload)

    def results(self, *numbers: int) -> Any:
        return self.ask(self.results_message(*numbers))


class World:
    """A log and its actor, with a clock that only moves when it is told to."""

    def __init__(self, directory: str, files: Files = FILES, **options: Any) -> None:
        self.directory = directory
        self.pages: list[MemberPage] = []
        self.now = 0
        self.dues = 0
        self.start(files, **options)

    def start(self, files: Files = FILES, **options: Any) -> None:
        self.log = open_storage(self.directory, files, **options)
        try:
            self.actor = Actor(self.log, lambda: 0, lambda: None, self.note_due)
        except BaseException:
            self.log.abandon()
            raise
        self.actor.groups._clock = lambda: self.now

    def note_due(self) -> None:
        self.dues += 1

    def end(self, ending: str = "abandon") -> None:
        """By "close" in order; by "abandon" as a killed writer does."""
        for page in self.pages:
            page.close()
        self.pages.clear()
        if ending == "close":
            self.actor.end()
        else:
            self.log.abandon()
            self.actor.groups.store.close()

    def restart(self, ending: str = "abandon") -> None:
        self.end(ending)
        self.start()

    @property
    def store(self) -> Any:
        return self.actor.groups.store

    def state(self, group: str = "g") -> GroupState:
        state: GroupState = self.store.groups[group]
        return state

    def peer(self) -> Peer:
        return Peer(self)

    def append(self, count: int, *, key: Callable[[int], str | None] = lambda _: None) -> None:
        """Events whose payload is their number; `key` tells each one's key."""
        start = self.log.last_seq_no + 1
        for number in range(start, start + count):
            batch = _batch(number, key(number))
            message = Append(0, 0, 0, 1, batch.flags, 0, batch.payload)
            peer = self.peer()
            self.actor.handle(peer, message)
            accepted(peer.said[0])
            assert peer.said == [Appended(0, number)]

    def open_group(
        self, *, ordering: str = "", max_deliveries: int = 3, position: int = 0, name: str = "g"
    ) -> None:
        answer = accepted(self.peer().ask(OpenGroup, name, ordering, max_deliveries, position))
        assert type(answer) is Done, answer

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        self.actor.groups.resume_due()

    def absent(self) -> list[int]:
        return [member_id for _, member_id, _, _ in self.actor.groups.absent()]

    def end_absent(self) -> None:
        """The processes of members that have not come back are gone."""
        for state, member_id, _, _ in self.actor.groups.absent():
            self.actor.groups.end_member(state, member_id)


def accepted(answer: Any) -> Any:
    """The answer, unless it is a refusal, which is raised."""
    if isinstance(answer, Failed):
        raise error_of(answer)
    return answer


def _batch(number: int, key: str | None) -> PackedBatch:
    builder = BatchBuilder(1 << 20)
    builder.add(number, key)
    return builder.build()


def numbers_in(ranges: Iterable[tuple[int, int]]) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]


def check_state(state: GroupState) -> None:
    """The invariants of `groups.state`, as far as one look can tell."""
    seen = RangeSet()
    for lease in state.leases.values():
        assert lease.member_id in state.members, "a lease that nobody will ever end"
        for number in lease.open.numbers():
            assert number not in seen, f"event {number} is in two leases"
            assert not state.is_done(number), f"event {number} is leased and done"
            seen.add(number, number)
    for number in state.exhausted:
        assert number not in seen, f"event {number} is leased and exhausted"
        assert not state.is_done(number), f"event {number} is exhausted and done"
    assert all(first > state.position + 1 for first, _ in state.done)


def exhaust(world: World, member: Member) -> int:
    """Make a member fail an event for the last time; the event."""
    number = 0
    while number not in world.state().exhausted:
        (number,) = member.lease(1)
        member.nack(number)
        world.advance(0)
    return number


def truncating(tmp_path: Path, ordering: str) -> World:
    """Twenty events that retention deletes once there are a few hundred."""
    retention = Retention(max_bytes=2 * 4096, keep_unacked=False)
    world = World(str(tmp_path / "log"), segment_bytes=4096, retention=retention)
    world.append(20, key=str)
    world.open_group(ordering=ordering)
    return world


def truncate(world: World) -> None:
    world.append(200, key=str)
    assert world.log.control.first_available > 21
