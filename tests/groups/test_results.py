"""Results and what they acknowledge are stored in one step."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from eventlog.config import Retention
from eventlog.errors import (
    LogFull,
    ProtocolError,
    StorageFailed,
)
from eventlog.event.record_batch import PackedBatch
from eventlog.local.groups.acks import Acks, pack_acks
from eventlog.local.wire.messages import (
    Append,
    Appended,
    Done,
    Forget,
    Park,
    Wake,
    error_of,
)
from eventlog.testing import (
    FailingFiles,
    batch_of,
    stored_events,
)
from tests.groups.world import (
    M1,
    M2,
    M3,
    Member,
    Peer,
    World,
)


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
    journal = world.store._files.groups
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
    world.store._files.groups._files = FailingFiles(errno.EIO, ["write"], 1)
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
    journal = world.store._files.groups
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
