"""Events that groups hand out later: timers, restarts, key order, jumps of the wall clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from eventlog.api.times import SETTLED_NS, LogClock
from eventlog.errors import EventLogError, StorageFailed
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.due import Due
from eventlog.event.envelope import envelope_of
from eventlog.local.groups import postponed as postponed_module
from eventlog.local.groups.due_times import DueTimes
from eventlog.local.groups.postponed import Postponed
from eventlog.local.groups.state import GroupState
from eventlog.local.wire.group_messages import AwaitDrained
from eventlog.local.wire.messages import Ack, Append, Done, Seek
from tests.groups.world import M1, M2, SECOND, Member, World, check_state

START = 1_000 * SECOND
"""What the wall clock says at first."""


class Clocks:
    """The clocks of a machine: one that only goes on, and one that somebody may set."""

    def __init__(self) -> None:
        self.steady = 0
        self.wall = START

    def go_on(self, seconds: float) -> None:
        self.steady += int(seconds * SECOND)
        self.wall += int(seconds * SECOND)


class TimedWorld(World):
    """A world in which a writer's timers ring when their time has come."""

    def __init__(self, directory: str) -> None:
        self.clocks = Clocks()
        super().__init__(directory, segment_bytes=1 << 14)

    def start(self, *files: object, **options: object) -> None:
        super().start(*files, **options)  # type: ignore[arg-type]
        self.log.clock = LogClock(lambda: self.clocks.wall, lambda: self.clocks.steady)

    def go_on(self, seconds: float) -> None:
        """Let time pass; whatever is due is handed out when its timer rings."""
        end = self.now + int(seconds * SECOND)
        while (due := self.actor.groups.next_due()) is not None and due <= end:
            assert due >= self.now
            self._go_to(max(due, self.now + 1))
        self._go_to(end)

    def _go_to(self, now: int) -> None:
        self.clocks.go_on((now - self.now) / SECOND)
        self.now = now
        self.actor.groups.resume_due()

    def append_due(self, *waits: float, key: str | None = None) -> None:
        """One batch of events that are due in so many seconds; 0 is at once."""
        builder = BatchBuilder(1 << 20)
        for wait in waits:
            due = Due(self.clocks.wall + int(wait * SECOND)) if wait else Due()
            builder.add(
                envelope_of(
                    wait, id_bytes=bytes(16), timestamp_ns=1, key=key, headers=None, due=due
                )
            )
        batch = builder.build()
        peer = self.peer()
        message = Append(0, 0, 0, batch.count, batch.flags, 0, batch.payload)
        self.actor.handle(peer, message)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TimedWorld]:
    made = TimedWorld(str(tmp_path / "log"))
    yield made
    made.end()


def test_an_event_is_handed_out_when_it_is_due_and_not_before(world: TimedWorld) -> None:
    world.open_group()
    member = Member(world, M1)
    world.append_due(5, 0, 3)
    assert member.lease(10) == [2], "what is due at once waits for nobody"
    member.settle(2)
    assert member.lease(10) == []
    world.go_on(2.999)
    assert member.leased() == []
    world.go_on(0.002)
    assert member.leased() == [3]
    member.settle(3)
    assert world.state().position == 0, "the first one holds the group's position"
    assert member.lease(10) == []
    world.go_on(2)
    assert member.leased() == [1]
    member.settle(1)
    assert world.state().position == 3


@pytest.mark.parametrize("wait", [0.001, 0.5])
def test_an_event_that_is_due_in_a_moment_is_not_early(world: TimedWorld, wait: float) -> None:
    world.open_group()
    member = Member(world, M1)
    world.append_due(wait)
    assert member.lease(10) == []
    world.go_on(wait / 2)
    assert member.leased() == []
    world.go_on(wait / 2)
    assert member.leased() == [1]


def test_a_timer_is_set_as_soon_as_an_event_comes_that_is_due_later(world: TimedWorld) -> None:
    world.open_group()
    member = Member(world, M1)
    assert member.lease(10) == []
    assert world.actor.groups.next_due() is None
    dues = world.dues
    world.append_due(4)
    assert world.dues > dues, "whoever keeps the timer is told"
    assert world.actor.groups.next_due() == 4 * SECOND
    world.append_due(2)
    assert world.actor.groups.next_due() == 2 * SECOND


def test_whoever_waits_for_the_end_waits_for_what_is_not_due(world: TimedWorld) -> None:
    world.open_group()
    world.append_due(3)
    member, waiting = Member(world, M1), world.peer()
    waiting.tell(AwaitDrained, "g", 1)
    member.lease(10)
    assert waiting.heard() == []
    world.go_on(3)
    assert member.leased() == [1]
    member.settle(1)
    assert waiting.heard() == [Done(1)]


@pytest.mark.parametrize("ending", ["abandon", "close"])
def test_a_restart_knows_every_due_time(world: TimedWorld, ending: str) -> None:
    world.open_group()
    world.append_due(5, 0, 3)
    world.append_due(4)
    member = Member(world, M1)
    assert member.lease(1) == [2]
    world.go_on(1)
    world.restart(ending)
    again = Member(world, M1)
    again.lease_id = again.joined.lease_id
    again.settle(2)
    assert again.lease(10) == []
    for seconds, wanted in [(2, 3), (1, 4), (1, 1)]:
        world.go_on(seconds)
        assert again.leased() == [wanted]
        again.settle(wanted)
        again.lease(10)
    assert world.state().position == 4


