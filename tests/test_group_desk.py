"""What members and pools are told: a real log and real pages, peers that collect what is said."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eventlog.config import Retention
from eventlog.errors import (
    EventLogError,
    GroupMismatch,
    InvalidArgument,
    InvalidName,
    LogFull,
    ProtocolError,
    StaleLease,
    StorageFailed,
)
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.many_events import pack_batches
from eventlog.event.record_batch import PackedBatch
from eventlog.local.groups.acks import Acks, pack_acks
from eventlog.local.groups.ranges import RangeSet, ranges_of
from eventlog.local.groups.state import DONE, STARTED, GroupState
from eventlog.local.groups.stored import StoredLetters, pack_letter, read_dead_letters
from eventlog.local.storage.files import FILES, Files
from eventlog.local.storage.members import LEASE_EVENTS_MAX, MemberPage
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Condemned,
    Counted,
    DropDead,
    Excuse,
    Join,
    Joined,
    Lease,
    Leased,
    Leave,
    Nack,
    OpenGroup,
    Passed,
    Release,
    RetryDead,
    Revoke,
    Settle,
)
from eventlog.local.wire.messages import (
    Ack,
    Append,
    Appended,
    Done,
    Failed,
    Forget,
    Message,
    Park,
    Seek,
    Wake,
    error_of,
)
from eventlog.local.writer.actor import Actor
from eventlog.testing import (
    FailingFiles,
    Killed,
    KillingFiles,
    batch_of,
    open_storage,
    stored_events,
)
from tests.faults.histories import booted
from tests.faults.recorder import RecordingFiles

TEMPORARY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
SECOND = 10**9
POOL_A, POOL_B, POOL_C = 5, 6, 7
M1, M2, M3 = POOL_A << 32 | 1, POOL_A << 32 | 2, POOL_B << 32 | 3
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

    def bury(self, seq_no: int) -> Any:
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
    for number in state.condemned:
        assert number not in seen, f"event {number} is leased and condemned"
        assert not state.is_done(number), f"event {number} is condemned and done"
    assert all(first > state.position + 1 for first, _ in state.done)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Twenty events and the group `g`, which begins with the first."""
    made = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    made.append(20)
    made.open_group()
    yield made
    made.end()


@pytest.fixture
def fast() -> Iterator[Path]:
    """A directory in memory, if there is such a place: these tests make hundreds of logs."""
    made = Path(tempfile.mkdtemp(dir=TEMPORARY))
    yield made
    shutil.rmtree(made)


# --- groups and members ----------------------------------------------------------------------


def test_results_that_are_stored_are_answered_again_when_the_member_is_gone(world: World) -> None:
    """They were refused, and there they are: the answer had been lost with the member's pipes."""
    member = Member(world, M1)
    one, *_ = member.lease(3)
    message = member.results_message(one)
    answer = member.ask(message)
    member.hang_up()
    again = world.peer().ask(message)
    assert (type(again), again.base_seq_no) == (Appended, answer.base_seq_no)
    assert list(stored_events(world.directory)) == list(range(1, 22))


def test_the_next_writer_does_not_give_a_page_away_that_was_just_left(world: World) -> None:
    """Who lost its pipe and lives may still write there: that a handler of its own is done.

    In another member's page that said that an event was done which nobody had handled.
    """
    left = Member(world, M1)
    left.hang_up()
    world.restart()
    assert Member(world, M2).joined.slot != left.joined.slot


def test_a_group_has_to_be_opened_before_anybody_joins(world: World) -> None:
    for kind, fields in (
        (Join, (1, os.getpid(), 1)),
        (AwaitCondemned, (1,)),
        (AwaitDrained, (1,)),
        (RetryDead, ((),)),
    ):
        assert type(world.peer().refused(kind, "other", *fields)) is InvalidArgument
    assert type(world.peer().refused(OpenGroup, "a\0b", "", 1, 0)) is InvalidName


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (OpenGroup, ("g", "time", 1, 0)),
        (OpenGroup, ("g", "", 0, 0)),
        (OpenGroup, ("g", "", 1_000_001, 0)),
        (Join, ("g", 0, 1, 1)),
        (Join, ("g", 2**64, 1, 1)),
        (Join, ("g", 1, 0, 1)),
        (Join, ("g", 1, 2**31, 1)),
        (Lease, (1,)),
        (Settle, (1, ((1, 1),))),
        (Release, (1, ((1, 1),))),
        (Nack, (1, 1, 0)),
        (Bury, ("g", 1, 1, b"")),
        (RetryDead, ("g", ((0, 1),))),
        (RetryDead, ("g", ((2, 1),))),
        (DropDead, ("g", ((1, 2**64 - 1),))),
    ],
)
def test_what_makes_no_sense_ends_the_conversation(
    world: World, kind: Any, fields: tuple[Any, ...]
) -> None:
    with pytest.raises(ProtocolError):
        world.peer().tell(kind, *fields)


def test_a_pipe_joins_once_and_asks_once(world: World) -> None:
    world.open_group(name="late", position=20)
    member = Member(world, M1, "late")
    with pytest.raises(ProtocolError):
        member.tell(Join, "g", M2, os.getpid(), 1)
    member.tell(Lease, 1)
    with pytest.raises(ProtocolError):
        member.tell(Lease, 1)


def test_a_group_begins_where_it_is_told_or_where_its_consumer_was(world: World) -> None:
    world.open_group(name="late", position=7)
    world.open_group(name="later", position=99)
    world.log.ack("reader", 5)
    world.open_group(name="reader", position=1)
    assert [world.state(name).position for name in ("late", "later", "reader")] == [7, 20, 5]
    world.open_group(name="late", position=1)
    assert world.state("late").position == 7, "it was there already"
    offset = world.log.offsets.find("later")
    assert offset is not None
    assert offset.position == 20


def test_the_options_of_a_group_at_work_stay(world: World) -> None:
    member = Member(world, M1)
    for options in (("key", 3), ("", 4)):
        assert type(world.peer().refused(OpenGroup, "g", *options, 0)) is GroupMismatch
    world.open_group()
    member.ask(Leave)
    world.open_group(ordering="key", max_deliveries=4)
    assert (world.state().ordering, world.state().max_deliveries) == ("key", 4)
    world.restart()
    assert (world.state().ordering, world.state().max_deliveries) == ("key", 4)


def test_each_member_has_a_page_of_its_own(world: World) -> None:
    members = [Member(world, POOL_A << 32 | n) for n in range(1, 5)]
    assert len({member.joined.slot for member in members}) == 4
    members[0].hang_up()
    slots = {member.joined.slot for member in members}
    assert Member(world, M3).joined.slot not in slots, "what the last one left can still be read"


def test_pages_are_used_again_in_the_end(world: World) -> None:
    slots = []
    for number in range(1, 200):
        member = Member(world, number)
        slots.append(member.joined.slot)
        member.hang_up()
    assert max(slots) < 64


def test_a_group_with_members_is_not_forgotten(world: World) -> None:
    member = Member(world, M1)
    assert type(world.peer().refused(Forget, "g")) is InvalidArgument
    member.hang_up()
    assert type(world.peer().ask(Forget, "g")) is Done
    assert world.log.offsets.find("g") is None
    world.restart()
    assert world.store.groups == {}


# --- leases ----------------------------------------------------------------------------------