def test_with_key_order_the_later_events_of_the_key_wait_too(world: TimedWorld) -> None:
    world.open_group(ordering="key")
    world.append_due(0, 3, 0, key="a")
    world.append_due(0, 0, key="b")
    world.append_due(2, 0)
    one, other = Member(world, M1), Member(world, M2)
    assert one.lease(3) == [1, 4, 5]
    assert other.lease(10) == [7], "an event without a key waits for nobody"
    check_state(world.state())
    one.settle(1, 4, 5)
    other.settle(7)
    assert one.lease(10) == []
    world.go_on(2)
    assert one.leased() == [6]
    one.settle(6)
    assert one.lease(10) == []
    world.go_on(1)
    assert one.leased() == [2]
    one.settle(2)
    assert one.lease(10) == [3]


def test_events_that_are_not_due_do_not_keep_those_of_other_keys_back(world: TimedWorld) -> None:
    """They did not count as waiting for others: so many would have stopped the group."""
    world.open_group(ordering="key")
    for number in range(40):
        world.append_due(*[9.0] * 10, key=f"later {number}")
    world.append_due(0, key="now")
    member = Member(world, M1)
    assert member.lease(10) == [401]
    order = world.state().order
    assert order.available(401) == 0


def test_a_jump_of_the_wall_clock_hands_nothing_out_early(world: TimedWorld) -> None:
    world.open_group()
    world.append_due(60)
    member = Member(world, M1)
    assert member.lease(10) == []
    world.clocks.wall += 3600 * SECOND
    world.go_on(5)
    assert member.leased() == []
    world.clocks.wall -= 3600 * SECOND
    world.go_on(54)
    assert member.leased() == []
    world.go_on(1)
    assert member.leased() == [1]


def test_a_wall_clock_that_stays_where_it_was_set_counts_at_last(world: TimedWorld) -> None:
    """Nobody tells of a jump, so timers ring now and then while something is not due."""
    world.open_group()
    world.append_due(3600)
    member = Member(world, M1)
    assert member.lease(10) == []
    world.clocks.wall += 7200 * SECOND
    world.go_on(SETTLED_NS / SECOND - 1)
    assert member.leased() == []
    world.go_on(SETTLED_NS / SECOND + 2)
    assert member.leased() == [1]


def test_a_wall_clock_that_was_set_back_delays_what_is_not_due(world: TimedWorld) -> None:
    world.open_group()
    world.append_due(60)
    member = Member(world, M1)
    assert member.lease(10) == []
    world.clocks.wall -= 30 * SECOND
    world.go_on(75)
    assert member.leased() == []
    world.go_on(15.001)
    assert member.leased() == [1]


def test_a_group_that_seeks_back_waits_for_the_same_times(world: TimedWorld) -> None:
    world.open_group()
    world.append_due(5, 0)
    member = Member(world, M1)
    assert member.lease(10) == [2]
    world.peer().ask(Seek, "g", 0)
    assert member.lease(10) == [2]
    world.go_on(5)
    assert member.lease(10) == [1]


def test_a_group_that_skips_forgets_what_was_not_due(world: TimedWorld) -> None:
    world.open_group()
    world.append_due(5, 6)
    member = Member(world, M1)
    assert member.lease(10) == []
    world.peer().ask(Ack, "g", 1)
    assert world.state().postponed.numbers() == [2]
    world.go_on(7)
    assert member.leased() == [2]


def test_logs_without_due_times_are_not_read_for_them(
    world: TimedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DueTimes, "_batches", None)
    world.open_group()
    world.append(20)
    member = Member(world, M1)
    assert len(member.lease(100)) == 20


def test_a_group_of_before_the_first_due_time_looks_at_few_batches(world: TimedWorld) -> None:
    world.open_group()
    world.append(200)
    world.append_due(5)
    world.append(200)
    times = DueTimes(world.log.control)
    assert [number for _, number in times(1, 401)] == [201]
    assert times(1, 200) == []
    assert times(202, 401) == []
    assert [number for _, number in times(150, 201)] == [201]
    times.close()


def test_a_state_alone_knows_no_times() -> None:
    """Tools that only look at groups hand nothing out."""
    state = GroupState("g", lambda first, last: [0] * (last - first + 1))
    assert not state.postpone(100, 0)


def test_a_lease_looks_at_no_more_times_than_it_needs(
    world: TimedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first lease of a group read the headers of all batches up to the last due time.
    monkeypatch.setattr(postponed_module, "LOOK_EVENTS", 2)
    world.open_group()
    state = world.state()
    looks: list[tuple[int, int]] = []

    def times(first: int, last: int) -> Iterable[tuple[int, int]]:
        looks.append((first, last))
        return DueTimes(world.log.control)(first, last)

    state.postponed = Postponed(times)
    world.append_due(0, 0, 0, 9, 9, 9, 0, 0)
    member = Member(world, M1)
    assert member.lease(2) == [1, 2]
    assert looks == [(1, 2)]
    member.settle(1, 2)
    assert member.lease(1) == [3]
    member.settle(3)
    assert member.lease(9) == [7, 8], "past those that are due later"
    assert looks == [(1, 2), (3, 4), (5, 6), (7, 8)]


def test_times_that_could_not_be_read_are_read_again() -> None:
    # After an error they counted as looked at, and the events were handed out at once.
    answers: list[EventLogError | list[tuple[int, int]]] = [
        StorageFailed("no descriptor is left"),
        [(5 * SECOND, 3)],
    ]

    def times(_first: int, _last: int) -> list[tuple[int, int]]:
        answer = answers.pop(0)
        if isinstance(answer, EventLogError):
            raise answer
        return answer

    postponed = Postponed(times)
    with pytest.raises(StorageFailed):
        postponed.look(1, 4, now_ns=SECOND)
    assert postponed.look(1, 4, now_ns=SECOND) == [(5 * SECOND, 3)]