def test_who_asks_gets_events_that_nobody_else_has(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(3) == [1, 2, 3]
    assert two.lease(3) == [4, 5, 6]
    assert one.failures == two.failures == {}
    assert world.state().in_flight == 6


def test_nobody_takes_so_much_that_others_have_nothing_at_the_end(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(100) == list(range(1, 11))
    assert two.lease(100) == list(range(11, 21))


def test_a_lease_is_no_larger_than_its_page(tmp_path: Path) -> None:
    world = World(str(tmp_path / "log"))
    events = 3 * LEASE_EVENTS_MAX
    (batch,) = pack_batches([0] * events, 1 << 20, 1 << 24)
    world.log.append(batch)
    world.open_group()
    assert len(Member(world, M1).lease(2**63)) == LEASE_EVENTS_MAX
    world.end()


def test_who_finds_nothing_is_told_when_there_is_something(world: World) -> None:
    world.open_group(name="late", position=20)
    one, two = Member(world, M1, "late"), Member(world, M2, "late")
    assert one.lease() == two.lease() == []
    world.append(1)
    assert (one.leased(), two.leased()) == ([21], [])
    world.append(1)
    assert two.leased() == [22]


def test_who_has_left_is_not_given_anything(world: World) -> None:
    world.open_group(name="late", position=20)
    one, two = Member(world, M1, "late"), Member(world, M2, "late")
    one.lease()
    two.lease()
    one.hang_up()
    world.append(1)
    assert (one.leased(), two.leased()) == ([], [21])


def test_settled_events_move_the_position(world: World) -> None:
    member = Member(world, M1)
    assert member.lease(4) == [1, 2, 3, 4]
    assert type(member.settle(2, 4)) is Done
    assert world.state().position == 0
    assert type(member.settle(1)) is Done
    offset = world.log.offsets.find("g")
    assert offset is not None
    assert (world.state().position, offset.position) == (2, 2)
    assert type(member.settle(1, 2)) is Done, "said again, after a lost pipe"
    assert type(member.settle()) is Done


def test_a_delivery_that_was_superseded_does_not_count(world: World) -> None:
    member, other = Member(world, M1), Member(world, M2)
    member.lease(2)
    lease_id = member.lease_id
    for kind, fields in (
        (Settle, (lease_id, ((1, 1),))),
        (Release, (lease_id, ((1, 1),))),
        (Nack, (lease_id, 1, 0)),
        (Bury, ("g", lease_id, 1, LETTER)),
    ):
        assert type(other.refused(kind, *fields)) is StaleLease
    assert type(world.peer().ask(Seek, "g", 0)) is Done
    error = member.refused(Settle, lease_id, ((1, 1),))
    assert (type(error), error.seq_no, error.consumer) == (StaleLease, 1, "g")
    answer = member.results(1)
    assert type(error_of(answer)) is StaleLease
    assert world.log.last_seq_no == 20, "its results were not stored"
    assert other.lease(2) == [1, 2]


def test_what_a_settlement_names_is_done_even_if_some_of_it_was_said_before(world: World) -> None:
    # All or nothing: since event 1 was done already, 2 and 3 were answered with `Done`, and stayed.
    member = Member(world, M1)
    member.lease(3)
    member.settle(1)
    assert type(member.settle(1, 2, 3)) is Done
    assert world.state().position == 3


# --- failures --------------------------------------------------------------------------------


def test_a_failed_event_waits_for_its_backoff(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    one.lease(2)
    assert type(one.nack(1, delay_s=30)) is Done
    assert world.dues == 1
    assert world.actor.groups.next_due() == 30 * SECOND
    one.settle(2)
    while numbers := two.lease(100):
        two.settle(*numbers)
    assert world.state().position == 0, "two asks, and waits"
    world.advance(29)
    assert two.leased() == []
    world.advance(1)
    assert (two.leased(), two.failures) == ([1], {1: 1})
    assert world.actor.groups.next_due() is None
    two.settle(1)
    assert world.state().position == 20


def test_a_writer_counts_what_groups_are_handed(world: World) -> None:
    member = Member(world, M1)
    assert member.lease(3) == [1, 2, 3]
    counted = world.actor.statistics()
    assert (counted.leased, counted.redelivered, counted.in_flight) == (3, 0, 3)
    member.settle(1, 3)
    member.nack(2)
    world.actor.groups.resume_due()
    assert member.lease(1) == [2]
    counted = world.actor.statistics()
    assert (counted.leased, counted.redelivered, counted.in_flight) == (4, 1, 1)


def test_a_failure_that_is_said_twice_counts_once(world: World) -> None:
    member = Member(world, M1)
    member.lease(2)
    for _ in range(3):
        assert type(member.nack(1, 5)) is Done
    assert world.state().deliveries == {1: 1}


def test_a_waiting_event_is_handed_out_once_after_a_restart(world: World) -> None:
    member = Member(world, M1)
    assert member.lease(2) == [1, 2]
    member.nack(1, delay_s=30)
    world.restart()
    member = Member(world, M1)
    seen = Counts[int]()
    while numbers := member.lease(3):
        member.settle(*numbers)
        seen.update(numbers)
        world.advance(20)
    assert seen == Counts([1, *range(3, 21)])


def test_a_failure_that_is_said_first_after_a_restart_waits(world: World) -> None:
    # The first word to the new writer was that an event had failed: it was handed out at once, and
    # a second time when its wait was over.
    member = Member(world, M1)
    assert member.lease(2) == [1, 2]
    lease_id = member.lease_id
    world.restart()
    one, two = Member(world, M1), Member(world, M2)
    assert (one.joined.lease_id, numbers_in(one.joined.ranges)) == (lease_id, [1, 2])
    one.lease_id = lease_id
    one.nack(1, delay_s=30)
    while numbers := two.lease(100):
        assert 1 not in numbers
        two.settle(*numbers)
    world.advance(30)
    assert two.leased() == [1]
    assert one.lease() == []


def test_the_page_of_a_dead_member_says_what_it_had_begun(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(5) == [1, 2, 3, 4, 5]
    one.page.states[:4] = bytes([DONE, STARTED, DONE, STARTED])
    one.hang_up()
    assert one.said == []
    state = world.state()
    assert (state.position, list(state.done), state.deliveries) == (1, [(3, 3)], {2: 1, 4: 1})
    assert two.lease(3) == [2], "nobody knows whether 2 or 4 ended the worker"
    assert two.failures == {2: 1}
    two.settle(2)
    assert two.lease(3) == [4]
    assert two.failures == {4: 1}
    two.settle(4)
    assert two.lease(3) == [5, 6, 7]
    assert list(state.members) == [M2]


@pytest.mark.parametrize("ordering", ["", "key"])
@pytest.mark.parametrize("max_deliveries", [1, 3])
def test_only_a_death_alone_condemns(tmp_path: Path, ordering: str, max_deliveries: int) -> None:
    # All that a worker had in its hands counted a delivery each time it died, and its neighbours
    # became dead letters with the one event that had killed it.
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(6, key=str)
    world.open_group(ordering=ordering, max_deliveries=max_deliveries)
    one = Member(world, M1)
    assert one.lease(4) == [1, 2, 3, 4]
    one.page.states[:3] = bytes([STARTED] * 3)
    one.hang_up()
    assert not world.state().condemned
    two = Member(world, M2)
    for number in (1, 2):
        assert two.lease(6) == [number]
        assert two.failures == ({number: 1} if max_deliveries > 1 else {})
        two.settle(number)
    deaths = 0
    while not world.state().condemned:
        assert two.lease(6) == [3]
        two.page.states[0] = STARTED
        two.hang_up()
        deaths += 1
        two = Member(world, M2 + deaths)
    assert deaths == max(max_deliveries - 1, 1), "the shared one is the first"
    assert two.lease(6) == [4, 5, 6]
    world.end()


def test_a_suspect_that_its_worker_outlives_is_none(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    one.lease(3)
    one.page.states[:2] = bytes([STARTED, STARTED])
    one.hang_up()
    assert two.lease(9) == [1]
    two.nack(1, delay_s=1)
    assert two.lease(9) == [2]
    two.settle(2)
    world.advance(1)
    assert two.lease(3) == [1, 3, 4]
    world.end_absent()


def test_what_dies_with_a_pool_that_is_left_has_not_failed(world: World) -> None:
    # A pool that is left kills its workers after a while: three times, and a slow event was a dead
    # letter, although nothing had failed.
    one, other = Member(world, M1), Member(world, M3)
    one.lease(2)
    other.lease(2)
    for member in (one, other):
        member.page.states[0] = STARTED
    accepted(world.peer().ask(Excuse, POOL_A))
    one.hang_up()
    other.hang_up()
    assert world.state().deliveries == {3: 1}, "the other pool is not left"


def test_a_page_of_an_earlier_lease_says_nothing(world: World) -> None:
    one = Member(world, M1)
    assert one.lease(2) == [1, 2]
    one.page.states[:2] = bytes([DONE, DONE])
    one.settle(1, 2)
    one.tell(Lease, 2)
    one.hang_up()
    assert (world.state().position, world.state().deliveries) == (2, {})
    assert Member(world, M2).lease(2) == [3, 4]


def test_a_member_that_leaves_gives_back_what_it_has(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    one.lease(3)
    one.page.states[0] = DONE
    assert type(one.ask(Leave)) is Done
    assert type(one.ask(Leave)) is Done
    with pytest.raises(ProtocolError):
        one.tell(Lease, 1)
    assert two.lease(2) == [2, 3]
    one.hang_up()
    assert list(world.state().members) == [M2]


@pytest.mark.parametrize("has_asked", [False, True], ids=["asks later", "waits"])
def test_a_member_that_died_with_the_writer_leaves_each_event_once(
    world: World, has_asked: bool
) -> None:
    # The event that it had begun was put before the fresh ones, and found among them once more.
    one = Member(world, M1)
    assert one.lease(5) == [1, 2, 3, 4, 5]
    one.page.states[:2] = bytes([DONE, STARTED])
    world.restart()
    two = Member(world, M2)
    seen = Counts(two.lease(1)) if has_asked else Counts[int]()
    assert world.absent() == [M1]
    world.end_absent()
    assert world.absent() == []
    while numbers := two.lease(1):
        seen.update(numbers)
    assert seen == Counts(range(2, 21))


# --- sharing ---------------------------------------------------------------------------------


def test_the_largest_lease_is_shared_with_who_is_idle(world: World) -> None:
    world.open_group(name="late", position=12)
    one, two, three = (Member(world, member_id, "late") for member_id in (M1, M2, M3))
    assert one.lease(9) == [13, 14, 15]
    for number in range(16, 21):
        assert two.lease(1) == [number]
    assert three.lease() == []
    assert one.heard() == [Revoke(0, one.lease_id)]
    assert two.heard() == []
    assert type(one.release(14, 15)) is Done
    assert three.leased() == [14, 15]
    assert one.heard() == []
    check_state(world.state("late"))


def test_a_lease_is_revoked_once_until_its_owner_has_answered(world: World) -> None:
    one, two, three = (Member(world, member_id) for member_id in (M1, M2, M3))
    one.lease(3)
    while numbers := two.lease(100):
        two.settle(*numbers)
    assert three.lease() == []
    assert one.heard() == [Revoke(0, one.lease_id)]
    assert type(one.release()) is Done, "it has begun all of them"
    assert one.heard() == []
    assert type(one.settle(1)) is Done
    assert one.heard() == [Revoke(0, one.lease_id)]
    assert type(one.settle(2, 3)) is Done
    assert world.state().position == 20


def test_what_is_given_back_goes_to_who_waits(world: World) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(4) == [1, 2, 3, 4]
    one.nack(1, delay_s=9)
    while numbers := two.lease(100):
        two.settle(*numbers)
    assert one.release(3, 4) is not None
    assert two.leased() == [3, 4]
    assert type(one.release(3, 4)) is Done, "said again"
    two.settle(3, 4)
    assert two.lease() == []


# --- dead letters ----------------------------------------------------------------------------


def test_a_retry_that_a_kill_met_half_way_is_not_made_twice(tmp_path: Path) -> None:
    # The writer was killed between handing the event out again and dropping its letter; the pool
    # asked once more, as after any lost pipe, and an event that was done by then came back.
    world = World(str(tmp_path / "log"))
    world.append(3)
    world.open_group()
    number = condemn(world, Member(world, M1))
    world.peer().ask(Bury, "g", 0, number, b"letter")
    store = world.actor.groups.store
    store.commit(world.state(), "again", [number])
    assert list(store.dead["g"].numbers()) == [number]
    world.restart()
    assert list(world.actor.groups.store.dead["g"].numbers()) == []
    answer = world.peer().ask(RetryDead, "g", ((number, number),))
    assert answer.number == 0
    world.end()


def condemn(world: World, member: Member) -> int:
    """Make a member fail an event for the last time; the event."""
    number = 0
    while number not in world.state().condemned:
        (number,) = member.lease(1)
        member.nack(number)
        world.advance(0)
    return number


def test_a_condemned_event_is_buried_by_the_pool_of_its_member(world: World) -> None:
    a, b = world.peer(), world.peer()
    a.tell(AwaitCondemned, "g", POOL_A)
    b.tell(AwaitCondemned, "g", POOL_B)
    one, three = Member(world, M1), Member(world, M3)
    assert condemn(world, one) == 1
    assert (a.heard(), b.heard()) == ([Condemned(1, ((1, 3, M1),))], [])
    assert condemn(world, three) == 2
    assert b.heard() == [Condemned(1, ((2, 3, M3),))]
    assert type(a.ask(Bury, "g", 0, 1, LETTER)) is Done
    assert type(a.ask(Bury, "g", 0, 1, LETTER)) is Done, "said again"
    assert type(a.ask(Bury, "g", 0, 9, LETTER)) is Done, "not condemned: nothing happens"
    a.tell(AwaitCondemned, "g", POOL_A)
    assert a.heard() == []
    assert (world.state().position, list(world.state().condemned)) == (1, [2])
    (letter,) = read_dead_letters(world.directory, "g")
    assert (letter.seq_no, letter.deliveries, letter.error) == (1, 3, "ValueError: no")


def test_what_a_pool_that_is_gone_had_to_bury_is_anybodys(world: World) -> None:
    a, b = world.peer(), world.peer()
    a.tell(AwaitCondemned, "g", POOL_A)
    one = Member(world, M1)
    assert condemn(world, one) == 1
    b.tell(AwaitCondemned, "g", POOL_B)
    assert b.heard() == []
    a.hang_up()
    assert b.heard() == [Condemned(1, ((1, 3, M1),))]
    assert condemn(world, one) == 2
    b.tell(AwaitCondemned, "g", POOL_C)
    assert b.heard() == [Condemned(2, ((1, 3, M1), (2, 3, M1)))]


def test_what_was_condemned_before_a_restart_is_told_after_it(world: World) -> None:
    assert condemn(world, Member(world, M1)) == 1
    world.restart()
    a = world.peer()
    assert a.ask(AwaitCondemned, "g", POOL_A) == Condemned(1, ((1, 3, M1),))


def test_a_member_buries_what_it_gives_up(world: World) -> None:
    member = Member(world, M1)
    member.lease(2)
    assert type(member.bury(1)) is Done
    assert type(member.bury(1)) is Done, "said again"
    assert [letter.deliveries for letter in read_dead_letters(world.directory)] == [1]
    assert (world.state().position, world.state().in_flight) == (1, 1)


def test_dead_letters_are_retried_and_dropped_once(world: World) -> None:
    member, asking = Member(world, M1), world.peer()
    member.lease(4)
    for number in (1, 2, 3):
        member.bury(number)
    member.settle(4)
    assert asking.ask(RetryDead, "g", ((2, 3), (9, 9))) == Counted(1, 2)
    assert asking.ask(RetryDead, "g", ((2, 3),)) == Counted(2, 0)
    assert asking.ask(DropDead, "g", ((1, 9),)) == Counted(3, 1)
    assert asking.ask(DropDead, "g", ((1, 9),)) == Counted(4, 0)
    assert asking.ask(DropDead, "no such group", ((1, 9),)) == Counted(5, 0)
    assert read_dead_letters(world.directory) == []
    assert (member.lease(2), member.failures) == ([2, 3], {})
    world.restart()
    assert world.state().in_flight == 2
    assert world.store.dead["g"] == RangeSet()


def test_a_retried_letter_goes_to_who_waits(world: World) -> None:
    member = Member(world, M1)
    (number,) = member.lease(1)
    member.bury(number)
    while numbers := member.lease(100):
        member.settle(*numbers)
    assert world.peer().ask(RetryDead, "g", ((1, 1),)) == Counted(1, 1)
    assert member.leased() == [1]


def test_letters_of_groups_are_apart_and_outlive_a_restart(world: World) -> None:
    world.open_group(name="h")
    for name in ("g", "h"):
        member = Member(world, M1, name)
        member.lease(2)
        member.bury(1)
        member.hang_up()
    world.restart()
    assert [one.group for one in read_dead_letters(world.directory)] == ["g", "h"]
    assert world.peer().ask(DropDead, "g", ((1, 1),)) == Counted(1, 1)
    assert [one.group for one in read_dead_letters(world.directory)] == ["h"]


# --- drained ---------------------------------------------------------------------------------


def test_who_waits_for_the_end_is_told_when_it_has_come(world: World) -> None:
    waiting, gone = world.peer(), world.peer()
    waiting.tell(AwaitDrained, "g", 2)
    gone.tell(AwaitDrained, "g", 2)
    gone.hang_up()
    assert world.peer().ask(AwaitDrained, "g", 0) == Done(1)
    member = Member(world, M1)
    member.lease(3)
    member.settle(2)
    assert waiting.heard() == []
    member.bury(1)
    assert waiting.heard() == [Done(1)]
    world.peer().ask(RetryDead, "g", ((1, 1),))
    waiting.tell(AwaitDrained, "g", 2)
    assert waiting.heard() == [], "a retried letter is to be done again"
    member.settle(3)
    assert member.lease(1) == [1]
    member.settle(1)
    assert waiting.heard() == [Done(2)]
    assert gone.heard() == []


def test_an_acknowledgement_for_the_group_skips(world: World) -> None:
    member, waiting = Member(world, M1), world.peer()
    member.lease(3)
    waiting.tell(AwaitDrained, "g", 5)
    assert type(world.peer().ask(Ack, "g", 5)) is Done
    assert waiting.heard() == [Done(1)]
    assert type(member.settle(1, 2)) is Done, "they are done, whoever was"
    assert world.state().position == 5
    assert type(world.peer().ask(Ack, "g", 3)) is Done
    assert member.lease(1) == [6]


def test_events_that_retention_took_need_no_handling(tmp_path: Path) -> None:
    retention = Retention(max_bytes=2 * 4096, keep_unacked=False)
    world = World(str(tmp_path / "log"), segment_bytes=4096, retention=retention)
    world.append(1)
    world.open_group()
    world.append(200)
    first = world.log.control.first_available
    assert first > 1
    assert Member(world, M1).lease(1) == [first]
    assert world.state().position == first - 1
    world.end()


@pytest.mark.parametrize("ordering", ["", "key"])
def test_retention_lets_a_group_go_on_and_says_what_it_took(tmp_path: Path, ordering: str) -> None:
    # The group was moved on without a word when somebody asked for events, and whoever waited for
    # it to be drained was not told.
    world = truncating(tmp_path, ordering)
    member, waiting = Member(world, M1), world.peer()
    assert member.lease(2) == [1, 2]
    waiting.tell(AwaitDrained, "g", 20)
    truncate(world)
    first = world.log.control.first_available
    assert waiting.heard() == [], "the member has two of them"
    member.settle(1, 2)
    assert waiting.heard() == [Done(1)]
    member.tell(Lease, 1)
    passed = member.said.pop(0)
    assert passed == Passed(0, first - 3, 3, first - 1)
    assert member.leased() == [first]
    member.settle(first)
    assert member.lease(1) == [first + 1]
    assert member.heard() == [], "once"
    world.end()


@pytest.mark.parametrize("ordering", ["", "key"])
def test_an_event_that_retention_takes_from_its_handler_can_still_be_a_dead_letter(
    tmp_path: Path, ordering: str
) -> None:
    world = truncating(tmp_path, ordering)
    member = Member(world, M1)
    member.lease(2)
    truncate(world)
    accepted(member.bury(1))
    accepted(member.nack(2, delay_s=1))
    world.advance(1)
    assert [letter.seq_no for letter in read_dead_letters(world.directory)] == [1]
    assert member.lease(1)[0] in {2, world.log.control.first_available}
    check_state(world.state())
    world.end()


@pytest.mark.parametrize("how", ["ack", "retention"])
@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_backoff_that_has_begun_goes_on(tmp_path: Path, ordering: str, how: str) -> None:
    # Whatever moved the group on made it forget all backoffs, also of later events: those were
    # tried again at once, and after five times a second was a dead letter.
    world = truncating(tmp_path, ordering)
    member = Member(world, M1)
    if how == "retention":
        truncate(world)
    numbers = member.lease(100)
    member.settle(*numbers[1:-1])
    member.nack(numbers[-1], delay_s=30)
    if how == "retention":
        member.settle(numbers[0])
        while numbers[0] >= world.log.control.first_available:
            world.append(1)
    else:
        accepted(world.peer().ask(Ack, "g", numbers[0]))
    while given := member.lease(1000):
        assert numbers[-1] not in given
        member.settle(*given)
    world.advance(30)
    assert member.leased() == [numbers[-1]]
    world.end()


@pytest.mark.parametrize("end", ["done", "results", "dead", "ack", "seek", "forget"])
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_letter_is_kept_until_its_retry_has_succeeded(
    tmp_path: Path, end: str, restarts: bool, is_deleted: bool
) -> None:
    # It was dropped when it was handed out: what retention, `ack` or `seek` did before it was
    # handled cost the letter.
    world = truncating(tmp_path, "")
    member = Member(world, M1)
    numbers = member.lease(20)
    member.bury(1)
    member.settle(*numbers[1:])
    if is_deleted:
        truncate(world)
    assert world.peer().ask(RetryDead, "g", ((1, 1),)) == Counted(1, 1)
    assert read_dead_letters(world.directory) == []
    assert StoredLetters(world.directory, "g").find(1) == LETTER
    if restarts:
        member.hang_up()
        world.restart()
        member = Member(world, M1)
    if end in {"done", "results", "dead"}:
        assert member.lease(1) == [1]
        acts: dict[str, Callable[[int], Any]] = {"done": member.settle, "results": member.results}
        accepted(acts.get(end, member.bury)(1))
    elif end == "forget":
        member.hang_up()
        accepted(world.peer().ask(Forget, "g"))
    else:
        accepted(world.peer().ask(Ack if end == "ack" else Seek, "g", 20))
    for _ in range(2):
        listed = [letter.seq_no for letter in read_dead_letters(world.directory)]
        assert listed == ([] if end in {"done", "results"} else [1])
        found = StoredLetters(world.directory, "g").find(1)
        assert found == (None if end in {"done", "results"} else LETTER)
        world.restart()
    world.end()


def test_a_letter_without_a_copy_of_its_deleted_event_stays_and_says_so(tmp_path: Path) -> None:
    # "retried 1", and nobody was ever handed it.
    world = truncating(tmp_path, "")
    member = Member(world, M1)
    member.lease(1)
    letter = pack_letter(event=None, key=None, headers=None, error="ValueError: no")
    accepted(member.ask(Bury, "g", member.lease_id, 1, letter))
    truncate(world)
    error = world.peer().refused(RetryDead, "g", ((1, 1),))
    assert (type(error), error.seq_no) == (InvalidArgument, 1)
    assert [one.seq_no for one in read_dead_letters(world.directory)] == [1]
    world.end()


# --- results ---------------------------------------------------------------------------------


def test_results_and_their_acknowledgement_are_one(world: World) -> None:
    member = Member(world, M1)
    assert member.lease(3) == [1, 2, 3]
    assert member.results(1, 2) == Appended(3, 21)
    state = world.state()
    assert (state.position, list(state.done), state.in_flight) == (2, [(21, 22)], 1)
    assert member.results(3) == Appended(4, 23)
    while numbers := member.lease(100):
        assert max(numbers) <= 20, "results are not for the group"
        member.settle(*numbers)
    assert world.state().position == 23


def test_results_that_are_said_again_are_stored_once(world: World) -> None:
    member = Member(world, M1)
    member.lease(3)
    batch = member.results_message(1, 2)
    assert member.ask(batch).base_seq_no == 21
    assert member.ask(batch).base_seq_no == 21
    assert world.log.last_seq_no == 22
    assert world.state().position == 2


def test_results_of_a_group_are_events_for_another(world: World) -> None:
    world.open_group(name="h", position=20)
    waiting, member = Member(world, M2, "h"), Member(world, M1)
    waiting.lease()
    member.lease(2)
    member.results(1)
    assert waiting.leased() == [21]


@pytest.mark.parametrize(
    "area", [b"", b"\xc1", pack_acks(Acks("g", 1, 1, [(0, 1)])), b"\x94\xa1g\x01\x01"]
)
def test_a_batch_with_acknowledgements_that_are_none_is_not_stored(
    world: World, area: bytes
) -> None:
    batch = batch_of("result")
    area = area or b"\x90"
    with pytest.raises(ProtocolError):
        world.peer().tell(Append, 1, 1, 1, 0, len(area), area + batch.payload)
    assert world.log.last_seq_no == 20


def test_acknowledgements_that_a_killed_writer_had_stored_are_found_again(world: World) -> None:
    member = Member(world, M1)
    assert member.lease(3) == [1, 2, 3]
    message = member.results_message(1, 3)(0)
    batch = PackedBatch(message.count, 0, message.acks_bytes, message.payload)
    assert world.log.append(batch, message.producer_id, message.producer_seq) == 21
    assert world.state().position == 0, "killed between the batch and the journal"
    world.restart()
    state = world.state()
    assert (state.position, list(state.done), state.in_flight) == (1, [(3, 3), (21, 22)], 1)
    world.restart()
    assert world.state().snapshot() == state.snapshot()


# --- restarts --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["close", "abandon"])
def test_leases_outlive_their_writer(world: World, ending: str) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert (one.lease(3), two.lease(3)) == ([1, 2, 3], [4, 5, 6])
    one.settle(2)
    lease_id, slot = one.lease_id, one.joined.slot
    one.nack(3, 5)
    world.restart(ending)
    assert sorted(world.absent()) == [M1, M2]
    one = Member(world, M1)
    assert one.joined == Joined(1, slot, lease_id, ((1, 3),), ((3, 1),))
    assert world.absent() == [M2]
    one.lease_id = lease_id
    one.settle(1)
    assert world.state().position == 2
    numbers = one.lease(100)
    assert not {4, 5, 6} & set(numbers)
    assert one.lease_id > lease_id


def test_the_page_of_a_member_that_comes_back_is_as_it_was(world: World) -> None:
    one = Member(world, M1)
    one.lease(3)
    one.page.states[0] = STARTED
    world.restart()
    again = Member(world, M1)
    assert again.page.states[0] == STARTED
    again.hang_up()
    assert world.state().deliveries == {1: 1}


def test_a_long_journal_is_written_anew(world: World) -> None:
    member = Member(world, M1)
    world.store._rewrite_at = 500
    seen = []
    while numbers := member.lease(2):
        member.settle(*numbers)
        seen += numbers
        size = os.path.getsize(os.path.join(world.directory, "groups"))
        world.store._rewrite_at = size + 100
    assert seen == list(range(1, 21))
    snapshot = world.state().snapshot()
    world.restart()
    assert world.state().snapshot() == snapshot
    assert os.path.getsize(os.path.join(world.directory, "groups")) < 1000


def test_all_descriptors_are_given_back(tmp_path: Path) -> None:
    files = KillingFiles()
    for ending in ("close", "abandon"):
        world = World(str(tmp_path / "log"), files)
        world.append(3, key=str)
        world.open_group(ordering="key")
        Member(world, M1).lease()
        world.end(ending)
        assert files.open_descriptors == set()


# --- the order of keys -----------------------------------------------------------------------


def test_a_key_is_with_one_member_at_a_time(tmp_path: Path) -> None:
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(20, key=lambda number: "ab"[number % 2])
    world.open_group(ordering="key")
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(3) == [1, 2, 3]
    assert two.lease() == []
    assert one.heard() == [Revoke(0, one.lease_id)]
    one.page.states[:2] = bytes([STARTED, DONE])
    one.hang_up()
    assert two.leased() == [1]
    assert two.failures == {1: 1}
    two.settle(1)
    assert two.lease() == [*range(3, 21)]
    world.end()


def test_keys_stay_with_their_members_over_a_restart(tmp_path: Path) -> None:
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(20, key=lambda number: "abcd"[number % 4])
    world.open_group(ordering="key")
    one = Member(world, M1)
    assert one.lease(2) == [1, 2]
    world.restart()
    two = Member(world, M2)
    numbers = two.lease(6)
    assert {number % 4 for number in numbers} == {3, 0}
    assert world.absent() == [M1]
    world.end_absent()
    assert two.lease(4)[:2] == [1, 2]
    world.end()


# --- killed at every call --------------------------------------------------------------------

EVENTS = 24


class Notes:
    """What was confirmed before a kill."""

    def __init__(self) -> None:
        self.done: set[int] = set()
        self.dead: set[int] = set()
        self.unanswered: tuple[int, Message] | None = None
        self.leases: dict[int, tuple[int, list[int]]] = {}


class Worker:
    """A member that notes what it was answered; it knows what it has when the writer is new."""

    def __init__(self, world: World, member_id: int, notes: Notes) -> None:
        self.member_id, self.notes = member_id, notes
        self.member = Member(world, member_id)
        self.mine: list[int] = []

    def ask(self, kind: Any, *fields: Any) -> Any:
        message = kind(self.member.requests + 1, *fields)
        self.notes.unanswered = self.member_id, message
        answer = self.member.ask(kind, *fields)
        assert not isinstance(answer, Failed), answer
        self.notes.unanswered = None
        return answer

    def lease(self, count: int) -> list[int]:
        self.mine = self.member.lease(count)
        again = set(self.mine) & (self.notes.done | self.notes.dead)
        assert not again, f"handed out although they are done: {again}"
        self.notes.leases[self.member_id] = self.member.lease_id, list(self.mine)
        return self.mine

    def forget(self, numbers: Iterable[int]) -> None:
        self.mine = [number for number in self.mine if number not in set(numbers)]
        self.notes.leases[self.member_id] = self.member.lease_id, list(self.mine)

    def settle(self, *numbers: int) -> None:
        self.forget(numbers)
        self.ask(Settle, self.member.lease_id, tuple(ranges_of(numbers)))
        self.notes.done |= set(numbers)

    def results(self, *numbers: int) -> None:
        self.forget(numbers)
        self.ask(self.member.results_message(*numbers))
        self.notes.done |= set(numbers)

    def give_back(self, kind: Any, *numbers: int) -> None:
        self.forget(numbers)
        if kind is Nack:
            self.ask(Nack, self.member.lease_id, numbers[0], 0)
        else:
            self.ask(Release, self.member.lease_id, tuple(ranges_of(numbers)))

    def bury(self, number: int) -> None:
        self.forget([number])
        self.ask(Bury, "g", self.member.lease_id, number, LETTER)
        self.notes.dead.add(number)


def some_work(world: World, notes: Notes) -> None:
    """Two members, of which one dies; failures, dead letters, results, and a rewritten journal."""
    world.append(EVENTS)
    world.open_group(max_deliveries=2)
    world.store._rewrite_at = 700
    one, two = Worker(world, M1, notes), Worker(world, M2, notes)
    assert (one.lease(5), two.lease(4)) == ([1, 2, 3, 4, 5], [6, 7, 8, 9])
    one.results(1, 2)
    one.settle(3)
    one.give_back(Nack, 4)
    world.advance(0)
    one.bury(5)
    two.give_back(Release, 8, 9)
    two.results(6)
    two.member.page.states[1] = STARTED
    two.member.hang_up()
    notes.leases.pop(M2, None)
    assert one.lease(5) == [4], "7 may have ended the other member, and goes out alone"
    one.give_back(Nack, 4)
    assert one.lease(4) == [7]
    one.results(7)
    assert one.lease(3) == [8, 9, 10]
    assert list(world.state().condemned) == [4]
    assert type(world.peer().ask(Bury, "g", 0, 4, LETTER)) is Done
    notes.dead.add(4)
    notes.dead.discard(5)
    assert world.peer().ask(RetryDead, "g", ((5, 5),)) == Counted(1, 1)
    one.settle(*one.mine)
    assert one.lease(2) == [5, 11]
    one.results(5)
    world.end("close")


def finish(world: World, notes: Notes, *, has_survived: bool) -> None:
    """Go on after a kill: the members come back and repeat themselves, or are dead too."""
    state = world.state()
    check_state(state)
    check_confirmed(world, notes)
    if has_survived:
        for member_id in (M1, M2):
            if member_id in state.members:
                come_back(world, member_id, notes)
    world.end_absent()
    check_state(state)
    last = Worker(world, M3, notes)
    world.advance(100)
    while last.lease(7):
        last.results(*last.mine)
    while state.condemned:
        number = next(iter(state.condemned))
        assert number not in notes.done
        world.peer().ask(Bury, "g", 0, number, LETTER)
    check_state(state)
    assert state.is_drained(EVENTS)
    check_confirmed(world, notes)


def come_back(world: World, member_id: int, notes: Notes) -> None:
    """Repeat what was not answered, and handle what is left of the lease."""
    worker = Worker(world, member_id, notes)
    lease_id, mine = notes.leases.get(member_id, (0, []))
    joined = worker.member.joined
    if notes.unanswered is not None and notes.unanswered[0] == member_id:
        _, message = notes.unanswered
        world.actor.handle(worker.member, message)  # type: ignore[arg-type]  # from a client
        (answer,) = worker.member.heard()
        assert not isinstance(answer, Failed), f"{message} repeated: {answer}"
    worker.member.producer_seq = 50  # a smaller one would be a repeated batch
    if joined.lease_id and joined.lease_id == lease_id:
        worker.member.lease_id = lease_id
        if mine:
            worker.results(*mine)
    elif joined.lease_id:
        worker.member.lease_id = joined.lease_id  # its answer was lost with the writer
        worker.results(*numbers_in(joined.ranges))
    worker.member.hang_up()


def check_confirmed(world: World, notes: Notes) -> None:
    state = world.state()
    assert all(state.is_done(number) for number in notes.done | notes.dead)
    letters = {letter.seq_no for letter in read_dead_letters(world.directory, "g")}
    assert letters >= notes.dead
    results = Counts(
        event[1] for event in stored_events(world.directory).values() if isinstance(event, list)
    )
    assert all(times == 1 for times in results.values()), "a result was stored twice"
    assert all(state.is_done(number) for number in results), "a result without its acknowledgement"


@pytest.mark.parametrize("has_survived", [True, False], ids=["members live", "members die"])
@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn"])
def test_killed_at_every_call(fast: Path, torn: bool, has_survived: bool) -> None:
    made = KillingFiles()
    template = str(fast / "template")
    open_storage(template, made, segment_bytes=1 << 16).close()
    at = 0
    while True:
        at += 1
        directory = str(fast / str(at))
        shutil.copytree(template, directory)
        files = KillingFiles(at, torn=torn)
        notes = Notes()
        world = None
        try:
            world = World(directory, files)
            some_work(world, notes)
        except Killed:
            files.bury()
            if world is not None:
                for page in world.pages:
                    page.close()
            check_start(directory, notes, has_survived)
        else:
            break
        finally:
            shutil.rmtree(directory)
    assert at > 60


def check_start(directory: str, notes: Notes, has_survived: bool) -> None:
    """The next writer, and the one after it, find what was confirmed."""
    world = World(directory)
    if world.log.last_seq_no < EVENTS:
        world.append(EVENTS - world.log.last_seq_no)
    if "g" not in world.store.groups or not world.state().members:
        world.open_group(max_deliveries=2)
    try:
        finish(world, notes, has_survived=has_survived)
        snapshot = world.state().snapshot()
        world.restart()
        assert world.state().snapshot() == snapshot
        check_confirmed(world, notes)
    finally:
        world.end()


# --- bugs ------------------------------------------------------------------------------------


def test_a_member_that_comes_back_before_its_old_pipe_is_closed_keeps_its_lease(
    world: World,
) -> None:
    # The end of the old pipe ended the member, whose new pipe then got events that nobody would
    # ever give back: not when it was closed, and not at the next start.
    old = Member(world, M1)
    assert old.lease(2) == [1, 2]
    new = Member(world, M1)
    assert numbers_in(new.joined.ranges) == [1, 2]
    new.lease_id = old.lease_id
    old.hang_up()
    assert type(new.settle(1)) is Done
    new.lease(2)
    check_state(world.state())
    new.hang_up()
    assert world.state().in_flight == 0
    assert world.state().leases == {}


def test_a_full_disk_does_not_keep_the_events_of_a_dead_member(tmp_path: Path) -> None:
    # `forget_peer` raised: in the server that ends the writer, and here the member stayed.
    files = FailingFiles(errno.ENOSPC, ["write"], 10**9)
    world = World(str(tmp_path / "log"), files)
    world.append(10)
    world.open_group()
    one, two = Member(world, M1), Member(world, M2)
    assert one.lease(2) == [1, 2]
    files.calls, files._at, files._for_ever = 0, 1, True
    try:
        one.hang_up()
    except LogFull:
        raised = True
    else:
        raised = False
    files.heal()
    assert not raised
    world.actor.groups.resume_due()
    seen = []
    while numbers := two.lease(100):
        two.settle(*numbers)
        seen += numbers
    world.end()
    assert sorted(seen) == list(range(1, 11))


@pytest.fixture
def working(world: World) -> tuple[Member, Member, Peer]:
    """Two members with two events each, and somebody who waits for the first result."""
    reader = world.peer()
    reader.tell(Park, 21)
    one, two = Member(world, M1), Member(world, M2)
    assert (one.lease(2), two.lease(2)) == ([1, 2], [3, 4])
    return one, two, reader


def test_results_are_refused_if_there_is_no_room_to_note_what_they_acknowledge(
    world: World, working: tuple[Member, Member, Peer]
) -> None:
    # They were stored, and noted with the next record: an orderly end before that, a loss of power,
    # or a kill after the log had grown by a segment, and the events were handed out again.
    one, two, reader = working
    journal = world.store._open_files[0]
    journal._files = FailingFiles(errno.ENOSPC, ["allocate"], 1, for_ever=True)
    for member, number in ((one, 1), (two, 3)):
        assert isinstance(error_of(member.results(number)), LogFull)
    assert world.log.last_seq_no == 20
    assert reader.heard() == []
    journal._files.heal()
    assert type(one.results(1)) is Appended
    assert type(two.results(3)) is Appended
    journal._files = FailingFiles(errno.ENOSPC, ["allocate"], 1)
    assert type(one.results(2)) is Appended, "room is taken ahead"


def test_results_that_cannot_be_noted_have_one_answer_and_are_the_last(
    world: World, working: tuple[Member, Member, Peer]
) -> None:
    # They were answered with `Appended` and with `Failed`, and nobody was told of the new events.
    one, two, reader = working
    world.store._open_files[0]._files = FailingFiles(errno.EIO, ["write"], 1)
    one.tell(one.results_message(1))
    assert [type(said) for said in one.heard()] == [Appended]
    assert reader.heard() == [Wake(1, 21)]
    assert isinstance(error_of(two.results(3)), StorageFailed)
    assert world.log.last_seq_no == 21


@pytest.mark.parametrize("ending", ["abandon", "close"])
@pytest.mark.parametrize("for_ever", [False, True])
def test_results_that_could_not_be_noted_are_found_by_the_next_writer(
    world: World, working: tuple[Member, Member, Peer], ending: str, for_ever: bool
) -> None:
    # Their events were handed out again, although their results were stored.
    one, two, _ = working
    journal = world.store._open_files[0]
    journal._files = FailingFiles(errno.EIO, ["write"], 1, for_ever=for_ever)
    one.results(1)
    one.hang_up()
    assert 1 not in two.lease(100)
    world.restart(ending)
    world.end_absent()
    three = Member(world, M3)
    seen = []
    while numbers := three.lease(1):
        seen += numbers
    assert set(seen) == {2, *range(3, 21)}


def test_results_on_a_full_log_do_not_wait_for_the_room_that_they_make(tmp_path: Path) -> None:
    # Nothing went on any more: the log was full of what the group had not acknowledged, and its
    # results waited for room behind the producer.
    retention = Retention(max_bytes=4 * 4096)
    world = World(str(tmp_path / "log"), segment_bytes=4096, retention=retention)
    world.open_group()
    producer = world.peer()
    payload = batch_of("x" * 500).payload
    sent = 0
    while len(producer.said) == sent:
        producer.tell(Append, 7, sent + 1, 1, 0, 0, payload)
        sent += 1
    full_at = world.log.last_seq_no
    assert full_at == sent - 1
    one = Member(world, M1)
    while len(producer.said) < sent:
        (number,) = one.lease(1)
        assert type(one.results(number)) is Appended
    assert type(producer.said[-1]) is Appended, "there is room again"
    assert world.log.control.first_available > 1
    world.end()


def test_results_wait_for_room_that_another_consumer_has_to_make(tmp_path: Path) -> None:
    retention = Retention(max_bytes=4 * 4096)
    world = World(str(tmp_path / "log"), segment_bytes=4096, retention=retention)
    world.open_group()
    world.log.seek("slow", 0)
    producer = world.peer()
    payload = batch_of("x" * 500).payload
    while not producer.requests or producer.said:
        producer.said.clear()
        producer.tell(Append, 7, producer.requests + 1, 1, 0, 0, payload)
    one = Member(world, M1)
    numbers = one.lease(100)
    for number in numbers:
        one.tell(one.results_message(number))
    assert len(one.said) < len(numbers)
    assert type(world.peer().ask(Forget, "slow")) is Done
    assert [type(said) for said in one.said] == [Appended] * len(numbers)
    world.end()


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


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("when", ["before", "after", "after it was settled"])
@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_dead_letter_whose_event_is_gone_is_handed_out_all_the_same(
    tmp_path: Path, ordering: str, when: str, restarts: bool
) -> None:
    # With keys in order, asking for its key failed: from then on whoever asked for events was
    # answered with that error, also after a restart. Without, a member got what nobody can read,
    # and later the retry was passed over, with the letter. But the letter has a copy.
    world = truncating(tmp_path, ordering)
    member = Member(world, M1)
    numbers = member.lease(20)
    member.bury(1)
    member.settle(*numbers[1:])
    if when == "after it was settled":
        while numbers := member.lease(20):
            member.settle(*numbers)
    member.hang_up()
    if when != "after":
        world.peer().tell(RetryDead, "g", ((1, 1),))
    truncate(world)
    if when == "after":
        world.peer().tell(RetryDead, "g", ((1, 1),))
    if restarts:
        world.restart()
    member = Member(world, M1)
    first = world.log.control.first_available
    seen: list[int] = []
    while numbers := member.lease(50):
        member.settle(*numbers)
        seen += numbers
    refused = [one for one in member.heard() if isinstance(one, Failed)]
    drained = world.state().is_drained(world.log.last_seq_no)
    world.end()
    assert refused == []
    assert sorted(seen) == [1, *range(first, 221)]
    assert drained


@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_lease_of_events_that_are_gone_does_not_end_the_next_writer(
    tmp_path: Path, ordering: str
) -> None:
    # Both members had events that retention then deleted, and one died with the writer: the next
    # one asked for the other one's keys while it put an end to that member, and ended too.
    world = truncating(tmp_path, ordering)
    one, two = Member(world, M1), Member(world, M2)
    one.lease(3)
    two.lease(3)
    one.page.states[0] = STARTED
    truncate(world)
    world.restart()
    two = Member(world, M2)
    assert world.absent() == [M1]
    try:
        world.end_absent()
        first = world.log.control.first_available
        assert two.lease(1) == [first]
        check_state(world.state())
    finally:
        world.end()


def test_a_journal_keeps_its_name_when_power_is_lost(tmp_path: Path) -> None:
    # Its records were synced and its name was not: made, or written anew, shortly before a loss of
    # power, it could be gone, or be the one before, with all that had been synced since.
    class Watching(KillingFiles):
        unsynced: list[str] = []  # noqa: RUF012 - one object in all

        def rename(self, source: str, target: str) -> None:
            super().rename(source, target)
            self.unsynced.append(os.path.basename(target))

        def sync_directory(self, path: str) -> None:
            super().sync_directory(path)
            self.unsynced.clear()

    world = World(str(tmp_path / "log"), Watching(), segment_bytes=1 << 16)
    world.append(20)
    world.log.begin_sync().run()
    world.open_group()
    unsynced = []
    for _ in range(2):
        world.store.sync()
        world.log.begin_sync().run()
        unsynced.append(list(Watching.unsynced))
        Watching.unsynced.clear()
        world.store._rewrite()
    world.end()
    assert unsynced == [[], []]


def after_power_loss(tmp_path: Path, ordering: str, work: Callable[[World], None]) -> World:
    """The journals of a log with twenty events, beside the first ten of them.

    That is what a loss of power can leave: journals are synced before events are.
    """
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(10, key=str)
    shutil.copytree(tmp_path / "log", tmp_path / "disk")
    world.append(10, key=str)
    world.open_group(ordering=ordering)
    work(world)
    world.end()
    for name in ("groups", "dead", "members"):
        shutil.copy(tmp_path / "log" / name, tmp_path / "disk" / name)
    return World(str(tmp_path / "disk"))


@pytest.mark.parametrize("ordering", ["", "key"])
def test_an_event_whose_result_a_loss_of_power_took_is_not_done(
    tmp_path: Path, ordering: str
) -> None:
    # The journal had reached the disk and the batch of results had not: the event stayed done.
    def work(world: World) -> None:
        one = Member(world, M1)
        assert one.lease(3) == [1, 2, 3]
        one.results(1, 2)
        one.settle(3)

    world = after_power_loss(tmp_path, ordering, work)
    for _ in range(2):  # and the next start knows it too, although its numbers are used again
        assert [n for n in range(1, 11) if world.state().is_done(n)] == [3]
        world.append(20, key=str)
        world.restart()
    world.end_absent()
    assert Member(world, M3).lease(2) == [1, 2]
    world.end()


@pytest.mark.parametrize("boot", ["first", "second"])
def test_after_a_loss_of_power_only_what_lies_beside_the_lease_is_believed(
    tmp_path: Path, boot: str
) -> None:
    # The rest of a page may be of an earlier lease: events counted as done that nobody had begun.
    with booted("first"):
        world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
        world.actor.handle(world.peer(), Append(0, 0, 0, 1000, 0, 0, batch_of(*[0] * 1000).payload))
        world.open_group()
        one = Member(world, M1)
        assert len(one.lease(500)) == 500
        one.page.states[:500] = bytes([DONE]) * 500
        world.end()
    with booted(boot):
        world = World(str(tmp_path / "log"))
        world.actor.groups.end_member(world.state(), M1)
        beside = 512 - 64
        assert world.state().position == (500 if boot == "first" else beside)
        assert Member(world, M3).lease(1)[0] == world.state().position + 1
        world.end()


def test_results_stay_done_when_a_loss_of_power_takes_later_events(tmp_path: Path) -> None:
    # All that was done past the position was forgotten: a group was handed its own results.
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    one = Member(world, M1)
    one.lease(2)
    one.results(1, 2)
    shutil.copytree(tmp_path / "log", tmp_path / "disk")
    world.append(10)
    two = Member(world, M2)
    while numbers := two.lease(3):
        if max(numbers) > 12:
            break
        two.settle(*numbers)
    world.end()
    for name in ("groups", "dead", "members"):
        shutil.copy(tmp_path / "log" / name, tmp_path / "disk" / name)
    world = World(str(tmp_path / "disk"))
    assert world.log.last_seq_no == 12
    assert all(world.state().is_done(number) for number in (11, 12))
    check_state(world.state())
    world.end()


def test_a_group_and_what_a_snapshot_says_of_results_are_on_the_disk(tmp_path: Path) -> None:
    # A loss of power took a new group, or a batch that a rewritten journal counted on: results
    # were stored twice, or never.
    files = RecordingFiles()
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    journal = files.disk.durable_names["groups"]
    assert files.disk.files[journal].versions == {}
    one = Member(world, M1)
    one.lease(2)
    one.results(1, 2)
    world.store._rewrite()
    (segment,) = (one for name, one in files.disk.durable_names.items() if name.endswith(".seg"))
    assert files.disk.files[segment].versions == {}
    world.end()


def unsynced(files: RecordingFiles, name: str) -> object:
    """What of the file a loss of power may take."""
    return files.disk.files[files.disk.names[name]].versions


def test_what_groups_did_is_on_the_disk_after_an_orderly_end(tmp_path: Path) -> None:
    # The next start looks for it in no batch: after a loss of power, events were handed out again.
    files = RecordingFiles()
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    one = Member(world, M1)
    one.lease(3)
    one.results(1)
    one.bury(2)
    assert unsynced(files, "groups")
    world.end("close")
    assert not unsynced(files, "groups")
    assert not unsynced(files, "dead")


def test_a_sync_of_the_groups_that_fails_is_no_orderly_end(tmp_path: Path) -> None:
    files = FailingFiles(errno.EIO, {"sync"}, 10**9)
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    Member(world, M1).lease(3)
    files.calls, files._at = 0, 1
    with pytest.raises(StorageFailed):
        world.end("close")
    world.start()
    assert world.state().in_flight == 3
    assert world.log.control.writer_pid != 0
    world.end()


def test_a_letter_is_on_the_disk_before_its_event_is_done_and_back_before_it_is_dropped(
    tmp_path: Path,
) -> None:
    # The two files reach the disk on their own: a loss of power took event and letter.
    files = RecordingFiles()
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    one = Member(world, M1)
    one.lease(3)
    one.bury(2)
    assert not unsynced(files, "dead")
    assert unsynced(files, "groups"), "buried"
    one.hang_up()
    assert type(world.peer().ask(RetryDead, "g", ((2, 2),))) is Counted
    assert not unsynced(files, "groups")
    assert unsynced(files, "dead"), "dropped"
    world.end()


def test_a_writer_that_was_superseded_writes_nothing_of_groups(world: World) -> None:
    # It gave back what its members had, over the records of the next writer.
    one = Member(world, M1)
    one.lease(3)
    journal = Path(world.directory, "groups")
    before = journal.read_bytes()
    world.log.control.epoch += 1
    one.hang_up()
    world.actor.groups.resume_due()
    assert isinstance(world.peer().refused(OpenGroup, "new", "", 3, 0), StorageFailed)
    assert journal.read_bytes() == before


@pytest.mark.parametrize("starts_again", [False, True])
def test_a_sync_that_fails_while_a_journal_is_rewritten_is_not_tried_again(
    tmp_path: Path, starts_again: bool
) -> None:
    files = FailingFiles(errno.EIO, {"sync"}, 10**9)
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    one = Member(world, M1)
    one.lease(2)
    one.results(1, 2)
    work = world.log.begin_sync()
    files.calls, files._at = 0, 1
    world.store._rewrite()
    work.run()
    world.log.finish_sync(work)
    assert world.log.control.synced == 0, "what a later sync says is not believed"
    with pytest.raises(StorageFailed):
        world.store.sync()
    refused = world.peer().refused(Append, 0, 0, 1, 0, 0, batch_of("more").payload)
    assert isinstance(refused, StorageFailed)
    if starts_again:
        world.restart()
        assert world.log.append(batch_of("more")) == 13
    world.end()


@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_lease_of_events_that_a_loss_of_power_took_is_forgotten(
    tmp_path: Path, ordering: str
) -> None:
    # They were handed out before they were there, or (with keys in order) the writer ended by an
    # assertion, again and again; and what the dead member had done counted for the new events.
    def work(world: World) -> None:
        Member(world, M1).lease(3)
        two = Member(world, M2)
        numbers: list[int] = []
        for _ in range(4):
            numbers = two.lease(3)
        two.page.states[:2] = bytes([DONE, STARTED])
        assert min(numbers) > 8

    world = after_power_loss(tmp_path, ordering, work)
    assert world.log.last_seq_no == 10
    world.end_absent()
    three = Member(world, M3)
    seen: list[int] = []
    while numbers := three.lease(100):
        assert max(numbers) <= world.log.last_seq_no
        three.settle(*numbers)
        seen += numbers
    three.hang_up()
    world.append(10)
    three = Member(world, M3)
    while numbers := three.lease(100):
        three.settle(*numbers)
        seen += numbers
    world.end()
    assert set(seen) >= set(range(11, 21)), "these were never handed out"
    assert Counts(seen).most_common(1)[0][1] == 1


def test_a_dead_letter_of_an_event_that_a_loss_of_power_took_stands_for_no_other(
    tmp_path: Path,
) -> None:
    # A new event got the number of the dead one, and was a dead letter at the next start.
    def work(world: World) -> None:
        world.peer().ask(Ack, "g", 14)
        member = Member(world, M1)
        assert member.lease(1) == [15]
        member.bury(15)

    world = after_power_loss(tmp_path, "", work)
    world.end_absent()
    world.append(10)
    world.restart()
    member = Member(world, M2)
    seen: list[int] = []
    while numbers := member.lease(100):
        member.settle(*numbers)
        seen += numbers
    world.end()
    assert 15 in seen


def test_a_group_that_is_made_again_is_not_given_the_results_of_the_old_one(
    world: World,
) -> None:
    # Forgotten and opened anew, so as to do everything once more; the writer was killed, and the
    # next one found the old group's acknowledgements and took them for the new one's.
    member = Member(world, M1)
    member.lease(3)
    member.results(1, 2, 3)
    member.hang_up()
    world.peer().ask(Forget, "g")
    world.open_group()
    assert world.state().position == 0
    world.restart()
    assert world.state().position == 0
    assert Member(world, M2).lease(1) == [1]


@pytest.mark.parametrize("how", ["forgotten", "seek"])
def test_an_event_that_is_to_be_done_again_is_no_dead_letter_after_a_restart(
    world: World, how: str
) -> None:
    # A group that was made anew, or set back, had its old dead letters among its events: handed out
    # until the next start, and dead from then on, although nobody had tried them again.
    member = Member(world, M1)
    member.lease(3)
    member.bury(2)
    member.hang_up()
    if how == "seek":
        world.peer().ask(Seek, "g", 0)
    else:
        world.peer().ask(Forget, "g")
        world.open_group()
    before = world.state().is_done(2)
    world.restart()
    assert world.state().is_done(2) is before
    check_state(world.state())


def test_an_event_set_back_is_not_leased_and_dead_after_a_restart(world: World) -> None:
    member = Member(world, M1)
    member.lease(3)
    member.bury(2)
    world.peer().ask(Seek, "g", 0)
    assert member.lease(3) == [1, 2, 3]
    world.restart()
    check_state(world.state())
